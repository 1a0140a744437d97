"""Annotations: the full set of boxes of an image, kept as append-only revisions."""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from server.errors import Conflict, Unprocessable, VersionConflict
from server.services import images, projects, queries
from server.store.models import Annotation, Image, ImageClass, Json, Query, utc_now

log = structlog.get_logger(__name__)

_CORNERS = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True, slots=True)
class AnnotationView:
    """The current annotation in the words of the API: boxes carry class names."""

    state: str
    version: int
    boxes: list[Json] | None
    author: str | None
    source: str | None
    seconds: float | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Revision:
    """What somebody wants to save.

    Attributes:
        version: the version that the boxes are based on.
        boxes: `{"class", "x1", "y1", "x2", "y2", "difficult"}`; empty is a valid negative.
        author: who saves it.
        source: human, import or suggestion.
        claim_token: of the claim under which the image is, if it is under one.
        seconds: time spent.
        holder: the only one whose claim may be used; None: whoever has the token.
    """

    version: int
    boxes: Sequence[Mapping[str, Any]]
    author: str
    source: str = "human"
    claim_token: str | None = None
    seconds: float | None = None
    holder: str | None = None


def current(session: Session, image_id: str) -> AnnotationView:
    """The current annotation of an image; NotFound if there is no such image."""
    return _view(session, images.get(session, image_id))


def save(session: Session, image_id: str, revision: Revision) -> AnnotationView:
    """Replace the boxes of an image. The same revision again changes nothing.

    The image's waiting query becomes labeled, and a skip is over.

    Raises:
        NotFound: there is no such image.
        VersionConflict: somebody else saved meanwhile.
        Conflict: somebody else holds the image.
        Unprocessable: a box of an unknown class, outside the image, or without area.
    """
    image = images.get(session, image_id, for_update=True)
    class_ids = {name: i for i, name in enumerate(projects.class_names(session, image.project_id))}
    boxes = checked_boxes(image, class_ids, revision.boxes)
    latest = _latest(session, image)
    if (
        latest is not None
        and latest.version == revision.version + 1
        and latest.boxes is not None
        and _same(latest.boxes, boxes)
    ):
        return _view(session, image)
    _check_claim(session, image, revision.claim_token, revision.holder)
    _check_version(session, image, revision.version)
    record(
        session,
        image,
        boxes,
        num_classes=len(class_ids),
        author=revision.author,
        source=revision.source,
        seconds=revision.seconds,
    )
    return _view(session, image)


def clear(
    session: Session,
    image_id: str,
    *,
    version: int | None,
    author: str,
    claim_token: str | None = None,
    holder: str | None = None,
) -> AnnotationView:
    """Make an image unlabeled again, as a new revision; an unlabeled one stays as it is.

    Its query stays closed: the image is back in the pool, where the next cycle may select it.

    Raises:
        NotFound: there is no such image.
        VersionConflict: a version was given and it is not the current one.
        Conflict: somebody else holds the image.
    """
    image = images.get(session, image_id, for_update=True)
    if image.state == "unlabeled":
        return _view(session, image)
    _check_claim(session, image, claim_token, holder)
    if version is not None:
        _check_version(session, image, version)
    num_classes = len(projects.class_names(session, image.project_id))
    record(session, image, None, num_classes=num_classes, author=author, source="human")
    return _view(session, image)


def record(
    session: Session,
    image: Image,
    boxes: list[Json] | None,
    *,
    num_classes: int,
    author: str,
    source: str,
    seconds: float | None = None,
) -> None:
    """Append a revision and bring everything that follows from it into step.

    Args:
        session: holds the image's row.
        image: the image.
        boxes: in the stored form (`class_id`), already checked; None makes it unlabeled.
        num_classes: how many classes the project has now.
        author: who says so.
        source: human, import or suggestion.
        seconds: time spent.

    Raises:
        Conflict: another revision slipped in.
    """
    version = image.annotation_version + 1
    session.add(
        Annotation(
            image_id=image.id,
            version=version,
            boxes=boxes,
            num_classes=num_classes,
            author=author,
            source=source,
            seconds=seconds,
        )
    )
    image.annotation_version = version
    image.num_boxes = len(boxes or ())
    image.state = "unlabeled" if boxes is None else "labeled"
    image.labeled_at = None if boxes is None else utc_now()
    if boxes is not None:
        image.skipped_at = image.skip_reason = None
    try:
        session.flush()
    except IntegrityError:
        raise Conflict(f"image {image.name} was saved by somebody else just now") from None
    session.execute(delete(ImageClass).where(ImageClass.image_id == image.id))
    session.add_all(
        ImageClass(
            image_id=image.id, class_id=class_id, project_id=image.project_id, num_boxes=number
        )
        for class_id, number in sorted(Counter(box["class_id"] for box in boxes or ()).items())
    )
    session.flush()
    if boxes is not None:
        session.execute(
            update(Query)
            .where(Query.image_id == image.id, Query.state.in_(("open", "claimed")))
            .values(state="labeled", closed_at=utc_now(), claimed_until=None)
        )
    log.info(
        "annotation saved" if boxes is not None else "annotation cleared",
        action="annotation_saved",
        project=image.project_id,
        image=image.id,
        version=version,
        author=author,
    )


def checked_boxes(
    image: Image, class_ids: Mapping[str, int], boxes: Sequence[Mapping[str, Any]]
) -> list[Json]:
    """Boxes in the stored form, if every one of them is inside the image and of a known class.

    Raises:
        Unprocessable: names the box, the image, and what would be right.
    """
    return [_checked_box(image, class_ids, number, box) for number, box in enumerate(boxes, 1)]


def _checked_box(
    image: Image, class_ids: Mapping[str, int], number: int, box: Mapping[str, Any]
) -> Json:
    x1, y1, x2, y2 = (float(box[corner]) for corner in _CORNERS)
    who = f"box {number} of image {image.name}"
    where = f"{who} is [{x1:g}, {y1:g}, {x2:g}, {y2:g}]"
    if box["class"] not in class_ids:
        raise Unprocessable(
            f"{who} has class {box['class']!r}; the project has {', '.join(class_ids)}",
            code="unknown_class",
        )
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise Unprocessable(f"{where}: corners must be finite numbers", code="bad_box")
    if x2 <= x1 or y2 <= y1:
        which = "x2 must exceed x1" if x2 <= x1 else "y2 must exceed y1"
        raise Unprocessable(f"{where}: {which} (absolute xyxy pixels)", code="bad_box")
    if x1 < 0 or y1 < 0 or x2 > image.width or y2 > image.height:
        raise Unprocessable(
            f"{where}: it must lie inside the upright image of {image.width} x {image.height} "
            "pixels (absolute xyxy pixels)",
            code="bad_box",
        )
    return {
        "class_id": class_ids[box["class"]],
        "x1": x1,
        "y1": y1,
        "x2": x2,
        "y2": y2,
        "difficult": bool(box.get("difficult", False)),
    }


def _same(stored: Sequence[Json], boxes: Sequence[Json]) -> bool:
    return len(stored) == len(boxes) and all(
        one == other for one, other in zip(stored, boxes, strict=True)
    )


def _check_claim(session: Session, image: Image, token: str | None, holder: str | None) -> None:
    held = queries.holder(session, image.id)
    if held is None or held.claim_token is None:
        return
    theirs = holder is None or held.claimed_by == holder
    if token is None or not theirs or not secrets.compare_digest(held.claim_token, token):
        raise Conflict(
            f"image {image.name} is claimed by {held.claimed_by}: send the claim's token, or "
            "wait until the claim is released or has lapsed",
            code="claimed",
        )


def _check_version(session: Session, image: Image, version: int) -> None:
    if version == image.annotation_version:
        return
    view = _view(session, image)
    raise VersionConflict(
        f"image {image.name} is at version {view.version}, not {version}: somebody saved "
        "meanwhile; look at `current` and save again on top of it",
        {
            "state": view.state,
            "version": view.version,
            "boxes": view.boxes,
            "author": view.author,
            "source": view.source,
            "seconds": view.seconds,
            "updated_at": view.updated_at.isoformat() if view.updated_at else None,
        },
    )


def _latest(session: Session, image: Image) -> Annotation | None:
    return session.get(Annotation, (image.id, image.annotation_version))


def _view(session: Session, image: Image) -> AnnotationView:
    latest = _latest(session, image)
    if latest is None:
        return AnnotationView(image.state, 0, None, None, None, None, None)
    boxes = None
    if latest.boxes is not None:
        names = projects.class_names(session, image.project_id)
        boxes = [
            {
                "class": names[box["class_id"]],
                **{corner: box[corner] for corner in _CORNERS},
                "difficult": box["difficult"],
            }
            for box in latest.boxes
        ]
    return AnnotationView(
        image.state,
        latest.version,
        boxes,
        latest.author,
        latest.source,
        latest.seconds,
        latest.created_at,
    )
