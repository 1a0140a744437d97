from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from worker.miaod.config import PRESETS, TrainingConfig
from worker.miaod.distortion import (
    CANVAS,
    LARGEST_SIDE,
    cropped,
    distort,
    expanded,
    recolored,
    reduced,
)
from worker.miaod.samples import Sample

SSD = PRESETS["paper-voc-ssd"]
SEEDS = range(60)


def sample(boxes: list[list[float]], height: int = 120, width: int = 160) -> Sample:
    """A grey picture; box number n is filled with the value 200 + n."""
    image = torch.full((3, height, width), 90, dtype=torch.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        image[:, round(y1) : round(y2), round(x1) : round(x2)] = 200 + number
    return Sample(image, torch.tensor(boxes).reshape(-1, 4).float(), torch.arange(len(boxes)), 7, 9)


def draws(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def config(**changes: Any) -> TrainingConfig:
    return dataclasses.replace(SSD, **changes)


def painted(image: Tensor, number: int) -> list[int]:
    """The corners of what box `number` was filled with."""
    rows, columns = (image[0] == 200 + number).nonzero(as_tuple=True)
    return [int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


TWO = [[10.0, 20.0, 50.0, 70.0], [90.0, 30.0, 150.0, 110.0]]


def test_boxes_stay_on_what_they_frame_whatever_canvas_and_part() -> None:
    kept = set()
    for seed in SEEDS:
        changed = cropped(expanded(sample(TWO), 4.0, draws(seed)), draws(seed + 1000))
        height, width = changed.image.shape[1:]
        assert len(changed.boxes) == len(changed.labels) >= 1
        for box, label in zip(changed.boxes.tolist(), changed.labels.tolist(), strict=True):
            kept.add((label, len(changed.boxes)))
            assert painted(changed.image, label) == box
            assert 0 <= box[0] < box[2] <= width
            assert 0 <= box[1] < box[3] <= height
    assert kept == {(0, 1), (1, 1), (0, 2), (1, 2)}


def test_a_canvas_is_used_in_half_of_the_cases_and_up_to_the_largest_ratio() -> None:
    ratios = []
    for seed in range(200):
        canvas = expanded(sample(TWO), 3.0, draws(seed)).image
        ratios.append(canvas.shape[1] / 120)
        if ratios[-1] > 1:
            outside = canvas.permute(1, 2, 0).reshape(-1, 3)
            assert (outside == torch.tensor(CANVAS, dtype=torch.uint8)).all(dim=1).any()
    share = np.mean(np.array(ratios) > 1)
    assert 0.4 < share < 0.6
    assert 2.8 < max(ratios) <= 3.0


def test_a_part_overlaps_every_box_by_one_of_the_minima_and_is_not_too_long() -> None:
    whole = 0
    for seed in range(300):
        part = cropped(sample(TWO), draws(seed)).image
        height, width = part.shape[1:]
        whole += (height, width) == (120, 160)
        assert height >= int(0.3 * 120)
        assert width >= int(0.3 * 160)
        # Corners are whole pixels, so that the limit of 2 is met up to one.
        assert (max(height, width) - 1) / (min(height, width) + 1) < 2
    # One in seven, and more where hardly any part overlaps both boxes by much.
    assert 300 / 7 < whole < 200


class AlwaysHigh(np.random.Generator):
    """Draws the minimum 0.7 every time."""

    def choice(self, *_: Any, **__: Any) -> float:  # type: ignore[override]
        return 0.7


def test_a_high_minimum_leaves_parts_close_to_the_only_box() -> None:
    for seed in range(20):
        part = cropped(sample([[20.0, 20.0, 140.0, 100.0]]), AlwaysHigh(np.random.PCG64(seed)))
        x1, y1, x2, y2 = part.boxes[0].tolist()
        inside = (x2 - x1) * (y2 - y1)
        union = 120 * 80 + part.image[0].numel() - inside
        assert inside / union >= 0.7
        assert part.image[0].numel() < 120 * 160


def test_a_picture_without_boxes_may_become_any_part() -> None:
    sizes = {tuple(cropped(sample([]), draws(seed)).image.shape[1:]) for seed in SEEDS}
    assert len(sizes) > 40


def test_a_box_without_area_does_not_stop_the_search_for_a_part() -> None:
    flat = [[30.0, 40.0, 30.0, 60.0]]
    assert all(len(cropped(sample(flat), draws(seed)).boxes) == 1 for seed in SEEDS)


def test_a_sliver_of_a_picture_stays_whole() -> None:
    part = cropped(sample([[0.0, 0.0, 160.0, 1.0]], height=1), draws(3))
    assert part.image.shape == (3, 1, 160)


def test_a_picture_of_one_grey_only_changes_its_brightness_or_contrast() -> None:
    image = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    values = set()
    for seed in range(200):
        changed = recolored(image, draws(seed))
        assert bool((changed == changed[0, 0, 0]).all()), "grey has neither hue nor saturation"
        values.add(int(changed[0, 0, 0]))
    # (100 - 32) * 0.5 and (100 + 32) * 1.5 are the ends.
    assert 34 <= min(values) < 45
    assert 180 < max(values) <= 198
    assert 100 in values


def test_colors_turn_fade_and_change_places() -> None:
    image = torch.tensor([200, 120, 60], dtype=torch.uint8)[:, None, None].expand(3, 2, 2)
    orders = set()
    spreads = []
    for seed in range(300):
        r, g, b = (int(v) for v in recolored(image.contiguous(), draws(seed))[:, 0, 0])
        orders.add(tuple(np.argsort([r, g, b], kind="stable").tolist()))
        spreads.append((max(r, g, b) - min(r, g, b)) / max(r, g, b, 1))
    assert len(orders) == 6
    assert min(spreads) < 0.45
    assert max(spreads) > 0.9


def test_the_same_draws_give_the_same_picture_and_each_step_has_its_own() -> None:
    first = distort(sample(TWO), SSD, draws(5))
    again = distort(sample(TWO), SSD, draws(5))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.boxes, again.boxes)
    # Turning the colors off leaves the geometry as it was.
    plain = distort(sample(TWO), config(photometric_distortion=False), draws(5))
    assert torch.equal(first.boxes, plain.boxes)
    assert first.image.shape == plain.image.shape


@pytest.mark.parametrize("size_hw", [(3000, 1500), (1024, 500), (700, 4096)])
def test_a_large_picture_comes_down_before_it_is_put_on_a_canvas(
    size_hw: tuple[int, int],
) -> None:
    large = sample([[100.0, 100.0, 300.0, 400.0]], *size_hw)
    small = reduced(large, SSD)
    height, width = small.image.shape[1:]
    assert max(height, width) == LARGEST_SIDE
    x1, y1, x2, y2 = painted_roughly(small.image)
    torch.testing.assert_close(small.boxes[0], torch.tensor([x1, y1, x2, y2]), rtol=0, atol=1.0)


def painted_roughly(image: Tensor) -> list[float]:
    rows, columns = (image[0] > 145).nonzero(as_tuple=True)
    return [float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
