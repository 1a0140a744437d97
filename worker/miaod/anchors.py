"""Anchors: the boxes that the detector corrects, and which of them lie on an image.

Shape suffixes: A anchors of one level, N anchors per cell, H and W rows and columns of a map.

Anchors sit on the corner of their cell, (column * stride, row * stride), and are not rounded. Both
are the reference's choices; torchvision's generator rounds, which moves an edge by up to half a
pixel, enough to change which anchor a small box gets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def feature_sizes(image_hw: tuple[int, int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Rows and columns of each level's map for a batch of that size in pixels."""
    height, width = image_hw
    return [(math.ceil(height / stride), math.ceil(width / stride)) for stride in strides]


def base_anchors(
    stride: int, octave_scale: float, scales_per_octave: int, ratios: Sequence[float]
) -> Tensor:
    """Anchors of a cell whose corner is the origin.

    Args:
        stride: pixels between cells.
        octave_scale: side of the smallest square anchor, in strides.
        scales_per_octave: sizes between one octave and the next.
        ratios: height divided by width.

    Returns:
        (N, 4) float32 xyxy, N = ratios * scales, the scale running fastest.
    """
    # Products in float32 and in this order: the reference's anchors to the last bit.
    steps = torch.arange(scales_per_octave, dtype=torch.float64) / scales_per_octave
    scales = (2.0**steps * octave_scale).to(torch.float32)
    height_factors = torch.tensor(list(ratios), dtype=torch.float32).sqrt()
    width_factors = 1 / height_factors
    widths = (stride * width_factors[:, None] * scales[None, :]).flatten()
    heights = (stride * height_factors[:, None] * scales[None, :]).flatten()
    return torch.stack((-0.5 * widths, -0.5 * heights, 0.5 * widths, 0.5 * heights), dim=1)


def level_anchors(
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    octave_scale: float,
    scales_per_octave: int,
    ratios: Sequence[float],
    device: torch.device | str = "cpu",
) -> list[Tensor]:
    """Anchors of every level in row, column, anchor-of-the-cell order.

    Args:
        sizes: rows and columns of each level's map.
        strides: pixels between cells, per level.
        octave_scale: side of the smallest square anchor, in strides.
        scales_per_octave: sizes between one octave and the next.
        ratios: height divided by width.
        device: where the result lies; computed on the CPU so that it does not depend on it.

    Returns:
        Per level (A, 4) float32 xyxy in pixels of the batch tensor; anchors may leave the image.
    """
    levels = []
    for (rows, columns), stride in zip(sizes, strides, strict=True):
        base_N4 = base_anchors(stride, octave_scale, scales_per_octave, ratios)
        y, x = torch.meshgrid(
            torch.arange(rows, dtype=torch.float32) * stride,
            torch.arange(columns, dtype=torch.float32) * stride,
            indexing="ij",
        )
        corners = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4)
        levels.append((corners + base_N4).reshape(-1, 4).to(device))
    return levels


def valid_flags(
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    pad_hw: tuple[int, int],
    num_base: int,
    device: torch.device | str = "cpu",
) -> list[Tensor]:
    """Anchors whose cell lies on the image's own area, not in what evens out the batch.

    Args:
        sizes: rows and columns of each level's map of the batch.
        strides: pixels between cells, per level.
        pad_hw: the image's own height and width, padded to the network's multiple.
        num_base: anchors per cell.
        device: where the result lies.

    Returns:
        Per level (A,) bool in the order of `level_anchors`.
    """
    levels = []
    for (rows, columns), (own_rows, own_columns) in zip(
        sizes, feature_sizes(pad_hw, strides), strict=True
    ):
        on_image = torch.zeros((rows, columns, num_base), dtype=torch.bool)
        on_image[:own_rows, :own_columns] = True
        levels.append(on_image.flatten().to(device))
    return levels
