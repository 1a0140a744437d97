"""What the four towers say about a batch: what losses, scoring and detection read.

Shape suffixes: B images, A anchors of one level (or of all levels, level after level), C classes,
K columns of a convolution map per anchor, N anchors per cell, D channels of the backbone, H and W
rows and columns of a map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LOOK_STRIDE = 16
"""Pixels between cells of `HeadOutputs.look_BDHW`."""


@dataclass(frozen=True)
class HeadOutputs:
    """Raw, float32 outputs per pyramid level, finest level first.

    Anchors are in row, column, anchor-of-the-cell order, the order of `anchors.level_anchors`. SSD
    has C + 1 columns in f1, f2 and mil, the last one for background.

    Attributes:
        f1: logits (B, A, C) of the first classifier, the one that detects.
        f2: logits (B, A, C) of its adversary.
        mil: logits (B, A, C) of the image-level tower, before any softmax; (B, A, C + 1) where the
            last column stands for background. None where that tower was not run.
        deltas: box offsets (B, A, 4) as dx, dy, dw, dh. None where that tower was not run.
        look_BDHW: the backbone's map at stride `LOOK_STRIDE`, by which pictures and objects are
            compared. No gradient goes back through it.
    """

    f1: tuple[Tensor, ...]
    f2: tuple[Tensor, ...]
    mil: tuple[Tensor, ...] | None = None
    deltas: tuple[Tensor, ...] | None = None
    look_BDHW: Tensor | None = None

    @property
    def num_classes(self) -> int:
        """Columns of a classifier: RetinaNet's classes, background not counted."""
        return self.f1[0].shape[-1]

    @property
    def num_images(self) -> int:
        """Images of the batch."""
        return self.f1[0].shape[0]

    @property
    def anchors_per_level(self) -> tuple[int, ...]:
        """Number of anchors of each level."""
        return tuple(level.shape[1] for level in self.f1)


def flatten_map(map_BKHW: Tensor, num_columns: int) -> Tensor:
    """One row per anchor from a convolution map.

    Args:
        map_BKHW: map with N * num_columns channels, all columns of an anchor side by side.
        num_columns: columns per anchor (C for a classifier, 4 for offsets).

    Returns:
        (B, H * W * N, num_columns) float32 in row, column, anchor order. Half precision is widened
        here, so that nothing after the convolutions runs in it.
    """
    batch = map_BKHW.shape[0]
    rows = map_BKHW.permute(0, 2, 3, 1).reshape(batch, -1, num_columns)
    return rows.to(torch.float32)
