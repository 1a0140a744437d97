"""Cycles that are stopped, killed and moved: they end in what they would have ended in."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from server.formats.pictures import load_rgb8
from server.store import outage, queue
from server.store.blobs import BlobStore
from server.store.database import now_seconds
from server.store.models import Cycle, Image, Json
from server.store.pool import dump_snapshot, load_snapshot, take_snapshot
from server.store.queue import LeaseLost
from server.store.sweep import sweep
from tests.worker.small_pools import Pool
from worker import cycle as cycle_module
from worker import dataset, records
from worker.checkpoints import FORMAT
from worker.failures import CycleStopped
from worker.progress import ProgressPipe
from worker.records import CycleRecords
from worker.settings import WorkerSettings

MakePool = Callable[..., Pool]


class Runner:
    """Runs the next cycle in this process, up to a chosen place."""

    def __init__(self, sessions: sessionmaker[Session], settings: WorkerSettings) -> None:
        self._sessions = sessions
        self.settings = settings
        self.lease: queue.Lease | None = None

    def claim(self) -> queue.Lease:
        with self._sessions.begin() as session:
            lease = queue.claim(session, Cycle, "here", 600)
        assert lease is not None
        self.lease = lease
        return lease

    def run(self, stop: threading.Event | None = None) -> None:
        lease = self.claim()
        with open(os.devnull, "wb") as sink:
            cycle_module.run(lease, self.settings, ProgressPipe(os.dup(sink.fileno())), stop)

    def stop_after(self, count: int) -> bool:
        """Run until the worker is told to stop at the `count`-th place; False if it ended before.

        A place is where the cycle asks whether it should stop.
        """
        asked = 0

        class Counting(threading.Event):
            def is_set(self) -> bool:
                nonlocal asked
                asked += 1
                return asked >= count

        try:
            self.run(Counting())
        except CycleStopped:
            assert self.lease is not None
            with self._sessions.begin() as session:
                queue.release(session, self.lease)
            return True
        return False


@pytest.fixture
def runner(sessions: sessionmaker[Session], settings: WorkerSettings) -> Runner:
    return Runner(sessions, settings)


def undisturbed(make_pool: MakePool, runner: Runner, **training: Any) -> Json:
    pool = make_pool()
    cycle_id = pool.order_cycle("trained", **training)
    runner.run()
    return pool.everything_about(cycle_id)


@pytest.mark.parametrize("strategy", ["mi-aod", "core-set"])
def test_a_cycle_that_is_stopped_at_every_place_in_turn_ends_as_if_it_had_not(
    make_pool: MakePool, runner: Runner, strategy: str
) -> None:
    expected = undisturbed(make_pool, runner, strategy=strategy)
    pool = make_pool()
    cycle_id = pool.order_cycle("trained", strategy=strategy)
    stops = 0
    # What comes behind training and scoring is done again each time, so the next stop comes later.
    while runner.stop_after(2 + 5 * stops):
        stops += 1
        row = pool.row(cycle_id)
        assert (row.state, row.attempts) == ("queued", 0)
    assert stops >= 4
    row = pool.row(cycle_id)
    assert (row.state, row.checkpoint_sha256, row.snapshot_sha256) == ("succeeded", None, None)
    assert pool.everything_about(cycle_id) == expected


@pytest.mark.parametrize("place", range(1, 30, 4))
def test_wherever_a_cycle_is_stopped_the_next_attempt_ends_it_the_same(
    make_pool: MakePool, runner: Runner, place: int
) -> None:
    expected = undisturbed(make_pool, runner, ema_decay=0.5)
    pool = make_pool()
    cycle_id = pool.order_cycle("trained", ema_decay=0.5)
    stopped = runner.stop_after(place)
    # The world moves on; this cycle is about the project as it was.
    with pool.sessions() as session:
        [image_id] = session.scalars(select(Image.id).where(Image.ordinal == 0).limit(1)).all()
    if stopped:
        pool.annotate(image_id, [])
        pool.add_image(labeled=True)
        runner.run()
    found = pool.everything_about(cycle_id)
    assert found == expected


def test_scoring_goes_on_behind_what_was_scored(
    make_pool: MakePool, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool(unlabeled=9)
    cycle_id = pool.order_cycle("trained", scoring_batch_size=4)
    scored: list[int] = []
    pause = "worker.checkpoints.Checkpoints.pause"

    def count_scored(self: Any, make_state: Any, *, is_border: bool = False) -> None:
        state = make_state()
        if state["phase"] == "score":
            scored.append(len(state["scores"]["ordinal"]))
        if len(scored) == 4:
            self._stop.set()
        original(self, make_state, is_border=is_border)

    from worker.checkpoints import Checkpoints

    original = Checkpoints.pause
    monkeypatch.setattr(pause, count_scored)
    with pytest.raises(CycleStopped):
        runner.run(threading.Event())
    assert scored == [0, 1, 2, 3]
    assert runner.lease is not None
    with pool.sessions.begin() as session:
        queue.release(session, runner.lease)
    runner.run(threading.Event())
    # The last is the end of scoring.
    assert scored[4:] == [4, 5, 6, 7, 8, 9, 9]
    assert pool.row(cycle_id).state == "succeeded"


def saved_state(pool: Pool, cycle_id: str) -> Json:
    sha256 = pool.row(cycle_id).checkpoint_sha256
    assert sha256 is not None
    state: Json = torch.load(io.BytesIO(pool.blobs.read_bytes(sha256)), weights_only=True)
    return state


@pytest.mark.parametrize(
    ("damage", "remark"),
    [
        ("format", "is of format 'miaod-checkpoint-0'"),
        ("bytes", "cannot be read (its bytes are not those that were saved)"),
        ("missing", "cannot be read ([Errno 2]"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_restarts_the_cycle_and_says_so(
    make_pool: MakePool,
    runner: Runner,
    damage: str,
    remark: str,
) -> None:
    expected = undisturbed(make_pool, runner)
    pool = make_pool()
    cycle_id = pool.order_cycle("trained")
    assert runner.stop_after(5)
    state = saved_state(pool, cycle_id)
    assert state["format"] == FORMAT
    sha256 = pool.row(cycle_id).checkpoint_sha256
    assert sha256 is not None
    if damage == "format":
        buffer = io.BytesIO()
        torch.save({**state, "format": "miaod-checkpoint-0"}, buffer)
        other = pool.blobs.put_bytes(buffer.getvalue()).sha256
        with pool.sessions.begin() as session:
            session.execute(update(Cycle).values(checkpoint_sha256=other))
    elif damage == "bytes":
        path = pool.blobs.path(sha256)
        path.write_bytes(path.read_bytes()[:-1])
    else:
        pool.blobs.path(sha256).unlink()
    runner.run()
    assert f"started anew, as the checkpoint {remark}" in pool.row(cycle_id).message
    assert pool.everything_about(cycle_id) == expected


def test_a_saved_checkpoint_forgives_the_attempts_before_it(
    make_pool: MakePool, runner: Runner
) -> None:
    pool = make_pool()
    cycle_id = pool.order_cycle("trained")
    with pool.sessions.begin() as session:
        session.execute(update(Cycle).values(attempts=2))
    assert runner.stop_after(5)
    assert pool.row(cycle_id).attempts == 0


def test_the_checkpoint_before_goes_when_the_next_is_safe(
    make_pool: MakePool, runner: Runner
) -> None:
    pool = make_pool()
    cycle_id = pool.order_cycle("trained")
    assert runner.stop_after(3)
    first = pool.row(cycle_id).checkpoint_sha256
    assert first is not None
    assert runner.stop_after(6)
    second = pool.row(cycle_id).checkpoint_sha256
    assert second not in (None, first)
    assert not pool.blobs.exists(first)
    assert pool.blobs.exists(second)


def test_a_disk_that_is_full_costs_the_checkpoint_and_not_the_cycle(
    make_pool: MakePool, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(make_pool, runner)
    pool = make_pool()
    cycle_id = pool.order_cycle("trained")
    runner.settings = runner.settings.model_copy(update={"checkpoint_seconds": 1e-9})
    save = CycleRecords.save_checkpoint
    tried = []

    def full(self: CycleRecords, content: bytes, previous: str | None) -> str:
        tried.append(len(content))
        if len(tried) % 2:
            raise OSError(28, "No space left on device")
        return save(self, content, previous)

    monkeypatch.setattr(CycleRecords, "save_checkpoint", full)
    runner.run()
    assert len(tried) >= 4
    assert pool.everything_about(cycle_id) == expected


def test_pictures_that_cannot_be_read_for_a_while_send_the_cycle_back_to_its_checkpoint(
    make_pool: MakePool, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(make_pool, runner)
    pool = make_pool()
    cycle_id = pool.order_cycle("trained")
    read, reads = load_rgb8, []

    def read_now_and_then(path: Path) -> Any:
        reads.append(path)
        if len(reads) in (1, 2, 14, 25):
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(outage, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(dataset, "load_rgb8", read_now_and_then)
    runner.run()
    assert len(reads) > 25
    row = pool.row(cycle_id)
    assert (row.state, row.attempts, row.fence) == ("succeeded", 0, 1)
    assert pool.everything_about(cycle_id) == expected


@pytest.mark.parametrize("place", ["worker.dataset.load_rgb8", "worker.records.load_snapshot"])
def test_a_data_folder_that_is_gone_is_no_lost_picture_and_no_lost_snapshot(
    make_pool: MakePool, runner: Runner, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    expected = undisturbed(make_pool, runner)
    pool = make_pool()
    cycle_id = pool.order_cycle("trained")
    assert runner.stop_after(3)
    root = pool.blobs.root
    unmounted = root.with_name("elsewhere")
    read_bytes, waited = BlobStore.read_bytes, []

    def mount_again(_: ProgressPipe, message: str) -> None:
        waited.append(message)
        if unmounted.exists():
            unmounted.rename(root)

    def unmount(*what: Any) -> Any:
        if not waited:
            root.rename(unmounted)
        return real(*what)

    if place.endswith("load_snapshot"):
        real: Any = read_bytes
        monkeypatch.setattr(BlobStore, "read_bytes", unmount)
    else:
        real = load_rgb8
        monkeypatch.setattr(dataset, "load_rgb8", unmount)
    monkeypatch.setattr(ProgressPipe, "waiting", mount_again)
    runner.run()
    assert waited[0].startswith(f"waiting: the data folder is not there ({root.parent})")
    row = pool.row(cycle_id)
    assert (row.state, row.attempts) == ("succeeded", 0)
    assert "anew" not in (row.message or "")
    assert pool.everything_about(cycle_id) == expected


def test_while_the_database_is_away_no_checkpoint_takes_up_room(
    make_pool: MakePool, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(make_pool, runner)
    pool = make_pool()
    cycle_id = pool.order_cycle("trained")
    runner.settings = runner.settings.model_copy(update={"checkpoint_seconds": 1e-9})
    monkeypatch.setattr(records, "CHECKPOINT_OUTAGE_SECONDS", 0.01)
    save = CycleRecords.save_checkpoint
    stored: list[int] = []

    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("UPDATE", {}, ConnectionError("the database is away"))

    def save_without(self: CycleRecords, content: bytes, previous: str | None) -> str:
        before = len(list(pool.blobs.iter_all()))
        with monkeypatch.context() as patch:
            patch.setattr(queue, "record", away)
            try:
                return save(self, content, previous)
            finally:
                stored.append(len(list(pool.blobs.iter_all())) - before)

    monkeypatch.setattr(CycleRecords, "save_checkpoint", save_without)
    runner.run()
    assert len(stored) >= 4
    assert not any(stored)
    assert pool.everything_about(cycle_id) == expected


def test_a_worker_that_lost_its_lease_saves_no_checkpoint(
    make_pool: MakePool, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool()
    cycle_id = pool.order_cycle("trained")
    save = CycleRecords.save_checkpoint

    def paused_meanwhile(self: CycleRecords, content: bytes, previous: str | None) -> str:
        with pool.sessions.begin() as session:
            session.execute(
                update(Cycle).values(fence=Cycle.fence + 1, lease_until=now_seconds() + 600)
            )
        return save(self, content, previous)

    monkeypatch.setattr(CycleRecords, "save_checkpoint", paused_meanwhile)
    with pytest.raises(LeaseLost):
        runner.run()
    assert pool.row(cycle_id).checkpoint_sha256 is None


def test_the_sweep_keeps_what_a_cycle_could_go_on_from_and_nothing_else(
    make_pool: MakePool, runner: Runner, blobs: BlobStore
) -> None:
    pool = make_pool()
    cycle_id = pool.order_cycle("trained")
    assert runner.stop_after(4)
    with pool.sessions.begin() as session:
        session.execute(update(Cycle).values(state="cancelled"))
        gone = session.scalars(select(Image).where(Image.state == "unlabeled").limit(1)).one()
        gone.deleted_at = gone.created_at
        picture = gone.sha256
    row = pool.row(cycle_id)
    assert row.snapshot_sha256 is not None
    assert row.checkpoint_sha256 is not None
    kept = (row.snapshot_sha256, row.checkpoint_sha256, picture)
    sweep(pool.sessions, blobs, older_than_seconds=-10)
    assert all(blobs.exists(sha256) for sha256 in kept)
    # With a successor nobody can resume it any more.
    newer = pool.order_cycle("trained")
    with pool.sessions.begin() as session:
        session.execute(update(Cycle).where(Cycle.id == newer).values(state="cancelled"))
    assert sweep(pool.sessions, blobs, older_than_seconds=-10).checkpoints == 1
    assert not any(blobs.exists(sha256) for sha256 in kept)
    assert pool.row(cycle_id).checkpoint_sha256 is None


def test_a_snapshot_comes_back_as_it_was(make_pool: MakePool) -> None:
    pool = make_pool()
    with pool.sessions() as session:
        snapshot = take_snapshot(session, pool.project_id)
    assert load_snapshot(dump_snapshot(snapshot)) == snapshot
    for content in (b"", b"nonsense", dump_snapshot(snapshot)[:-3]):
        with pytest.raises(ValueError, match="damaged"):
            load_snapshot(content)


def test_a_snapshot_that_was_lost_means_starting_anew(make_pool: MakePool, runner: Runner) -> None:
    pool = make_pool()
    cycle_id = pool.order_cycle("trained")
    assert runner.stop_after(4)
    sha256 = pool.row(cycle_id).snapshot_sha256
    assert sha256 is not None
    pool.blobs.path(sha256).unlink()
    pool.add_image(labeled=True)
    runner.run()
    row = pool.row(cycle_id)
    assert "the snapshot of the first attempt was lost" in row.message
    assert row.snapshot is not None
    assert row.snapshot["labeled_images"] == 5


def test_deleted_images_are_trained_on_to_the_end(make_pool: MakePool, runner: Runner) -> None:
    pool = make_pool()
    cycle_id = pool.order_cycle("trained")
    assert runner.stop_after(4)
    with pool.sessions.begin() as session:
        for image in session.scalars(select(Image).where(Image.state == "labeled")):
            image.deleted_at = image.created_at
    runner.run()
    row = pool.row(cycle_id)
    assert row.state == "succeeded"
    assert row.snapshot is not None
    assert row.snapshot["labeled_images"] == 4
