"""Which anchor answers for which box, and what it should say.

Shape suffixes: A anchors of all levels, N boxes of an image, B images, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BACKGROUND_BELOW = 0.4
"""An anchor whose best IoU is lower is background."""

POSITIVE_FROM = 0.5
"""An anchor whose best IoU is at least this belongs to that box; between the two it is ignored."""

MAX_LOG_SCALE = math.log(1000 / 16)
"""Bound of a predicted dw or dh: past it, a box would be wider than any image."""

OUTSIDE = -2
"""`Targets.assigned_A` of an anchor in the padding."""


@dataclass(frozen=True)
class Targets:
    """What the anchors of one image should say.

    Attributes:
        labels_A: class id of a positive anchor; C (background) for all others.
        label_weights_A: 1.0 for positives and background, 0.0 for ignored ones and padding.
        deltas_A4: offsets dx, dy, dw, dh of positive anchors; 0 elsewhere.
        assigned_A: 0 background, -1 ignored, `OUTSIDE` padding, n + 1 for box n.
        overlaps_A: IoU with the best box; 0 without boxes, `OUTSIDE` in the padding.
        num_pos: positive anchors, a 0-d integer tensor (it stays on the device).
    """

    labels_A: Tensor
    label_weights_A: Tensor
    deltas_A4: Tensor
    assigned_A: Tensor
    overlaps_A: Tensor
    num_pos: Tensor


def encode(anchors_A4: Tensor, boxes_A4: Tensor) -> Tensor:
    """Offsets (A, 4) dx, dy, dw, dh that turn each anchor into the box of its row."""
    anchor_x, anchor_y, anchor_w, anchor_h = _centers_and_sizes(anchors_A4)
    box_x, box_y, box_w, box_h = _centers_and_sizes(boxes_A4)
    return torch.stack(
        (
            (box_x - anchor_x) / anchor_w,
            (box_y - anchor_y) / anchor_h,
            (box_w / anchor_w).log(),
            (box_h / anchor_h).log(),
        ),
        dim=-1,
    )


def decode(anchors_A4: Tensor, deltas_A4: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """Boxes (A, 4) xyxy that the offsets mean, clipped to an image of that size in pixels."""
    anchor_x, anchor_y, anchor_w, anchor_h = _centers_and_sizes(anchors_A4)
    dx, dy, dw, dh = deltas_A4.unbind(-1)
    width = anchor_w * dw.clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp()
    height = anchor_h * dh.clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp()
    x = anchor_x + anchor_w * dx
    y = anchor_y + anchor_h * dy
    return torch.stack(
        (
            (x - width * 0.5).clamp(0, image_hw[1]),
            (y - height * 0.5).clamp(0, image_hw[0]),
            (x + width * 0.5).clamp(0, image_hw[1]),
            (y + height * 0.5).clamp(0, image_hw[0]),
        ),
        dim=-1,
    )


def assign(
    anchors_A4: Tensor,
    valid_A: Tensor,
    boxes_N4: Tensor,
    labels_N: Tensor,
    num_classes: int,
    *,
    require_positive_iou: bool,
) -> Targets:
    """Give each anchor of an image its target, by IoU.

    In this order: below 0.4 an anchor is background; from 0.5 it belongs to its best box; then
    each box, one after the other, takes every anchor that ties for its own highest IoU, however
    low. A later box takes an anchor from an earlier one.

    Args:
        anchors_A4: anchors of all levels, float32. Ties are decided in float32, as in the
            reference; float64 gives other positives.
        valid_A: bool, False for anchors that lie in padding and take no part.
        boxes_N4: the image's boxes, xyxy pixels, float32; N may be 0 (all background).
        labels_N: their class ids, below `num_classes`.
        num_classes: C.
        require_positive_iou: False lets a box take anchors that it does not touch, as the
            reference does: a box without area then makes all anchors positive, with infinite
            offsets. True leaves such a box without anchors.

    Returns:
        The targets; nothing here has a gradient.
    """
    num_anchors = anchors_A4.shape[0]
    num_boxes = boxes_N4.shape[0]
    device = anchors_A4.device
    if num_boxes == 0:
        assigned = torch.zeros(num_anchors, dtype=torch.int64, device=device)
        overlaps = torch.zeros(num_anchors, device=device)
    else:
        iou_NA = pairwise_iou(boxes_N4, anchors_A4).masked_fill_(~valid_A, -1.0)
        overlaps, best_A = iou_NA.max(dim=0)
        assigned = torch.full((num_anchors,), -1, dtype=torch.int64, device=device)
        assigned[overlaps < BACKGROUND_BELOW] = 0
        assigned = torch.where(overlaps >= POSITIVE_FROM, best_A + 1, assigned)

        best_of_box_N1 = iou_NA.amax(dim=1, keepdim=True)
        takes_NA = (iou_NA == best_of_box_N1) & valid_A
        if require_positive_iou:
            takes_NA &= best_of_box_N1 > 0
        box, anchor = takes_NA.nonzero(as_tuple=True)
        # The highest box number wins, which is what going through the boxes in order ends in.
        taken_by_A = torch.zeros_like(assigned).scatter_reduce(0, anchor, box + 1, "amax")
        assigned = torch.where(taken_by_A > 0, taken_by_A, assigned)

    assigned = assigned.masked_fill(~valid_A, OUTSIDE)
    positive = assigned > 0
    owners = assigned[positive] - 1
    labels = torch.full((num_anchors,), num_classes, dtype=torch.int64, device=device)
    deltas = torch.zeros((num_anchors, 4), device=device)
    if num_boxes:
        labels[positive] = labels_N[owners]
        deltas[positive] = encode(anchors_A4[positive], boxes_N4[owners])
    return Targets(
        labels_A=labels,
        label_weights_A=(assigned >= 0).to(torch.float32),
        deltas_A4=deltas,
        assigned_A=assigned,
        overlaps_A=overlaps.masked_fill(~valid_A, OUTSIDE),
        num_pos=positive.sum(),
    )


def present_classes(labels: Sequence[Tensor], num_classes: int) -> Tensor:
    """(B, C) float32: 1 where the image has a box of the class, the MIL loss's target."""
    present_BC = torch.zeros((len(labels), num_classes))
    for row, labels_N in zip(present_BC, labels, strict=True):
        row[labels_N.cpu()] = 1.0
    return present_BC


def known_classes(num_known: Sequence[int], num_classes: int) -> Tensor:
    """(B, C) bool: the classes that existed when the image was annotated.

    Classes are only ever appended, so that a count says which they were. A class that is not known
    may well be in the picture: it is neither present nor absent.
    """
    return torch.arange(num_classes)[None, :] < torch.tensor(list(num_known))[:, None]


def pairwise_iou(boxes_N4: Tensor, anchors_A4: Tensor) -> Tensor:
    """(N, A), to the last bit what torchvision's `box_iou` gives, in a third of time and memory."""
    x1, y1, x2, y2 = boxes_N4[:, :, None].unbind(1)
    anchor_x1, anchor_y1, anchor_x2, anchor_y2 = anchors_A4.unbind(1)
    widths = torch.minimum(x2, anchor_x2).sub_(torch.maximum(x1, anchor_x1)).clamp_(min=0)
    heights = torch.minimum(y2, anchor_y2).sub_(torch.maximum(y1, anchor_y1)).clamp_(min=0)
    overlaps = widths.mul_(heights)
    areas = (x2 - x1) * (y2 - y1)
    anchor_areas = (anchor_x2 - anchor_x1) * (anchor_y2 - anchor_y1)
    return overlaps / (areas + anchor_areas).sub_(overlaps)


def _centers_and_sizes(boxes_A4: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes_A4.unbind(-1)
    return (x1 + x2) * 0.5, (y1 + y2) * 0.5, x2 - x1, y2 - y1
