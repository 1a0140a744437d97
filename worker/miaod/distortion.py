"""SSD's augmentations: other colors, a larger canvas, a part of the picture.

They happen to the original picture, before it is resized, since they decide what there is to be
resized. Every random choice comes from a generator that the caller gives. Shape suffixes: N boxes,
T trials, H and W rows and columns.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as pictures

from worker.miaod.config import TrainingConfig
from worker.miaod.samples import Sample

BRIGHTNESS = 32.0
"""Largest change of all colors, of 255."""

CONTRAST = SATURATION = (0.5, 1.5)
"""Bounds of their factors."""

HUE_DEGREES = 18.0
"""Largest turn of the color circle."""

CANVAS = (124, 116, 104)
"""RGB of a canvas: ImageNet's mean, next to nothing once the mean is subtracted."""

MIN_OVERLAPS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""IoUs that a part of the picture may have to reach with every box."""

MIN_PART = 0.3
"""Smallest height and width of a part over the picture's."""

MAX_ELONGATION = 2.0
"""Longest side of a part over its shorter one."""

TRIALS = 50
"""Parts that are tried before another overlap is."""

LARGEST_SIDE = 1024
"""Originals come down to this, or to the frame's long side if that is larger: a canvas of four
times a camera's picture would not fit into memory. Pictures of VOC are smaller."""


def changes_originals(config: TrainingConfig) -> bool:
    """Whether training pictures are distorted before they are resized."""
    return config.photometric_distortion or config.iou_crop or config.expand_max > 1


def reduced(sample: Sample, config: TrainingConfig) -> Sample:
    """The sample, no longer than `LARGEST_SIDE`; boxes follow."""
    height, width = sample.image.shape[1:]
    scale = max(LARGEST_SIDE, config.image_long_side) / max(height, width)
    if scale >= 1:
        return sample
    size_hw = [max(round(height * scale), 1), max(round(width * scale), 1)]
    y, x = size_hw[0] / height, size_hw[1] / width
    return replace(
        sample,
        image=pictures.resize(sample.image, size_hw, antialias=True),
        boxes=sample.boxes * torch.tensor([x, y, x, y]),
    )


def distort(sample: Sample, config: TrainingConfig, draws: np.random.Generator) -> Sample:
    """Other colors, a canvas, a part: what the configuration asks for, in this order.

    An unlabeled picture has no boxes that a part must heed. (The reference heeds those that it
    then claims not to know.)
    """
    # One generator for each, so that turning one off leaves the choices of the others.
    colors, canvas, part = draws.spawn(3)
    if config.photometric_distortion:
        sample = replace(sample, image=recolored(sample.image, colors))
    if config.expand_max > 1:
        sample = expanded(sample, config.expand_max, canvas)
    if config.iou_crop:
        sample = cropped(sample, part)
    return sample


def recolored(image: Tensor, draws: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation, hue and the order of the channels, each in half of cases.

    Contrast comes before or after the colors. In between, values may leave 0..255; what does so in
    the end is cut off, since pictures are bytes here.

    Args:
        image: uint8 (3, H, W) RGB.
        draws: of the choices.

    Returns:
        Uint8, the same shape.
    """
    change = draws.random(5) < 0.5
    contrast_first = draws.random() < 0.5
    brightness = draws.uniform(-BRIGHTNESS, BRIGHTNESS)
    contrast = draws.uniform(*CONTRAST)
    saturation = draws.uniform(*SATURATION)
    hue = draws.uniform(-HUE_DEGREES, HUE_DEGREES)
    order = draws.permutation(3)

    colors = image.to(torch.float32)
    if change[0]:
        colors = colors + brightness
    if change[1] and contrast_first:
        colors = colors * contrast
    if change[2]:
        # At the same hue and value, saturation moves each channel from or to the brightest.
        brightest = colors.amax(dim=0)
        colors = brightest - (brightest - colors) * saturation
    if change[3]:
        colors = 255 * pictures.adjust_hue((colors / 255).clamp(0, 1), hue / 360)
    if change[1] and not contrast_first:
        colors = colors * contrast
    if change[4]:
        colors = colors[torch.from_numpy(order)]
    return colors.round().clamp(0, 255).to(torch.uint8)


def expanded(sample: Sample, largest: float, draws: np.random.Generator) -> Sample:
    """In half of the cases the picture at random on a canvas of 1 to `largest` times its sides."""
    if draws.random() < 0.5:
        return sample
    height, width = sample.image.shape[1:]
    ratio = draws.uniform(1, largest)
    canvas_h, canvas_w = int(height * ratio), int(width * ratio)
    top = int(draws.uniform(0, canvas_h - height))
    left = int(draws.uniform(0, canvas_w - width))
    canvas = torch.tensor(CANVAS, dtype=torch.uint8)[:, None, None].repeat(1, canvas_h, canvas_w)
    canvas[:, top : top + height, left : left + width] = sample.image
    shift = torch.tensor([left, top, left, top], dtype=torch.float32)
    return replace(sample, image=canvas, boxes=sample.boxes + shift)


def cropped(sample: Sample, draws: np.random.Generator) -> Sample:
    """A random part of the picture, or all of it.

    The IoU with every box must reach a minimum that is drawn first; none, one of `MIN_OVERLAPS`, or
    1 for the whole picture. Where no part of `TRIALS` does, another minimum is drawn. Of the boxes
    stay those whose middle lies in the part, at least one if there are any.
    """
    height, width = sample.image.shape[1:]
    boxes_N4 = sample.boxes.numpy().astype(np.float64)
    while True:
        minimum = draws.choice((0.0, *MIN_OVERLAPS, 1.0))
        if minimum == 1:
            return sample
        parts_T4 = _parts(height, width, draws)
        inside_TN = _middles_inside(parts_T4, boxes_N4)
        overlap_T = _overlaps(parts_T4, boxes_N4).min(axis=1, initial=1.0)
        holds_one_T = inside_TN.any(axis=1) | (len(boxes_N4) == 0)
        fitting = np.flatnonzero((overlap_T >= minimum) & holds_one_T)
        if len(fitting):
            break
    chosen = fitting[0]
    left, top, right, bottom = parts_T4[chosen].tolist()
    stays = torch.from_numpy(inside_TN[chosen])
    lower = torch.tensor([left, top, left, top], dtype=torch.float32)
    upper = torch.tensor([right, bottom, right, bottom], dtype=torch.float32)
    return replace(
        sample,
        image=sample.image[:, top:bottom, left:right],
        boxes=sample.boxes[stays].maximum(lower).minimum(upper) - lower,
        labels=sample.labels[stays],
    )


def _parts(height: int, width: int, draws: np.random.Generator) -> NDArray[np.int64]:
    """(T, 4) whole pixels xyxy: up to `TRIALS` parts that have a permitted shape."""
    rows = draws.uniform(MIN_PART * height, height, TRIALS)
    columns = draws.uniform(MIN_PART * width, width, TRIALS)
    top = draws.uniform(0, height - rows)
    left = draws.uniform(0, width - columns)
    parts = np.stack((left, top, left + columns, top + rows), axis=1).astype(np.int64)
    elongation = np.maximum(rows / columns, columns / rows)
    has_area = (parts[:, 2] > parts[:, 0]) & (parts[:, 3] > parts[:, 1])
    return parts[(elongation <= MAX_ELONGATION) & has_area]


def _overlaps(parts_T4: NDArray[np.int64], boxes_N4: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, N) IoU."""
    corner = np.maximum(parts_T4[:, None, :2], boxes_N4[None, :, :2])
    opposite = np.minimum(parts_T4[:, None, 2:], boxes_N4[None, :, 2:])
    both = (opposite - corner).clip(min=0).prod(axis=2)
    areas_T = (parts_T4[:, 2:] - parts_T4[:, :2]).prod(axis=1)
    areas_N = (boxes_N4[:, 2:] - boxes_N4[:, :2]).prod(axis=1)
    # A part has an area, and so has its union with anything.
    iou_TN: NDArray[np.float64] = both / (areas_T[:, None] + areas_N[None, :] - both)
    return iou_TN


def _middles_inside(
    parts_T4: NDArray[np.int64], boxes_N4: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(T, N): the box's middle lies in the part."""
    middles = (boxes_N4[:, :2] + boxes_N4[:, 2:]) / 2
    within = (middles[None] > parts_T4[:, None, :2]) & (middles[None] < parts_T4[:, None, 2:])
    inside: NDArray[np.bool_] = within[..., 0] & within[..., 1]
    return inside
