"""The queue: nobody gets a job twice, nobody writes without a lease, every job ends once."""

from __future__ import annotations

import random
import secrets
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session, sessionmaker

from server.store import queue
from server.store.ids import new_id
from server.store.models import Cycle, Import, Project
from server.store.queue import MAX_ATTEMPTS, Lease, LeaseLost

PER_PROCESS = """
import sys
from server.store import queue
from server.store.database import make_engine, session_factory
from server.store.models import Cycle
sessions = session_factory(make_engine(sys.argv[1]))
while True:
    with sessions.begin() as session:
        lease = queue.claim(session, Cycle, sys.argv[2], 60.0)
    if lease is None:
        break
    print(lease.job_id, lease.fence)
    with sessions.begin() as session:
        queue.finish(session, lease)
"""


# As above, but with one job it says nothing until the lease has lapsed, and then goes on as if
# nothing had been; with another one in hand it dies.
UNRELIABLE = """
import os, signal, sys, time
from itertools import count
from server.store import queue
from server.store.database import make_engine, session_factory
from server.store.models import Cycle
sessions = session_factory(make_engine(sys.argv[1]))
freezes_at, dies_at = int(sys.argv[3]), int(sys.argv[4])
for number in count(1):
    with sessions.begin() as session:
        lease = queue.claim(session, Cycle, sys.argv[2], 1.0)
    if lease is None:
        break
    print(lease.job_id, lease.fence, flush=True)
    if number == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        with sessions.begin() as session:
            queue.heartbeat(session, lease, 1.0)
        if number == freezes_at:
            time.sleep(1.5)
        with sessions.begin() as session:
            queue.finish(session, lease, num_selected=lease.fence)
    except queue.LeaseLost:
        pass
"""


def many_cycles(world: Any, number: int) -> list[str]:
    """Each in a project of its own, as a project has one at a time."""
    project_ids = [new_id() for _ in range(number)]
    world.add(*(Project(id=project_id, name=project_id) for project_id in project_ids))
    cycles = [
        Cycle(
            project_id=project_id,
            number=1,
            kind="trained",
            budget=2,
            strategy={},
            training={},
            seed=7,
        )
        for project_id in project_ids
    ]
    world.add(*cycles)
    return [cycle.id for cycle in cycles]


def start(source: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments], stdout=subprocess.PIPE, text=True
    )


def test_eight_processes_on_one_queue_claim_each_of_400_jobs_exactly_once(
    world: Any, database_url: str
) -> None:
    jobs = many_cycles(world, 400)
    processes = [start(PER_PROCESS, database_url, f"worker-{number}") for number in range(8)]
    claimed = "".join(process.communicate()[0] for process in processes).splitlines()
    assert [process.returncode for process in processes] == [0] * 8
    assert sorted(claimed) == sorted(f"{job} 1" for job in jobs)
    assert {cycle.state for cycle in world.all(Cycle)} == {"succeeded"}


def test_no_job_is_lost_or_done_twice_by_processes_that_are_killed_or_say_nothing_for_long(
    world: Any, database_url: str
) -> None:
    jobs = many_cycles(world, 160)
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")  # noqa: T201 (pytest shows it when the test fails)
    rng = random.Random(seed)
    running = [
        start(UNRELIABLE, database_url, f"worker-{number}", f"{rng.randint(1, 9)}", f"{dies_at}")
        for number, dies_at in enumerate(rng.choices(range(2, 20), k=8))
    ]
    claimed: list[str] = []
    killed = 0
    while running or any(cycle.state in queue.ACTIVE for cycle in world.all(Cycle)):
        # In place of each that was killed another one starts, and at last one for what is left.
        process = running.pop(0) if running else start(UNRELIABLE, database_url, "last", "0", "0")
        claimed += process.communicate()[0].splitlines()
        assert process.returncode in (0, -signal.SIGKILL)
        if process.returncode:
            killed += 1
            running.append(start(UNRELIABLE, database_url, f"next-{killed}", "0", "0"))
    fences: dict[str, list[int]] = {job: [] for job in jobs}
    for line in claimed:
        job, fence = line.split()
        fences[job].append(int(fence))
    for cycle in world.all(Cycle):
        # Nobody was given a claim that somebody else had as well.
        assert sorted(fences[cycle.id]) == list(range(1, cycle.fence + 1))
        if cycle.state == "succeeded":
            # The last claim has ended it, and every other one was counted as lost.
            assert (cycle.num_selected, cycle.attempts) == (cycle.fence, cycle.fence - 1)
        else:
            assert (cycle.state, cycle.attempts, cycle.fence) == ("failed", 3, 3)
    assert killed > 0


def test_an_empty_queue_gives_nothing(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        assert queue.claim(session, Cycle, "worker-1", 60.0) is None


def test_a_claimed_job_is_running_and_nobody_else_gets_it(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    lease = world.claim(worker_id="worker-1")
    assert lease == Lease(Cycle, cycle_id, "worker-1", 1)
    cycle = world.get(Cycle, cycle_id)
    assert (cycle.state, cycle.worker_id, cycle.attempts) == ("running", "worker-1", 0)
    assert cycle.started_at is not None
    with world.sessions.begin() as session:
        assert queue.claim(session, Cycle, "worker-2", 60.0) is None


def test_the_oldest_job_comes_first(world: Any) -> None:
    jobs = [world.cycle(world.project()) for _ in range(3)]
    assert [world.claim().job_id for _ in jobs] == jobs


def test_a_claim_can_be_limited_to_some_jobs(world: Any) -> None:
    world.cycle(world.project())
    wanted = world.cycle(world.project(), kind="initial")
    with world.sessions.begin() as session:
        lease = queue.claim(session, Cycle, "worker-1", 60.0, Cycle.kind == "initial")
    assert lease is not None
    assert lease.job_id == wanted


def test_a_claim_steps_over_a_row_that_another_claim_holds(world: Any, engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite lets one writer in at a time: there is nothing to step over")
    first, second = (world.cycle(world.project()) for _ in range(2))
    with world.sessions.begin() as session, world.sessions.begin() as other:
        one = queue.claim(session, Cycle, "worker-1", 60.0)
        two = queue.claim(other, Cycle, "worker-2", 60.0)
    assert one is not None
    assert two is not None
    assert [one.job_id, two.job_id] == [first, second]


def test_imports_are_a_queue_as_well(world: Any) -> None:
    job = world.import_job(world.project())
    lease = world.claim(Import)
    assert lease.job_id == job
    with world.sessions.begin() as session:
        queue.heartbeat(session, lease, 60.0, progress=0.5, message="file 5 of 10")
        queue.record(session, lease, counts={"created": 5})
    with world.sessions.begin() as session:
        queue.finish(session, lease, counts={"created": 10})
    row = world.get(Import, job)
    assert (row.state, row.counts, row.message) == ("succeeded", {"created": 10}, "file 5 of 10")


def test_a_heartbeat_keeps_the_job_and_shows_the_progress(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    lease = world.claim(lease_seconds=0.2)
    with world.sessions.begin() as session:
        cancel = queue.heartbeat(
            session, lease, 60.0, progress=0.25, stage="train", message="step 10 of 40"
        )
    assert cancel is False
    time.sleep(0.3)
    with world.sessions.begin() as session:
        assert queue.claim(session, Cycle, "worker-2", 60.0) is None
    cycle = world.get(Cycle, cycle_id)
    assert (cycle.progress, cycle.stage, cycle.message) == (0.25, "train", "step 10 of 40")


def test_a_heartbeat_without_news_leaves_the_news_that_is_there(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    lease = world.claim()
    with world.sessions.begin() as session:
        queue.heartbeat(session, lease, 60.0, progress=0.25, stage="train", message="step 10")
        queue.heartbeat(session, lease, 60.0)
    cycle = world.get(Cycle, cycle_id)
    assert (cycle.progress, cycle.stage, cycle.message) == (0.25, "train", "step 10")


def test_a_lapsed_lease_goes_to_whoever_asks_next(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    first = world.lapsing_claim(worker_id="worker-1")
    second = world.claim(worker_id="worker-2")
    assert (second.job_id, second.fence) == (cycle_id, first.fence + 1)
    cycle = world.get(Cycle, cycle_id)
    assert (cycle.worker_id, cycle.attempts, cycle.state) == ("worker-2", 1, "running")


def test_a_lapsed_lease_that_nobody_took_can_be_renewed(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    lease = world.lapsing_claim()
    with world.sessions.begin() as session:
        queue.heartbeat(session, lease, 60.0)
    with world.sessions.begin() as session:
        assert queue.claim(session, Cycle, "worker-2", 60.0) is None
    assert world.get(Cycle, cycle_id).attempts == 0


@pytest.mark.parametrize(
    "write",
    [
        lambda session, lease: queue.heartbeat(session, lease, 60.0, progress=0.9),
        lambda session, lease: queue.record(session, lease),
        lambda session, lease: queue.record(session, lease, metrics={"map50": 1.0}),
        lambda session, lease: queue.finish(session, lease, num_selected=5),
        lambda session, lease: queue.fail(session, lease, "no"),
        lambda session, lease: queue.cancelled(session, lease),
        lambda session, lease: queue.release(session, lease),
        lambda session, lease: queue.lose(session, lease, "no"),
    ],
    ids=["heartbeat", "check", "record", "finish", "fail", "cancelled", "release", "lose"],
)
def test_a_worker_that_comes_back_late_loses_its_lease_and_writes_nothing(
    world: Any, write: Any
) -> None:
    cycle_id = world.cycle(world.project())
    late = world.lapsing_claim(worker_id="worker-1")
    world.claim(worker_id="worker-2")
    before = vars_of(world.get(Cycle, cycle_id))
    with pytest.raises(LeaseLost, match="worker-1 no longer holds it"), world.sessions.begin() as s:
        write(s, late)
    assert vars_of(world.get(Cycle, cycle_id)) == before


def test_of_two_claims_with_one_fence_only_the_one_that_the_row_knows_stands(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    forgotten = world.claim(worker_id="worker-1")
    with world.sessions.begin() as session:  # a backup, or a standby that had not heard of it yet
        session.execute(update(Cycle).values(state="queued", fence=0, worker_id=None))
    known = world.claim(worker_id="worker-2")
    assert known.fence == forgotten.fence
    with pytest.raises(LeaseLost), world.sessions.begin() as session:
        queue.finish(session, forgotten)
    with world.sessions.begin() as session:
        queue.finish(session, known)
    assert world.get(Cycle, cycle_id).worker_id == "worker-2"


@pytest.mark.parametrize("end", ["finish", "fail", "cancelled"])
def test_a_job_ends_only_once(world: Any, end: str) -> None:
    cycle_id = world.cycle(world.project())
    lease = world.claim()
    with world.sessions.begin() as session:
        queue.fail(session, lease, "why") if end == "fail" else getattr(queue, end)(session, lease)
    ended = vars_of(world.get(Cycle, cycle_id))
    assert ended["finished_at"] is not None
    assert ended["lease_until"] is None
    for write in (queue.finish, queue.cancelled, queue.release):
        with pytest.raises(LeaseLost), world.sessions.begin() as session:
            write(session, lease)
    assert vars_of(world.get(Cycle, cycle_id)) == ended


def test_finishing_sets_what_is_given_and_the_progress_to_the_end(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    lease = world.claim()
    with world.sessions.begin() as session:
        queue.finish(session, lease, metrics={"map50": 0.5}, num_selected=3)
    cycle = world.get(Cycle, cycle_id)
    assert (cycle.state, cycle.progress, cycle.error) == ("succeeded", 1.0, None)
    assert (cycle.metrics, cycle.num_selected) == ({"map50": 0.5}, 3)


def test_failing_keeps_the_reason(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    lease = world.claim()
    with world.sessions.begin() as session:
        queue.fail(session, lease, "the loss became NaN in step 12")
    cycle = world.get(Cycle, cycle_id)
    assert (cycle.state, cycle.error) == ("failed", "the loss became NaN in step 12")


def test_a_released_job_is_taken_up_at_once_and_no_attempt_is_counted(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    lease = world.claim()
    with world.sessions.begin() as session:
        queue.release(session, lease)
    cycle = world.get(Cycle, cycle_id)
    assert (cycle.state, cycle.worker_id, cycle.lease_until) == ("queued", None, None)
    again = world.claim(worker_id="worker-2")
    assert again.fence == 2
    assert world.get(Cycle, cycle_id).attempts == 0


def test_a_job_whose_workers_are_lost_three_times_fails_and_says_so(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    for number in range(MAX_ATTEMPTS):
        world.lapsing_claim(worker_id=f"worker-{number}")
    with world.sessions.begin() as session:
        assert queue.claim(session, Cycle, "worker-9", 60.0) is None
    cycle = world.get(Cycle, cycle_id)
    assert (cycle.state, cycle.attempts) == ("failed", 3)
    assert cycle.error == (
        "given up after 3 lost attempts; the last: "
        "the worker was lost: its lease lapsed without a word"
    )
    assert cycle.finished_at is not None
    # The project is free for its next cycle.
    world.cycle(cycle.project_id)


def test_three_attempts_lost_with_a_reason_fail_with_the_last_one(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    for number in range(MAX_ATTEMPTS):
        lease = world.claim()
        with world.sessions.begin() as session:
            queue.lose(session, lease, f"killed by signal {number}")
        state = world.get(Cycle, cycle_id)
        assert state.attempts == number + 1
        assert state.message == f"killed by signal {number}"
        assert state.state == ("failed" if number == 2 else "queued")
        assert (state.error is None) == (number < 2)
    error = world.get(Cycle, cycle_id).error
    assert error == "given up after 3 lost attempts; the last: killed by signal 2"


def test_lost_and_lapsed_attempts_count_together(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    world.lapsing_claim()
    lease = world.claim()
    with world.sessions.begin() as session:
        queue.lose(session, lease, "out of memory")
    world.lapsing_claim()
    with world.sessions.begin() as session:
        assert queue.claim(session, Cycle, "worker-9", 60.0) is None
    assert world.get(Cycle, cycle_id).state == "failed"


def test_a_waiting_job_is_cancelled_at_once(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    with world.sessions.begin() as session:
        assert queue.request_cancel(session, Cycle, cycle_id) == "cancelled"
    cycle = world.get(Cycle, cycle_id)
    assert cycle.state == "cancelled"
    assert cycle.finished_at is not None
    with world.sessions.begin() as session:
        assert queue.claim(session, Cycle, "worker-1", 60.0) is None


def test_the_worker_of_a_running_job_hears_of_the_cancellation(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    lease = world.claim()
    with world.sessions.begin() as session:
        assert queue.request_cancel(session, Cycle, cycle_id) == "running"
    with world.sessions.begin() as session:
        assert queue.heartbeat(session, lease, 60.0) is True
        queue.cancelled(session, lease)
    assert world.get(Cycle, cycle_id).state == "cancelled"


def test_a_running_job_whose_worker_is_gone_is_cancelled_at_once(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    lease = world.lapsing_claim()
    with world.sessions.begin() as session:
        assert queue.request_cancel(session, Cycle, cycle_id) == "cancelled"
    with pytest.raises(LeaseLost), world.sessions.begin() as session:
        queue.heartbeat(session, lease, 60.0)


def test_a_job_to_be_cancelled_whose_lease_lapses_is_not_run_again(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    lease = world.claim()
    with world.sessions.begin() as session:
        queue.request_cancel(session, Cycle, cycle_id)
        queue.heartbeat(session, lease, -1.0)
    with world.sessions.begin() as session:
        assert queue.claim(session, Cycle, "worker-2", 60.0) is None
    cycle = world.get(Cycle, cycle_id)
    assert (cycle.state, cycle.error) == ("cancelled", None)


@pytest.mark.parametrize("give_back", ["release", "lose"])
def test_a_job_to_be_cancelled_that_is_given_back_is_cancelled(world: Any, give_back: str) -> None:
    cycle_id = world.cycle(world.project(), attempts=2)
    lease = world.claim()
    with world.sessions.begin() as session:
        queue.request_cancel(session, Cycle, cycle_id)
        if give_back == "lose":
            queue.lose(session, lease, "killed")
        else:
            queue.release(session, lease)
    cycle = world.get(Cycle, cycle_id)
    assert (cycle.state, cycle.error) == ("cancelled", None)
    assert cycle.finished_at is not None


def test_cancelling_what_has_ended_or_is_unknown_changes_nothing(world: Any) -> None:
    cycle_id = world.cycle(world.project(), state="succeeded")
    with world.sessions.begin() as session:
        assert queue.request_cancel(session, Cycle, cycle_id) is None
        assert queue.request_cancel(session, Cycle, "no such cycle") is None
    cycle = world.get(Cycle, cycle_id)
    assert (cycle.state, cycle.cancel_requested) == ("succeeded", False)


def test_what_is_written_beside_a_lost_lease_is_not_written(world: Any) -> None:
    world.cycle(world.project())
    late = world.lapsing_claim()
    world.claim()

    def write() -> None:
        with world.sessions.begin() as session:
            session.add(Project(name="written too late"))
            queue.record(session, late)

    with pytest.raises(LeaseLost):
        write()
    assert "written too late" not in [project.name for project in world.all(Project)]


def vars_of(row: Any) -> dict[str, Any]:
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}
