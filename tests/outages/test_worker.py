"""Cycles whose disk fills up, or becomes read-only, and that go on by themselves afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, select

from server.store import queue
from server.store.database import now_seconds, session_factory
from server.store.models import Cycle, Image, Json
from tests.outages.processes import (
    Gate,
    Running,
    StartServer,
    StartWorker,
    eventually,
    log_lines,
)
from tests.outages.small_disk import SmallDisk, files_in, pinned_log
from tests.worker.small_pools import Pool

MakePool = Callable[[], Pool]
MakeGate = Callable[[str], Gate]

postgres_only = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def has_ended(pool: Pool, cycle_id: str) -> bool:
    return pool.row(cycle_id).state not in ("queued", "running")


def causes(worker: Running) -> set[str]:
    """What a worker's cycles have waited for."""
    lines = log_lines(worker.log())
    return {line["reason"] for line in lines if line.get("action") == "waiting"}


def test_a_disk_that_fills_up_at_write_back_delays_the_cycle_and_loses_no_annotation(
    disk: SmallDisk,
    make_pool: MakePool,
    undisturbed: Json,
    make_gate: MakeGate,
    start_worker: StartWorker,
    start_server: StartServer,
    is_sqlite: bool,
) -> None:
    pool, gate = make_pool(), make_gate("write_ranking")
    server = start_server()
    cycle_id = pool.order_cycle("trained")
    # A silence of this length would cost an attempt: a cycle that waits is not silent.
    worker = start_worker(gate.command, MIAOD_PROGRESS_TIMEOUT_SECONDS="30")
    eventually(gate.is_reached)
    disk.fill()
    gate.open()
    eventually(lambda: worker.has_logged('"action": "waiting"'))
    with pool.sessions() as session:
        query = select(Image.id).where(
            Image.project_id == pool.project_id, Image.state == "labeled"
        )
        labeled = session.scalars(query).all()
    if not is_sqlite:
        eventually(lambda: "waiting: the disk is full (" in (pool.row(cycle_id).message or ""))
        assert " MB free); goes on by itself once there is room" in pool.row(cycle_id).message
        assert pool.row(cycle_id).stage == "select"
    saved = 0
    for image_id in labeled:
        box = {"class": "disc", "x1": 1, "y1": 2, "x2": 30, "y2": 40}
        answer = server.http.put(
            f"/images/{image_id}/annotations", json={"version": 1, "boxes": [box]}
        )
        # SQLite lies on the same disk, and has room for some time in the files that it has.
        assert answer.status_code in ((200, 507) if is_sqlite else (200,)), answer.text
        if answer.status_code == 200:
            saved += 1
        else:
            assert answer.json()["code"] == "storage_full"
            labeled = [other for other in labeled if other != image_id]
    disk.make_room()
    eventually(lambda: has_ended(pool, cycle_id))
    row = pool.row(cycle_id)
    assert (row.state, row.error, row.attempts, row.fence) == ("succeeded", None, 0, 1)
    assert pool.everything_about(cycle_id) == undisturbed
    assert not files_in(pool.blobs.tmp_dir)
    assert len(labeled) == saved
    for image_id in labeled:
        annotation = server.http.get(f"/images/{image_id}/annotations").json()
        assert (annotation["version"], annotation["boxes"][0]["class"]) == (2, "disc")


def test_a_disk_that_fills_up_costs_checkpoints_and_nothing_else(
    disk: SmallDisk,
    make_pool: MakePool,
    undisturbed: Json,
    make_gate: MakeGate,
    start_worker: StartWorker,
) -> None:
    pool, gate = make_pool(), make_gate("save_checkpoint")
    cycle_id = pool.order_cycle("trained")
    worker = start_worker(gate.command)
    eventually(gate.is_reached)
    disk.fill()
    gate.open(1)
    eventually(lambda: gate.is_reached(2))
    assert worker.has_logged('"action": "checkpoint_failed"')
    assert pool.row(cycle_id).checkpoint_sha256 is None
    assert not files_in(pool.blobs.tmp_dir)
    disk.make_room()
    gate.open(2)
    eventually(lambda: gate.is_reached(3))
    saved = pool.row(cycle_id).checkpoint_sha256
    assert saved is not None
    disk.fill()
    gate.open(3)
    eventually(lambda: gate.is_reached(4))
    # The one before stands as long as the next is not safe.
    assert pool.row(cycle_id).checkpoint_sha256 == saved
    assert pool.blobs.exists(saved)
    disk.make_room()
    gate.open()
    eventually(lambda: has_ended(pool, cycle_id))
    row = pool.row(cycle_id)
    assert (row.state, row.error, row.attempts, row.fence) == ("succeeded", None, 0, 1)
    assert pool.everything_about(cycle_id) == undisturbed


@postgres_only
def test_a_disk_that_becomes_read_only_is_waited_for(
    disk: SmallDisk,
    make_pool: MakePool,
    undisturbed: Json,
    make_gate: MakeGate,
    start_worker: StartWorker,
) -> None:
    pool, gate = make_pool(), make_gate("candidates")
    cycle_id = pool.order_cycle("trained")
    start_worker(gate.command)
    eventually(gate.is_reached)
    disk.set_read_only(True)
    gate.open()
    eventually(lambda: "waiting: the disk is read-only (" in (pool.row(cycle_id).message or ""))
    disk.set_read_only(False)
    eventually(lambda: has_ended(pool, cycle_id))
    row = pool.row(cycle_id)
    assert (row.state, row.error, row.attempts, row.fence) == ("succeeded", None, 0, 1)
    assert pool.everything_about(cycle_id) == undisturbed


@pytest.mark.slow
@postgres_only
def test_a_cycle_that_waits_for_room_can_be_stopped_and_cancelled(
    disk: SmallDisk,
    make_pool: MakePool,
    undisturbed: Json,
    make_gate: MakeGate,
    start_worker: StartWorker,
) -> None:
    pool, gate = make_pool(), make_gate("write_ranking")
    cycle_id = pool.order_cycle("trained")

    def waits() -> bool:
        row = pool.row(cycle_id)
        return row.state == "running" and "waiting: the disk is full" in (row.message or "")

    worker = start_worker(gate.command)
    eventually(gate.is_reached)
    disk.fill()
    gate.open()
    eventually(waits)
    worker.stop()
    row = pool.row(cycle_id)
    assert (row.state, row.attempts) == ("queued", 0)
    assert row.checkpoint_sha256 is not None
    # The next worker comes as far as the first one, and is told to drop the cycle.
    start_worker()
    eventually(waits)
    with pool.sessions.begin() as session:
        assert queue.request_cancel(session, Cycle, cycle_id) == "running"
    eventually(lambda: pool.row(cycle_id).state == "cancelled", seconds=30)
    with pool.sessions.begin() as session:
        assert queue.resume(session, Cycle, cycle_id)
    eventually(waits)
    disk.make_room()
    eventually(lambda: has_ended(pool, cycle_id))
    row = pool.row(cycle_id)
    assert (row.state, row.error, row.attempts) == ("succeeded", None, 0)
    assert pool.everything_about(cycle_id) == undisturbed


@pytest.mark.slow
@sqlite_only
def test_a_lease_that_lapses_because_the_database_is_full_has_nothing_run_twice(
    disk: SmallDisk,
    make_pool: MakePool,
    undisturbed: Json,
    make_gate: MakeGate,
    start_worker: StartWorker,
    engine: Engine,
) -> None:
    pool, gate = make_pool(), make_gate("write_ranking")
    cycle_id = pool.order_cycle("trained")
    first = start_worker(gate.command, MIAOD_LEASE_SECONDS="1")
    eventually(gate.is_reached)
    # Two more would take the cycle if they could write.
    others = [start_worker(MIAOD_LEASE_SECONDS="1") for _ in range(2)]
    eventually(lambda: all(other.has_logged('"worker_started"') for other in others))
    with pinned_log(engine):
        disk.fill()
        gate.open()
        eventually(lambda: first.has_logged('"action": "heartbeat_failed"'))
        eventually(lambda: "the disk of the database is full" in causes(first))
        reading = session_factory(engine, read_only=True)
        with reading() as session:
            lapsed = select(Cycle.fence).where(Cycle.lease_until < now_seconds())
            eventually(lambda: session.scalar(lapsed) == 1)
    disk.make_room()
    eventually(lambda: has_ended(pool, cycle_id))
    row = pool.row(cycle_id)
    assert (row.state, row.error) == ("succeeded", None)
    claims = [
        line["fence"]
        for worker in (first, *others)
        for line in log_lines(worker.log())
        if line.get("action") == "cycle_claimed"
    ]
    # Each claim has a fence of its own, and only the last of them has published.
    assert sorted(claims) == list(range(1, row.fence + 1))
    assert pool.everything_about(cycle_id) == undisturbed
