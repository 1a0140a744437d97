"""From a picture to a row of a batch: fit, augment, collate, normalise; and boxes back again.

Every random choice comes from a generator that the caller gives. Shape suffixes: B images, C
channels, H and W rows and columns, N boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as pictures

from worker.miaod.config import TrainingConfig
from worker.miaod.corners import as_trained_on
from worker.miaod.samples import Sample

MIN_VISIBLE = 0.3
"""Share of a box that a random crop must leave for the box to stay a target."""


@dataclass(frozen=True)
class Batch:
    """Pictures of one size with their boxes, in resized pixels.

    Attributes:
        images_BCHW: uint8 RGB, each picture at the upper left, zeros elsewhere.
        boxes: per image float32 (N, 4) xyxy.
        labels: per image int64 (N,).
        sizes_hw: rows and columns of each resized picture.
        original_sizes_hw: rows and columns before resizing.
        ordinals: places in the import order.
        num_known_classes: see `Sample`.
    """

    images_BCHW: Tensor
    boxes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    sizes_hw: tuple[tuple[int, int], ...]
    original_sizes_hw: tuple[tuple[int, int], ...]
    ordinals: tuple[int, ...]
    num_known_classes: tuple[int, ...]

    @property
    def padded_hw(self) -> tuple[int, int]:
        """Rows and columns of the batch."""
        return (self.images_BCHW.shape[2], self.images_BCHW.shape[3])

    def only(self, place: int) -> Batch:
        """The picture at one place as a batch of its own, padded as it is here."""
        one = slice(place, place + 1)
        return Batch(
            images_BCHW=self.images_BCHW[one],
            boxes=self.boxes[one],
            labels=self.labels[one],
            sizes_hw=self.sizes_hw[one],
            original_sizes_hw=self.original_sizes_hw[one],
            ordinals=self.ordinals[one],
            num_known_classes=self.num_known_classes[one],
        )


@dataclass(frozen=True)
class Fitted:
    """A sample resized for the network, its boxes with it."""

    sample: Sample
    original_hw: tuple[int, int]


def fitted_size(size_hw: tuple[int, int], config: TrainingConfig) -> tuple[int, int]:
    """Rows and columns after resizing into the configured frame."""
    long, short = max(size_hw), min(size_hw)
    if not config.keep_ratio:
        long_hw = (config.image_long_side, config.image_short_side)
        return long_hw if size_hw[0] > size_hw[1] else long_hw[::-1]
    scale = min(config.image_long_side / long, config.image_short_side / short)
    return _scaled(size_hw, scale)


def padded_size(size_hw: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Rows and columns rounded up to multiples."""
    height, width = (-(-side // multiple) * multiple for side in size_hw)
    return (height, width)


def with_targets(sample: Sample, config: TrainingConfig) -> Sample:
    """A sample as it was loaded, its boxes turned into those that are trained on."""
    return replace(sample, boxes=as_trained_on(sample.boxes, config.box_corners))


def fit(sample: Sample, config: TrainingConfig, zoom: float = 1.0) -> Fitted:
    """Resize a sample to `zoom` times its fitted size; boxes follow and are clipped."""
    original_hw = (sample.image.shape[1], sample.image.shape[2])
    size_hw = _scaled(fitted_size(original_hw, config), zoom)
    return Fitted(_resized(sample, size_hw), original_hw)


def augment(fitted: Fitted, config: TrainingConfig, draws: np.random.Generator) -> Fitted:
    """Zoom, crop, flip and recolor a sample that was fitted at zoom `config.scale_max`.

    All numbers are drawn, used or not, so that turning one augmentation on leaves the choices of
    the others as they were.
    """
    u = draws.random(8)
    sample = fitted.sample
    frame_hw = fitted_size(fitted.original_hw, config)
    if config.scale_min < config.scale_max:
        # Uniform in the logarithm: halving is as likely as doubling.
        zoom = config.scale_min * (config.scale_max / config.scale_min) ** u[0]
        sample = _resized(sample, _scaled(frame_hw, zoom))
        sample = _cropped(sample, frame_hw, u[1], u[2])
    if u[3] < config.flip_probability:
        sample = _flipped(sample)
    if u[4] < config.vertical_flip_probability:
        sample = _flipped_vertically(sample)
    if config.color_jitter > 0:
        brightness, contrast, saturation = 1 + config.color_jitter * (2 * u[5:8] - 1)
        image = pictures.adjust_brightness(sample.image, float(brightness))
        image = pictures.adjust_contrast(image, float(contrast))
        sample = replace(sample, image=pictures.adjust_saturation(image, float(saturation)))
    return replace(fitted, sample=sample)


def collate(fitted: Sequence[Fitted], multiple: int) -> Batch:
    """One batch; its sides are multiples of `multiple`, enough for the largest picture."""
    samples = [item.sample for item in fitted]
    sizes_hw = tuple((s.image.shape[1], s.image.shape[2]) for s in samples)
    height, width = padded_size(
        (max(h for h, _ in sizes_hw), max(w for _, w in sizes_hw)), multiple
    )
    images_BCHW = torch.zeros((len(samples), 3, height, width), dtype=torch.uint8)
    for row, sample, (h, w) in zip(images_BCHW, samples, sizes_hw, strict=True):
        row[:, :h, :w] = sample.image
    return Batch(
        images_BCHW=images_BCHW,
        boxes=tuple(s.boxes for s in samples),
        labels=tuple(s.labels for s in samples),
        sizes_hw=sizes_hw,
        original_sizes_hw=tuple(item.original_hw for item in fitted),
        ordinals=tuple(s.ordinal for s in samples),
        num_known_classes=tuple(s.num_known_classes for s in samples),
    )


def normalise(
    batch: Batch,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
) -> Tensor:
    """The network's input, float32, on the device; the padding is 0 after normalisation.

    Bytes are moved and floats made there: a quarter of the transfer.
    """
    images = batch.images_BCHW.to(device, non_blocking=True)
    images = images.to(torch.float32, memory_format=torch.channels_last)
    images = images.sub_(torch.tensor(mean, device=device)[:, None, None])
    images = images.div_(torch.tensor(std, device=device)[:, None, None])
    for row, (height, width) in zip(images, batch.sizes_hw, strict=True):
        row[:, height:] = 0
        row[:, :, width:] = 0
    return images


def _scaled(size_hw: tuple[int, int], scale: float) -> tuple[int, int]:
    # Rounded half up, as the reference does; a sliver keeps one pixel.
    height, width = (max(int(side * scale + 0.5), 1) for side in size_hw)
    return (height, width)


def _factors(from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Tensor:
    y, x = to_hw[0] / from_hw[0], to_hw[1] / from_hw[1]
    return torch.tensor([x, y, x, y], dtype=torch.float32)


def _resized(sample: Sample, size_hw: tuple[int, int]) -> Sample:
    from_hw = (sample.image.shape[1], sample.image.shape[2])
    if from_hw == size_hw:
        return replace(sample, boxes=_clipped(sample.boxes, size_hw))
    image = pictures.resize(sample.image, list(size_hw), antialias=True)
    boxes = _clipped(sample.boxes * _factors(from_hw, size_hw), size_hw)
    return replace(sample, image=image, boxes=boxes)


def _clipped(boxes_N4: Tensor, size_hw: tuple[int, int]) -> Tensor:
    height, width = size_hw
    limits = torch.tensor([width, height, width, height], dtype=torch.float32)
    return boxes_N4.clamp(min=0).minimum(limits)


def _cropped(sample: Sample, frame_hw: tuple[int, int], u_y: float, u_x: float) -> Sample:
    height, width = sample.image.shape[1:]
    rows, columns = min(height, frame_hw[0]), min(width, frame_hw[1])
    if (rows, columns) == (height, width):
        return sample
    top, left = int(u_y * (height - rows + 1)), int(u_x * (width - columns + 1))
    shift = torch.tensor([left, top, left, top], dtype=torch.float32)
    boxes = _clipped(sample.boxes - shift, (rows, columns))
    stays = _areas(boxes) > MIN_VISIBLE * _areas(sample.boxes)
    return replace(
        sample,
        image=sample.image[:, top : top + rows, left : left + columns],
        boxes=boxes[stays],
        labels=sample.labels[stays],
    )


def _areas(boxes_N4: Tensor) -> Tensor:
    return (boxes_N4[:, 2] - boxes_N4[:, 0]) * (boxes_N4[:, 3] - boxes_N4[:, 1])


def _flipped(sample: Sample) -> Sample:
    width = sample.image.shape[2]
    x1, y1, x2, y2 = sample.boxes.unbind(1)
    boxes = torch.stack((width - x2, y1, width - x1, y2), dim=1)
    return replace(sample, image=sample.image.flip(2), boxes=boxes)


def _flipped_vertically(sample: Sample) -> Sample:
    height = sample.image.shape[1]
    x1, y1, x2, y2 = sample.boxes.unbind(1)
    boxes = torch.stack((x1, height - y2, x2, height - y1), dim=1)
    return replace(sample, image=sample.image.flip(1), boxes=boxes)
