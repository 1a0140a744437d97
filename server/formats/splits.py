"""Lists of images, and what they say about splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from server.formats.boxes import LabelsRefused
from server.formats.dataset import LayoutRefused

# What a list's name says about the split, where nobody says otherwise.
LIST_SPLITS = {
    "train": "pool",
    "trainval": "pool",
    "training": "pool",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


class Splits:
    """Decides on the split of an image from the lists that name it."""

    def __init__(
        self, asked: Mapping[str, str] | Literal["auto"] | None, present: set[str]
    ) -> None:
        """Choose the lists that count.

        Args:
            asked: as `Reading.splits`.
            present: the names of the lists that are there.

        Raises:
            LayoutRefused: a list that was asked for is not there.
        """
        self._strict = asked is not None
        if asked is None:
            self._split_of: dict[str, str] = {}
        elif asked == "auto":
            usual = {name: LIST_SPLITS[name.lower()] for name in _usual(present)}
            # VOC's `trainval` is `train` and `val` together: one or the other.
            overlap = {"trainval"} if {"train", "val"} <= usual.keys() else {"train", "val"}
            if "trainval" in usual:
                usual = {name: split for name, split in usual.items() if name not in overlap}
            if "val" not in usual.values():
                usual = {name: "val" if s == "test" else s for name, s in usual.items()}
            self._split_of = usual
            self._strict = bool(usual)
        else:
            missing = sorted(asked.keys() - present)
            if missing:
                raise LayoutRefused(
                    f"there is no list {', '.join(missing)}; "
                    f"there {'are' if present else 'is'} {', '.join(sorted(present)) or 'none'}"
                )
            self._split_of = dict(asked)

    @property
    def used(self) -> list[str]:
        """The lists that count."""
        return sorted(self._split_of)

    def of(self, lists: list[str]) -> str | None:
        """The split of an image that stands in these lists.

        Raises:
            LabelsRefused: two of them disagree.
        """
        found = {name: self._split_of[name] for name in lists if name in self._split_of}
        if len(set(found.values())) > 1:
            pairs = ", ".join(f"{name} ({split})" for name, split in sorted(found.items()))
            raise LabelsRefused(f"it stands in several lists: {pairs}; keep it in one")
        return next(iter(found.values()), None)

    def leave_out(self, split: str | None) -> bool:
        """Whether an image without a split stays behind: where lists decide, it does."""
        return self._strict and split is None


def _usual(names: set[str]) -> set[str]:
    return {name for name in names if name.lower() in LIST_SPLITS}
