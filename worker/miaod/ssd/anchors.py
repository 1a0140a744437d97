"""SSD300's 8732 anchors.

Shape suffixes: A anchors of one level, N anchors per cell.

Other than RetinaNet's, they sit on the middle of their cell, and a level's sizes come from a list
rather than from its stride.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

IMAGE_SIDE = 300
"""Rows and columns of every picture: the levels' sizes and the anchors are made for this one."""

CELL_OFFSET = 0.5
"""Where in its cell an anchor is centred, in strides."""


@dataclass(frozen=True)
class Level:
    """The anchors of one map.

    Attributes:
        stride: pixels between cells.
        side: of the smaller square anchor, in pixels.
        next_side: of the larger levels' smaller one; the larger square anchor lies between the two.
        elongations: long side over short side of the other anchors, each lying and standing.
    """

    stride: int
    side: int
    next_side: int
    elongations: tuple[int, ...]

    @property
    def num_base_anchors(self) -> int:
        """N: two squares, and two of each elongation."""
        return 2 + 2 * len(self.elongations)

    @property
    def num_cells(self) -> int:
        """Rows of the level's map, and columns."""
        return math.ceil(IMAGE_SIDE / self.stride)


LEVELS = (
    Level(8, 30, 60, (2,)),
    Level(16, 60, 111, (2, 3)),
    Level(32, 111, 162, (2, 3)),
    Level(64, 162, 213, (2, 3)),
    Level(100, 213, 264, (2,)),
    Level(300, 264, 315, (2,)),
)
"""Finest first: maps of 38, 19, 10, 5, 3 and 1 cells a side."""


def base_anchors(level: Level) -> Tensor:
    """Anchors (N, 4) float32 xyxy of the cell whose corner is the origin.

    In this order: the square, the square between this level's and the next, and for each elongation
    the lying and the standing one.
    """
    scales = [1.0, math.sqrt(level.next_side / level.side)] + [1.0] * (2 * len(level.elongations))
    ratios = [1.0, 1.0]
    for elongation in level.elongations:
        ratios += [1 / elongation, float(elongation)]
    # Products in float32 and in this order: the reference's anchors to the last bit.
    height_factors = torch.tensor(ratios, dtype=torch.float32).sqrt()
    sides = level.side * torch.tensor(scales, dtype=torch.float32)
    half_widths = 0.5 * (sides * (1 / height_factors))
    half_heights = 0.5 * (sides * height_factors)
    middle = CELL_OFFSET * level.stride
    return torch.stack(
        (middle - half_widths, middle - half_heights, middle + half_widths, middle + half_heights),
        dim=1,
    )


def level_anchors(device: torch.device | str = "cpu") -> list[Tensor]:
    """Anchors of every level in row, column, anchor-of-the-cell order.

    Returns:
        Per level (A, 4) float32 xyxy in pixels; anchors may leave the picture. Computed on the CPU,
        so that they do not depend on the device.
    """
    anchors = []
    for level in LEVELS:
        places = torch.arange(level.num_cells, dtype=torch.float32) * level.stride
        y, x = torch.meshgrid(places, places, indexing="ij")
        corners = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4)
        anchors.append((corners + base_anchors(level)).reshape(-1, 4).to(device))
    return anchors
