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
from server.formats.folder import FileRefused, open_regular
from server.formats.json_stream import JsonRefused, top_level_arrays

Empty = Literal["unlabeled", "negative"]

# COCO's own training set has 860,000 annotations of 118,000 images.
MAX_ANNOTATIONS = 2_000_000
MAX_IMAGES = 1_000_000
# A file with more entries that make no sense is not worth reading to its end.
MAX_PROBLEMS = 1000
_MAX_TEXT = 500
_SPLITS = ("pool", "val", "test")
_Corners = tuple[float, float, float, float]


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
    with open_regular(path) as file:
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
    reading = _Reading()
    try:
        for key, entry in top_level_arrays(path, ("images", "categories", "annotations")):
            reading.take(key, entry)
    except (JsonRefused, FileRefused) as error:
        raise CocoRefused(str(error)) from None
    if not reading.images:
        raise CocoRefused('the file lists no images: a COCO file has {"images": [{"id": 1, …')
    return reading.labels(empty)


class _Reading:
    """What was read of a file so far: of each entry no more than will be used."""

    def __init__(self) -> None:
        self.images: dict[object, tuple[str, int | None, int | None, str | None]] = {}
        self._categories: dict[object, str] = {}
        # What each is called, its image, its category, its corners, whether it is difficult.
        self._annotations: list[tuple[str, object, object, _Corners | str, bool]] = []
        self._problems: list[tuple[str, str]] = []
        self._num_entries = 0

    def take(self, key: str, entry: object) -> None:
        if key == "images":
            self._num_entries += 1
            self._take_image(entry)
        elif key == "annotations":
            self._take_annotation(entry)
        elif isinstance(entry, dict) and _is_id(entry.get("id")) and entry.get("name") is not None:
            name = str(entry["name"]).strip()
            if len(name) > _MAX_TEXT:
                self._refuse("a category", f"its name has more than {_MAX_TEXT} characters")
            elif len(self._categories) > MAX_PROBLEMS * 10:
                raise CocoRefused(f"the file lists more than {MAX_PROBLEMS * 10} categories")
            else:
                self._categories[entry["id"]] = name

    def _take_image(self, entry: object) -> None:
        id_, name = None, None
        if isinstance(entry, dict):
            id_, name = entry.get("id"), entry.get("file_name")
        if not isinstance(entry, dict) or not isinstance(name, str) or not name or not _is_id(id_):
            self._refuse(f"image entry {self._num_entries}", "it has no `id` or no `file_name`")
        elif len(name) > _MAX_TEXT:
            reason = f"its `file_name` has more than {_MAX_TEXT} characters"
            self._refuse(f"image entry {self._num_entries}", reason)
        elif id_ in self.images:
            self._refuse(name, f"its id {_said(id_)} is also that of another image")
        elif len(self.images) >= MAX_IMAGES:
            raise CocoRefused(f"the file lists more than {MAX_IMAGES} images; split it")
        else:
            width, height = _side(entry.get("width")), _side(entry.get("height"))
            split = next((each for each in _SPLITS if entry.get("split") == each), None)
            self.images[id_] = (name, width, height, split)

    def _take_annotation(self, entry: object) -> None:
        if not isinstance(entry, dict):
            return
        image, category = entry.get("image_id"), entry.get("category_id")
        called = f"annotation {_said(entry.get('id'))}"
        if not _is_id(image):
            self._refuse(called, f"its image_id {_said(image)} is none of the listed images")
            return
        if len(self._annotations) >= MAX_ANNOTATIONS:
            raise CocoRefused(f"the file has more than {MAX_ANNOTATIONS} annotations; split it")
        bbox = entry.get("bbox")
        corners: _Corners | str | None = _corners(bbox)
        if corners is None:
            corners = f"{called} has bbox {_said(bbox)}; [x, y, width, height] is due"
        difficult = bool(entry.get("difficult")) or bool(entry.get("iscrowd"))
        if not _is_id(category):
            reason = f"{called} has category_id {_said(category)}, none of the categories"
            category, corners = None, reason
        self._annotations.append((called, image, category, corners, difficult))

    def _refuse(self, called: str, why: str) -> None:
        if len(self._problems) >= MAX_PROBLEMS:
            raise CocoRefused(
                f"more than {MAX_PROBLEMS} entries of the file make no sense; "
                f"the last is {called}: {why}"
            )
        self._problems.append((called, why))

    def labels(self, empty: Empty) -> CocoLabels:
        """All of it put together."""
        labels = CocoLabels()
        boxes: dict[object, list[LabeledBox]] = {}
        used: set[object] = set()
        for called, image, category, corners, difficult in self._annotations:
            if image not in self.images:
                self._refuse(called, f"its image_id {_said(image)} is none of the listed images")
                continue
            name = self.images[image][0]
            if isinstance(corners, str):
                labels.broken.setdefault(name, corners)
            elif category not in self._categories:
                reason = f"{called} has category_id {_said(category)}, none of the categories"
                labels.broken.setdefault(name, reason)
            else:
                used.add(category)
                box = LabeledBox(self._categories[category], *corners, difficult)
                boxes.setdefault(image, []).append(box)
        labels.problems = self._problems
        for image, (name, width, height, split) in self.images.items():
            labels.images.append(LabeledImage(name, width, height, tuple(boxes.get(image, ()))))
            if split is not None:
                labels.splits[name] = split
            if image not in boxes and empty == "unlabeled":
                labels.unlabeled.add(name)
        # Ids of one kind in nearly every file; by text if somebody mixes them.
        keys: list[Any] = sorted(used, key=lambda key: (isinstance(key, str), key))
        labels.class_names = tuple(dict.fromkeys(self._categories[key] for key in keys))
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


def _said(value: object) -> str:
    return f"{value!r:.80}"


def _is_id(value: object) -> bool:
    """Ids are whole numbers in nearly every file, texts in some."""
    if isinstance(value, str):
        return len(value) <= _MAX_TEXT
    return isinstance(value, int) and not isinstance(value, bool)


def _side(value: object) -> int | None:
    """A declared width or height; absent or 0 says nothing."""
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and 1 <= value < 2**31:
        return int(value)
    return None


def _corners(bbox: object) -> _Corners | None:
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
