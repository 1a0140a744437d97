"""A data set in a folder: its pictures, their labels, what cannot be used, how to read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from server.formats.boxes import LabeledImage
from server.formats.coco import Empty
from server.formats.voc import Corners

Format = Literal["images", "voc", "coco"]

# Files beside pictures that are not meant as pictures.
LABEL_SUFFIXES = {".xml", ".json", ".txt"}


class LayoutRefused(ValueError):
    """A folder that does not hold what it should; the message says what was expected."""


@dataclass(frozen=True)
class Item:
    """An image of a data set.

    Attributes:
        name: what it is to be called in its project.
        path: the picture; None where there are labels only, for an image that came before.
        split: what the lists say; None where they say nothing.
        label_file: where its labels stand, for messages; None if it has none.
    """

    name: str
    path: Path | None
    split: str | None = None
    label_file: str | None = None


@dataclass
class Dataset:
    """What a folder holds.

    Attributes:
        format: what it was read as.
        items: in the order of their names.
        refusals: what cannot be used, by name, with the reason.
        num_left_out: pictures that no list names, where lists decide.
        class_names: the label file's classes in its order; empty where it has no such order (VOC).
    """

    format: Format
    items: list[Item] = field(default_factory=list)
    refusals: list[tuple[str, str]] = field(default_factory=list)
    num_left_out: int = 0
    class_names: tuple[str, ...] = ()
    read_labels: Callable[[Item], LabeledImage | None] = lambda item: None

    def labels_of(self, item: Item) -> LabeledImage | None:
        """The labels of an item; None: unlabeled.

        Raises:
            LabelsRefused: they are broken.
        """
        return self.read_labels(item)


@dataclass(frozen=True)
class Reading:
    """How to read a folder.

    Attributes:
        format: None finds out.
        corners: of VOC files.
        empty: what a COCO image without annotations is.
        splits: name of a list -> split; only images of these lists are taken. `auto` goes by the
            usual names (`LIST_SPLITS`), and `test` is for validation where there is no `val`.
            None ignores lists.
    """

    format: Format | None = None
    corners: Corners = "voc"
    empty: Empty = "unlabeled"
    splits: Mapping[str, str] | Literal["auto"] | None = None


def files_below(
    files: Mapping[str, Path], folder: str, suffixes: set[str] | None = None
) -> dict[str, Path]:
    """The files below a folder, by their path below it."""
    return {
        name[len(folder) :]: path
        for name, path in files.items()
        if name.startswith(folder) and (suffixes is None or suffix_of(name) in suffixes)
    }


def suffix_of(name: str) -> str:
    """The last extension of a relative path, in lower case."""
    return PurePosixPath(name).suffix.lower()


def stem_of(name: str) -> str:
    """A relative path without its last extension."""
    return str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).suffix else name
