"""What label files say: boxes with class names, per image; and what is wrong with a box.

Boxes are absolute-pixel xyxy floats of the upright image, origin top left; readers convert at the
border. An annotation is the full set of boxes of an image, so a set of which one box is broken is
refused as a whole: storing the others would teach a detector that the missing object is background.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from server.formats.pictures import Picture

# Tools disagree by a pixel on whether corners are inclusive; so far beyond the border is rounding.
EDGE_TOLERANCE_PIXELS = 1.0
# Of one image; what the API takes as well.
MAX_BOXES = 10_000
_SHOWN_CLASSES = 20


class LabelsRefused(ValueError):
    """Labels of an image that cannot be used; the message says what is wrong and what is right."""


@dataclass(frozen=True, slots=True)
class LabeledBox:
    """A box of a class, corners in absolute pixels."""

    class_name: str
    x1: float
    y1: float
    x2: float
    y2: float
    difficult: bool = False


@dataclass(frozen=True)
class LabeledImage:
    """All that a label file says about one image.

    Attributes:
        name: of the image, as the label file writes it.
        width, height: as declared; None where the file says nothing.
        boxes: empty for a negative.
    """

    name: str
    width: int | None
    height: int | None
    boxes: tuple[LabeledBox, ...]


def fit_to_picture(labels: LabeledImage, picture: Picture) -> tuple[LabeledBox, ...]:
    """The boxes in pixels of the upright picture, clipped to it where they stick out by rounding.

    Labels that were drawn on the picture lying on its side, as the file stores it, are turned with
    it. Their declared size tells; without one, boxes are taken to be of the upright picture.

    Raises:
        LabelsRefused: the declared size is neither the upright nor the stored one, or a box is
            outside the picture or without area, or there are more than MAX_BOXES.
    """
    if len(labels.boxes) > MAX_BOXES:
        raise LabelsRefused(
            f"the labels have {len(labels.boxes)} boxes; an image has at most {MAX_BOXES}"
        )
    upright = (picture.width, picture.height)
    declared = (labels.width or upright[0], labels.height or upright[1])
    boxes = labels.boxes
    if declared != upright:
        if declared != picture.stored_size:
            raise LabelsRefused(
                f"the labels are for a picture of {declared[0]} x {declared[1]} pixels, this one "
                f"is {upright[0]} x {upright[1]}: label this file, or send the one that was labeled"
            )
        boxes = tuple(_turn_upright(box, picture) for box in boxes)
    return tuple(
        _clipped(box, number, labels.name, upright) for number, box in enumerate(boxes, start=1)
    )


def check_classes(labels: LabeledImage, known: Collection[str]) -> None:
    """Raise if a box is of a class that is not known.

    Raises:
        LabelsRefused: names the classes, and those that would be right.
    """
    unknown = sorted({box.class_name for box in labels.boxes}.difference(known))
    if unknown:
        listed = ", ".join(list(known)[:_SHOWN_CLASSES])
        more = ", …" if len(known) > _SHOWN_CLASSES else ""
        named = ", ".join(map(repr, unknown[:_SHOWN_CLASSES]))
        raise LabelsRefused(
            f"unknown class {named}; the project's classes are "
            f"{listed}{more}: rename it in the labels, or add it to the project"
        )


def describe(box: LabeledBox) -> str:
    """The corners as people write them."""
    return f"[{box.x1:g}, {box.y1:g}, {box.x2:g}, {box.y2:g}]"


def _turn_upright(box: LabeledBox, picture: Picture) -> LabeledBox:
    """Turn a box with its picture from how the file stores it (EXIF orientations 5 to 8)."""
    width, height = picture.stored_size
    x1, y1, x2, y2 = box.x1, box.y1, box.x2, box.y2
    if picture.orientation in (6, 7):  # what was at the bottom comes to the left
        left, right = height - y2, height - y1
    else:
        left, right = y1, y2
    if picture.orientation in (7, 8):  # what was on the right comes to the top
        top, bottom = width - x2, width - x1
    else:
        top, bottom = x1, x2
    return replace(box, x1=left, y1=top, x2=right, y2=bottom)


def _clipped(box: LabeledBox, number: int, name: str, size: tuple[int, int]) -> LabeledBox:
    where = f"box {number} of {name} is {describe(box)}"
    corners = (box.x1, box.y1, box.x2, box.y2)
    if not all(math.isfinite(corner) for corner in corners):
        raise LabelsRefused(f"{where}: its corners must be numbers")
    if box.x2 <= box.x1 or box.y2 <= box.y1:
        raise LabelsRefused(
            f"{where}: it has no area; x2 must exceed x1 and y2 must exceed y1 "
            "(absolute xyxy pixels)"
        )
    width, height = size
    over = max(-box.x1, -box.y1, box.x2 - width, box.y2 - height)
    clipped = replace(
        box,
        x1=max(box.x1, 0.0),
        y1=max(box.y1, 0.0),
        x2=min(box.x2, float(width)),
        y2=min(box.y2, float(height)),
    )
    if over > EDGE_TOLERANCE_PIXELS or clipped.x2 <= clipped.x1 or clipped.y2 <= clipped.y1:
        raise LabelsRefused(
            f"{where}: it reaches out of the picture, which is {width} x {height} pixels"
        )
    return clipped
