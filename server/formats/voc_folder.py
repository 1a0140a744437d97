"""Folders in VOC layout: which annotation is about which picture, and what the lists say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from server.formats.boxes import LabeledImage, LabelsRefused
from server.formats.dataset import (
    LABEL_SUFFIXES,
    Dataset,
    Item,
    LayoutRefused,
    Reading,
    files_below,
    stem_of,
    suffix_of,
)
from server.formats.folder import FileRefused, open_regular
from server.formats.splits import Splits
from server.formats.voc import MAX_XML_BYTES, read_annotation

# A million lines of usual names.
MAX_LIST_BYTES = 32_000_000


def voc_bases(files: Mapping[str, Path]) -> list[str]:
    """The folders (with a slash at the end, or "") that have `JPEGImages` or `Annotations`."""
    bases = set()
    for name in files:
        parts = name.split("/")[:-1]
        for marker in ("JPEGImages", "Annotations"):
            if marker in parts and (marker == "JPEGImages" or name.lower().endswith(".xml")):
                bases.add("".join(f"{part}/" for part in parts[: parts.index(marker)]))
    return sorted(bases)


class VocFolder:
    """A folder with VOC annotations."""

    def __init__(self, files: dict[str, Path], bases: list[str], how: Reading) -> None:
        """Find pictures, annotations and lists.

        Args:
            files: relative path -> file, of the whole folder.
            bases: from `voc_bases`.
            how: to read it.

        Raises:
            LayoutRefused: neither pictures nor annotations, or several data sets.
        """
        self._how = how
        if len(bases) > 1:
            raise LayoutRefused(
                f"the folder holds several VOC data sets ({', '.join(bases)}); import one at a time"
            )
        if bases:
            self._pictures = files_below(files, f"{bases[0]}JPEGImages/")
            self._xml = files_below(files, f"{bases[0]}Annotations/", {".xml"})
            self._xml_prefix = f"{bases[0]}Annotations/"
            lists = files_below(files, f"{bases[0]}ImageSets/Main/", {".txt"})
            self._lists = {stem_of(name): path for name, path in lists.items()}
        else:
            lower = {name.split("/")[0].lower(): name.split("/")[0] for name in files}
            folder = f"{lower['images']}/" if "images" in lower else ""
            plain = {n: p for n, p in files.items() if suffix_of(n) not in LABEL_SUFFIXES}
            self._pictures = files_below(plain, folder)
            in_own = "annotations" in lower and bool(folder)
            self._xml_prefix = f"{lower['annotations']}/" if in_own else ""
            self._xml = files_below(files, self._xml_prefix, {".xml"})
            self._lists = {}
        if not self._xml and not self._pictures:
            raise LayoutRefused(
                "the folder holds no VOC data set: JPEGImages with the pictures and Annotations "
                "with an XML file for each are due"
            )

    def dataset(self) -> Dataset:
        """Match annotations and lists with the pictures; annotations are read when asked for."""
        dataset = Dataset("voc")
        by_stem: dict[str, list[str]] = {}
        for name in self._pictures:
            by_stem.setdefault(stem_of(name), []).append(name)
        labels: dict[str, str] = {}
        for xml in self._xml:
            picture = self._picture_of(xml, by_stem, dataset)
            if picture is None:
                continue
            if picture in labels:
                reason = f"{labels[picture]} labels {picture} already; keep one of them"
                dataset.refusals.append((self._xml_prefix + xml, reason))
                continue
            labels[picture] = xml
        lists, splits = self._listed(by_stem, labels, dataset)
        for name in sorted({*self._pictures, *labels}):
            try:
                split = splits.of(lists.get(name, []))
            except LabelsRefused as error:
                dataset.refusals.append((name, str(error)))
                continue
            if splits.leave_out(split):
                dataset.num_left_out += 1
                continue
            label_file = self._xml_prefix + labels[name] if name in labels else None
            dataset.items.append(Item(name, self._pictures.get(name), split, label_file))
        dataset.read_labels = lambda item: self._read(labels.get(item.name))
        return dataset

    def _read(self, xml: str | None) -> LabeledImage | None:
        if xml is None:
            return None
        try:
            with open_regular(self._xml[xml]) as file:
                content = file.read(MAX_XML_BYTES + 1)
        except FileRefused as error:
            raise LabelsRefused(str(error)) from None
        return read_annotation(content, self._how.corners)

    def _picture_of(
        self, xml: str, by_stem: Mapping[str, list[str]], dataset: Dataset
    ) -> str | None:
        """Which picture an annotation is about.

        Its own path decides, as in VOC, where `<filename>` is often out of date; `<filename>` only
        where several pictures differ in nothing but the extension, or none is there.
        """
        stem = stem_of(xml)
        candidates = by_stem.get(stem, [])
        if len(candidates) == 1:
            return candidates[0]
        if stem in self._pictures:  # a.png.xml beside a.jpg.xml
            return stem
        try:
            labels = self._read(xml)
        except LabelsRefused as error:
            dataset.refusals.append((self._xml_prefix + xml, str(error)))
            return None
        written = (labels.name if labels else "").replace("\\", "/").lstrip("/")
        beside = str(PurePosixPath(xml).parent / PurePosixPath(written).name)
        for name in (written, beside):
            if name in self._pictures:
                return name
        if candidates:
            several = ", ".join(candidates)
            reason = f"several pictures fit ({several}); <filename> must name one of them"
        elif not written:
            reason = "there is no picture of its name, and no <filename> in it"
        elif stem_of(written) == stem or PurePosixPath(written).parent.name:
            return written  # labels only: the project may have the image already
        else:
            return beside
        dataset.refusals.append((self._xml_prefix + xml, reason))
        return None

    def _listed(
        self, by_stem: Mapping[str, list[str]], labels: Mapping[str, str], dataset: Dataset
    ) -> tuple[dict[str, list[str]], Splits]:
        """For each image the lists that name it, and what these say."""
        splits = Splits(self._how.splits, set(self._lists))
        lists: dict[str, list[str]] = {}
        only_labels = {stem_of(name): [name] for name in labels if name not in self._pictures}
        for list_name in splits.used:
            text = _list_text(list_name, self._lists[list_name])
            for number, line in enumerate(text.splitlines(), start=1):
                entry = line.strip()
                # Lists of one class carry a flag: "000017 -1".
                names: list[str] = []
                for key in (entry, entry.rpartition(" ")[0].strip()):
                    exact = [key] if key in self._pictures or key in labels else []
                    names = names or by_stem.get(key) or exact or only_labels.get(key) or []
                if entry and not names:
                    where = f"{list_name}.txt line {number}"
                    dataset.refusals.append((where, f"there is no picture {entry[:200]!r}"))
                for name in names:
                    if list_name not in lists.setdefault(name, []):
                        lists[name].append(list_name)
        return lists, splits


def _list_text(name: str, path: Path) -> str:
    try:
        with open_regular(path) as file:
            content = file.read(MAX_LIST_BYTES + 1)
    except FileRefused as error:
        raise LayoutRefused(f"the list {name} cannot be read: {error}") from None
    if len(content) > MAX_LIST_BYTES:
        raise LayoutRefused(f"the list {name} has more than {MAX_LIST_BYTES} bytes; split it")
    return content.decode("utf-8", "replace")
