"""Events of cycles: one for each change, numbered in the order of commits and without gaps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker

from server.store import events, queue
from server.store.blobs import BlobStore
from server.store.database import now_utc, session_factory
from server.store.models import Cycle, CycleEvent, Import, Project, utc_now
from server.store.queue import Lease
from server.store.sweep import sweep


def told(world: Any, cycle_id: str) -> list[CycleEvent]:
    found: list[CycleEvent] = world.all(CycleEvent, CycleEvent.seq)
    return [event for event in found if event.cycle_id == cycle_id]


def states(world: Any, cycle_id: str) -> list[str]:
    return [event.data["state"] for event in told(world, cycle_id)]


def test_every_change_of_a_cycle_is_an_event_and_they_are_numbered_without_gaps(
    world: Any,
) -> None:
    cycle_id = world.cycle(world.project())
    lease = world.claim(worker_id="worker-1")
    with world.sessions.begin() as session:
        queue.heartbeat(
            session,
            lease,
            60.0,
            progress=0.25,
            stage="train",
            message="step 10 of 40",
            detail={"step": 10, "steps": 40, "losses": {"total": 0.5}, "seconds_left": 90.0},
        )
    with world.sessions.begin() as session:
        queue.lose(session, lease, "killed")
    lease = world.claim(worker_id="worker-2")
    with world.sessions.begin() as session:
        queue.release(session, lease)
    lease = world.claim(worker_id="worker-3")
    with world.sessions.begin() as session:
        queue.fail(session, lease, "the disk is full")
    with world.sessions.begin() as session:
        queue.resume(session, Cycle, cycle_id)
    lease = world.claim(worker_id="worker-4")
    with world.sessions.begin() as session:
        queue.request_cancel(session, Cycle, cycle_id)
        queue.cancelled(session, lease)
    with world.sessions.begin() as session:
        queue.resume(session, Cycle, cycle_id)
    lease = world.claim(worker_id="worker-5")
    with world.sessions.begin() as session:
        queue.finish(session, lease)
    found = told(world, cycle_id)
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    assert [(event.kind, event.data["state"]) for event in found] == [
        ("state", "running"),
        ("progress", "running"),
        ("state", "queued"),
        ("state", "running"),
        ("state", "queued"),
        ("state", "running"),
        ("state", "failed"),
        ("state", "queued"),
        ("state", "running"),
        ("state", "running"),
        ("state", "cancelled"),
        ("state", "queued"),
        ("state", "running"),
        ("state", "succeeded"),
    ]
    progress, lost, failed, cancel = found[1], found[2], found[6], found[9]
    assert progress.data == {
        "state": "running",
        "progress": 0.25,
        "stage": "train",
        "step": 10,
        "steps": 40,
        "losses": {"total": 0.5},
        "seconds_left": 90.0,
        "message": "step 10 of 40",
        "error": None,
        "attempts": 0,
        "worker": "worker-1",
        "cancel_requested": False,
    }
    assert (lost.data["attempts"], lost.data["message"]) == (1, "killed")
    assert "step" not in lost.data
    assert failed.data["error"] == "the disk is full"
    assert cancel.data["cancel_requested"] is True
    cycle = world.get(Cycle, cycle_id)
    assert (cycle.event_seq, cycle.detail) == (len(found), None)


def test_the_end_of_a_lapsed_lease_is_told_by_whoever_finds_it(world: Any) -> None:
    taken, given_up, cancelled = (world.cycle(world.project()) for _ in range(3))
    for cycle_id in (taken, given_up, cancelled):
        assert world.claim().job_id == cycle_id
    for cycle_id in (taken, given_up, cancelled):
        world.change(Cycle, cycle_id, lease_until=0.0)
    world.change(Cycle, given_up, attempts=2)
    world.change(Cycle, cancelled, cancel_requested=True)
    assert world.claim().job_id == taken
    assert states(world, taken) == ["running", "running"]
    again = told(world, taken)[-1]
    assert again.data["attempts"] == 1
    assert again.data["message"] == "the worker was lost: its lease lapsed without a word"
    assert states(world, given_up) == ["running", "failed"]
    assert states(world, cancelled) == ["running", "cancelled"]


def test_a_cycle_whose_worker_is_gone_is_told_to_be_cancelled_at_once_and_once(world: Any) -> None:
    running, lapsed = (world.cycle(world.project()) for _ in range(2))
    world.claim()
    world.claim()
    world.change(Cycle, lapsed, lease_until=0.0)
    for _ in range(2):
        with world.sessions.begin() as session:
            assert queue.request_cancel(session, Cycle, running) == "running"
        with world.sessions.begin() as session:
            queue.request_cancel(session, Cycle, lapsed)
    assert states(world, running) == ["running", "running"]
    assert states(world, lapsed) == ["running", "cancelled"]


def test_a_heartbeat_without_news_is_no_event(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    lease = world.claim()
    with world.sessions.begin() as session:
        queue.heartbeat(session, lease, 60.0)
        queue.record(session, lease, attempts=0)
    assert len(told(world, cycle_id)) == 1


def test_progress_never_falls_when_a_new_attempt_begins_further_back(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    for progress in (0.5, 0.25, 0.75):
        lease = world.claim()
        with world.sessions.begin() as session:
            queue.heartbeat(session, lease, 60.0, progress=progress)
            queue.release(session, lease)
    found = [event.data["progress"] for event in told(world, cycle_id)]
    assert found == sorted(found)
    assert world.get(Cycle, cycle_id).progress == 0.75


def test_imports_have_no_events(world: Any) -> None:
    world.import_job(world.project())
    lease = world.claim(Import)
    with world.sessions.begin() as session:
        queue.heartbeat(session, lease, 60.0, progress=0.5, message="file 5 of 10")
        queue.finish(session, lease)
    assert world.all(CycleEvent) == []


def test_what_is_rolled_back_leaves_neither_an_event_nor_a_gap(world: Any) -> None:
    cycle_id = world.cycle(world.project())
    lease = world.claim()

    def fail() -> None:
        with world.sessions.begin() as session:
            queue.heartbeat(session, lease, 60.0, message="lost")
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    with world.sessions.begin() as session:
        queue.heartbeat(session, lease, 60.0, message="kept")
    assert [(event.seq, event.data["message"]) for event in told(world, cycle_id)] == [
        (1, ""),
        (2, "kept"),
    ]


def test_with_many_writers_a_reader_sees_each_event_once_in_order_and_never_a_gap(
    world: Any, engine: Engine
) -> None:
    writers, each = 4, 15
    cycle_id = world.cycle(world.project())
    other_id = world.cycle(world.project())
    leases = {lease.job_id: lease for lease in (world.claim(), world.claim())}
    reading = session_factory(engine, read_only=True)
    done = threading.Event()
    seen: dict[str, list[int]] = {cycle_id: [], other_id: []}

    def write(number: int) -> None:
        for turn in range(each):
            for lease in leases.values():
                with world.sessions.begin() as session:
                    queue.heartbeat(session, lease, 60.0, message=f"{number} {turn}")

    def read() -> None:
        while True:
            last_look = done.is_set()
            with reading() as session:
                heads = events.latest(session, list(seen))
                places = {id: (seqs[-1] if seqs else 0) for id, seqs in seen.items()}
                for event in events.read_after(session, places):
                    seen[event.cycle_id].append(event.seq)
            # What is known to be there can be read.
            assert heads == {id: len(seqs) for id, seqs in seen.items()}
            if last_look:
                return

    with ThreadPoolExecutor(writers + 1) as threads:
        reader = threads.submit(read)
        for writer in [threads.submit(write, number) for number in range(writers)]:
            writer.result()
        done.set()
        reader.result()
    assert seen[cycle_id] == seen[other_id] == list(range(1, 2 + writers * each))


def test_a_deleted_project_has_no_latest_event(world: Any, sessions: sessionmaker[Session]) -> None:
    kept, deleted = world.project(), world.project()
    first, second = world.cycle(kept), world.cycle(deleted)
    with sessions() as session:
        assert events.latest(session, [first, second]) == {first: 0, second: 0}
    world.change(Cycle, first, event_seq=7)
    world.delete(Project, deleted)
    with sessions() as session:
        assert events.latest(session, [first, second, "no such cycle"]) == {first: 7}


@pytest.fixture
def long_cycle(world: Any) -> Callable[[int], Lease]:
    """Makes a cycle with so many events, every hundredth of kind `state`."""

    def make(number: int) -> Lease:
        world.cycle(world.project())
        lease: Lease = world.claim()
        extend(world, lease, number)
        return lease

    return make


def extend(world: Any, lease: Lease, number: int) -> None:
    with world.sessions.begin() as session:
        cycle = session.get_one(Cycle, lease.job_id)
        first, cycle.event_seq = cycle.event_seq + 1, number
        session.add_all(
            CycleEvent(
                cycle_id=lease.job_id,
                seq=seq,
                kind="progress" if seq % 100 else "state",
                data={"state": "running"},
                created_at=utc_now(),
            )
            for seq in range(first, number + 1)
        )


def test_a_replay_has_all_states_and_thins_progress_out_evenly(
    world: Any, long_cycle: Callable[[int], Lease]
) -> None:
    lease = long_cycle(2999)
    with world.sessions() as session:
        whole = events.replay(session, lease.job_id, 0, 2999)
        rest = events.replay(session, lease.job_id, 2700, 2999)
    seqs = [event.seq for event in whole]
    assert seqs == sorted(seqs)
    assert {event.seq for event in whole if event.kind == "state"} == {1, *range(100, 2999, 100)}
    progress = [event.seq for event in whole if event.kind == "progress"]
    assert 250 < len(progress) <= events.REPLAYED + 1
    assert progress[-1] == 2999
    assert max(b - a for a, b in zip(seqs, seqs[1:], strict=False)) <= 8
    assert [event.seq for event in rest] == list(range(2701, 3000))


def test_the_sweep_thins_out_the_progress_of_long_cycles_only(
    world: Any, blobs: BlobStore, long_cycle: Callable[[int], Lease]
) -> None:
    short = long_cycle(300)
    with world.sessions.begin() as session:
        queue.finish(session, short)
    long = long_cycle(2999)
    swept = sweep(world.sessions, blobs)
    assert len(told(world, short.job_id)) == 301
    left = [event.seq for event in told(world, long.job_id)]
    assert swept.events == 2999 - len(left)
    assert len(left) <= events.KEPT + 31
    assert {1, *range(100, 2999, 100), 2999} <= set(left)
    # Nothing more to do, and what comes later is thinned out to what would be left anyway.
    assert sweep(world.sessions, blobs).events == 0
    extend(world, long, 5000)
    sweep(world.sessions, blobs)
    later = told(world, long.job_id)
    progress = {event.seq for event in later if event.kind == "progress" and event.seq < 2999}
    assert progress == {seq for seq in left if seq % 16 == 0 and seq % 100}


def test_the_events_of_a_purged_project_go_with_it(world: Any, blobs: BlobStore) -> None:
    project_id = world.project()
    world.cycle(project_id)
    with world.sessions.begin() as session:
        queue.finish(session, world.claim())
    world.delete(Project, project_id)
    sweep(world.sessions, blobs)
    assert world.all(CycleEvent) == []


def test_the_time_of_an_event_is_the_database_s(
    world: Any, sessions: sessionmaker[Session]
) -> None:
    cycle_id = world.cycle(world.project())
    with sessions() as session:
        before = session.scalar(select(now_utc()))
    world.claim()
    with sessions() as session:
        after = session.scalar(select(now_utc()))
    (event,) = told(world, cycle_id)
    assert before is not None
    assert after is not None
    assert before <= event.created_at <= after
