"""Figures that only rise: counted with what they count, by anybody, exactly."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from server.store import counters, queue
from server.store.models import Cycle, Import
from server.store.queue import MAX_ATTEMPTS


def risen(sessions: sessionmaker[Session]) -> counters.Counts:
    with sessions.begin() as session:
        return counters.read_all(session)


def test_counts_are_added_up_within_a_transaction_and_over_several(
    sessions: sessionmaker[Session],
) -> None:
    for _ in range(2):
        with sessions.begin() as session:
            counters.add(session, "stages", "train")
            counters.add(session, "stages", "train", 2)
            counters.add(session, "stages", "score", 0.5)
    assert risen(sessions) == {("stages", "train"): 6, ("stages", "score"): 1}


def test_a_transaction_that_is_rolled_back_has_counted_nothing(
    sessions: sessionmaker[Session],
) -> None:
    with sessions() as session:
        session.execute(text("SELECT 1"))
        counters.add(session, "stages", "train")
        session.rollback()
        session.execute(text("SELECT 1"))
        session.commit()
    assert risen(sessions) == {}


def test_threads_that_count_the_same_things_in_another_order_do_not_lock_each_other_out(
    sessions: sessionmaker[Session],
) -> None:
    names = ["a", "b", "c"]

    def count(order: list[str]) -> None:
        for _ in range(10):
            with sessions.begin() as session:
                for name in order:
                    counters.add(session, name)
                    session.execute(text("SELECT 1"))

    threads = [threading.Thread(target=count, args=[order]) for order in (names, names[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert risen(sessions) == {(name, ""): 20 for name in names}


@pytest.mark.parametrize("table", [Cycle, Import])
def test_every_end_and_every_lost_attempt_of_a_job_is_counted_once(
    world: Any, sessions: sessionmaker[Session], table: queue.JobTable
) -> None:
    def job() -> str:
        project_id = world.project("car")
        made: str = (
            world.cycle(project_id) if table is Cycle else world.import_job(project_id, path="/x")
        )
        return made

    def under_lease(how: Any, *more: Any) -> None:
        lease = world.claim(table)
        with sessions.begin() as session:
            how(session, lease, *more)

    job()
    under_lease(queue.release)
    under_lease(queue.finish)
    job()
    under_lease(queue.fail, "no labels")
    waiting = job()
    with sessions.begin() as session:
        queue.request_cancel(session, table, waiting)
    lost = job()
    for _ in range(MAX_ATTEMPTS - 1):
        under_lease(queue.lose, "killed")
    world.lapsing_claim(table)
    with sessions.begin() as session:
        assert queue.claim(session, table, "w", 60.0) is None
    assert world.get(table, lost).state == "failed"
    job()
    world.lapsing_claim(table)
    under_lease(queue.cancelled)
    name = table.__tablename__
    assert risen(sessions) == {
        (f"{name}_ended", "succeeded"): 1,
        (f"{name}_ended", "failed"): 2,
        (f"{name}_ended", "cancelled"): 2,
        (f"{name}_lost", "crashed"): MAX_ATTEMPTS - 1,
        (f"{name}_lost", "lapsed"): 2,
    }
