"""What stands between the algorithm's tensors and the store's rows."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from server.store.models import Json
from server.store.pool import ImageRecord, LabeledRecord
from worker.learning import choose_device, fingerprint, ground_truth, heat_map_png, stored_boxes
from worker.miaod.detections import Detections
from worker.miaod.inference import Prediction

IMAGE = ImageRecord(id="a", ordinal=0, name="a.png", sha256="0" * 64, width=40, height=30)


def annotated(sha256: str, boxes: list[Json]) -> LabeledRecord:
    return LabeledRecord("a", 0, "a.png", sha256, 40, 30, boxes, 2)


def box(class_id: int, x1: float, *, difficult: bool = False) -> Json:
    corners = {"x1": x1, "y1": 2, "x2": x1 + 3, "y2": 6.5}
    return {"class_id": class_id, "difficult": difficult, **corners}


def test_stored_boxes_lie_in_the_image_and_have_an_area() -> None:
    corners = [
        [-3.0, 1.004, 10.126, 29.0],
        [30.0, 20.0, 55.0, 31.0],
        [5.0, 5.0, 5.001, 9.0],  # empty once rounded
        [41.0, 5.0, 50.0, 9.0],  # outside
        [float("nan"), 5.0, 9.0, 9.0],
    ]
    detections = Detections(
        boxes=torch.tensor(corners),
        labels=torch.arange(5) % 2,
        scores=torch.tensor([0.98765, 0.5, 0.4, 0.3, 0.2]),
    )
    assert stored_boxes(Prediction(0, detections, None), IMAGE) == [
        {"class_id": 0, "score": 0.9876, "x1": 0.0, "y1": 1.0, "x2": 10.13, "y2": 29.0},
        {"class_id": 1, "score": 0.5, "x1": 30.0, "y1": 20.0, "x2": 40.0, "y2": 30.0},
    ]


def test_the_fingerprint_of_a_validation_set_changes_with_what_metrics_depend_on_only() -> None:
    records = [annotated("1" * 64, [box(0, 1), box(1, 9)]), annotated("2" * 64, [])]
    known = fingerprint(records)
    same = [records[1], replace(records[0], name="b.png", ordinal=7, boxes=[box(1, 9), box(0, 1)])]
    assert fingerprint(same) == known
    for other in (
        records[:1],
        [records[0], replace(records[1], boxes=[box(0, 1)])],
        [replace(records[0], boxes=[box(0, 1), box(1, 9, difficult=True)]), records[1]],
        [replace(records[0], boxes=[box(0, 1), box(0, 9)]), records[1]],
        [replace(records[0], sha256="3" * 64), records[1]],
    ):
        assert fingerprint(other) != known


def test_ground_truth_keeps_difficult_boxes_and_says_which_they_are() -> None:
    truth = ground_truth(annotated("1" * 64, [box(0, 1), box(1, 9, difficult=True)]))
    assert truth.boxes.tolist() == [[1, 2, 4, 6.5], [9, 2, 12, 6.5]]
    assert truth.labels.tolist() == [0, 1]
    assert truth.difficult.tolist() == [False, True]
    assert truth.num_known_classes == 2
    assert ground_truth(annotated("1" * 64, [])).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.0, 0.002], [0.001, 0.004]], [[0, 128], [64, 255]]),
        ([[0.0, 0.0], [0.0, 0.0]], [[0, 0], [0, 0]]),
        ([[float("nan"), 0.5], [0.0, 0.25]], [[0, 255], [0, 128]]),
    ],
    ids=["small values", "nothing", "not a number"],
)
def test_a_heat_map_is_a_grey_png_that_is_white_at_its_maximum(
    values: list[list[float]], expected: list[list[int]]
) -> None:
    with Picture.open(io.BytesIO(heat_map_png(torch.tensor(values)))) as picture:
        assert (picture.format, picture.mode) == ("PNG", "L")
        assert np.asarray(picture).tolist() == expected


def test_the_cpu_is_taken_when_asked_for() -> None:
    assert choose_device("cpu") == torch.device("cpu")


def test_the_voc_preset_evaluates_on_corners_as_the_reference_reads_them() -> None:
    record = annotated("1" * 64, [box(0, 1), box(1, 9, difficult=True)])
    assert ground_truth(record, "voc").boxes.tolist() == [[1, 2, 3, 5], [9, 2, 11, 5]]
    for box_corners in ("exact", "coco"):
        exact = ground_truth(record, box_corners)
        assert exact.boxes.tolist() == [[1, 2, 4, 6.5], [9, 2, 12, 6.5]]
    assert ground_truth(annotated("1" * 64, []), "voc").boxes.shape == (0, 4)
