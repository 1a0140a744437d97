from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.worker.miaod.pictures import CPU, tiny_config
from worker.miaod.config import PRESETS
from worker.miaod.samples import Sample
from worker.miaod.transforms import augment, collate, fit, fitted_size, normalise


def sample(height: int, width: int, boxes: list[list[float]]) -> Sample:
    """A black picture whose boxes are white."""
    image = torch.zeros((3, height, width), dtype=torch.uint8)
    for x1, y1, x2, y2 in boxes:
        image[:, round(y1) : round(y2), round(x1) : round(x2)] = 255
    labels = torch.arange(len(boxes))
    return Sample(image, torch.tensor(boxes).reshape(-1, 4).float(), labels, 7, 9)


def white_area(image: Tensor) -> list[float]:
    """The corners of what is white."""
    rows, columns = (image[0] > 127).nonzero(as_tuple=True)
    corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return [float(corner) for corner in corners]


@pytest.mark.parametrize(
    ("size_hw", "fitted_hw"),
    [((375, 500), (600, 800)), ((500, 375), (800, 600)), ((100, 1000), (100, 1000))],
)
def test_a_picture_fits_into_the_frame_with_its_ratio_kept(
    size_hw: tuple[int, int], fitted_hw: tuple[int, int]
) -> None:
    assert fitted_size(size_hw, PRESETS["paper-voc"]) == fitted_hw


def test_a_picture_is_stretched_to_the_frame_where_its_ratio_is_not_kept() -> None:
    config = tiny_config(keep_ratio=False, image_long_side=96, image_short_side=64)
    assert fitted_size((10, 50), config) == (64, 96)
    assert fitted_size((50, 10), config) == (96, 64)
    stretched = fit(sample(20, 40, [[10, 5, 20, 15]]), config)
    assert stretched.sample.image.shape == (3, 64, 96)
    assert stretched.sample.boxes[0].tolist() == pytest.approx([24.0, 16.0, 48.0, 48.0])


def test_boxes_follow_the_picture_and_are_clipped_to_it() -> None:
    config = tiny_config()
    fitted = fit(sample(32, 128, [[32, 8, 64, 24], [100, 10, 150, 30]]), config).sample
    assert fitted.image.shape == (3, 16, 64)
    assert fitted.boxes.tolist() == [[16, 4, 32, 12], [50, 5, 64, 15]]


@pytest.mark.parametrize(
    ("field", "expected"),
    [("flip_probability", [34, 10, 54, 40]), ("vertical_flip_probability", [10, 24, 30, 54])],
)
def test_a_flip_moves_boxes_with_pixels(field: str, expected: list[float]) -> None:
    config = tiny_config(**({"flip_probability": 0.0} | {field: 1.0}))
    fitted = fit(sample(64, 64, [[10, 10, 30, 40]]), config)
    flipped = augment(fitted, config, np.random.default_rng(0)).sample
    assert flipped.boxes.tolist() == [expected]
    assert white_area(flipped.image) == expected


@pytest.mark.parametrize("seed", range(8))
def test_a_zoom_keeps_boxes_on_their_pixels_and_the_picture_in_its_frame(seed: int) -> None:
    config = tiny_config(scale_min=0.5, scale_max=2.0)
    fitted = fit(sample(96, 128, [[40, 30, 90, 70]]), config, config.scale_max)
    zoomed = augment(fitted, config, np.random.default_rng(seed)).sample
    assert zoomed.image.shape[1] <= 48
    assert zoomed.image.shape[2] <= 64
    if len(zoomed.boxes):
        # Interpolation blurs an edge by a pixel or so.
        assert zoomed.boxes[0].tolist() == pytest.approx(white_area(zoomed.image), abs=1.1)


def test_a_box_that_a_crop_leaves_too_little_of_is_dropped_with_its_label() -> None:
    config = tiny_config(scale_max=4.0)
    boxes: list[list[float]] = [[0, 0, 8, 8], [56, 56, 64, 64]]
    fitted = fit(sample(64, 64, boxes), config, config.scale_max)
    for seed in range(20):
        cropped = augment(fitted, config, np.random.default_rng(seed)).sample
        assert len(cropped.boxes) == len(cropped.labels)
        sides = cropped.boxes[:, 2:] - cropped.boxes[:, :2]
        assert bool((sides > 0).all())


def test_augmentation_is_a_function_of_its_draws() -> None:
    config = tiny_config(scale_min=0.7, scale_max=1.5, color_jitter=0.4)
    fitted = fit(sample(64, 64, [[10, 10, 30, 40]]), config, config.scale_max)
    first, again, other = (
        augment(fitted, config, np.random.default_rng(seed)).sample for seed in (1, 1, 2)
    )
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.boxes, again.boxes)
    assert first.image.shape != other.image.shape or not torch.equal(first.image, other.image)


def test_the_padding_of_a_batch_is_zero_after_normalisation() -> None:
    config = tiny_config()
    small, large = fit(sample(40, 64, []), config), fit(sample(64, 40, []), config)
    batch = collate([small, large], 32)
    assert batch.padded_hw == (64, 64)
    assert batch.ordinals == (7, 7)
    images = normalise(batch, (127.0,) * 3, (128.0,) * 3, CPU)
    assert bool((images[0, :, :40] == -127 / 128).all())
    assert not images[0, :, 40:].any()
    assert bool((images[1, :, :, :40] == -127 / 128).all())
    assert not images[1, :, :, 40:].any()
