"""A fully labeled data set as an experiment uses it: labels are there, but only asked for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from server.formats.boxes import LabeledBox, LabelsRefused, fit_to_picture
from server.formats.dataset import Reading
from server.formats.layout import read_folder
from server.formats.pictures import load_rgb8, probe
from server.formats.voc import Corners
from worker.miaod.corners import as_evaluated_on
from worker.miaod.metrics import GroundTruth
from worker.miaod.samples import Sample

MAX_PIXELS = 200_000_000


class DataRefused(ValueError):
    """The folder is no fully labeled data set; the message says what is missing."""


@dataclass(frozen=True)
class LabeledPicture:
    """A picture and its true boxes.

    Attributes:
        ordinal: its place in the pool or the test set.
        name: of its file.
        path: of its file.
        size_hw: rows and columns, upright.
        boxes: in absolute pixels.
    """

    ordinal: int
    name: str
    path: Path
    size_hw: tuple[int, int]
    boxes: tuple[LabeledBox, ...]


@dataclass(frozen=True)
class LabeledData:
    """The pool to choose from, and the pictures that every model is tested on."""

    class_names: tuple[str, ...]
    pool: tuple[LabeledPicture, ...]
    test: tuple[LabeledPicture, ...]

    def sha256(self) -> str:
        """A hash of names and boxes, by which an experiment knows its data again."""
        digest = hashlib.sha256(repr(self.class_names).encode())
        for part in (self.pool, self.test):
            for picture in part:
                digest.update(repr((picture.name, picture.size_hw, picture.boxes)).encode())
        return digest.hexdigest()

    def hold_out(self, count: int) -> LabeledData:
        """The data for choosing settings: `count` pictures of the pool are the test set.

        The real test set is left aside, so that nothing is tuned on it.

        Raises:
            DataRefused: the pool is too small.
        """
        if not 0 < count < len(self.pool):
            raise DataRefused(f"{count} of {len(self.pool)} pool pictures cannot be held out")
        order = np.random.default_rng(len(self.pool)).permutation(len(self.pool)).tolist()
        held_out = sorted(order[:count])
        rest = sorted(order[count:])
        return replace(
            self,
            pool=_numbered(self.pool[i] for i in rest),
            test=_numbered(self.pool[i] for i in held_out),
        )


class Pictures:
    """Some pictures as the algorithm reads them (see `miaod.samples.Dataset`).

    Those of the unlabeled pool are made with `labeled=False` and carry no box.
    """

    def __init__(
        self, pictures: Sequence[LabeledPicture], class_names: Sequence[str], *, labeled: bool
    ) -> None:
        """Take pictures in ascending order of their ordinals."""
        self._pictures = tuple(pictures)
        self._class_names = tuple(class_names)
        self._labeled = labeled

    @property
    def ordinals(self) -> Sequence[int]:
        """As in `Dataset`."""
        return [picture.ordinal for picture in self._pictures]

    @property
    def sizes_hw(self) -> Sequence[tuple[int, int]]:
        """As in `Dataset`."""
        return [picture.size_hw for picture in self._pictures]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._pictures)

    def load(self, index: int) -> Sample:
        """As in `Dataset`; difficult boxes are not trained on."""
        picture = self._pictures[index]
        pixels = torch.from_numpy(load_rgb8(picture.path))
        boxes = [box for box in picture.boxes if self._labeled and not box.difficult]
        corners = [[box.x1, box.y1, box.x2, box.y2] for box in boxes]
        labels = [self._class_names.index(box.class_name) for box in boxes]
        return Sample(
            image=pixels.permute(2, 0, 1).contiguous(),
            boxes=torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(labels, dtype=torch.int64),
            ordinal=picture.ordinal,
            num_known_classes=len(self._class_names),
        )


def read_data(
    root: Path, *, pool_list: str, test_list: str, corners: Corners = "voc"
) -> LabeledData:
    """A folder in VOC or COCO layout.

    Args:
        root: the folder.
        pool_list, test_list: the lists of the pool and the test set: `ImageSets/Main/NAME.txt` in
            VOC's layout, `train` or `val` in COCO's (for `instances_train2017.json` and the like).
        corners: of VOC files.

    Raises:
        DataRefused: a list, a picture or labels are missing or broken.
    """
    return join_data([(root, {pool_list: "pool", test_list: "test"})], corners=corners)


def join_data(parts: Sequence[tuple[Path, dict[str, str]]], *, corners: Corners) -> LabeledData:
    """Several folders as one data set, in the order given.

    Args:
        parts: folders with their lists, each for `pool` or `test`.
        corners: of VOC files.

    Raises:
        DataRefused: as `read_data`.
    """
    found: dict[str, list[LabeledPicture]] = {"pool": [], "test": []}
    classes: Counter[str] = Counter()
    declared: list[str] = []
    for root, splits in parts:
        try:
            folder = read_folder(root, Reading(corners=corners, splits=splits))
        except (ValueError, OSError) as error:
            raise DataRefused(f"{root}: {error}") from error
        if folder.refusals:
            name, reason = folder.refusals[0]
            raise DataRefused(f"{root}: {name}: {reason} (one of {len(folder.refusals)})")
        declared += [name for name in folder.class_names if name not in declared]
        for item in folder.items:
            try:
                labels = folder.labels_of(item)
                if item.path is None or item.split is None:
                    raise LabelsRefused("there is no picture")
                picture = probe(item.path, MAX_PIXELS)
                # An image without a label file is not one without objects.
                if labels is None:
                    continue
                boxes = fit_to_picture(labels, picture)
            except ValueError as error:
                raise DataRefused(f"{root}: {item.name}: {error}") from error
            classes.update(box.class_name for box in boxes)
            size_hw = (picture.height, picture.width)
            found[item.split].append(LabeledPicture(0, item.name, item.path, size_hw, boxes))
    for split, pictures in found.items():
        if not pictures:
            raise DataRefused(f"{parts[0][0]}: no labeled picture for the {split}")
    # Where no file says the order of classes, the alphabet does.
    names = declared or sorted(classes)
    return LabeledData(tuple(names), _numbered(found["pool"]), _numbered(found["test"]))


def ground_truth(
    picture: LabeledPicture, class_names: Sequence[str], box_corners: str = "exact"
) -> GroundTruth:
    """What a model's detections are compared with, difficult boxes included.

    Args:
        picture: with its boxes.
        class_names: by class id.
        box_corners: as in `TrainingConfig`.
    """
    corners = [(box.x1, box.y1, box.x2, box.y2) for box in picture.boxes]
    exact_N4 = torch.tensor(corners, dtype=torch.float64).reshape(-1, 4)
    return GroundTruth(
        boxes=as_evaluated_on(exact_N4, box_corners).numpy(),
        labels=np.array([class_names.index(b.class_name) for b in picture.boxes], dtype=np.int64),
        difficult=np.array([box.difficult for box in picture.boxes], dtype=np.bool_),
        num_known_classes=len(class_names),
    )


def count_boxes(pictures: Iterable[LabeledPicture], class_names: Sequence[str]) -> list[int]:
    """Boxes of each class that an annotator would have drawn."""
    counts = Counter(box.class_name for picture in pictures for box in picture.boxes)
    return [counts[name] for name in class_names]


def _numbered(pictures: Iterable[LabeledPicture]) -> tuple[LabeledPicture, ...]:
    return tuple(replace(picture, ordinal=place) for place, picture in enumerate(pictures))
