"""What a cycle's process reads from the store and writes to it, each in its own short transaction.

Between two calls no session is open, however long the training takes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import structlog
from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from server.store import counters, queue, writeback
from server.store.blobs import BlobStore
from server.store.database import session_factory
from server.store.models import Cycle, Json, Model
from server.store.outage import Patience
from server.store.pool import (
    ImageRecord,
    Snapshot,
    dump_snapshot,
    load_snapshot,
    take_snapshot,
)
from server.store.queue import Lease
from server.store.writeback import ArtifactRecord, ModelRecord
from worker.outage import patiently, transaction

T = TypeVar("T")

log = structlog.get_logger("worker.cycle")

# A checkpoint is not worth waiting longer for: the next one comes.
CHECKPOINT_OUTAGE_SECONDS = 10.0
PREDICTIONS_AT_ONCE = 200
MIN_RESERVE = 8


@dataclass(frozen=True)
class Job:
    """What was ordered (see `models.Cycle`), and the project as it was when the cycle started."""

    number: int
    kind: str
    budget: int
    strategy: Json
    training: Json
    seed: int
    min_labeled: int
    snapshot: Snapshot
    # Blob of the newest model whose weights are still there, for a warm start.
    previous_model: str | None = None
    # Blob of the state that an earlier attempt saved.
    checkpoint: str | None = None
    # What people should know of how the cycle began.
    remarks: tuple[str, ...] = ()


class CycleRecords:
    """The store as one cycle uses it; every write is under the cycle's lease.

    Where database or storage are away, everything but a checkpoint waits until they are back.
    """

    def __init__(self, engine: Engine, blobs: BlobStore, lease: Lease, patiently: Patience) -> None:
        """Prepare; nothing is read yet."""
        self._engine = engine
        self._sessions = session_factory(engine)
        self._blobs = blobs
        self._lease = lease
        self._patiently = patiently
        self.data_dir = blobs.root.parent
        self._artifacts: list[ArtifactRecord] = []

    def take_job(self) -> Job:
        """Read the order and the project, and note what of the project this cycle is about.

        A cycle that trains sees the project as it was when its first attempt began, however much
        was labeled since: what an attempt saved could not go on from anything else.

        Raises:
            LeaseLost: the cycle is no longer ours.
        """

        def read(session: Session) -> Job:
            cycle = session.get_one(Cycle, self._lease.job_id)
            snapshot, remarks = self._earlier_snapshot(cycle.snapshot_sha256)
            return Job(
                number=cycle.number,
                kind=cycle.kind,
                budget=cycle.budget,
                strategy=cycle.strategy,
                training=cycle.training,
                seed=cycle.seed,
                min_labeled=cycle.min_labeled,
                snapshot=snapshot or take_snapshot(session, cycle.project_id),
                checkpoint=cycle.checkpoint_sha256 if snapshot else None,
                remarks=remarks,
                previous_model=session.scalar(
                    select(Model.sha256)
                    .join(Cycle, Cycle.id == Model.cycle_id)
                    .where(
                        Model.project_id == cycle.project_id,
                        Model.sha256.is_not(None),
                        Model.deleted_at.is_(None),
                    )
                    .order_by(Cycle.number.desc())
                    .limit(1)
                ),
            )

        readers = session_factory(self._engine, read_only=True)
        job = self._patiently(lambda: transaction(readers, read))
        values: Json = {"snapshot": job.snapshot.counts()}
        if job.kind == "trained":
            values["snapshot_sha256"] = self.put_blob(dump_snapshot(job.snapshot))
            values["checkpoint_sha256"] = job.checkpoint
        self._do(lambda session: queue.record(session, self._lease, **values))
        # Hours may pass before the next transaction; no connection is kept for them.
        self._engine.dispose()
        return job

    def _earlier_snapshot(self, sha256: str | None) -> tuple[Snapshot | None, tuple[str, ...]]:
        """The snapshot of an earlier attempt; without it, what to say about its loss."""
        if sha256 is None:
            return None, ()
        try:
            return load_snapshot(self._read(sha256)), ()
        except (FileNotFoundError, ValueError) as error:
            log.warning("snapshot lost", action="snapshot_lost", error=str(error))
            return None, ("started anew, as the snapshot of the first attempt was lost",)

    def save_checkpoint(self, content: bytes, previous: str | None) -> str:
        """Store the cycle's state; from now on another attempt goes on from here.

        Args:
            content: the state.
            previous: blob of the state before, removed once this one is safe.

        Returns:
            The blob of this state.

        Raises:
            OSError, DBAPIError: it cannot be stored; the state before is still there.
            LeaseLost: the cycle is somebody else's by now.
        """

        def write(change: Callable[[Session], None]) -> None:
            patiently(
                lambda: transaction(self._sessions, change),
                timeout_seconds=CHECKPOINT_OUTAGE_SECONDS,
            )

        # First, as a state that no row can name would take up room until the cycle has ended.
        write(lambda session: queue.record(session, self._lease))
        started = time.perf_counter()
        sha256 = self._blobs.put_bytes(content).sha256
        seconds = time.perf_counter() - started

        def name(session: Session) -> None:
            # Progress was made: attempts lost before count no more.
            queue.record(session, self._lease, checkpoint_sha256=sha256, attempts=0)
            counters.add(session, "checkpoints_saved")
            counters.add(session, "checkpoint_seconds", value=seconds)

        write(name)
        if previous is not None and previous != sha256:
            # The sweep takes it if we cannot.
            with suppress(OSError):
                self._blobs.delete(previous)
        return sha256

    def read_checkpoint(self, sha256: str) -> bytes:
        """A state that was saved.

        Raises:
            FileNotFoundError: it was lost.
            ValueError: it is damaged.
        """
        content = self._patiently(lambda: self._read(sha256))
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError("its bytes are not those that were saved")
        return content

    def count_stage(self, stage: str, seconds: float) -> None:
        """For monitoring: a stage has ended. Raises: LeaseLost."""
        self._count({("stages", stage): 1.0, ("stage_seconds", stage): seconds})

    def count_scored(self, num_images: int) -> None:
        """For monitoring: so many images were scored. Raises: LeaseLost."""
        self._count({("images_scored", ""): float(num_images)})

    def count_failed_checkpoint(self) -> None:
        """For monitoring: a state could not be saved. Raises: LeaseLost."""
        self._count({("checkpoints_failed", ""): 1.0})

    def _count(self, counts: counters.Counts) -> None:
        def write(session: Session) -> None:
            # Only under the lease: what a zombie did is not counted a second time.
            queue.record(session, self._lease)
            for (name, label), value in counts.items():
                counters.add(session, name, label, value)

        try:
            transaction(self._sessions, write)
        except DBAPIError as error:
            # A figure is not worth waiting for, least of all where the disk is full.
            log.warning("figures lost", action="figures_lost", error=str(error.orig))

    def write_ranking(
        self,
        images: Sequence[ImageRecord],
        order: Iterable[int],
        uncertainty: Sequence[float | None] | None = None,
    ) -> None:
        """Write every image's rank, unseen until `publish`.

        Args:
            images: the pool.
            order: their positions, the one to select first at the front.
            uncertainty: by the same positions; None: unknown for all.
        """
        rows = [
            (images[place].id, rank, None if uncertainty is None else uncertainty[place])
            for rank, place in enumerate(order, start=1)
        ]
        self._patiently(lambda: writeback.write_scores(self._sessions, self._lease, rows))

    def candidates(self, budget: int) -> list[ImageRecord]:
        """Those likely to be selected, in order of ordinal: the budget and some to replace them.

        An image may be labeled before `publish`; whoever moves up should have predictions and a
        heat map too.
        """
        limit = with_reserve(budget)
        found = self._do(lambda session: writeback.candidates(session, self._lease, limit))
        return sorted(found, key=lambda record: record.ordinal)

    def write_predictions(self, rows: Iterable[tuple[str, list[Json]]]) -> None:
        """Write detections by image id, unseen until `publish`; `rows` may come slowly."""
        remaining = iter(rows)
        while part := list(islice(remaining, PREDICTIONS_AT_ONCE)):
            write = partial(writeback.write_predictions, self._sessions, self._lease, part)
            self._patiently(write)

    def put_blob(self, data: bytes) -> str:
        """Store some bytes; gives their name."""
        return self._patiently(lambda: self._blobs.put_bytes(data)).sha256

    def add_artifact(
        self, name: str, data: bytes, media_type: str = "application/octet-stream"
    ) -> ArtifactRecord:
        """Store a file of the cycle; `publish` shows it."""
        blob = self._patiently(lambda: self._blobs.put_bytes(data))
        artifact = ArtifactRecord(name, blob.sha256, blob.num_bytes, media_type)
        self._artifacts.append(artifact)
        return artifact

    def add_json(self, name: str, value: Any) -> None:
        """Store a JSON file of the cycle."""
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        self.add_artifact(name, text.encode(), "application/json")

    def publish(
        self,
        *,
        message: str,
        metrics: Json | None = None,
        model: ModelRecord | None = None,
        heatmaps: Mapping[str, str] | None = None,
    ) -> int:
        """End the cycle as succeeded and show all of it at once; how many images it selected."""
        return self._do(
            lambda session: writeback.publish(
                session,
                self._lease,
                heatmaps=heatmaps or {},
                artifacts=self._artifacts,
                model=model,
                metrics=metrics,
                message=message,
            )
        )

    def _read(self, sha256: str) -> bytes:
        try:
            return self._blobs.read_bytes(sha256)
        except FileNotFoundError:
            self._blobs.raise_if_gone()
            raise

    def _do(self, work: Callable[[Session], T]) -> T:
        return self._patiently(lambda: transaction(self._sessions, work))


def with_reserve(budget: int) -> int:
    """How many candidates are looked at for a budget: some may be labeled by the end."""
    return budget + max(MIN_RESERVE, budget // 4)
