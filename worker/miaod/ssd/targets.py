"""Which of SSD's anchors answers for which box, and what it should say.

Shape suffixes: A anchors of all levels, N boxes of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worker.miaod.targets import OUTSIDE, Targets, encode, pairwise_iou

POSITIVE_FROM = 0.5
"""An anchor whose best IoU is at least this belongs to that box; all others are background."""

DELTA_SCALES = (0.1, 0.1, 0.2, 0.2)
"""What offsets are divided by before the network learns them, so that all four vary alike."""


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

    In this order: from 0.5 an anchor belongs to its best box, below it is background; then each
    box, one after the other, takes the one anchor that it overlaps most, however little. Of equally
    good anchors it is the first, and a later box takes it from an earlier one. RetinaNet differs
    twice: anchors in between are ignored there, and a box takes all equally good ones.

    Args:
        anchors_A4: anchors of all levels, float32. Ties are decided in float32, as in the
            reference.
        valid_A: bool, False for anchors that lie in padding and take no part.
        boxes_N4: the image's boxes, xyxy pixels, float32; N may be 0 (all background).
        labels_N: their class ids, below `num_classes`.
        num_classes: C.
        require_positive_iou: False lets a box take an anchor that it does not touch, as the
            reference does: a box without area then makes the first anchor of all positive, with
            infinite offsets. True leaves such a box without an anchor.

    Returns:
        The targets, their offsets divided by `DELTA_SCALES`; nothing here has a gradient.
    """
    num_anchors, num_boxes = len(anchors_A4), len(boxes_N4)
    device = anchors_A4.device
    assigned = torch.zeros(num_anchors, dtype=torch.int64, device=device)
    overlaps = torch.zeros(num_anchors, device=device)
    if num_boxes:
        iou_NA = pairwise_iou(boxes_N4, anchors_A4).masked_fill_(~valid_A, -1.0)
        overlaps = iou_NA.amax(dim=0)
        assigned = torch.where(overlaps >= POSITIVE_FROM, _first(iou_NA == overlaps, 0) + 1, 0)

        best_of_box_N = iou_NA.amax(dim=1)
        taken_N = _first(iou_NA == best_of_box_N[:, None], 1)
        # The highest box number wins, which is what going through the boxes in order ends in.
        box_numbers_N = torch.arange(1, num_boxes + 1, device=device)
        if require_positive_iou:
            box_numbers_N = box_numbers_N * (best_of_box_N > 0)
        taken_by_A = torch.zeros_like(assigned).scatter_reduce(0, taken_N, box_numbers_N, "amax")
        assigned = torch.where(taken_by_A > 0, taken_by_A, assigned)

    assigned = assigned.masked_fill(~valid_A, OUTSIDE)
    positive = assigned > 0
    owners = assigned[positive] - 1
    labels = torch.full((num_anchors,), num_classes, dtype=torch.int64, device=device)
    deltas = torch.zeros((num_anchors, 4), device=device)
    if num_boxes:
        labels[positive] = labels_N[owners]
        offsets = encode(anchors_A4[positive], boxes_N4[owners])
        deltas[positive] = offsets / offsets.new_tensor(DELTA_SCALES)
    return Targets(
        labels_A=labels,
        label_weights_A=(assigned >= 0).to(torch.float32),
        deltas_A4=deltas,
        assigned_A=assigned,
        overlaps_A=overlaps.masked_fill(~valid_A, OUTSIDE),
        num_pos=positive.sum(),
    )


def _first(hits: Tensor, dim: int) -> Tensor:
    """Index of the first True along `dim`; there is one. `argmax` leaves open which it takes."""
    shape = [1, 1]
    shape[dim] = -1
    places = torch.arange(hits.shape[dim], device=hits.device).view(shape)
    return torch.where(hits, places, hits.shape[dim]).amin(dim=dim)
