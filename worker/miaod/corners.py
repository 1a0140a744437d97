"""Boxes as the reference's loader reads them from an XML file, which is not where they are.

It cuts the four numbers to integers and takes 1 off each. Numbers of a VOC file count pixels from 1
and name the last one inside, so that its boxes come out a pixel short at the lower right. COCO's
boxes, copied into such files as they are, come out a pixel up and left, cut to whole pixels.

Shape suffix: N boxes.
"""

from __future__ import annotations

from torch import Tensor


def as_trained_on(boxes_N4: Tensor, box_corners: str) -> Tensor:
    """Targets (N, 4) in pixels of the original image.

    Args:
        boxes_N4: exact xyxy pixels, x2 and y2 being the far edges of the last pixels inside.
        box_corners: as in `TrainingConfig`: exact, voc or coco.
    """
    if box_corners == "exact":
        return boxes_N4
    # An importer of VOC files has taken the 1 off the upper left corner already.
    shift = boxes_N4.new_tensor((0, 0, 1, 1) if box_corners == "voc" else (1, 1, 1, 1))
    return boxes_N4.floor() - shift


def as_evaluated_on(boxes_N4: Tensor, box_corners: str) -> Tensor:
    """Ground truth (N, 4), arguments as above.

    The reference reads VOC's test set as it does its training set, but evaluates COCO on COCO's own
    boxes.
    """
    return boxes_N4 if box_corners == "coco" else as_trained_on(boxes_N4, box_corners)
