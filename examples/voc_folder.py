"""Reads a dataset folder in VOC layout: the simulated annotator's knowledge of the truth."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TypedDict

# Written as a call because `class` is a word of Python's own.
Box = TypedDict(
    "Box",
    {"class": str, "x1": float, "y1": float, "x2": float, "y2": float, "difficult": bool},
)


@dataclass(frozen=True)
class VocFolder:
    """`JPEGImages/`, `Annotations/` and `ImageSets/Main/{trainval,test}.txt` below `root`."""

    root: Path

    def image_paths(self, image_set: str) -> list[Path]:
        """The pictures of an image set, in the order of its list.

        Raises:
            ValueError: the list or a picture that it names is missing.
        """
        listing = self.root / "ImageSets" / "Main" / f"{image_set}.txt"
        if not listing.is_file():
            raise ValueError(f"{self.root} is not in VOC layout: {listing} is missing")
        return [self._image_path(line.split()[0]) for line in _lines(listing)]

    def boxes(self, image_name: str) -> list[Box]:
        """The true boxes of a picture in the service's form (0-based absolute pixels, xyxy).

        VOC's corners are 1-based and inclusive, so that only the left and the top one move. What
        reaches out of the picture is cut at its border, and a box without area is left out: such
        slips are common in labels, and the service rightly refuses them.

        Raises:
            ValueError: the picture's label file is missing or cannot be read.
        """
        path = self.root / "Annotations" / f"{Path(image_name).stem}.xml"
        try:
            tree = ElementTree.parse(path)
            width = float(tree.findtext("size/width") or 0) or inf
            height = float(tree.findtext("size/height") or 0) or inf
            boxes = [_box(item, width, height) for item in tree.iterfind("object")]
        except FileNotFoundError:
            raise ValueError(
                f"{path} is missing: the simulated annotator answers from the label files, and "
                "needs one for every picture that the lists name"
            ) from None
        except (ElementTree.ParseError, ValueError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        return [box for box in boxes if box["x2"] > box["x1"] and box["y2"] > box["y1"]]

    def class_names(self) -> list[str]:
        """Every class of the two image sets, the most frequent one first.

        Raises:
            ValueError: a list, a picture or a label file is missing or cannot be read, or no
                picture has a box.
        """
        counts = Counter(
            box["class"]
            for image_set in ("trainval", "test")
            for image in self.image_paths(image_set)
            for box in self.boxes(image.name)
        )
        if not counts:
            raise ValueError(f"{self.root} has no box in any label file: there is nothing to learn")
        return [name for name, _ in counts.most_common()]

    def _image_path(self, stem: str) -> Path:
        for suffix in (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG"):
            path = self.root / "JPEGImages" / f"{stem}{suffix}"
            if path.is_file():
                return path
        raise ValueError(f"{self.root}/JPEGImages has no picture named {stem}")


def _box(item: ElementTree.Element, width: float, height: float) -> Box:
    xmin, ymin, xmax, ymax = (
        float(item.findtext(f"bndbox/{corner}", "")) for corner in ("xmin", "ymin", "xmax", "ymax")
    )
    return {
        "class": item.findtext("name", "").strip(),
        "x1": max(xmin - 1, 0),
        "y1": max(ymin - 1, 0),
        "x2": min(xmax, width),
        "y2": min(ymax, height),
        "difficult": item.findtext("difficult", "0").strip() == "1",
    }


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.strip()]
