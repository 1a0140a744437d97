"""Average precision: how well detections agree with the boxes of a validation set.

Three figures for each class, and their means over classes:

    ap50        area under the precision-recall curve at IoU 0.5 (the service's `map50`)
    ap50_voc07  mean of the precision at 11 recalls, as VOC 2007 and the paper have it
    ap          COCO's: 101 recalls, a mean over IoU 0.50, 0.55 .. 0.95

The first two are computed here, on arrays of all images at once; the last by faster-coco-eval.
Boxes are xyxy without the +1 pixel of the VOC development kit, which `legacy_plus_one` brings back.

Shape suffixes: N boxes or detections (of one image, or of all), P pairs of a detection and a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from worker.miaod.detections import Detections

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

IOU_THRESHOLD = 0.5
COCO_MAX_DETECTIONS = 100
PAIRS_AT_ONCE = 2_000_000
"""Pairs of detection and box whose IoU is held in memory at once: some 200 MB."""


@dataclass(frozen=True)
class GroundTruth:
    """What is known about one image.

    Attributes:
        boxes: (N, 4) xyxy pixels.
        labels: (N,) class ids.
        difficult: (N,) bool; such a box need not be found, and finding it is no mistake.
        num_known_classes: classes that existed when the image was annotated. Detections of later
            ones are not held against it: nobody looked for them.
    """

    boxes: Floats
    labels: Ints
    difficult: Bools
    num_known_classes: int


@dataclass(frozen=True)
class _Boxes:
    """All boxes, with `difficult` as `extra`; or all detections, with their score."""

    image: Ints
    label: Ints
    box: Floats
    extra: NDArray[Any]

    def __getitem__(self, which: NDArray[Any]) -> _Boxes:
        return _Boxes(self.image[which], self.label[which], self.box[which], self.extra[which])


def evaluate(
    ground_truth: Sequence[GroundTruth],
    detections: Sequence[Detections],
    class_names: Sequence[str],
    *,
    legacy_plus_one: bool = False,
) -> dict[str, Any]:
    """Average precision of a validation set, ready for JSON.

    Args:
        ground_truth: per image.
        detections: of the same images, boxes in the same pixels.
        class_names: by class id.
        legacy_plus_one: take corners as inclusive pixels in the VOC figures.

    Returns:
        `map50`, `map50_voc07`, `map`: means over the classes that have a box that is not difficult,
        None where no class has one. `per_class`: for each class `class`, `ap50`, `ap50_voc07`, `ap`
        (None without such a box) and `num_boxes` (those that are not difficult).
        `num_images` and `num_boxes` of the whole set.

    Raises:
        ValueError: the two sequences differ in length.
    """
    if len(ground_truth) != len(detections):
        raise ValueError(
            f"{len(ground_truth)} images and {len(detections)} sets of detections: "
            "one set per image, an empty one where nothing was found"
        )
    num_classes = len(class_names)
    truth = _gather_truth(ground_truth)
    found = _gather_detections(detections, ground_truth)
    coco = _coco_average_precision(truth, found, len(ground_truth), num_classes)
    is_true, counts = _match(truth, found, legacy_plus_one=legacy_plus_one)

    per_class: list[dict[str, Any]] = []
    for label, name in enumerate(class_names):
        num_boxes = int((~truth.extra[truth.label == label]).sum())
        figures: dict[str, float | None] = {"ap50": None, "ap50_voc07": None, "ap": None}
        if num_boxes:
            of_class = counts & (found.label == label)
            hits = np.cumsum(is_true[of_class])
            figures = {
                "ap50": area_under_curve(hits, num_boxes),
                "ap50_voc07": eleven_point(hits, num_boxes),
                "ap": coco[label],
            }
        per_class.append({"class": name, **figures, "num_boxes": num_boxes})
    return {
        "map50": _mean(per_class, "ap50"),
        "map50_voc07": _mean(per_class, "ap50_voc07"),
        "map": _mean(per_class, "ap"),
        "per_class": per_class,
        "num_images": len(ground_truth),
        "num_boxes": sum(entry["num_boxes"] for entry in per_class),
    }


def _match(
    truth: _Boxes, found: _Boxes, *, legacy_plus_one: bool = False, threshold: float = IOU_THRESHOLD
) -> tuple[Bools, Bools]:
    """Which detections are right, and which count at all.

    A detection is compared with the box of its class and image that it overlaps most. If that
    reaches the threshold, the best-scored detection of the box is right and all others of it are
    wrong, even if they overlap another box that nobody found. Detections of a difficult box do not
    count.

    Args:
        truth: all boxes.
        found: all detections, best score first.
        legacy_plus_one: take corners as inclusive pixels.
        threshold: of the IoU.

    Returns:
        (N,) bool each, in the order of `found`.
    """
    best_box, best_iou = _best_overlaps(truth, found, legacy_plus_one)
    close = best_iou >= threshold
    counts = np.ones(len(found.image), dtype=np.bool_)
    is_true = np.zeros(len(found.image), dtype=np.bool_)
    positions = np.flatnonzero(close)
    # `found` is sorted by score, so the first of a box's detections is its best.
    _, first = np.unique(best_box[positions], return_index=True)
    is_true[positions[first]] = True
    difficult = truth.extra[best_box[positions]]
    is_true[positions[difficult]] = False
    counts[positions[difficult]] = False
    return is_true, counts


def area_under_curve(hits: Ints, num_boxes: int) -> float:
    """Area under precision over recall, the precision being the best at that recall or beyond.

    Args:
        hits: right detections among the first 1, 2, .. of a class, best score first.
        num_boxes: boxes to find, at least 1.
    """
    precision = np.append(_best_precision_from(hits), 0.0)
    recall = np.concatenate(([0.0], hits / num_boxes))
    return float((np.diff(recall) * precision[:-1]).sum())


def eleven_point(hits: Ints, num_boxes: int) -> float:
    """Mean of the best precision at a recall of 0.0, 0.1 .. 1.0 or beyond; arguments as above."""
    precision = np.append(_best_precision_from(hits), 0.0)
    # In integers, since 0.1 * 3 is more than 3 / 10.
    first = [np.searchsorted(hits * 10, tenth * num_boxes) for tenth in range(11)]
    return float(precision[first].mean())


def _best_precision_from(hits: Ints) -> Floats:
    """(N,) the highest precision after each detection or any later one."""
    precision = hits / np.arange(1, len(hits) + 1)
    return np.maximum.accumulate(precision[::-1])[::-1]


def _best_overlaps(truth: _Boxes, found: _Boxes, plus_one: bool) -> tuple[Ints, Floats]:
    """For each detection the box of its class and image that it overlaps most, and that IoU.

    Where there is no such box, the index is 0 and the IoU -1.
    """
    stride = int(max(truth.label.max(initial=0), found.label.max(initial=0))) + 1
    truth_key = truth.image * stride + truth.label
    by_key = np.argsort(truth_key, kind="stable")
    key = found.image * stride + found.label
    start = np.searchsorted(truth_key[by_key], key, side="left")
    count = np.searchsorted(truth_key[by_key], key, side="right") - start

    best_box = np.zeros(len(key), dtype=np.int64)
    best_iou = np.full(len(key), -1.0)
    with_boxes = np.flatnonzero(count)
    total = np.cumsum(count[with_boxes])
    for chunk in np.split(
        with_boxes, np.searchsorted(total, np.arange(PAIRS_AT_ONCE, _last(total), PAIRS_AT_ONCE))
    ):
        if not len(chunk):
            continue
        sizes = count[chunk]
        first = np.cumsum(sizes) - sizes
        within_P = np.arange(sizes.sum()) - np.repeat(first, sizes)
        box_P = by_key[np.repeat(start[chunk], sizes) + within_P]
        iou_P = _paired_iou(np.repeat(found.box[chunk], sizes, axis=0), truth.box[box_P], plus_one)
        highest = np.maximum.reduceat(iou_P, first)
        # Of equal overlaps the first box, as argmax has it.
        is_highest = iou_P == np.repeat(highest, sizes)
        place = np.minimum.reduceat(np.where(is_highest, within_P, sizes.max()), first)
        best_box[chunk] = by_key[start[chunk] + place]
        best_iou[chunk] = highest
    return best_box, best_iou


def _paired_iou(a_P4: Floats, b_P4: Floats, plus_one: bool) -> Floats:
    pixel = 1.0 if plus_one else 0.0
    low = np.maximum(a_P4[:, :2], b_P4[:, :2])
    high = np.minimum(a_P4[:, 2:], b_P4[:, 2:])
    overlap = np.clip(high - low + pixel, 0, None).prod(axis=1)
    areas = [(side[:, 2:] - side[:, :2] + pixel).prod(axis=1) for side in (a_P4, b_P4)]
    union = areas[0] + areas[1] - overlap
    # Two boxes without area overlap in nothing.
    iou_P: Floats = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return iou_P


def _gather_truth(ground_truth: Sequence[GroundTruth]) -> _Boxes:
    sizes = [len(image.labels) for image in ground_truth]
    return _Boxes(
        image=np.repeat(np.arange(len(sizes)), sizes),
        label=_join([image.labels for image in ground_truth], np.int64),
        box=_join([image.boxes for image in ground_truth], np.float64).reshape(-1, 4),
        extra=_join([image.difficult for image in ground_truth], np.bool_),
    )


def _gather_detections(
    detections: Sequence[Detections], ground_truth: Sequence[GroundTruth]
) -> _Boxes:
    """Detections of all images, best first; ties by image, then by place in the image."""
    sizes = [len(image["labels"]) for image in detections]
    found = _Boxes(
        image=np.repeat(np.arange(len(sizes)), sizes),
        label=_join([image["labels"].cpu().numpy() for image in detections], np.int64),
        box=_join([image["boxes"].cpu().numpy() for image in detections], np.float64).reshape(
            -1, 4
        ),
        extra=_join([image["scores"].cpu().numpy() for image in detections], np.float64),
    )
    known = np.array([image.num_known_classes for image in ground_truth], dtype=np.int64)
    found = found[found.label < known[found.image]]
    return found[np.argsort(-found.extra, kind="stable")]


def _coco_average_precision(
    truth: _Boxes, found: _Boxes, num_images: int, num_classes: int
) -> list[float | None]:
    """COCO's AP per class; None for a class without boxes.

    COCO knows no difficult boxes. They go in as crowds, the nearest it has: detections of them do
    not count, the overlap being taken as a share of the detection.
    """
    if not len(truth.image):
        return [None] * num_classes

    def quiet(*_: object) -> None:
        pass

    boxes = COCO(print_function=quiet)
    boxes.dataset = {
        "images": [{"id": image} for image in range(num_images)],
        "categories": [{"id": label, "name": str(label)} for label in range(num_classes)],
        "annotations": _coco_annotations(truth, "iscrowd"),
    }
    boxes.createIndex()
    hits = COCO(print_function=quiet)
    hits.dataset = {**boxes.dataset, "annotations": _coco_annotations(found, "score")}
    hits.createIndex()
    run = COCOeval_faster(boxes, hits, "bbox", print_function=quiet)
    run.params.maxDets = [COCO_MAX_DETECTIONS]
    run.params.areaRng = [run.params.areaRng[0]]
    run.params.areaRngLbl = ["all"]
    run.evaluate()
    run.accumulate()
    precision_TRK = run.eval["precision"][:, :, :, 0, 0]
    return [
        float(of_class.mean()) if (of_class := precision_TRK[:, :, label]).min() > -1 else None
        for label in range(num_classes)
    ]


def _coco_annotations(boxes: _Boxes, extra: str) -> list[dict[str, Any]]:
    sizes = boxes.box[:, 2:] - boxes.box[:, :2]
    xywh = np.concatenate((boxes.box[:, :2], sizes), axis=1).tolist()
    columns = zip(
        boxes.image.tolist(), boxes.label.tolist(), xywh, boxes.extra.tolist(), strict=True
    )
    return [
        {
            "id": number,
            "image_id": image,
            "category_id": label,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            extra: int(value) if extra == "iscrowd" else value,
        }
        for number, (image, label, box, value) in enumerate(columns, start=1)
    ]


def _join(parts: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    """All values of all parts in one row."""
    return np.concatenate(
        [np.empty(0, dtype), *(np.asarray(part, dtype).ravel() for part in parts)]
    )


def _last(values: Ints) -> int:
    return int(values[-1]) if len(values) else 0


def _mean(per_class: Sequence[dict[str, Any]], figure: str) -> float | None:
    values = [entry[figure] for entry in per_class if entry[figure] is not None]
    return float(np.mean(values)) if values else None
