from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from worker.miaod import detections as detections_module
from worker.miaod.detections import DetectionConfig, Detections, detect
from worker.miaod.head_outputs import HeadOutputs

CONFIG = DetectionConfig()
IMAGE_HW = (120, 160)


def anchors(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 100
    return torch.cat((corner, corner + 15 + torch.rand(count, 2, generator=generator) * 30), dim=1)


def outputs(logits_AC: Tensor) -> HeadOutputs:
    f1 = logits_AC[None]
    return HeadOutputs(f1=(f1,), f2=(-f1,), deltas=(torch.zeros(1, logits_AC.shape[0], 4),))


def logits(count: int, num_classes: int, seed: int = 1) -> Tensor:
    return torch.randn(count, num_classes, generator=torch.Generator().manual_seed(seed))


def find(logits_AC: Tensor, boxes: Tensor, config: DetectionConfig = CONFIG) -> Detections:
    (found,) = detect(outputs(logits_AC), [boxes], [IMAGE_HW], config)
    return found


def by_going_through_the_candidates(
    logits_AC: Tensor, boxes: Tensor, config: DetectionConfig
) -> list[tuple[int, float]]:
    scores = logits_AC.sigmoid()
    candidates = [
        (float(scores[row, label]), row, label)
        for row in range(len(boxes))
        for label in range(scores.shape[1])
        if scores[row, label] > config.score_threshold
    ]
    kept: list[tuple[float, int, int]] = []
    for candidate in sorted(candidates, reverse=True):
        rivals = [row for _, row, label in kept if label == candidate[2]]
        if not rivals or float(box_iou(boxes[rivals], boxes[candidate[1], None]).max()) <= 0.5:
            kept.append(candidate)
    return [(label, score) for score, _, label in kept[: config.max_per_image]]


@pytest.mark.parametrize("prefix", [1, 16, 2048])
def test_suppression_is_what_a_plain_loop_gives(
    prefix: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However short the first look, the answer is the same.
    monkeypatch.setattr(detections_module, "FIRST_PREFIX", prefix)
    boxes, logits_AC = anchors(80), logits(80, 3)
    config = replace(CONFIG, max_per_image=25)
    found = find(logits_AC, boxes, config)
    expected = by_going_through_the_candidates(logits_AC, boxes, config)
    assert found["labels"].tolist() == [label for label, _ in expected]
    assert found["scores"].tolist() == pytest.approx([score for _, score in expected])


def test_boxes_of_different_classes_do_not_suppress_each_other() -> None:
    box = torch.tensor([[10.0, 10.0, 50.0, 50.0]])
    found = find(torch.tensor([[2.0, 1.0, -9.0]]), box)
    assert found["labels"].tolist() == [0, 1]
    assert found["boxes"].tolist() == box.tolist() * 2


def test_a_score_at_the_threshold_is_not_a_detection() -> None:
    config = replace(CONFIG, score_threshold=0.5)
    assert len(find(torch.zeros(1, 2), anchors(1), config)["labels"]) == 0


def test_the_second_classifier_has_no_say() -> None:
    boxes, f1 = anchors(20), logits(20, 2)[None]
    deltas = (torch.zeros(1, 20, 4),)
    results = [
        detect(HeadOutputs(f1=(f1,), f2=(f2,), deltas=deltas), [boxes], [IMAGE_HW], CONFIG)[0]
        for f2 in (f1, -f1)
    ]
    assert torch.equal(results[0]["scores"], results[1]["scores"])


def test_only_the_best_anchors_of_a_level_are_decoded() -> None:
    config = replace(CONFIG, candidates_per_level=1)
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0], [60.0, 60.0, 80.0, 80.0]])
    found = find(torch.tensor([[1.0, 0.9], [2.0, -9.0]]), boxes, config)
    assert found["boxes"].tolist() == [[60, 60, 80, 80]]
    everything = find(logits(30, 2), anchors(30), replace(CONFIG, candidates_per_level=0))
    assert torch.equal(everything["scores"], find(logits(30, 2), anchors(30))["scores"])


def test_each_image_is_clipped_to_its_own_size_and_scaled_back() -> None:
    f1 = torch.full((2, 1, 1), 3.0)
    batch = HeadOutputs(f1=(f1,), f2=(f1,), deltas=(torch.zeros(2, 1, 4),))
    boxes = [torch.tensor([[-10.0, 20.0, 150.0, 90.0]])]
    first, second = detect(
        batch, boxes, [(120, 160), (60, 100)], CONFIG, scale_factors=[(0.5, 0.5), (2.0, 4.0)]
    )
    assert first["boxes"].tolist() == [[0, 40, 300, 180]]
    assert second["boxes"].tolist() == [[0, 5, 50, 15]]


def test_nothing_found_is_an_empty_answer() -> None:
    found = find(torch.full((5, 2), -20.0), anchors(5))
    assert found["boxes"].shape == (0, 4)
    assert found["labels"].tolist() == found["scores"].tolist() == []


def test_scores_that_are_no_numbers_are_no_detections() -> None:
    logits_AC = logits(6, 2)
    logits_AC[2] = math.nan
    found = find(logits_AC, anchors(6))
    assert len(found["scores"]) > 0
    assert bool(found["scores"].isfinite().all())
