"""Clears away what nobody needs any more; run now and then by any server process, or by several.

Everything happens in short transactions, so that annotators can save in between, and each step may
be cut off anywhere: the next sweep goes on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import timedelta
from itertools import islice

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased, sessionmaker

from server.store import events
from server.store.blobs import BlobStore
from server.store.database import now_seconds, now_utc
from server.store.models import (
    Artifact,
    Base,
    Cycle,
    IdempotencyKey,
    Image,
    Import,
    Model,
    Prediction,
    Project,
    Query,
    Score,
    utc_now,
)
from server.store.queue import ACTIVE, request_cancel, settle_lapsed
from server.store.references import named_blobs

# Rows in one transaction.
CHUNK_ROWS = 1000
# The artifact that is a model's weights; it goes when the model goes.
WEIGHTS = "model.safetensors"
# The first file of an upload over a slow line lies there until its last one has come.
TEMPORARY_SECONDS = 86_400.0
# A retry that comes later than this does its work once more.
IDEMPOTENCY_SECONDS = 86_400.0
# By so much the clocks of the database and of the disk may differ.
CLOCK_SKEW_SECONDS = 300.0


@dataclass(slots=True)
class Swept:
    """How much a sweep has removed."""

    projects: int = 0
    scores: int = 0
    predictions: int = 0
    queries: int = 0
    models: int = 0
    checkpoints: int = 0
    events: int = 0
    idempotency_keys: int = 0
    blobs: int = 0
    temporary_files: int = 0

    def __bool__(self) -> bool:
        """Whether anything was removed."""
        return any(getattr(self, field.name) for field in fields(self))


def sweep(
    sessions: sessionmaker[Session], blobs: BlobStore, older_than_seconds: float = 3600.0
) -> Swept:
    """Removes what is left over, and says how much.

    First it ends the jobs that were to be cancelled, or were lost for the last time, and whose
    holder is gone: a claim does that, and there may be no worker left to make one. Then go

    * deleted projects with all their rows, once none of their cycles and imports runs any more;
    * scores and predictions of claims that came to nothing and of superseded cycles;
    * lapsed claims on queries of superseded cycles, and those that were given back at the very
      moment in which the newer cycle selected (they become withdrawn);
    * weights of models, unless the project keeps all: the newest, the best by `map50` and the
      pinned stay;
    * checkpoints of cycles that cannot be resumed: those that succeeded, or have a successor;
    * progress of cycles with very many events (`events.thin_out`);
    * answers kept for retries of a day ago;
    * blobs that no row names (none while a backup is made), and temporary files of yesterday.

    Args:
        sessions: makes writing sessions.
        blobs: of the same service.
        older_than_seconds: younger files stay, because the row that names one is written after it.
            While a cycle or an import runs, so does every file since its start.
    """
    swept = Swept()
    for table in (Cycle, Import):
        with sessions.begin() as session:
            settle_lapsed(session, table)
    swept.projects = _purge_deleted_projects(sessions)
    swept.scores = _sweep_scores(sessions)
    swept.predictions = _sweep_predictions(sessions)
    swept.queries = _withdraw_superseded_queries(sessions)
    swept.models = _sweep_models(sessions)
    swept.checkpoints = _sweep_checkpoints(sessions)
    swept.events = events.thin_out(sessions)
    swept.idempotency_keys = _sweep_idempotency_keys(sessions)
    cutoff = _file_cutoff(sessions, older_than_seconds)
    swept.blobs = _sweep_blobs(sessions, blobs, cutoff)
    swept.temporary_files = _sweep_temporary_files(
        blobs, min(cutoff, time.time() - TEMPORARY_SECONDS)
    )
    return swept


def _purge_deleted_projects(sessions: sessionmaker[Session]) -> int:
    with sessions() as session:
        deleted = session.scalars(select(Project.id).where(Project.deleted_at.is_not(None))).all()
    return sum(_purge(sessions, project_id) for project_id in deleted)


def _purge(sessions: sessionmaker[Session], project_id: str) -> bool:
    """Removes a project's rows; False if something of it still runs and has to be waited for."""
    with sessions.begin() as session:
        states = [
            request_cancel(session, table, job_id)
            for table in (Cycle, Import)
            for job_id in session.scalars(
                select(table.id).where(table.project_id == project_id, table.state.in_(ACTIVE))
            ).all()
        ]
        if "running" in states:
            return False
        cycle_ids = session.scalars(select(Cycle.id).where(Cycle.project_id == project_id)).all()
    for cycle_id in cycle_ids:
        _delete(sessions, Score, Score.image_id, Score.cycle_id == cycle_id)
        _delete(sessions, Prediction, Prediction.image_id, Prediction.cycle_id == cycle_id)
    # Annotations, queries, models, artifacts and the like go with these by their foreign keys.
    for owned in (Image, Cycle, Import):
        _delete(sessions, owned, owned.id, owned.project_id == project_id)
    _delete(sessions, Project, Project.id, Project.id == project_id)
    return True


def _sweep_scores(sessions: sessionmaker[Session]) -> int:
    with sessions() as session:
        cycles = session.execute(
            select(Cycle.id, Cycle.fence, Cycle.state, Project.scored_cycle_id)
            .join(Project, Project.id == Cycle.project_id)
            .where(exists().where(Score.cycle_id == Cycle.id))
        ).all()
    removed = 0
    for cycle in cycles:
        is_current = cycle.id == cycle.scored_cycle_id or cycle.state in ACTIVE
        dead = Score.fence < cycle.fence if is_current else Score.fence <= cycle.fence
        removed += _delete(sessions, Score, Score.image_id, and_(Score.cycle_id == cycle.id, dead))
    return removed


def _sweep_predictions(sessions: sessionmaker[Session]) -> int:
    with sessions() as session:
        cycles = session.execute(
            select(Cycle.id, Cycle.fence, Cycle.state, Cycle.number, Cycle.project_id).where(
                exists().where(Prediction.cycle_id == Cycle.id)
            )
        ).all()
    removed = 0
    newer, newer_cycle = aliased(Prediction), aliased(Cycle)
    for cycle in cycles:
        if cycle.state == "succeeded":
            # An image keeps what the newest model that has looked at it has said.
            dead = or_(
                Prediction.fence < cycle.fence,
                exists()
                .where(newer.image_id == Prediction.image_id)
                .where(newer_cycle.id == newer.cycle_id, newer_cycle.fence == newer.fence)
                .where(newer_cycle.state == "succeeded", newer_cycle.number > cycle.number),
            )
        elif cycle.state in ACTIVE:
            dead = Prediction.fence < cycle.fence
        else:
            dead = Prediction.fence <= cycle.fence
        condition = and_(Prediction.cycle_id == cycle.id, dead)
        removed += _delete(sessions, Prediction, Prediction.image_id, condition)
    return removed


def _withdraw_superseded_queries(sessions: sessionmaker[Session]) -> int:
    with sessions.begin() as session:
        superseded = (
            select(Query.id)
            .join(Project, Project.id == Query.project_id)
            .where(
                or_(
                    Query.state == "open",
                    and_(Query.state == "claimed", Query.claimed_until <= now_seconds()),
                ),
                Query.cycle_id != Project.scored_cycle_id,
            )
            .with_for_update(of=Query, skip_locked=True)
        )
        withdrawn = session.scalars(
            update(Query)
            .where(Query.id.in_(superseded))
            .values(state="withdrawn", closed_at=now_utc())
            .returning(Query.id)
            .execution_options(synchronize_session=False)
        ).all()
    return len(withdrawn)


def _sweep_models(sessions: sessionmaker[Session]) -> int:
    with sessions() as session:
        project_ids = session.scalars(
            select(Model.project_id).where(Model.sha256.is_not(None)).distinct()
        ).all()
    removed = 0
    for project_id in project_ids:
        with sessions.begin() as session:
            for model in _models_to_strip(session, project_id):
                model.sha256 = None
                session.execute(
                    delete(Artifact).where(
                        Artifact.cycle_id == model.cycle_id, Artifact.name == WEIGHTS
                    )
                )
                removed += 1
    return removed


def _models_to_strip(session: Session, project_id: str) -> list[Model]:
    """The project's models that need their weights no more, locked."""
    models = session.scalars(
        select(Model)
        .join(Cycle, Cycle.id == Model.cycle_id)
        .where(Model.project_id == project_id, Model.sha256.is_not(None))
        .order_by(Cycle.number.desc())
        .with_for_update(of=Model)
    ).all()
    deleted = [model for model in models if model.deleted_at is not None]
    alive = [model for model in models if model.deleted_at is None]
    training = session.scalar(
        select(Cycle.training)
        .where(Cycle.project_id == project_id)
        .order_by(Cycle.number.desc())
        .limit(1)
    )
    if not alive or (training or {}).get("keep_models") == "all":
        return deleted
    newest = alive[0]
    # Of equally good ones the newest: `max` takes the first.
    best = max(alive, key=_map50)
    return deleted + [
        model for model in alive if not model.pinned and model is not newest and model is not best
    ]


def _map50(model: Model) -> float:
    value = model.metrics.get("map50")
    return -1.0 if value is None else float(value)


def _sweep_checkpoints(sessions: sessionmaker[Session]) -> int:
    newer = aliased(Cycle)
    superseded = exists().where(newer.project_id == Cycle.project_id, newer.number > Cycle.number)
    with sessions.begin() as session:
        dropped = session.scalars(
            update(Cycle)
            .where(
                or_(Cycle.snapshot_sha256.is_not(None), Cycle.checkpoint_sha256.is_not(None)),
                Cycle.state.not_in(ACTIVE),
                or_(Cycle.state == "succeeded", superseded),
            )
            .values(snapshot_sha256=None, checkpoint_sha256=None)
            .returning(Cycle.id)
            .execution_options(synchronize_session=False)
        ).all()
    return len(dropped)


def _sweep_idempotency_keys(sessions: sessionmaker[Session]) -> int:
    old = IdempotencyKey.created_at < utc_now() - timedelta(seconds=IDEMPOTENCY_SECONDS)
    return _delete(sessions, IdempotencyKey, IdempotencyKey.key, old)


def _file_cutoff(sessions: sessionmaker[Session], older_than_seconds: float) -> float:
    """Unix time before which a file must have been stored to be swept."""
    cutoff = time.time() - older_than_seconds
    with sessions() as session:
        for table in (Cycle, Import):
            # A running job stores files for hours before its last transaction names them.
            started = session.scalar(
                select(func.min(table.started_at)).where(table.state.in_(ACTIVE))
            )
            if started is not None:
                cutoff = min(cutoff, started.timestamp() - CLOCK_SKEW_SECONDS)
    return cutoff


def _sweep_blobs(sessions: sessionmaker[Session], blobs: BlobStore, cutoff: float) -> int:
    removed = 0
    old = (sha256 for sha256, stored_at in blobs.iter_all() if stored_at < cutoff)
    for batch in _batches(old):
        with sessions() as session:
            named = {row.sha256 for row in session.execute(named_blobs(batch))}
        removed += sum(
            blobs.delete(sha256, older_than=cutoff) for sha256 in batch if sha256 not in named
        )
    return removed


def _sweep_temporary_files(blobs: BlobStore, cutoff: float) -> int:
    removed = 0
    for path in blobs.tmp_dir.iterdir():
        with suppress(FileNotFoundError):  # its owner may be done with it just now
            if path.stat().st_mtime >= cutoff:
                continue
            if path.is_dir():  # what an import has unpacked whose process was killed
                shutil.rmtree(path)
            else:
                path.unlink()
            removed += 1
    return removed


def _delete(
    sessions: sessionmaker[Session],
    table: type[Base],
    key: InstrumentedAttribute[str],
    condition: ColumnElement[bool],
) -> int:
    """Deletes the rows that meet a condition, in chunks; says how many keys they had.

    Two processes that sweep at once step over each other's rows.
    """
    removed = 0
    while True:
        with sessions.begin() as session:
            keys = session.scalars(
                select(key)
                .where(condition)
                .limit(CHUNK_ROWS)
                .with_for_update(of=table, skip_locked=True)
            ).all()
            if not keys:
                return removed
            session.execute(
                delete(table)
                .where(condition, key.in_(keys))
                .execution_options(synchronize_session=False)
            )
        removed += len(keys)


def _batches(hashes: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(hashes, CHUNK_ROWS)):
        yield batch
