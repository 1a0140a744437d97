"""What a project's labels amount to: boxes per class, and who annotated how much and how fast."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, case, func, select
from sqlalchemy.orm import Session

from server.services import projects
from server.store.models import Annotation, Image, ImageClass, ProjectClass, UtcDateTime


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How often a class stands in the current annotations, of all splits."""

    name: str
    boxes: int
    images: int


@dataclass(frozen=True, slots=True)
class AuthorWork:
    """What somebody annotated; imports are not counted here.

    Attributes:
        author: as the annotations say.
        annotations: everything they saved, corrections included.
        images: images whose current annotation is theirs.
        boxes: boxes of those.
        seconds_median, seconds_mean: time spent on an annotation, where it was told; else None.
        last_at: when they last saved one.
    """

    author: str
    annotations: int
    images: int
    boxes: int
    seconds_median: float | None
    seconds_mean: float | None
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Statistics:
    """The labels of a project; `imported` counts images whose current annotation was imported."""

    classes: list[ClassCount]
    authors: list[AuthorWork]
    imported: int


def of_project(session: Session, project_id: str) -> Statistics:
    """Count a project's labels; NotFound if there is no such project.

    Every annotation is looked at: about half a second for 100,000 labeled images.
    """
    projects.get(session, project_id)
    return Statistics(
        _classes(session, project_id),
        _authors(session, project_id),
        _imported(session, project_id),
    )


def _classes(session: Session, project_id: str) -> list[ClassCount]:
    # Summed up before the names come in, so that a class without a box has a row too.
    counts = (
        select(
            ImageClass.class_id,
            func.sum(ImageClass.num_boxes).label("boxes"),
            func.count().label("images"),
        )
        .join(Image, Image.id == ImageClass.image_id)
        .where(ImageClass.project_id == project_id, Image.deleted_at.is_(None))
        .group_by(ImageClass.class_id)
        .subquery()
    )
    rows = session.execute(
        select(ProjectClass.name, counts.c.boxes, counts.c.images)
        .outerjoin(counts, counts.c.class_id == ProjectClass.class_id)
        .where(ProjectClass.project_id == project_id)
        .order_by(ProjectClass.class_id)
    )
    return [ClassCount(name, int(boxes or 0), images or 0) for name, boxes, images in rows]


def _authors(session: Session, project_id: str) -> list[AuthorWork]:
    is_current = Annotation.version == Image.annotation_version
    # The place of each annotation in its author's times, for the median: neither database has one
    # in common with the other. Unknown times come last in both orders and are not counted.
    unknown = case((Annotation.seconds.is_(None), 1), else_=0)
    work = (
        select(
            Annotation.author,
            Annotation.seconds,
            Annotation.created_at,
            case((is_current, 1), else_=0).label("current"),
            case((is_current, Image.num_boxes), else_=0).label("boxes"),
            func.row_number()
            .over(partition_by=Annotation.author, order_by=(unknown, Annotation.seconds))
            .label("place"),
            func.count(Annotation.seconds).over(partition_by=Annotation.author).label("timed"),
        )
        .join(Image, Image.id == Annotation.image_id)
        .where(
            Image.project_id == project_id,
            Image.deleted_at.is_(None),
            Annotation.source != "import",
            Annotation.boxes.is_not(None),
        )
        .subquery()
    )
    in_the_middle = and_(2 * work.c.place >= work.c.timed, 2 * work.c.place <= work.c.timed + 2)
    rows = session.execute(
        select(
            work.c.author,
            func.count(),
            func.sum(work.c.current),
            func.sum(work.c.boxes),
            func.avg(case((in_the_middle, work.c.seconds))),
            func.avg(work.c.seconds),
            func.max(work.c.created_at, type_=UtcDateTime),
        )
        .group_by(work.c.author)
        .order_by(func.count().desc(), work.c.author)
    )
    return [
        AuthorWork(author, number, int(images), int(boxes), median, mean, last_at)
        for author, number, images, boxes, median, mean, last_at in rows
    ]


def _imported(session: Session, project_id: str) -> int:
    return (
        session.scalar(
            select(func.count())
            .select_from(Image)
            .join(
                Annotation,
                and_(
                    Annotation.image_id == Image.id, Annotation.version == Image.annotation_version
                ),
            )
            .where(
                Image.project_id == project_id,
                Image.state == "labeled",
                Image.deleted_at.is_(None),
                Annotation.source == "import",
            )
        )
        or 0
    )
