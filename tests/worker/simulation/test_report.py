from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from worker.simulation.plot import draw_curves
from worker.simulation.report import curves_of, markdown, paired, write_csv


def line(arm: str, seed: int, cycle: int, map50: float | None, boxes: int = 10) -> dict[str, Any]:
    return {
        "arm": arm,
        "seed": seed,
        "cycle": cycle,
        "images": 10 * cycle,
        "boxes": boxes * cycle,
        "map50": map50,
        "map50_voc07": map50,
        "map": map50,
        "ap50": {"cat": map50, "dog": None},
        "seconds": {"label": 4.0, "min": 2.0, "max": 1.0, "test": 0.5, "score": 0.5, "select": 0.1}
        | {"total": 8.1},
        "selected": [],
    }


LINES = [
    line(arm, seed, cycle, value)
    for arm, curves in {
        "random": [(0.10, 0.20, 0.30), (0.20, 0.30, 0.40)],
        "mi-aod": [(0.10, 0.30, 0.40), (0.20, 0.44, 0.50)],
    }.items()
    for seed, curve in enumerate(curves)
    for cycle, value in enumerate(curve, start=1)
]


def test_a_curve_has_the_mean_height_between_its_ends_as_its_area() -> None:
    random, ours = curves_of(LINES, "map50")
    assert random.arm == "random"
    assert random.images == (10, 20, 30)
    assert random.areas().tolist() == pytest.approx([20, 30])
    assert ours.areas().tolist() == pytest.approx([27.5, 39.5])


def test_the_images_needed_are_read_off_between_two_cycles() -> None:
    random, _ = curves_of(LINES, "map50")
    assert random.images_for(25).tolist() == pytest.approx([25, 15])
    assert random.images_for(15).tolist() == pytest.approx([15, 10])
    found = random.images_for(35)
    assert math.isnan(found[0])
    assert found[1] == pytest.approx(25)


def test_differences_are_paired_by_seed_with_student_s_interval() -> None:
    gap = paired(np.array([3.0, 5.0, 9.0]), (0, 1, 2), np.array([1.0, 4.0, 7.0]), (0, 1, 2))
    # Differences 2, 1, 2: mean 5/3, standard error 1/3, t(0.975; 2) = 4.303.
    assert gap.mean == pytest.approx(5 / 3)
    assert gap.half_width == pytest.approx(4.303 / 3)
    assert gap.num_seeds == 3
    assert str(gap) == "+1.7 ± 1.4"


def test_only_seeds_that_both_arms_have_are_compared() -> None:
    gap = paired(np.array([3.0, 5.0]), (0, 2), np.array([1.0, 4.0]), (1, 2))
    assert (gap.mean, gap.num_seeds) == (1.0, 1)
    assert str(gap) == "+1.0"
    nothing = paired(np.array([1.0]), (0,), np.array([1.0]), (1,))
    assert math.isnan(nothing.mean)


def test_a_seed_that_is_not_finished_is_not_shown() -> None:
    lines = [entry for entry in LINES if (entry["arm"], entry["seed"]) != ("mi-aod", 1)]
    lines.append(line("mi-aod", 1, 1, 0.5))
    random, ours = curves_of(lines, "map50")
    assert (random.seeds, ours.seeds) == ((0, 1), (0,))
    assert "| mi-aod | 1 | 10.0 | 30.0 | 40.0 |" in markdown(lines, "map50", "random")
    assert markdown([line("a", 0, 1, None)], "map50", "a").startswith("No arm has a finished seed")


def test_the_tables_say_means_spreads_differences_and_prices() -> None:
    text = markdown(LINES, "map50", "random")
    assert "| random | 2 | 15.0 ± 7.1 | 25.0 ± 7.1 | 35.0 ± 7.1 | 25.0 ± 7.1 |  |" in text
    # Areas differ by 7.5 and 9.5: mean 8.5, standard error 1, t(0.975; 1) = 12.706.
    assert "| 33.5 ± 8.5 | +8.5 ± 12.7 |" in text
    assert "| mi-aod | +0.0 ± 0.0 | +12.0 ± 25.4 | +10.0 ± 0.0 |" in text
    # 35.0 is between cycles 2 and 3 for seed 0, and between 1 and 2 for seed 1.
    assert "images needed for 35.0" in text
    assert f"| mi-aod | {(25 + 10 + 15 / 24 * 10) / 2:.0f} | 2 of 2 | 30 ± 0 | 1.00 |" in text
    assert "| random | 25 | 1 of 2 |" in text
    assert "| 10 | 4.0 | 2.0 | 1.0 | 0.5 | 0.5 | 0.1 | 8.1 |" in text


def test_the_csv_has_a_row_per_cycle(tmp_path: Path) -> None:
    write_csv(LINES, tmp_path / "cycles.csv")
    with (tmp_path / "cycles.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(LINES)
    assert rows[1]["arm"] == "random"
    assert (rows[1]["map50"], rows[1]["ap50 cat"], rows[1]["ap50 dog"]) == ("0.2", "0.2", "")


def test_the_picture_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    draw_curves(curves_of(LINES, "map50"), path, figure="map50")
    with Image.open(path) as picture:
        assert picture.size == (1125, 750)
        colours = picture.convert("RGB").getcolors(1_000_000)
    assert colours is not None
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= {colour for _, colour in colours}
