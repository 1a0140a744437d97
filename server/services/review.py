"""Which labeled images deserve a second look: where label and model disagree most.

An image's disagreement is how many things only one of the two sees: a box that no detection meets
counts 1, a detection that meets no box counts its confidence. A label that misses an object, a box
of the wrong class and a box at the wrong place all rise; so does what the model cannot see.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from server.services import images, projects
from server.services.images import ImageView
from server.store.models import Annotation, Cycle, Image, Json, Prediction

# As in the metrics: a detection meets a box of its class from this overlap on.
MIN_IOU = 0.5
# What the model itself hardly believes is no objection to a label.
MIN_SCORE = 0.3


@dataclass(frozen=True, slots=True)
class Doubt:
    """A labeled image and its disagreement, 0 or more."""

    view: ImageView
    disagreement: float


def disagreement(boxes: Sequence[Json], detections: Sequence[Json]) -> float:
    """How many things only one of label and model sees.

    Args:
        boxes: the label: `class_id`, corners, `difficult` (such a box may be missed).
        detections: the model's: `class_id`, corners, `score`.
    """
    free = list(boxes)
    total = 0.0
    for detection in sorted(detections, key=lambda each: -each["score"]):
        if detection["score"] < MIN_SCORE:
            break
        met = max(
            (box for box in free if box["class_id"] == detection["class_id"]),
            key=lambda box: _iou(box, detection),
            default=None,
        )
        if met is not None and _iou(met, detection) >= MIN_IOU:
            free.remove(met)
        else:
            total += detection["score"]
    return total + sum(not box["difficult"] for box in free)


def doubts(session: Session, project_id: str, limit: int) -> list[Doubt]:
    """The labeled images on which the newest model disagrees with the label, most first.

    Images without a prediction of it are left out. All labels are read, which takes a second or
    two for 10,000.

    Raises:
        NotFound: there is no such project.
    """
    project = projects.get(session, project_id)
    rows = session.execute(
        select(Image.id, Image.ordinal, Annotation.boxes, Prediction.boxes)
        .join(
            Annotation,
            and_(Annotation.image_id == Image.id, Annotation.version == Image.annotation_version),
        )
        .join(Prediction, Prediction.image_id == Image.id)
        .join(Cycle, and_(Cycle.id == Prediction.cycle_id, Cycle.fence == Prediction.fence))
        .where(
            Image.project_id == project_id,
            Image.state == "labeled",
            Image.deleted_at.is_(None),
            Prediction.cycle_id == project.scored_cycle_id,
        )
        .execution_options(yield_per=1000)
    )
    worst = heapq.nsmallest(
        limit,
        (
            (-disagreement(label or (), detections), ordinal, image_id)
            for image_id, ordinal, label, detections in rows
        ),
    )
    views = images.views(session, project, [image_id for _, _, image_id in worst])
    return [Doubt(views[image_id], -negative) for negative, _, image_id in worst]


def _iou(a: Json, b: Json) -> float:
    width = min(a["x2"], b["x2"]) - max(a["x1"], b["x1"])
    height = min(a["y2"], b["y2"]) - max(a["y1"], b["y1"])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return float(both / (_area(a) + _area(b) - both))


def _area(box: Json) -> float:
    return float((box["x2"] - box["x1"]) * (box["y2"] - box["y1"]))
