"""A project's images as a cycle sees them: plain records, read in one go, in import order."""

from __future__ import annotations

import json
import zlib
from dataclasses import astuple, dataclass

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from server.store.database import now_seconds
from server.store.models import Annotation, Image, Json, ProjectClass, Query

SNAPSHOT_FORMAT = "miaod-snapshot-1"

# In the order of the fields of `ImageRecord`.
RECORD_COLUMNS = (Image.id, Image.ordinal, Image.name, Image.sha256, Image.width, Image.height)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What a worker knows of an image; width and height are those of the upright picture."""

    id: str
    ordinal: int
    name: str
    sha256: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class LabeledRecord(ImageRecord):
    """An image with its current annotation.

    `boxes` are as in `models.Annotation`, an empty list for a negative; classes with an id of
    `num_classes` or more did not exist when they were drawn.
    """

    boxes: list[Json]
    num_classes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A project at one moment; every tuple is in order of the ordinal."""

    project_id: str
    class_names: tuple[str, ...]
    labeled: tuple[LabeledRecord, ...]
    unlabeled: tuple[ImageRecord, ...]
    validation: tuple[LabeledRecord, ...]

    def counts(self) -> Json:
        """What `Cycle.snapshot` keeps of it."""
        return {
            "labeled_images": len(self.labeled),
            "boxes": sum(len(image.boxes) for image in self.labeled),
            "pool_images": len(self.unlabeled),
            "validation_images": len(self.validation),
        }


def take_snapshot(session: Session, project_id: str) -> Snapshot:
    """Reads what a cycle trains on, scores and validates with; a read-only session does.

    `labeled` and `unlabeled` are the pool's images, without skipped ones among the unlabeled;
    `validation` are the labeled images of the split `val`. Deleted images are in none.
    """
    labeled: list[LabeledRecord] = []
    unlabeled: list[ImageRecord] = []
    validation: list[LabeledRecord] = []
    # One statement sees one state of the world: with two, an image that is labeled between them
    # would be in both lists, and its hidden label in the training of the unlabeled pool.
    rows = session.execute(
        select(
            Image.split,
            Image.state,
            Image.skipped_at,
            Annotation.boxes,
            Annotation.num_classes,
            *RECORD_COLUMNS,
        )
        .outerjoin(
            Annotation,
            and_(
                Annotation.image_id == Image.id,
                Annotation.version == Image.annotation_version,
                Image.state == "labeled",
            ),
        )
        .where(
            Image.project_id == project_id,
            Image.split.in_(("pool", "val")),
            Image.deleted_at.is_(None),
        )
        .order_by(Image.ordinal)
        .execution_options(yield_per=5000)
    )
    for split, state, skipped_at, boxes, num_classes, *fields in rows:
        if state == "labeled":
            assert boxes is not None, f"labeled image {fields[0]} has no annotation"
            group = labeled if split == "pool" else validation
            group.append(LabeledRecord(*[*fields, boxes, num_classes]))
        elif split == "pool" and skipped_at is None:
            unlabeled.append(ImageRecord(*fields))
    # Read after the images, so that no box is of a class that is not in the list.
    names = session.scalars(
        select(ProjectClass.name)
        .where(ProjectClass.project_id == project_id)
        .order_by(ProjectClass.class_id)
    )
    return Snapshot(project_id, tuple(names), tuple(labeled), tuple(unlabeled), tuple(validation))


def dump_snapshot(snapshot: Snapshot) -> bytes:
    """A snapshot as compressed JSON, by which a cycle goes on with the world it began in."""
    values = [
        SNAPSHOT_FORMAT,
        snapshot.project_id,
        snapshot.class_names,
        *(
            [astuple(record) for record in records]
            for records in (snapshot.labeled, snapshot.unlabeled, snapshot.validation)
        ),
    ]
    return zlib.compress(json.dumps(values, separators=(",", ":")).encode(), level=1)


def load_snapshot(content: bytes) -> Snapshot:
    """What `dump_snapshot` was given.

    Raises:
        ValueError: the content is damaged, or of another version.
    """
    try:
        values = json.loads(zlib.decompress(content))
    except zlib.error as error:
        raise ValueError(f"the snapshot is damaged: {error}") from error
    if not isinstance(values, list) or values[0] != SNAPSHOT_FORMAT:
        raise ValueError(f"the snapshot is not of format {SNAPSHOT_FORMAT!r}")
    _, project_id, class_names, labeled, unlabeled, validation = values
    return Snapshot(
        project_id,
        tuple(class_names),
        tuple(LabeledRecord(*fields) for fields in labeled),
        tuple(ImageRecord(*fields) for fields in unlabeled),
        tuple(LabeledRecord(*fields) for fields in validation),
    )


def count_trainable(session: Session, project_id: str) -> int:
    """How many images a cycle could learn from: labeled images of the pool with a box."""
    return (
        session.scalar(
            select(func.count())
            .select_from(Image)
            .where(
                Image.project_id == project_id,
                Image.split == "pool",
                Image.state == "labeled",
                Image.deleted_at.is_(None),
                Image.num_boxes > 0,
            )
        )
        or 0
    )


def is_selectable() -> ColumnElement[bool]:
    """What must be true of an image that a cycle asks for.

    It is in the pool, unlabeled, neither deleted nor skipped, and no annotator has it: a claim
    outlives the cycle that asked, and a second query would let another annotator claim the image.
    """
    held = (
        select(Query.id)
        .where(
            Query.image_id == Image.id,
            Query.state == "claimed",
            Query.claimed_until > now_seconds(),
        )
        .exists()
    )
    return and_(
        Image.split == "pool",
        Image.state == "unlabeled",
        Image.deleted_at.is_(None),
        Image.skipped_at.is_(None),
        ~held,
    )
