"""Pools, cycles and workers of one test, the undisturbed cycle, and what it is compared with."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, make_url, select, union_all
from sqlalchemy.orm import Session, sessionmaker

from server.store import queue
from server.store.blobs import BlobStore
from server.store.models import (
    Artifact,
    Cycle,
    Image,
    Json,
    Model,
    Prediction,
    Project,
    Query,
    Score,
)
from server.store.sweep import sweep
from tests.worker.small_pools import Pool
from tests.worker.torture.moments import (
    LABELED,
    NUM_PREDICTED,
    UNLABELED,
    VALIDATION,
    Timeline,
    Watch,
)
from tests.worker.torture.worker_process import (
    PATIENCE_SECONDS,
    WorkerProcess,
    eventually,
    is_alive,
)
from worker.settings import WorkerSettings

# Some seconds on one core, through all stages; the averages of the weights are saved as well.
TRAINING: dict[str, Any] = {
    "label_min_steps": 16,
    "label_max_steps": 16,
    "adversarial_min_steps": 4,
    "adversarial_max_steps": 4,
    "ema_decay": 0.9,
    "scoring_batch_size": 4,
}


@dataclass(frozen=True)
class Undisturbed:
    """A cycle that a worker ran from its start to its end."""

    result: Json
    message: str
    timeline: Timeline


# One for all tests of this process, by the number of loaders: the result does not depend on the
# database, but a cycle's configuration is among what it leaves behind.
_undisturbed: dict[int, Undisturbed] = {}


class World:
    """What the tests of one database act in."""

    def __init__(
        self,
        settings: WorkerSettings,
        sessions: sessionmaker[Session],
        readers: sessionmaker[Session],
        blobs: BlobStore,
        make_pool: Callable[..., Pool],
        folder: Path,
    ) -> None:
        """Begin without a worker."""
        self.settings = settings
        self.sessions = sessions
        self.readers = readers
        self._blobs = blobs
        self._make_pool = make_pool
        self._folder = folder
        self.workers: list[WorkerProcess] = []
        self.given_up = 0
        # Processes that decode pictures for the one that trains.
        self.num_loaders = 0

    def start_worker(self, **settings: float) -> WorkerProcess:
        """Start a worker with the test's settings, some of them changed."""
        path = self._folder / f"worker-{len(self.workers)}.log"
        worker = WorkerProcess(self.settings.model_copy(update=settings), path)
        self.workers.append(worker)
        return worker

    def end(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.end()

    def order(self, kind: str = "trained") -> tuple[Pool, str]:
        """A new pool, as every other, with a cycle that waits."""
        pool = self._make_pool(labeled=LABELED, unlabeled=UNLABELED, validation=VALIDATION)
        return pool, pool.order_cycle(kind, **TRAINING, num_loader_workers=self.num_loaders)

    def holder(self, cycle_id: str) -> WorkerProcess | None:
        """The worker whose child runs the cycle; None if it has ended."""
        row = self.row(cycle_id)
        for worker in self.workers:
            for line in worker.logged():
                claimed = line.get("action") == "cycle_claimed" and line["cycle"] == cycle_id
                if claimed and line["fence"] == row.fence:
                    return worker if row.state == "running" else None
        return None

    def freeze(self, worker: WorkerProcess) -> None:
        """Stop a supervisor and its child wherever they are.

        But not while they hold SQLite's write lock: nobody could take over, or save anything, until
        they let go. Postgres drops the transaction of a worker that says nothing for a lease.
        """
        worker.signal_both(signal.SIGSTOP)
        while self._is_locked():
            worker.signal_both(signal.SIGCONT)
            time.sleep(0.02)
            worker.signal_both(signal.SIGSTOP)

    def _is_locked(self) -> bool:
        url = make_url(self.settings.resolved_database_url)
        if url.get_backend_name() != "sqlite":
            return False
        assert url.database is not None
        with closing(sqlite3.connect(url.database, timeout=1.0, isolation_level=None)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
        return False

    def watch(self, cycle_id: str, fence: int, *, is_new: bool = True) -> Watch:
        """Look at a cycle under its claim with this fence."""
        return Watch(self.readers, cycle_id, fence, is_new=is_new)

    def row(self, cycle_id: str) -> Cycle:
        """A cycle's row as it is now."""
        return self.watch(cycle_id, 0).row()

    def undisturbed(self) -> Undisturbed:
        """What every other cycle must end in."""
        if self.num_loaders not in _undisturbed:
            pool, cycle_id = self.order()
            worker = self.start_worker()
            watch = self.watch(cycle_id, 1)
            assert watch.wait_for_claim()
            timeline = watch.measure()
            row = watch.row()
            assert (row.state, row.error, row.fence) == ("succeeded", None, 1)
            result = pool.everything_about(cycle_id)
            assert len(result["scores"]) == UNLABELED
            assert len(result["predictions"]) == NUM_PREDICTED
            _undisturbed[self.num_loaders] = Undisturbed(result, row.message, timeline)
            worker.end()
            seen_at = {name: round(seconds, 2) for name, seconds in timeline.seen_at.items()}
            print(f"undisturbed: {seen_at}")  # noqa: T201
        return _undisturbed[self.num_loaders]

    def claim_again(self, cycle_id: str, fence: int, *, is_new: bool = True) -> Watch | None:
        """Wait until a worker has claimed the cycle with this fence; None if it has succeeded.

        One that was given up after three lost attempts is resumed, as a person would.
        """
        watch = self.watch(cycle_id, fence, is_new=is_new)
        while not watch.wait_for_claim():
            if watch.row().state == "succeeded":
                return None
            self._resume(watch.row())
        return watch

    def wait_for_success(self, cycle_id: str) -> None:
        """Wait until the cycle has succeeded; resumed as above if it is given up."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (row := self.row(cycle_id)).state != "succeeded":
            if row.state not in queue.ACTIVE:
                self._resume(row)
            assert time.monotonic() < deadline, f"still {row.state}: {row.message}"
            time.sleep(0.05)

    def _resume(self, row: Cycle) -> None:
        assert (row.state, row.attempts) == ("failed", queue.MAX_ATTEMPTS), row.error
        assert "given up after 3 lost attempts; the last: " in (row.error or "")
        self.given_up += 1
        with self.sessions.begin() as session:
            assert queue.resume(session, Cycle, row.id)

    def assert_as_undisturbed(self, pool: Pool, cycle_id: str) -> None:
        """The cycle ended as if nothing had happened to it, once, and left nothing else."""
        undisturbed = self.undisturbed()
        found = pool.everything_about(cycle_id)
        assert found.keys() == undisturbed.result.keys()
        for what, expected in undisturbed.result.items():
            assert found[what] == expected, f"{what} is not what it is in an undisturbed cycle"
        row = self.row(cycle_id)
        assert (row.state, row.error, row.progress) == ("succeeded", None, 1.0)
        assert (row.fence, row.message) == (self.claims(cycle_id), undisturbed.message)
        assert (row.lease_until, row.cancel_requested) == (None, False)
        assert (row.snapshot_sha256, row.checkpoint_sha256) == (None, None)
        with self.readers() as session:
            assert session.get_one(Project, pool.project_id).scored_cycle_id == cycle_id
            for table, number in ((Query, row.num_selected), (Model, 1), (Artifact, 10)):
                rows = select(func.count()).select_from(table).where(table.cycle_id == cycle_id)
                assert session.scalar(rows) == number, table.__tablename__

    def claims(self, cycle_id: str) -> int:
        """How often the workers say that they have claimed the cycle."""
        return sum(
            line.get("action") == "cycle_claimed" and line["cycle"] == cycle_id
            for worker in self.workers
            for line in worker.logged()
        )

    def assert_nothing_else_is_left(self) -> None:
        """After the sweep there are the rows of the last claims and the blobs that rows name."""
        for worker in self.workers:
            worker.end()
        two_days_ago = time.time() - 2 * 86_400
        for path in self._blobs.tmp_dir.iterdir():
            os.utime(path, (two_days_ago, two_days_ago))
        sweep(self.sessions, self._blobs, older_than_seconds=-10)
        assert list(self._blobs.tmp_dir.iterdir()) == []
        with self.readers() as session:
            cycles = session.scalars(select(Cycle)).all()
            scores = {(one.id, one.fence): UNLABELED for one in cycles}
            predictions = {
                (one.id, one.fence): NUM_PREDICTED for one in cycles if one.kind == "trained"
            }
            for table, expected in ((Score, scores), (Prediction, predictions)):
                rows = session.execute(select(table.cycle_id, table.fence))
                assert Counter(tuple(row) for row in rows) == expected
            named = session.scalars(
                union_all(
                    select(Image.sha256),
                    select(Model.sha256),
                    select(Artifact.sha256),
                    select(Query.heatmap_sha256).where(Query.heatmap_sha256.is_not(None)),
                )
            )
            assert {sha256 for sha256, _ in self._blobs.iter_all()} == set(named)

    def assert_no_child_is_left(self, *children: int | None) -> None:
        """These training processes have ended, or end right now."""
        for pid in children:
            if pid is not None:
                eventually(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]
