"""Which blobs the rows of the database name, and for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, exists, literal, or_, select, true, union_all
from sqlalchemy.orm import InstrumentedAttribute

from server.store.models import Artifact, Cycle, Image, Import, Model, Query
from server.store.queue import ACTIVE

NAMING: tuple[tuple[str, InstrumentedAttribute[Any], InstrumentedAttribute[str]], ...] = (
    ("image", Image.sha256, Image.id),
    ("model", Model.sha256, Model.id),
    ("artifact", Artifact.sha256, Artifact.cycle_id),
    ("snapshot of cycle", Cycle.snapshot_sha256, Cycle.id),
    ("checkpoint of cycle", Cycle.checkpoint_sha256, Cycle.id),
    ("heat map of query", Query.heatmap_sha256, Query.id),
    ("archive of import", Import.archive_sha256, Import.id),
)


def named_blobs(hashes: Sequence[str] | None = None) -> CompoundSelect[Any]:
    """A query for (`sha256`, `kind`, `owner`); a blob has a row for each that names it.

    Args:
        hashes: only these; None: all.
    """
    # A cycle that runs, or may be resumed, has deleted images of its project in its snapshot.
    in_snapshot = exists().where(
        Cycle.project_id == Image.project_id,
        or_(Cycle.state.in_(ACTIVE), Cycle.snapshot_sha256.is_not(None)),
    )
    needed: dict[str, ColumnElement[bool]] = {
        "image": or_(Image.deleted_at.is_(None), in_snapshot),
        "archive of import": Import.state.in_(ACTIVE),
    }
    return union_all(
        *(
            select(column.label("sha256"), literal(kind).label("kind"), owner.label("owner")).where(
                column.is_not(None) if hashes is None else column.in_(hashes),
                needed.get(kind, true()),
            )
            for kind, column, owner in NAMING
        )
    )
