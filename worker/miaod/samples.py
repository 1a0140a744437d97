"""What the algorithm asks of data: a sequence of upright pictures with their boxes.

Shape suffixes: C channels (RGB), H and W rows and columns, N boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One picture and what is known about it.

    Attributes:
        image: uint8 (3, H, W), RGB, upright.
        boxes: float32 (N, 4), absolute-pixel xyxy of that picture; (0, 4) for a negative and for an
            unlabeled picture, whose labels nobody may look at.
        labels: int64 (N,), class ids 0..C-1.
        ordinal: the picture's place in its project's import order.
        num_known_classes: how many of the classes existed when the picture was annotated; later
            classes are neither present nor absent in it.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    ordinal: int
    num_known_classes: int


class Dataset(Protocol):
    """A fixed, ordered set of pictures, each decoded when it is asked for.

    With `num_loader_workers` above 0 the object is pickled into other processes, so it must open
    files and connections lazily.
    """

    @property
    def ordinals(self) -> Sequence[int]:
        """The ordinal of each picture, ascending."""

    @property
    def sizes_hw(self) -> Sequence[tuple[int, int]]:
        """Rows and columns of each upright picture, known without decoding it."""

    def __len__(self) -> int:
        """Number of pictures."""

    def load(self, index: int) -> Sample:
        """Decode picture `index` (0-based place in this set, not its ordinal)."""


class Subset:
    """Some pictures of a dataset."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        """Take those at the indices, which ascend."""
        self._dataset = dataset
        self._indices = list(indices)

    @property
    def ordinals(self) -> Sequence[int]:
        """As in `Dataset`."""
        ordinals = self._dataset.ordinals
        return [ordinals[index] for index in self._indices]

    @property
    def sizes_hw(self) -> Sequence[tuple[int, int]]:
        """As in `Dataset`."""
        sizes_hw = self._dataset.sizes_hw
        return [sizes_hw[index] for index in self._indices]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._indices)

    def load(self, index: int) -> Sample:
        """As in `Dataset`."""
        return self._dataset.load(self._indices[index])
