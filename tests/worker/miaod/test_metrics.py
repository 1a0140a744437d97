from __future__ import annotations

import contextlib
import io
import json
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from worker.miaod import metrics
from worker.miaod.detections import Detections
from worker.miaod.metrics import GroundTruth, evaluate

NAMES = ["car", "van", "bus"]
Case = tuple[list[GroundTruth], list[Detections]]

BOX = [10.0, 10.0, 50.0, 50.0]
FAR = [100.0, 100.0, 140.0, 140.0]


def truth(
    *boxes: list[float],
    labels: list[int] | None = None,
    difficult: list[bool] | None = None,
    known: int = 3,
) -> GroundTruth:
    return GroundTruth(
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        labels=np.array(labels or [0] * len(boxes), dtype=np.int64),
        difficult=np.array(difficult or [False] * len(boxes), dtype=np.bool_),
        num_known_classes=known,
    )


def found(*rows: tuple[list[float], int, float]) -> Detections:
    return {
        "boxes": torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([row[1] for row in rows], dtype=torch.int64),
        "scores": torch.tensor([row[2] for row in rows], dtype=torch.float32),
    }


def made_up(seed: int, *, num_images: int = 40, difficult: float = 0.0) -> Case:
    """Images with boxes, detections near some of them, duplicates, and false alarms."""
    rng = np.random.default_rng(seed)
    all_truth, all_found = [], []
    for _ in range(num_images):
        count = int(rng.integers(0, 6))
        corner = rng.uniform(0, 200, (count, 2))
        boxes = np.concatenate((corner, corner + rng.uniform(15, 90, (count, 2))), axis=1)
        labels = rng.integers(0, 3, count)
        all_truth.append(GroundTruth(boxes, labels, rng.random(count) < difficult, 3))
        rows = [([5.0, 5.0, 30.0, 40.0], int(rng.integers(0, 3)), float(rng.random()))]
        for _ in range(int(rng.integers(0, 15)) if count else 0):
            near = int(rng.integers(0, count))
            label = int(labels[near] if rng.random() < 0.8 else rng.integers(0, 3))
            box = (boxes[near] + rng.normal(0, 5, 4)).tolist()
            rows.append((box, label, float(rng.random())))
        all_found.append(found(*rows))
    return all_truth, all_found


def overlap(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def voc_by_loops(case: Case, label: int) -> tuple[float, float]:
    """AP of a class, area and 11-point, one detection after the other."""
    candidates: list[tuple[float, int, list[float]]] = []
    for image, detections in enumerate(case[1]):
        for place, other in enumerate(detections["labels"].tolist()):
            if other == label:
                score = float(detections["scores"][place])
                candidates.append((score, image, detections["boxes"][place].tolist()))
    taken, points, true, wrong = set(), [], 0, 0
    to_find = sum(
        int(other == label and not hard)
        for image in case[0]
        for other, hard in zip(image.labels, image.difficult, strict=True)
    )
    for _, image, box in sorted(candidates, reverse=True):
        objects = case[0][image]
        overlaps = [
            overlap(box, other.tolist()) if objects.labels[place] == label else -1.0
            for place, other in enumerate(objects.boxes)
        ]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if overlaps and overlaps[best] >= 0.5:
            if objects.difficult[best]:
                continue
            right = (image, best) not in taken
            taken.add((image, best))
        else:
            right = False
        true, wrong = true + right, wrong + (not right)
        points.append((true / to_find, true / (true + wrong)))
    area = last = 0.0
    for recall in sorted({recall for recall, _ in points}):
        area += (recall - last) * max(p for r, p in points if r >= recall)
        last = recall
    tenths = [max((p for r, p in points if r >= t / 10 - 1e-9), default=0.0) for t in range(11)]
    return area, sum(tenths) / 11


def figures(case: Case, *, legacy_plus_one: bool = False) -> list[dict[str, Any]]:
    result = evaluate(*case, NAMES, legacy_plus_one=legacy_plus_one)
    classes: list[dict[str, Any]] = result["per_class"]
    return classes


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pairs_at_once", [3, 2_000_000])
def test_voc_figures_are_what_plain_loops_give(
    seed: int, pairs_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "PAIRS_AT_ONCE", pairs_at_once)
    case = made_up(seed, difficult=0.2)
    for label, ours in enumerate(figures(case)):
        area, eleven = voc_by_loops(case, label)
        assert ours["ap50"] == pytest.approx(area)
        assert ours["ap50_voc07"] == pytest.approx(eleven)


@pytest.mark.parametrize("seed", range(3))
def test_voc_figures_with_the_extra_pixel_are_those_of_an_independent_package(seed: int) -> None:
    case = made_up(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mean_average_precision import MetricBuilder

        builder = MetricBuilder.build_evaluation_metric("map_2d", num_classes=3)
        for objects, detections in zip(*case, strict=True):
            flags = np.zeros((len(objects.labels), 2))
            builder.add(
                np.column_stack([detections[key].numpy() for key in ("boxes", "labels", "scores")]),
                np.column_stack((objects.boxes, objects.labels, flags)),
            )
        area = builder.value(iou_thresholds=0.5)
        eleven = builder.value(iou_thresholds=0.5, recall_thresholds=np.arange(11) / 10 - 1e-9)
    for label, ours in enumerate(figures(case, legacy_plus_one=True)):
        assert ours["ap50"] == pytest.approx(float(area[0.5][label]["ap"]))
        assert ours["ap50_voc07"] == pytest.approx(float(eleven[0.5][label]["ap"]))


@pytest.mark.parametrize("difficult", [0.0, 0.3])
def test_coco_figures_are_those_of_pycocotools(difficult: float) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    case = made_up(7, difficult=difficult)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (objects, detections) in enumerate(zip(*case, strict=True)):
        for box, label, hard in zip(objects.boxes, objects.labels, objects.difficult, strict=True):
            x, y, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": int(hard),
                }
            )
        for (x1, y1, x2, y2), other, score in zip(
            detections["boxes"].double().tolist(),
            detections["labels"].tolist(),
            detections["scores"].tolist(),
            strict=True,
        ):
            bbox = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": image, "category_id": other, "bbox": bbox, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = {
            "images": [{"id": image} for image in range(len(case[0]))],
            "categories": [{"id": label} for label in range(3)],
            "annotations": annotations,
            "info": {},
        }
        dataset.createIndex()
        run = COCOeval(dataset, dataset.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    assert evaluate(*case, NAMES)["map"] == pytest.approx(float(run.stats[0]), abs=1e-6)


def test_finding_everything_is_one_and_finding_nothing_is_zero() -> None:
    objects = [truth(BOX, FAR, labels=[0, 1]), truth()]
    perfect = [found((BOX, 0, 0.9), (FAR, 1, 0.8)), found()]
    best = evaluate(objects, perfect, NAMES)
    assert best["map50"] == best["map50_voc07"] == pytest.approx(1.0)
    assert best["map"] == pytest.approx(1.0)
    worst = evaluate(objects, [found(), found()], NAMES)
    assert worst["map50"] == worst["map50_voc07"] == worst["map"] == 0.0


def test_the_second_detection_of_a_box_is_wrong_even_beside_a_box_that_nobody_found() -> None:
    neighbour = [12.0, 10.0, 52.0, 50.0]
    case = [truth(BOX, neighbour)], [found((BOX, 0, 0.9), ([10.5, 10.0, 50.5, 50.0], 0, 0.8))]
    assert figures(case)[0]["ap50"] == pytest.approx(0.5)


def test_a_difficult_box_is_neither_missed_nor_wrongly_found() -> None:
    objects = [truth(BOX, FAR, difficult=[False, True])]
    without = figures((objects, [found((BOX, 0, 0.5))]))[0]
    with_it = figures((objects, [found((BOX, 0, 0.5), (FAR, 0, 0.9), (FAR, 0, 0.8))]))[0]
    assert without == with_it
    assert with_it == {
        "class": "car", "ap50": 1.0, "ap50_voc07": 1.0, "ap": pytest.approx(1.0), "num_boxes": 1,
    }  # fmt: skip


def test_classes_without_boxes_have_no_figure_and_no_part_in_the_means() -> None:
    case = [truth(BOX, FAR, labels=[0, 2], difficult=[False, True])], [found((BOX, 0, 0.9))]
    result = evaluate(*case, NAMES)
    assert [entry["ap50"] for entry in result["per_class"]] == [1.0, None, None]
    assert [entry["ap"] is None for entry in result["per_class"]] == [False, True, True]
    assert result["map50"] == 1.0
    assert result["num_boxes"] == 1


def test_detections_of_a_class_that_the_annotator_did_not_know_are_passed_over() -> None:
    alarm = (FAR, 2, 0.99)
    objects = [truth(BOX, known=2), truth(FAR, labels=[2])]
    result = evaluate(objects, [found((BOX, 0, 0.9), alarm), found((FAR, 2, 0.5))], NAMES)
    assert result["per_class"][2]["ap50"] == 1.0
    informed = [truth(BOX, known=3), objects[1]]
    result = evaluate(informed, [found((BOX, 0, 0.9), alarm), found((FAR, 2, 0.5))], NAMES)
    assert result["per_class"][2]["ap50"] == 0.5


def test_the_extra_pixel_can_decide() -> None:
    # 3 x 3 over 6 x 3 inclusive pixels is a half, 2 x 2 over 5 x 2 is not.
    case = [truth([0.0, 0.0, 5.0, 2.0])], [found(([0.0, 0.0, 2.0, 2.0], 0, 0.9))]
    assert figures(case)[0]["ap50"] == 0.0
    assert figures(case, legacy_plus_one=True)[0]["ap50"] == 1.0


def test_eleven_points_hit_recalls_that_floats_miss() -> None:
    # 3 of 10 found, all right: precision 1 at recalls 0.0 to 0.3.
    assert metrics.eleven_point(np.array([1, 2, 3]), 10) == pytest.approx(4 / 11)


@pytest.mark.parametrize("objects", [[], [truth()], [truth(BOX, difficult=[True])]])
def test_nothing_to_find_gives_no_figure(objects: list[GroundTruth]) -> None:
    result = evaluate(objects, [found((BOX, 0, 0.9)) for _ in objects], NAMES)
    assert result["map50"] is result["map50_voc07"] is result["map"] is None
    assert result["num_images"] == len(objects)


def test_boxes_and_detections_without_area_do_no_harm() -> None:
    flat = [10.0, 10.0, 10.0, 50.0]
    result = evaluate([truth(BOX, flat)], [found((BOX, 0, 0.9), (flat, 0, 0.8))], NAMES)
    assert result["map50"] == pytest.approx(0.5)


def test_images_and_detections_must_correspond() -> None:
    with pytest.raises(ValueError, match="2 images and 1 sets of detections"):
        evaluate([truth(), truth()], [found()], NAMES)


def test_the_result_is_json_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    json.dumps(evaluate(*made_up(1), NAMES), allow_nan=False)
    assert capfd.readouterr() == ("", "")
