"""Images: listing, reading, moving between splits, deleting; predictions on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from sqlalchemy import ColumnElement, Select, and_, exists, func, select, update
from sqlalchemy.orm import Session

from server.errors import Conflict, NotFound, Unprocessable
from server.services import audit, projects, queries
from server.services.paging import PageOf, PageRequest, SortKey, paginate
from server.store.models import (
    Cycle,
    Image,
    ImageClass,
    Json,
    Prediction,
    Project,
    ProjectClass,
    Query,
    Score,
    utc_now,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image with the uncertainty that its project's newest cycle gave it, if any."""

    image: Image
    uncertainty: float | None


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """Which images to list; None does not filter."""

    project_id: str
    split: str | None = None
    state: str | None = None
    class_name: str | None = None
    name: str | None = None
    skipped: bool | None = None


@dataclass(frozen=True, slots=True)
class ImagePredictions:
    """The detections of the newest model on an image; None where none were kept."""

    cycle_id: str | None
    boxes: list[Json] | None


def get(session: Session, image_id: str, *, for_update: bool = False) -> Image:
    """An image that is not deleted, in a project that is not; NotFound otherwise.

    With `for_update` its row is held until the commit.
    """
    statement = (
        select(Image)
        .join(Project, Project.id == Image.project_id)
        .where(Image.id == image_id, Image.deleted_at.is_(None), Project.deleted_at.is_(None))
    )
    if for_update:
        # `key_share`: a cycle that is just inserting a query for the image need not wait for us,
        # and so never for a query row that we hold (a deadlock otherwise).
        # `populate_existing`: what the session read before it held the row may be out of date.
        statement = statement.with_for_update(of=Image, key_share=True).execution_options(
            populate_existing=True
        )
    image = session.scalar(statement)
    if image is None:
        raise NotFound(f"no image {image_id}")
    return image


def view(session: Session, image: Image) -> ImageView:
    """The image with its uncertainty."""
    uncertainty = session.scalar(
        select(Score.uncertainty)
        .join(Cycle, and_(Cycle.id == Score.cycle_id, Cycle.fence == Score.fence))
        .join(Project, Project.scored_cycle_id == Cycle.id)
        .where(Project.id == image.project_id, Score.image_id == image.id)
    )
    return ImageView(image, uncertainty)


def views(session: Session, project: Project, ids: Sequence[str]) -> dict[str, ImageView]:
    """Images of a project with their uncertainty, by id; those that there are."""
    rows = session.execute(
        select(Image, Score.uncertainty)
        .outerjoin(Score, _newest_score(project))
        .where(Image.id.in_(ids), Image.project_id == project.id, Image.deleted_at.is_(None))
    )
    return {image.id: ImageView(image, uncertainty) for image, uncertainty in rows}


def page(
    session: Session,
    wanted: ImageFilter,
    request: PageRequest,
    *,
    sort: Literal["ordinal", "uncertainty"] = "ordinal",
) -> PageOf[ImageView]:
    """Images of a project, in import order or most uncertain first (those without a score last).

    Raises:
        NotFound: there is no such project.
        Unprocessable: the project has no such class.
    """
    project = projects.get(session, wanted.project_id)
    statement = _filtered(
        session, select(Image, Score.uncertainty).outerjoin(Score, _newest_score(project)), wanted
    )
    keys = [SortKey(Image.ordinal.expression, int)]
    if sort == "uncertainty":
        known: Any = func.coalesce(Score.uncertainty, -1.0)  # an uncertainty is never negative
        keys.insert(0, SortKey(known, float, descending=True))
    found = paginate(session, statement, keys, request, order_name=f"images.{sort}")
    return found.map(lambda row: ImageView(row[0], row[1]))


def _newest_score(project: Project) -> ColumnElement[bool]:
    """SQL: the score row is what the project's newest cycle says of the image."""
    fence = select(Cycle.fence).where(Cycle.id == project.scored_cycle_id).scalar_subquery()
    return and_(
        Score.cycle_id == project.scored_cycle_id,
        Score.fence == fence,
        Score.image_id == Image.id,
    )


def _filtered(
    session: Session, statement: Select[*tuple[Any, ...]], wanted: ImageFilter
) -> Select[*tuple[Any, ...]]:
    statement = statement.where(Image.project_id == wanted.project_id, Image.deleted_at.is_(None))
    if wanted.split is not None:
        statement = statement.where(Image.split == wanted.split)
    if wanted.state is not None:
        statement = statement.where(Image.state == wanted.state)
    if wanted.name is not None:
        statement = statement.where(Image.name == wanted.name)
    if wanted.skipped is not None:
        is_null = Image.skipped_at.is_(None)
        statement = statement.where(~is_null if wanted.skipped else is_null)
    if wanted.class_name is not None:
        class_id = session.scalar(
            select(ProjectClass.class_id).where(
                ProjectClass.project_id == wanted.project_id,
                ProjectClass.name == wanted.class_name,
            )
        )
        if class_id is None:
            names = ", ".join(projects.class_names(session, wanted.project_id))
            raise Unprocessable(
                f"the project has no class {wanted.class_name!r}; it has {names}",
                code="unknown_class",
            )
        statement = statement.where(
            exists().where(
                ImageClass.project_id == wanted.project_id,
                ImageClass.class_id == class_id,
                ImageClass.image_id == Image.id,
            )
        )
    return statement


def change(
    session: Session, image_id: str, *, split: str | None = None, unskip: bool = False
) -> ImageView:
    """Move an image to another split, or let it be selected again after a skip.

    An image that leaves the pool takes its open query with it.

    Raises:
        NotFound: there is no such image.
        Conflict: an annotator holds the image just now, and it would leave the pool.
    """
    image = get(session, image_id, for_update=True)
    if split is not None and split != image.split:
        if image.split == "pool":
            holder = queries.holder(session, image.id)
            if holder is not None:
                raise Conflict(
                    f"image {image.name} is claimed by {holder.claimed_by}: it can be moved once "
                    "that claim is saved, released or has lapsed",
                    code="claimed",
                )
            _withdraw(session, image.id)
        image.split = split
    if unskip:
        image.skipped_at = image.skip_reason = None
    session.flush()
    audit.record(
        session,
        "image_changed",
        project=image.project_id,
        subject=image.id,
        split=image.split,
        unskip=unskip,
    )
    return view(session, image)


def delete(session: Session, image_id: str) -> None:
    """Hide an image at once and withdraw its queries; a sweeper removes the bytes."""
    image = get(session, image_id, for_update=True)
    image.deleted_at = utc_now()
    session.flush()
    _withdraw(session, image.id)
    audit.record(
        session, "image_deleted", project=image.project_id, subject=image.id, name=image.name
    )
    log.info("image deleted", action="image_deleted", project=image.project_id, image=image.id)


def predictions(session: Session, image_id: str) -> ImagePredictions:
    """What the project's newest model sees on the image, best first, with class names."""
    image = get(session, image_id)
    row = session.execute(
        select(Prediction.cycle_id, Prediction.boxes)
        .join(Cycle, and_(Cycle.id == Prediction.cycle_id, Cycle.fence == Prediction.fence))
        .join(Project, Project.scored_cycle_id == Cycle.id)
        .where(Project.id == image.project_id, Prediction.image_id == image.id)
    ).one_or_none()
    if row is None:
        return ImagePredictions(None, None)
    names = projects.class_names(session, image.project_id)
    return ImagePredictions(row.cycle_id, queries.named_predictions(row.boxes, names))


def _withdraw(session: Session, image_id: str) -> None:
    session.execute(
        update(Query)
        .where(Query.image_id == image_id, Query.state.in_(("open", "claimed")))
        .values(state="withdrawn", closed_at=utc_now())
    )
