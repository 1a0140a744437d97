"""The tables. One class per table; what a row means stands in its docstring.

Times that people read (`*_at`) are aware UTC datetimes; times that decide who holds a lease
(`*_until`, `last_seen`) are Unix seconds on the database's own clock, because the clocks of several
workers never agree (see `database.now_seconds`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

from server.store.ids import new_id

Json = dict[str, Any]


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime on both databases; SQLite itself forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive datetimes; store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: give an aware one (UTC)")
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def utc_now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """The declarative base; constraint names are fixed so that Alembic can address them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    # Without `none_as_null` a Python None would be stored as the JSON text "null": not NULL.
    type_annotation_map = {
        str: Text,
        datetime: UtcDateTime,
        Json: JSON(none_as_null=True),
        list[Json]: JSON(none_as_null=True),
    }


Id = String(36)


class Project(Base):
    """A pool of images, its classes and its cycles. Deleted ones are hidden, then purged."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str]
    instructions: Mapped[str] = mapped_column(default="")
    # How many pool images the first cycle draws at random to become the validation set; 0 = none.
    validation_images: Mapped[int] = mapped_column(default=0)
    cycle_defaults: Mapped[Json] = mapped_column(default=dict)
    next_ordinal: Mapped[int] = mapped_column(default=0)
    next_cycle_number: Mapped[int] = mapped_column(default=1)
    # The cycle whose rows in `scores` are the newest; switched when a cycle succeeds.
    scored_cycle_id: Mapped[str | None] = mapped_column(Id)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    deleted_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "uq_projects_name_live",
            "name",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )


class ProjectClass(Base):
    """A class of a project. Ids are 0..C-1, given in order and never taken away."""

    __tablename__ = "classes"

    project_id: Mapped[str] = mapped_column(
        Id, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True
    )
    class_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]

    __table_args__ = (Index("uq_classes_project_id_name", "project_id", "name", unique=True),)


class Image(Base):
    """An image of a project's pool; `width` and `height` are those of the upright picture."""

    __tablename__ = "images"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    project_id: Mapped[str] = mapped_column(Id, ForeignKey("projects.id", ondelete="CASCADE"))
    # Its place in the project's import order: every permutation and tie-break uses it.
    ordinal: Mapped[int]
    name: Mapped[str]
    split: Mapped[str] = mapped_column(String(8), default="pool")
    state: Mapped[str] = mapped_column(String(12), default="unlabeled")
    sha256: Mapped[str] = mapped_column(String(64))
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str] = mapped_column(String(32))
    width: Mapped[int]
    height: Mapped[int]
    # Version of the current annotation revision (0: never annotated) and what it says.
    annotation_version: Mapped[int] = mapped_column(default=0)
    num_boxes: Mapped[int] = mapped_column(default=0)
    skipped_at: Mapped[datetime | None]
    skip_reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    labeled_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("split IN ('pool', 'val', 'test')", name="split"),
        CheckConstraint("state IN ('unlabeled', 'labeled')", name="state"),
        Index("uq_images_project_id_ordinal", "project_id", "ordinal", unique=True),
        *(
            Index(
                f"uq_images_project_id_{column}_live",
                "project_id",
                column,
                unique=True,
                sqlite_where=text("deleted_at IS NULL"),
                postgresql_where=text("deleted_at IS NULL"),
            )
            for column in ("name", "sha256")
        ),
        Index(
            "ix_images_project_id_split_state_ordinal", "project_id", "split", "state", "ordinal"
        ),
        Index("ix_images_sha256", "sha256"),
        # All that `services.projects.counts` reads: it never touches the rows themselves.
        Index(
            "ix_images_counts",
            "project_id",
            "deleted_at",
            "split",
            "state",
            "skipped_at",
            "num_boxes",
        ),
    )


class Annotation(Base):
    """One revision of an image's full set of boxes; append-only, the highest version counts.

    `boxes` is a list of `{"class_id", "x1", "y1", "x2", "y2", "difficult"}` in absolute pixels of
    the upright image; `None` says that the image was made unlabeled again.
    """

    __tablename__ = "annotations"

    image_id: Mapped[str] = mapped_column(
        Id, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True
    )
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    boxes: Mapped[list[Json] | None]
    # How many classes the project had: classes added later are unknown here, not absent.
    num_classes: Mapped[int]
    author: Mapped[str]
    source: Mapped[str] = mapped_column(String(12))
    seconds: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (
        CheckConstraint("source IN ('human', 'import', 'suggestion')", name="source"),
    )


class ImageClass(Base):
    """How many boxes of a class the current annotation of an image has; absent rows are zero."""

    __tablename__ = "image_classes"

    image_id: Mapped[str] = mapped_column(
        Id, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True
    )
    class_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[str] = mapped_column(Id)
    num_boxes: Mapped[int]

    __table_args__ = (Index("ix_image_classes_project_id_class_id", "project_id", "class_id"),)


class LeasedJob:
    """Columns of a table that is also a queue (see `queue.py`)."""

    state: Mapped[str] = mapped_column(String(12), default="queued")
    # Rises at every claim; every later write of the holder carries it, so a late one hits no row.
    fence: Mapped[int] = mapped_column(default=0)
    # Claims lost without a newer checkpoint.
    attempts: Mapped[int] = mapped_column(default=0)
    worker_id: Mapped[str | None] = mapped_column(Id)
    lease_until: Mapped[float | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    progress: Mapped[float] = mapped_column(default=0.0)
    message: Mapped[str] = mapped_column(default="")
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    @declared_attr.directive
    def __table_args__(cls) -> tuple[Any, ...]:  # noqa: N805, D105 (SQLAlchemy's declared_attr)
        return (
            CheckConstraint(
                "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="state"
            ),
        )


class Cycle(LeasedJob, Base):
    """One round: train, evaluate, score, select. The table is the queue of the workers."""

    __tablename__ = "cycles"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    project_id: Mapped[str] = mapped_column(Id, ForeignKey("projects.id", ondelete="CASCADE"))
    number: Mapped[int]
    kind: Mapped[str] = mapped_column(String(8))
    budget: Mapped[int]
    strategy: Mapped[Json]
    # The resolved configuration: preset, every field's value, overrides applied.
    training: Mapped[Json]
    seed: Mapped[int] = mapped_column(BigInteger)
    min_labeled: Mapped[int] = mapped_column(default=1)
    stage: Mapped[str | None] = mapped_column(String(24))
    # Where the stage is while the cycle runs: step, steps, losses, seconds_left; else NULL.
    detail: Mapped[Json | None]
    # Number of its latest event; rises by one with each, in the transaction that it tells of.
    event_seq: Mapped[int] = mapped_column(default=0)
    # Counts of the snapshot: labeled_images, boxes, pool_images, validation_images.
    snapshot: Mapped[Json | None]
    # Blobs that the cycle can go on from: the project as it was at the start, and the state since.
    snapshot_sha256: Mapped[str | None] = mapped_column(String(64))
    checkpoint_sha256: Mapped[str | None] = mapped_column(String(64))
    metrics: Mapped[Json | None]
    # Set at write-back: how many images became queries.
    num_selected: Mapped[int | None]

    @declared_attr.directive
    def __table_args__(cls) -> tuple[Any, ...]:  # noqa: N805, D105 (SQLAlchemy's declared_attr)
        active = "state IN ('queued', 'running')"
        return (
            *LeasedJob.__table_args__,
            CheckConstraint("kind IN ('initial', 'trained')", name="kind"),
            Index("uq_cycles_project_id_number", "project_id", "number", unique=True),
            Index(
                "uq_cycles_project_id_active",
                "project_id",
                unique=True,
                sqlite_where=text(active),
                postgresql_where=text(active),
            ),
            Index("ix_cycles_state_created_at", "state", "created_at"),
            Index("ix_cycles_snapshot_sha256", "snapshot_sha256"),
            Index("ix_cycles_checkpoint_sha256", "checkpoint_sha256"),
        )


class CycleEvent(Base):
    """Something that happened to a cycle: the moving part of its row just after (see `events.py`).

    `seq` has no gaps and is in order of commits, since it is given out under the lock of the
    cycle's row. The sweep takes some of kind `progress` away from long cycles.
    """

    __tablename__ = "cycle_events"

    cycle_id: Mapped[str] = mapped_column(
        Id, ForeignKey("cycles.id", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(8))
    data: Mapped[Json]
    created_at: Mapped[datetime]

    __table_args__ = (CheckConstraint("kind IN ('state', 'progress')", name="kind"),)


class Query(Base):
    """An image that a cycle asks to have labeled; rank 1 is the most informative."""

    __tablename__ = "queries"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    cycle_id: Mapped[str] = mapped_column(Id, ForeignKey("cycles.id", ondelete="CASCADE"))
    project_id: Mapped[str] = mapped_column(Id, ForeignKey("projects.id", ondelete="CASCADE"))
    image_id: Mapped[str] = mapped_column(Id, ForeignKey("images.id", ondelete="CASCADE"))
    rank: Mapped[int]
    uncertainty: Mapped[float | None]
    reason: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(12), default="open")
    claim_token: Mapped[str | None] = mapped_column(String(64))
    claimed_by: Mapped[str | None]
    claimed_until: Mapped[float | None]
    heatmap_sha256: Mapped[str | None] = mapped_column(String(64))
    closed_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(
            "state IN ('open', 'claimed', 'labeled', 'skipped', 'withdrawn')", name="state"
        ),
        Index("uq_queries_cycle_id_image_id", "cycle_id", "image_id", unique=True),
        Index("ix_queries_cycle_id_rank", "cycle_id", "rank", unique=True),
        Index("ix_queries_project_id_state_rank", "project_id", "state", "rank"),
        Index("ix_queries_image_id_state", "image_id", "state"),
        Index("ix_queries_heatmap_sha256", "heatmap_sha256"),
    )


class Score(Base):
    """What a cycle thinks of an unlabeled image: its uncertainty and its place in the selection.

    Written in chunks under (cycle, fence) while nobody sees them; they become the project's scores
    when `Project.scored_cycle_id` names their cycle. A NaN uncertainty is stored as NULL and ranks
    last. List images by uncertainty with `uncertainty IS NOT NULL ORDER BY uncertainty DESC,
    image_id DESC`: that walks an index on both databases, while NULLS LAST can on one of them only.
    """

    __tablename__ = "scores"

    cycle_id: Mapped[str] = mapped_column(
        Id, ForeignKey("cycles.id", ondelete="CASCADE"), primary_key=True
    )
    fence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    # No foreign key: a million of these are written per cycle, and they go with their cycle. To
    # check each against `images`, or to find them for each purged image, costs more than it guards.
    image_id: Mapped[str] = mapped_column(Id, primary_key=True)
    rank: Mapped[int]
    uncertainty: Mapped[float | None]

    __table_args__ = (
        Index("ix_scores_cycle_id_fence_rank", "cycle_id", "fence", "rank"),
        Index(
            "ix_scores_cycle_id_fence_uncertainty", "cycle_id", "fence", "uncertainty", "image_id"
        ),
    )


class Prediction(Base):
    """The detections of a cycle's model on an image, as JSON: `{"class_id","score","x1",…}`."""

    __tablename__ = "predictions"

    cycle_id: Mapped[str] = mapped_column(
        Id, ForeignKey("cycles.id", ondelete="CASCADE"), primary_key=True
    )
    fence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    image_id: Mapped[str] = mapped_column(
        Id, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True
    )
    boxes: Mapped[list[Json]]

    __table_args__ = (Index("ix_predictions_image_id", "image_id"),)


class Model(Base):
    """What a succeeded trained cycle trained. `sha256` is NULL once its weights were swept."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    project_id: Mapped[str] = mapped_column(Id, ForeignKey("projects.id", ondelete="CASCADE"))
    cycle_id: Mapped[str] = mapped_column(
        Id, ForeignKey("cycles.id", ondelete="CASCADE"), unique=True
    )
    metrics: Mapped[Json]
    note: Mapped[str] = mapped_column(default="")
    pinned: Mapped[bool] = mapped_column(default=False)
    sha256: Mapped[str | None] = mapped_column(String(64))
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    deleted_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_models_project_id", "project_id"),
        Index("ix_models_sha256", "sha256"),
    )


class Artifact(Base):
    """A file that a cycle leaves behind; names are fixed (config.json, scores.npz, …)."""

    __tablename__ = "artifacts"

    cycle_id: Mapped[str] = mapped_column(
        Id, ForeignKey("cycles.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str] = mapped_column(String(64))

    __table_args__ = (Index("ix_artifacts_sha256", "sha256"),)


class Import(LeasedJob, Base):
    """A folder or archive being read into a project, by a thread of any server process."""

    __tablename__ = "imports"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    project_id: Mapped[str] = mapped_column(Id, ForeignKey("projects.id", ondelete="CASCADE"))
    # `path`: a folder below an import root; `archive_sha256`: an uploaded archive, else NULL.
    path: Mapped[str | None]
    archive_sha256: Mapped[str | None] = mapped_column(String(64))
    # format, split, corners, empty, author: as asked for.
    options: Mapped[Json]
    # created, duplicate, rejected images; labeled images; boxes; total files.
    counts: Mapped[Json] = mapped_column(default=dict)

    @declared_attr.directive
    def __table_args__(cls) -> tuple[Any, ...]:  # noqa: N805, D105 (SQLAlchemy's declared_attr)
        return (
            *LeasedJob.__table_args__,
            Index("ix_imports_state_created_at", "state", "created_at"),
            Index("ix_imports_project_id", "project_id"),
        )


class ImportRefusal(Base):
    """One item that an import refused, by name, with the reason."""

    __tablename__ = "import_refusals"

    import_id: Mapped[str] = mapped_column(
        Id, ForeignKey("imports.id", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    reason: Mapped[str]


class Worker(Base):
    """A worker process as it last reported itself."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str]
    device: Mapped[str]
    version: Mapped[str] = mapped_column(String(32))
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    last_seen: Mapped[float]
    cycle_id: Mapped[str | None] = mapped_column(Id)


class Counter(Base):
    """A figure for monitoring that only rises (see `counters.py`)."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    label: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[float]


class ApiKey(Base):
    """A key that opens the service, of which only the hash is kept.

    Names are those of people or programs: they stand as author beside what was done with the key,
    so no two live keys share one.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str]
    role: Mapped[str] = mapped_column(String(12))
    # The first characters of the key, by which its owner recognises it.
    prefix: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64))
    # False: only the projects of `api_key_projects`, which may be none any more.
    all_projects: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    created_by: Mapped[str]
    # Written at most once a minute.
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("role IN ('viewer', 'annotator', 'engineer', 'admin')", name="role"),
        Index("uq_api_keys_sha256", "sha256", unique=True),
        Index(
            "uq_api_keys_name_live",
            "name",
            unique=True,
            sqlite_where=text("revoked_at IS NULL"),
            postgresql_where=text("revoked_at IS NULL"),
        ),
    )


class ApiKeyProject(Base):
    """A project that a key is given."""

    __tablename__ = "api_key_projects"

    key_id: Mapped[str] = mapped_column(
        Id, ForeignKey("api_keys.id", ondelete="CASCADE"), primary_key=True
    )
    project_id: Mapped[str] = mapped_column(
        Id, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True
    )

    __table_args__ = (Index("ix_api_key_projects_project_id", "project_id"),)


class WebSession(Base):
    """A browser that signed in with a key; the cookie's token is kept as a hash.

    `key_id` is NULL for the key that the settings name; that key is then part of the hash, so that
    such sessions end when it is changed.
    """

    __tablename__ = "sessions"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str | None] = mapped_column(Id, ForeignKey("api_keys.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    last_used_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime]

    __table_args__ = (Index("ix_sessions_key_id", "key_id"),)


class AuditEntry(Base):
    """Who did what; append-only. It refers to nothing, so that it outlives what it tells of."""

    __tablename__ = "audit"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    at: Mapped[datetime] = mapped_column(default=utc_now)
    key_id: Mapped[str | None] = mapped_column(Id)
    actor: Mapped[str]
    action: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str | None] = mapped_column(Id)
    object_id: Mapped[str | None] = mapped_column(String(64))
    request_id: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[Json] = mapped_column(default=dict)

    __table_args__ = (Index("ix_audit_project_id_id", "project_id", "id"),)


class IdempotencyKey(Base):
    """What was answered to a POST with an `Idempotency-Key`, so that a retry gets the same.

    Written in the transaction of the work itself: both are there, or neither.
    """

    __tablename__ = "idempotency_keys"

    # Whose key it is: the keys of two callers never meet.
    principal: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    # Of method, address and body: under one key there is one request.
    request_sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    location: Mapped[str | None]
    body: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (Index("ix_idempotency_keys_created_at", "created_at"),)
