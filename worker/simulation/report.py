"""What the lines of an experiment say together: means, spreads, paired differences, and tables."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.simulation.cycle import Line

Floats = NDArray[np.float64]

# 0.975 quantile of Student's t for 1, 2, … degrees of freedom.
T_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
T_LIMIT = 1.960


@dataclass(frozen=True)
class Curves:
    """The learning curves of one arm.

    Attributes:
        arm: its name.
        seeds: those that finished, ascending; S of them.
        images: labeled images of each of the K cycles.
        values_SK: the figure, in percent points.
        boxes_SK: boxes that were paid for.
    """

    arm: str
    seeds: tuple[int, ...]
    images: tuple[int, ...]
    values_SK: Floats
    boxes_SK: Floats

    def areas(self) -> Floats:
        """(S,) area under each curve over its width: the mean height between first and last."""
        x = np.array(self.images, dtype=np.float64)
        if len(x) == 1:
            return self.values_SK[:, 0]
        middles = (self.values_SK[:, 1:] + self.values_SK[:, :-1]) / 2
        areas: Floats = (middles * np.diff(x)).sum(axis=1) / (x[-1] - x[0])
        return areas

    def images_for(self, value: float) -> Floats:
        """(S,) images at which each curve first reaches a value, between cycles linearly.

        NaN where it never does.
        """
        found = np.full(len(self.seeds), np.nan)
        for row, curve in enumerate(self.values_SK):
            reached = np.flatnonzero(curve >= value)
            if len(reached):
                k = int(reached[0])
                if k == 0:
                    found[row] = self.images[0]
                else:
                    share = (value - curve[k - 1]) / (curve[k] - curve[k - 1])
                    step = self.images[k] - self.images[k - 1]
                    found[row] = self.images[k - 1] + share * step
        return found


@dataclass(frozen=True)
class Difference:
    """How two arms differ, seed by seed.

    Attributes:
        mean: of the differences.
        half_width: of the mean's 95 % interval by Student's t; NaN with one seed.
        num_seeds: that both arms have.
    """

    mean: float
    half_width: float
    num_seeds: int

    def __str__(self) -> str:
        """As `+1.2 ± 0.4`."""
        spread = "" if math.isnan(self.half_width) else f" ± {self.half_width:.1f}"
        return f"{self.mean:+.1f}{spread}"


def curves_of(lines: Sequence[Line], figure: str) -> list[Curves]:
    """The curves of every arm that has a finished seed, in the order of the journal."""
    curves = []
    num_cycles = max((line["cycle"] for line in lines), default=0)
    for arm in dict.fromkeys(line["arm"] for line in lines):
        by_seed: dict[int, dict[int, Line]] = {}
        for line in lines:
            if line["arm"] == arm and line[figure] is not None:
                by_seed.setdefault(line["seed"], {})[line["cycle"]] = line
        whole = {s: row for s, row in sorted(by_seed.items()) if len(row) == num_cycles}
        if not whole:
            continue
        cycles = range(1, num_cycles + 1)
        rows = list(whole.values())
        curves.append(
            Curves(
                arm=arm,
                seeds=tuple(whole),
                images=tuple(rows[0][cycle]["images"] for cycle in cycles),
                values_SK=100 * np.array([[row[c][figure] for c in cycles] for row in rows]),
                boxes_SK=np.array([[row[c]["boxes"] for c in cycles] for row in rows], dtype=float),
            )
        )
    return curves


def paired(
    values: Floats, seeds: Sequence[int], others: Floats, other_seeds: Sequence[int]
) -> Difference:
    """`values` minus `others` over the seeds that both have."""
    common = [seed for seed in seeds if seed in other_seeds]
    differences = np.array(
        [values[seeds.index(seed)] - others[other_seeds.index(seed)] for seed in common]
    )
    count = len(differences)
    if count < 2:
        return Difference(float(differences.mean()) if count else math.nan, math.nan, count)
    quantile = T_QUANTILES[count - 2] if count - 2 < len(T_QUANTILES) else T_LIMIT
    half_width = quantile * differences.std(ddof=1) / math.sqrt(count)
    return Difference(float(differences.mean()), float(half_width), count)


def markdown(lines: Sequence[Line], figure: str, baseline: str) -> str:
    """The tables of an experiment.

    Args:
        lines: of the journal.
        figure: the metric shown, as `map50`.
        baseline: the arm that the others are compared with.
    """
    curves = curves_of(lines, figure)
    if not curves:
        return "No arm has a finished seed yet.\n"
    base = next((c for c in curves if c.arm == baseline), curves[0])
    images = curves[0].images
    head = " | ".join(f"{count}" for count in images)
    out = [
        f"{figure} in percent by labeled images, mean ± standard deviation over seeds; AUC is the "
        f"mean height of the curve. Differences are paired by seed, to `{base.arm}`, with the 95 % "
        "interval of their mean.",
        "",
        f"| arm | seeds | {head} | AUC | AUC difference |",
        "|---|---|" + "---|" * (len(images) + 2),
    ]
    for c in curves:
        cells = " | ".join(_mean_std(c.values_SK[:, k]) for k in range(len(images)))
        gap = "" if c is base else str(paired(c.areas(), c.seeds, base.areas(), base.seeds))
        out.append(f"| {c.arm} | {len(c.seeds)} | {cells} | {_mean_std(c.areas())} | {gap} |")
    out += ["", *_difference_rows(curves, base), "", *_price_rows(curves, base), ""]
    out += [*_seconds_rows(lines), ""]
    return "\n".join(out)


def write_csv(lines: Sequence[Line], path: Path) -> None:
    """One row per arm, seed and cycle."""
    classes = list(lines[0]["ap50"]) if lines else []
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        plain = ("arm", "seed", "cycle", "images", "boxes", "map50", "map50_voc07", "map")
        writer.writerow([*plain, *(f"ap50 {name}" for name in classes), "seconds"])
        for line in lines:
            row = [line[name] for name in plain]
            per_class = [line["ap50"][name] for name in classes]
            writer.writerow([*row, *per_class, line["seconds"]["total"]])


def _difference_rows(curves: Sequence[Curves], base: Curves) -> list[str]:
    rows = [
        f"Difference to `{base.arm}` by labeled images:",
        "",
        "| arm | " + " | ".join(str(count) for count in base.images) + " |",
        "|---|" + "---|" * len(base.images),
    ]
    for c in curves:
        if c is not base:
            gaps = [
                str(paired(c.values_SK[:, k], c.seeds, base.values_SK[:, k], base.seeds))
                for k in range(len(base.images))
            ]
            rows.append(f"| {c.arm} | " + " | ".join(gaps) + " |")
    return rows


def _price_rows(curves: Sequence[Curves], base: Curves) -> list[str]:
    target = float(base.values_SK[:, -1].mean())
    rows = [
        f"What it cost: images needed for {target:.1f}, which `{base.arm}` reaches on average in "
        "its last cycle (mean over the seeds that got there), and boxes drawn in all.",
        "",
        "| arm | images needed | seeds that got there | boxes at the end | boxes per image |",
        "|---|---|---|---|---|",
    ]
    for c in curves:
        needed = c.images_for(target)
        reached = needed[~np.isnan(needed)]
        shown = f"{reached.mean():.0f}" if len(reached) else "-"
        boxes = c.boxes_SK[:, -1]
        rows.append(
            f"| {c.arm} | {shown} | {len(reached)} of {len(c.seeds)} | {_mean_std(boxes, 0)} | "
            f"{boxes.mean() / c.images[-1]:.2f} |"
        )
    return rows


def _seconds_rows(lines: Sequence[Line]) -> list[str]:
    stages = ("label", "min", "max", "test", "score", "select", "total")
    rows = [
        "Seconds of a cycle by stage, median:",
        "",
        "| images | " + " | ".join(stages) + " |",
        "|---|" + "---|" * len(stages),
    ]
    for images in sorted({line["images"] for line in lines}):
        # Plain training has no adversarial stages and would blur the medians.
        some = [line for line in lines if line["images"] == images and "min" in line["seconds"]]
        if some:
            medians = [
                float(np.median([line["seconds"][stage] for line in some])) for stage in stages
            ]
            rows.append(f"| {images} | " + " | ".join(f"{value:.1f}" for value in medians) + " |")
    return rows


def _mean_std(values: Floats, digits: int = 1) -> str:
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"
