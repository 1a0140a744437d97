"""COCO detection labels: one JSON file for many images, read and written as a stream.

Boxes are `[x, y, width, height]`, 0-based pixels. `difficult` is a key of our own beside them; a
crowd region (`iscrowd`) of others is read as a difficult box. What we write and read again is the
same float (see `exact`). Polygons are skipped while reading, so that a file of gigabytes needs
memory for its boxes only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, DecimalException
from pathlib import Path
from typing import Any, Literal

from server.formats.boxes import LabeledBox, LabeledImage
from server.formats.exact import EXACT, decimal_of, text_of
from server.formats.json_stream import JsonRefused, top_level_arrays

Empty = Literal["unlabeled", "negative"]


class CocoRefused(ValueError):
    """A file that is no COCO label file; the message says why."""


@dataclass
class CocoLabels:
    """What a COCO file says.

    Attributes:
        images: one per entry of `images`, in the file's order; its boxes may be empty.
        unlabeled: names of those that have no annotation and count as unlabeled.
        broken: names of those whose annotations cannot be used, with the reason.
        problems: other entries that cannot be used: what they are called, and why.
        splits: what entries say about their split by a key of our own, by name.
        class_names: the categories that boxes use, in the order of their ids.
    """

    images: list[LabeledImage] = field(default_factory=list)
    unlabeled: set[str] = field(default_factory=set)
    broken: dict[str, str] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


def looks_like_coco(path: Path) -> bool:
    """Whether a JSON file begins as COCO files do; cheap, and right about ordinary files."""
    with path.open("rb") as file:
        head = file.read(65_536).lstrip(b"\xef\xbb\xbf \t\r\n")
    keys = (b'"images"', b'"annotations"', b'"categories"')
    return head.startswith(b"{") and any(key in head for key in keys)


def read_coco(path: Path, empty: Empty = "unlabeled") -> CocoLabels:
    """Read a label file.

    Args:
        path: the JSON file.
        empty: what an image without annotations is.

    Raises:
        CocoRefused: the file is broken, or has no `images`.
    """
    found: dict[str, list[Any]] = {"images": [], "categories": []}
    annotations: list[tuple[object, ...]] = []
    try:
        for key, entry in top_level_arrays(path, ("images", "categories", "annotations")):
            if key != "annotations":
                found[key].append(entry)
            elif isinstance(entry, dict):
                flags = (entry.get("difficult"), entry.get("iscrowd"))
                ids = (entry.get("id"), entry.get("image_id"), entry.get("category_id"))
                annotations.append((*ids, entry.get("bbox"), any(flag for flag in flags)))
    except JsonRefused as error:
        raise CocoRefused(str(error)) from None
    if not found["images"]:
        raise CocoRefused('the file lists no images: a COCO file has {"images": [{"id": 1, …')
    return _assembled(found["images"], found["categories"], annotations, empty)


def _assembled(
    image_entries: Iterable[Any],
    categories: Iterable[Any],
    annotations: Iterable[tuple[object, ...]],
    empty: Empty,
) -> CocoLabels:
    labels = CocoLabels()
    class_of = {
        entry["id"]: str(entry["name"]).strip()
        for entry in categories
        if isinstance(entry, dict) and _is_id(entry.get("id")) and entry.get("name") is not None
    }
    by_id: dict[object, tuple[str, int | None, int | None]] = {}
    boxes: dict[object, list[LabeledBox]] = {}
    for number, entry in enumerate(image_entries, start=1):
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or not _is_id(entry.get("id")):
            labels.problems.append((f"image entry {number}", "it has no `id` or no `file_name`"))
        elif entry["id"] in by_id:
            labels.problems.append((name, f"its id {entry['id']} is also that of another image"))
        else:
            by_id[entry["id"]] = (name, _side(entry.get("width")), _side(entry.get("height")))
            if entry.get("split") in ("pool", "val", "test"):
                labels.splits[name] = entry["split"]
    used: set[object] = set()
    for annotation, image, category, bbox, difficult in annotations:
        if not _is_id(image) or image not in by_id:
            labels.problems.append(
                (f"annotation {annotation}", f"its image_id {image!r} is none of the listed images")
            )
            continue
        name = by_id[image][0]
        if not _is_id(category) or category not in class_of:
            reason = f"annotation {annotation} has category_id {category!r}, none of the categories"
            labels.broken.setdefault(name, reason)
            continue
        corners = _corners(bbox)
        if corners is None:
            reason = f"annotation {annotation} has bbox {bbox!s:.80}; [x, y, width, height] is due"
            labels.broken.setdefault(name, reason)
            continue
        used.add(category)
        box = LabeledBox(class_of[category], *corners, bool(difficult))
        boxes.setdefault(image, []).append(box)
    for image, (name, width, height) in by_id.items():
        labels.images.append(LabeledImage(name, width, height, tuple(boxes.get(image, ()))))
        if image not in boxes and empty == "unlabeled":
            labels.unlabeled.add(name)
    # Ids of one kind in nearly every file; by text if somebody mixes them.
    names = [class_of[key] for key in sorted(used, key=lambda key: (isinstance(key, str), key))]
    labels.class_names = tuple(dict.fromkeys(names))
    return labels


def image_entry(image_id: int, labels: LabeledImage, split: str) -> str:
    """An element of `images`; `split` is a key of our own."""
    entry = {
        "id": image_id,
        "file_name": labels.name,
        "width": labels.width,
        "height": labels.height,
        "split": split,
    }
    return json.dumps(entry, ensure_ascii=False)


def annotation_entry(annotation_id: int, image_id: int, category_id: int, box: LabeledBox) -> str:
    """An element of `annotations`."""
    x1, y1, x2, y2 = (decimal_of(value) for value in (box.x1, box.y1, box.x2, box.y2))
    width, height = EXACT.subtract(x2, x1), EXACT.subtract(y2, y1)
    bbox = ", ".join(text_of(value) for value in (x1, y1, width, height))
    return (
        f'{{"id": {annotation_id}, "image_id": {image_id}, "category_id": {category_id}, '
        f'"bbox": [{bbox}], "area": {text_of(EXACT.multiply(width, height))}, "iscrowd": 0, '
        f'"segmentation": [], "difficult": {"true" if box.difficult else "false"}}}'
    )


def document(
    images: Iterable[str], annotations: Iterable[str], class_names: Callable[[], Iterable[str]]
) -> Iterator[str]:
    """The pieces of a COCO file; category ids count from 1 in the order of the classes.

    `images` is used up before `annotations` is begun, so one pass may feed both; the classes are
    asked for last, so that they include every class that a box may have by then.
    """
    yield '{"info": {"description": "labeled images"}, "licenses": [],\n"images": ['
    yield from _joined(images)
    yield '],\n"annotations": ['
    yield from _joined(annotations)
    categories = [
        {"id": number, "name": name, "supercategory": ""}
        for number, name in enumerate(class_names(), start=1)
    ]
    yield f'],\n"categories": {json.dumps(categories, ensure_ascii=False)}}}\n'


def _joined(entries: Iterable[str]) -> Iterator[str]:
    separator = "\n"
    for entry in entries:
        yield separator + entry
        separator = ",\n"


def _is_id(value: object) -> bool:
    """Ids are whole numbers in nearly every file, texts in some."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def _side(value: object) -> int | None:
    """A declared width or height; absent or 0 says nothing."""
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and 1 <= value < 2**31:
        return int(value)
    return None


def _corners(bbox: object) -> tuple[float, float, float, float] | None:
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    if not all(isinstance(v, int | Decimal) and not isinstance(v, bool) for v in bbox):
        return None
    try:
        x, y, width, height = (Decimal(value) for value in bbox)
        right, bottom = EXACT.add(x, width), EXACT.add(y, height)
        return float(x), float(y), float(right), float(bottom)
    except (DecimalException, OverflowError, ValueError):
        return None
