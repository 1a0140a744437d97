"""Reads a dataset folder in VOC layout: the simulated annotator's knowledge of the truth."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

Box = dict[str, str | float | bool]


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

        VOC's corners are 1-based and inclusive, so that only the left and the top one move.
        """
        stem = Path(image_name).stem
        tree = ElementTree.parse(self.root / "Annotations" / f"{stem}.xml")
        boxes: list[Box] = []
        for item in tree.iterfind("object"):
            xmin, ymin, xmax, ymax = (
                float(item.findtext(f"bndbox/{corner}", ""))
                for corner in ("xmin", "ymin", "xmax", "ymax")
            )
            boxes.append(
                {
                    "class": item.findtext("name", "").strip(),
                    "x1": xmin - 1,
                    "y1": ymin - 1,
                    "x2": xmax,
                    "y2": ymax,
                    "difficult": item.findtext("difficult", "0").strip() == "1",
                }
            )
        return boxes

    def class_names(self) -> list[str]:
        """Every class of the two image sets, the most frequent one first."""
        counts = Counter(
            str(box["class"])
            for image_set in ("trainval", "test")
            for image in self.image_paths(image_set)
            for box in self.boxes(image.name)
        )
        return [name for name, _ in counts.most_common()]

    def _image_path(self, stem: str) -> Path:
        for suffix in (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG"):
            path = self.root / "JPEGImages" / f"{stem}{suffix}"
            if path.is_file():
                return path
        raise ValueError(f"{self.root}/JPEGImages has no picture named {stem}")


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.strip()]
