"""From logits and offsets to a picture's boxes.

Shape suffixes: A anchors of a level, N detections or candidates, B images, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor
from torchvision.ops import nms

from worker.miaod.head_outputs import HeadOutputs
from worker.miaod.targets import decode

FIRST_PREFIX = 2048
"""Candidates that the first round of suppression looks at."""


class Detections(TypedDict):
    """What was found in one image, best first.

    `boxes` (N, 4) float32 xyxy; `labels` (N,) class ids; `scores` (N,) in (0, 1).
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor


@dataclass(frozen=True)
class DetectionConfig:
    """What counts as a detection; the defaults are the reference's.

    Attributes:
        score_threshold: scores must exceed it.
        nms_iou: of two boxes of a class that overlap by more, the better one stays.
        candidates_per_level: anchors of a level that are decoded, by their best class; 0 means all.
        max_per_image: detections returned.
    """

    score_threshold: float = 0.05
    nms_iou: float = 0.5
    candidates_per_level: int = 1000
    max_per_image: int = 100


@torch.no_grad()
def detect(
    outputs: HeadOutputs,
    anchors: Sequence[Tensor],
    image_sizes_hw: Sequence[tuple[int, int]],
    config: DetectionConfig,
    *,
    scale_factors: Sequence[tuple[float, float]] | None = None,
    probabilities: Callable[[Tensor], Tensor] = torch.sigmoid,
) -> list[Detections]:
    """Detections of the first classifier, per image.

    The second classifier has no say: it learns to disagree, and the reference does not ask it.

    Args:
        outputs: f1 and deltas are read.
        anchors: per level (A, 4), on the outputs' device.
        image_sizes_hw: height and width of each image in the network's pixels, without padding;
            boxes are clipped to it.
        config: thresholds.
        scale_factors: network pixels per original pixel of each image, (x, y). Boxes are divided by
            them before suppression. None: boxes stay in the network's pixels.
        probabilities: of the classes, (A, C) from a level's logits.

    Returns:
        One entry per image. A box may have no area where its anchor lay outside the image.
    """
    assert outputs.deltas is not None, "the box tower has to run for detections"
    found = []
    for index, image_hw in enumerate(image_sizes_hw):
        boxes, scores = [], []
        for logits_BAC, deltas_BA4, anchors_A4 in zip(
            outputs.f1, outputs.deltas, anchors, strict=True
        ):
            scores_AC = probabilities(logits_BAC[index])
            deltas_A4 = deltas_BA4[index]
            if 0 < config.candidates_per_level < len(scores_AC):
                best = scores_AC.amax(dim=1).topk(config.candidates_per_level).indices
                scores_AC, deltas_A4, anchors_A4 = (
                    scores_AC[best],
                    deltas_A4[best],
                    anchors_A4[best],
                )
            boxes.append(decode(anchors_A4, deltas_A4, image_hw))
            scores.append(scores_AC)
        boxes_N4 = torch.cat(boxes)
        if scale_factors is not None:
            x, y = scale_factors[index]
            boxes_N4 = boxes_N4 / boxes_N4.new_tensor((x, y, x, y))
        found.append(_suppress(boxes_N4, torch.cat(scores), config))
    return found


def _suppress(boxes_N4: Tensor, scores_NC: Tensor, config: DetectionConfig) -> Detections:
    """Greedy suppression within each class, the best `max_per_image` of all classes together."""
    row, label = (scores_NC > config.score_threshold).nonzero(as_tuple=True)
    score = scores_NC[row, label]
    order = score.argsort(descending=True, stable=True)
    row, label, score = row[order], label[order], score[order]
    box = boxes_N4[row]
    if len(box) == 0:
        return {"boxes": box, "labels": label, "scores": score}

    # Boxes of different classes are moved apart, so that one run serves all classes. The shift is
    # the reference's: float32 rounds IoUs of shifted boxes, and another shift rounds otherwise.
    shifted = box + (label * (box.max() + 1))[:, None]
    # What survives among the best candidates does not depend on worse ones, so that a prefix with
    # enough survivors gives the whole answer. An untrained detector has tens of thousands of
    # candidates; going through them all takes seconds on a CPU.
    size = FIRST_PREFIX
    while True:
        keep = nms(shifted[:size], score[:size], config.nms_iou)[: config.max_per_image]
        if len(keep) == config.max_per_image or size >= len(box):
            break
        size *= 4
    return {"boxes": box[keep], "labels": label[keep], "scores": score[keep]}
