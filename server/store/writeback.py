"""How a cycle's results come into the database: in chunks that nobody sees, then all at once.

Scores and predictions carry (cycle, fence). They are written in short transactions, so that
annotators can save in between, and stay invisible until `publish` flips the project and the cycle
in one last short transaction. Each transaction checks the lease first: a worker that lost it writes
nothing. Rows of claims that came to nothing are swept later (`sweep`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import and_, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, sessionmaker

from server.store.database import now_seconds, now_utc
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
from server.store.pool import RECORD_COLUMNS, ImageRecord, is_selectable
from server.store.queue import Lease, LeaseLost, finish, record

T = TypeVar("T")

# Well below the number of parameters that a statement may have (SQLite: 32,766).
IDS_PER_STATEMENT = 1000


@dataclass(frozen=True, slots=True)
class ArtifactRecord:
    """A file that the cycle leaves behind; its blob is stored already."""

    name: str
    sha256: str
    num_bytes: int
    media_type: str


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """The weights that the cycle trained; their blob is stored already."""

    sha256: str
    num_bytes: int
    metrics: Json


def write_scores(
    sessions: sessionmaker[Session],
    lease: Lease,
    rows: Iterable[tuple[str, int, float | None]],
    chunk: int = 2000,
) -> None:
    """Writes the cycle's ranking, unseen until `publish`; a row written again is replaced.

    Args:
        sessions: makes writing sessions, one for each chunk.
        lease: of the cycle.
        rows: image id, rank (1 is selected first), uncertainty (None or NaN: unknown).
        chunk: rows in one transaction.

    Raises:
        LeaseLost: the cycle is no longer this worker's; chunks written so far stay unseen.
    """
    _write_chunks(
        sessions,
        lease,
        Score,
        (
            {"image_id": image_id, "rank": rank, "uncertainty": _finite_or_none(uncertainty)}
            for image_id, rank, uncertainty in rows
        ),
        chunk,
    )


def write_predictions(
    sessions: sessionmaker[Session],
    lease: Lease,
    rows: Iterable[tuple[str, list[Json]]],
    chunk: int = 500,
) -> None:
    """Writes detections by image id, unseen until `publish`; as `write_scores` otherwise."""
    _write_chunks(
        sessions,
        lease,
        Prediction,
        ({"image_id": image_id, "boxes": boxes} for image_id, boxes in rows),
        chunk,
    )


def candidates(session: Session, lease: Lease, limit: int) -> list[ImageRecord]:
    """The first `limit` images by rank that `publish` would still select; reads only.

    As many more as `publish` will draw for validation, since any of the first may be drawn. Ask for
    some more than the budget: those that are labeled before `publish` are passed over, and the next
    ranks should have predictions as well.
    """
    limit += _num_validation_images_to_draw(session, session.get_one(Cycle, lease.job_id))
    rows = session.execute(
        select(*RECORD_COLUMNS)
        .join(Score, Score.image_id == Image.id)
        .where(Score.cycle_id == lease.job_id, Score.fence == lease.fence, is_selectable())
        .order_by(Score.rank)
        .limit(limit)
    )
    return [ImageRecord(*row) for row in rows]


def publish(
    session: Session,
    lease: Lease,
    *,
    heatmaps: Mapping[str, str],
    artifacts: Sequence[ArtifactRecord],
    model: ModelRecord | None,
    metrics: Json | None,
    message: str,
) -> int:
    """Ends the cycle as succeeded and shows all that it made; the caller commits at once.

    Open queries of earlier cycles are withdrawn; a claimed one stays until saved or lapsed. The
    project's first cycle draws `validation_images` images at random (from the cycle's seed and the
    ordinals) and moves them to the split `val`, leaving at least one in the pool, if the project
    has no validation image yet. Then the first `budget` images by rank that can still be selected
    become queries; those for validation come after them.

    Once more under a lease that has published already, after a commit whose answer was lost, it
    only gives the same number again.

    Args:
        session: writes, and has written nothing yet.
        lease: of the cycle.
        heatmaps: image id to blob of its heat map; images without one have none.
        artifacts: the cycle's files.
        model: what was trained; None for an initial cycle.
        metrics: of the validation, None if there was none.
        message: a sentence for the reader of the cycle.

    Returns:
        How many images became queries, those for validation included.

    Raises:
        LeaseLost: the cycle is no longer this worker's; nothing was written.
    """
    # The project before the cycle, as when it is deleted: one order of locks, no deadlock.
    session.execute(
        select(Project.id)
        .join(Cycle, Cycle.project_id == Project.id)
        .where(Cycle.id == lease.job_id)
        .with_for_update(of=Project, key_share=True)
    )
    try:
        record(session, lease)
    except LeaseLost:
        before = session.scalar(
            select(Cycle.num_selected).where(
                Cycle.id == lease.job_id, Cycle.fence == lease.fence, Cycle.state == "succeeded"
            )
        )
        if before is None:
            raise
        return before
    cycle = session.get_one(Cycle, lease.job_id, populate_existing=True)
    # First, so that no open query can be claimed any more when the images are chosen.
    _withdraw_earlier_queries(session, cycle)
    for_validation = _draw_validation_images(session, cycle)
    reason = _reason(cycle)
    selected: list[tuple[str, float | None, str]] = [
        (image_id, uncertainty, reason)
        for image_id, uncertainty in _select_by_rank(session, cycle, lease.fence)
    ]
    selected += [(image_id, None, "validation") for image_id in for_validation]
    _insert(
        session,
        Query,
        [
            {
                "cycle_id": cycle.id,
                "project_id": cycle.project_id,
                "image_id": image_id,
                "rank": rank,
                "uncertainty": uncertainty,
                "reason": reason,
                "heatmap_sha256": heatmaps.get(image_id),
            }
            for rank, (image_id, uncertainty, reason) in enumerate(selected, start=1)
        ],
    )
    _insert(
        session,
        Artifact,
        [
            {
                "cycle_id": cycle.id,
                "name": artifact.name,
                "sha256": artifact.sha256,
                "num_bytes": artifact.num_bytes,
                "media_type": artifact.media_type,
            }
            for artifact in artifacts
        ],
    )
    if model is not None:
        session.add(
            Model(
                project_id=cycle.project_id,
                cycle_id=cycle.id,
                metrics=model.metrics,
                sha256=model.sha256,
                num_bytes=model.num_bytes,
            )
        )
    session.execute(
        update(Project).where(Project.id == cycle.project_id).values(scored_cycle_id=cycle.id)
    )
    finish(
        session,
        lease,
        num_selected=len(selected),
        metrics=metrics,
        message=message,
        # Nothing goes on from here; the sweep removes the blobs.
        snapshot_sha256=None,
        checkpoint_sha256=None,
    )
    return len(selected)


def _reason(cycle: Cycle) -> str:
    """Why a cycle selects what it selects, in a word; its last option speaks for all."""
    if cycle.kind == "initial":
        return "random"
    if cycle.strategy.get("diversity") is not None:
        return "diversity"
    if cycle.strategy.get("class_balance") is not None:
        return "class-balance"
    name = str(cycle.strategy["name"])
    return "uncertainty" if name == "mi-aod" else name


def _withdraw_earlier_queries(session: Session, cycle: Cycle) -> None:
    session.execute(
        update(Query)
        .where(
            Query.project_id == cycle.project_id,
            Query.cycle_id != cycle.id,
            or_(
                Query.state == "open",
                and_(Query.state == "claimed", Query.claimed_until <= now_seconds()),
            ),
        )
        .values(state="withdrawn", closed_at=now_utc())
        .execution_options(synchronize_session=False)
    )


def _draw_validation_images(session: Session, cycle: Cycle) -> list[str]:
    """Moves randomly drawn pool images to `val`; gives their ids in the order drawn."""
    wanted = _num_validation_images_to_draw(session, cycle)
    if wanted == 0:
        return []
    eligible = list(
        session.scalars(
            select(Image.id)
            .where(Image.project_id == cycle.project_id, is_selectable())
            .order_by(Image.ordinal)
        )
    )
    wanted = min(wanted, len(eligible) - 1)
    random.Random(f"validation {cycle.seed}").shuffle(eligible)
    remaining = iter(eligible)
    drawn: list[str] = []
    while len(drawn) < wanted:
        batch = list(islice(remaining, min(wanted - len(drawn), IDS_PER_STATEMENT)))
        if not batch:
            break
        # As below, an image that someone is just changing is passed over.
        free = set(
            session.scalars(
                select(Image.id)
                .where(Image.id.in_(batch), is_selectable())
                .with_for_update(key_share=True, skip_locked=True)
            )
        )
        moved = [image_id for image_id in batch if image_id in free]
        session.execute(
            update(Image)
            .where(Image.id.in_(moved))
            .values(split="val")
            .execution_options(synchronize_session=False)
        )
        drawn += moved
    return drawn


def _num_validation_images_to_draw(session: Session, cycle: Cycle) -> int:
    """What the project asks for, in its first cycle and without a validation image; 0 otherwise."""
    earlier = session.scalar(
        select(func.count())
        .select_from(Cycle)
        .where(Cycle.project_id == cycle.project_id, Cycle.state == "succeeded")
    )
    validation = session.scalar(
        select(Image.id)
        .where(
            Image.project_id == cycle.project_id, Image.split == "val", Image.deleted_at.is_(None)
        )
        .limit(1)
    )
    if earlier or validation is not None:
        return 0
    return session.get_one(Project, cycle.project_id).validation_images


def _select_by_rank(session: Session, cycle: Cycle, fence: int) -> list[tuple[str, float | None]]:
    """Image ids and uncertainties of the first `budget` images that can still be selected.

    They stay locked until the commit, so that none is labeled in between. One that somebody else
    has locked is just being labeled, skipped or moved: passed over, because its annotator may wait
    for a query that this transaction has withdrawn, and both would wait forever.
    """
    rows = session.execute(
        select(Image.id, Score.uncertainty)
        .join(Score, Score.image_id == Image.id)
        .where(Score.cycle_id == cycle.id, Score.fence == fence, is_selectable())
        .order_by(Score.rank)
        .limit(cycle.budget)
        .with_for_update(of=Image, key_share=True, skip_locked=True)
    )
    return [(row.id, row.uncertainty) for row in rows]


def _write_chunks(
    sessions: sessionmaker[Session],
    lease: Lease,
    table: type[Score] | type[Prediction],
    rows: Iterator[dict[str, Any]],
    chunk: int,
) -> None:
    key = {"cycle_id": lease.job_id, "fence": lease.fence}
    for part in _chunks(rows, chunk):
        with sessions.begin() as session:
            record(session, lease)
            is_postgres = session.get_bind().dialect.name == "postgresql"
            dialect_insert = postgresql.insert if is_postgres else sqlite.insert
            new: Any = dialect_insert(table)
            # The last writing counts: an attempt that lost its storage goes back to its checkpoint
            # under the same lease, and only some devices then compute the same once more.
            session.execute(
                new.on_conflict_do_update(
                    index_elements=[*key, "image_id"],
                    set_={name: new.excluded[name] for name in part[0] if name != "image_id"},
                ),
                [{**key, **row} for row in part],
            )


def _chunks(rows: Iterator[T], size: int) -> Iterator[list[T]]:
    while part := list(islice(rows, size)):
        yield part


def _insert(session: Session, table: type[Any], rows: list[dict[str, Any]]) -> None:
    if rows:  # with an empty list SQLAlchemy would insert one row of defaults
        session.execute(insert(table), rows)


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
