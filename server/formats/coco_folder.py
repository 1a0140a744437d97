"""Folders in COCO layout: which entry is about which picture, one label file or one per split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from server.formats.boxes import LabeledImage, LabelsRefused
from server.formats.coco import CocoRefused, looks_like_coco, read_coco
from server.formats.dataset import (
    LABEL_SUFFIXES,
    Dataset,
    Item,
    LayoutRefused,
    Reading,
    files_below,
    suffix_of,
)
from server.formats.splits import LIST_SPLITS, Splits


def coco_files_among(json_files: Mapping[str, Path]) -> list[str]:
    """The label files among some JSON files."""
    found = [name for name, path in json_files.items() if looks_like_coco(path)]
    # The official sets bring captions and key points of the same images along.
    instances = [name for name in found if PurePosixPath(name).name.startswith("instances")]
    return instances or found


class CocoFolder:
    """A folder with COCO label files."""

    def __init__(self, files: dict[str, Path], coco_files: list[str], how: Reading) -> None:
        """Find the pictures.

        Args:
            files: relative path -> file, of the whole folder.
            coco_files: which of them are label files.
            how: to read it.

        Raises:
            LayoutRefused: there is no label file.
        """
        if not coco_files:
            raise LayoutRefused(
                'the folder holds no COCO label file: a JSON file with "images", "annotations" '
                'and "categories" is due'
            )
        self._files, self._coco_files, self._how = files, coco_files, how
        plain = {n: p for n, p in files.items() if suffix_of(n) not in LABEL_SUFFIXES}
        folders = {name.split("/")[0] for name in plain if "/" in name}
        self._image_folder = "images/" if "images" in folders else ""
        self._pictures = files_below(plain, self._image_folder)
        self._by_base: dict[str, list[str]] = {}
        for name in self._pictures:
            self._by_base.setdefault(PurePosixPath(name).name, []).append(name)

    def dataset(self) -> Dataset:
        """Read the label files and match their entries with the pictures."""
        dataset = Dataset("coco")
        list_of = {name: _list_name(name) for name in self._coco_files}
        splits = Splits(self._how.splits, set(list_of.values()))
        labels: dict[str, LabeledImage | LabelsRefused | None] = {}
        split_of: dict[str, str | None] = {}
        label_file: dict[str, str] = {}
        classes: dict[str, None] = {}
        for file in self._coco_files:
            split = splits.of([list_of[file]])
            if splits.leave_out(split):
                continue
            try:
                found = read_coco(self._files[file], self._how.empty)
            except CocoRefused as error:
                dataset.refusals.append((file, str(error)))
                continue
            dataset.refusals += [(f"{file}: {what}", why) for what, why in found.problems]
            classes |= dict.fromkeys(found.class_names)
            for entry in found.images:
                name = self._picture_of(entry.name, file)
                if name in labels:
                    reason = f"{label_file[name]} lists it already; list it once"
                    dataset.refusals.append((f"{file}: {entry.name}", reason))
                    continue
                # Our own exports say it image by image.
                said = found.splits.get(entry.name) if self._how.splits == "auto" else None
                label_file[name], split_of[name] = file, split or said
                if entry.name in found.broken:
                    labels[name] = LabelsRefused(found.broken[entry.name])
                else:
                    labels[name] = None if entry.name in found.unlabeled else entry
        for name in sorted({*self._pictures, *labels}):
            if name not in labels and splits.leave_out(None):
                dataset.num_left_out += 1
                continue
            path, split = self._pictures.get(name), split_of.get(name)
            dataset.items.append(Item(name, path, split, label_file.get(name)))
        dataset.class_names = tuple(classes)
        dataset.read_labels = lambda item: _or_raise(labels.get(item.name))
        return dataset

    def _picture_of(self, file_name: str, label_file: str) -> str:
        """The picture that a `file_name` means; itself if there is none (labels only)."""
        wanted = file_name.replace("\\", "/").removeprefix("./").lstrip("/")
        if wanted in self._pictures:
            return wanted
        beside = str(PurePosixPath(label_file).parent / wanted).removeprefix(self._image_folder)
        if beside in self._pictures:
            return beside
        fitting = [
            name
            for name in self._by_base.get(PurePosixPath(wanted).name, [])
            if name.endswith(f"/{wanted}")
        ]
        if len(fitting) > 1:  # train/1.jpg and val/1.jpg: the label file's own split tells
            own = [name for name in fitting if _list_name(label_file) in name.split("/")[0]]
            fitting = own or fitting
        return fitting[0] if len(fitting) == 1 else wanted


def _list_name(label_file: str) -> str:
    """`train` for train.json, instances_train2017.json and train/_annotations.coco.json."""
    path = PurePosixPath(label_file)
    stem = path.name.split(".")[0]
    if stem in ("_annotations", "annotations", "labels") and path.parent.name:
        return path.parent.name
    words = stem.replace("-", "_").split("_")
    for word in words:
        usual = word.rstrip("0123456789").lower()
        if usual in LIST_SPLITS:
            return usual
    return stem


def _or_raise(found: LabeledImage | LabelsRefused | None) -> LabeledImage | None:
    if isinstance(found, LabelsRefused):
        raise found
    return found
