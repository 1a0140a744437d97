"""The paper's experiments: their protocol, and the figures it reports, to stand beside ours.

Figures are those of "Multiple Instance Active Learning for Object Detection" (CVPR 2021), tables 1
and figure 5. Seven-cycle tables count in percent of the pool there; here in images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from worker.simulation.pictures import DataRefused, LabeledData, join_data
from worker.simulation.protocol import Protocol

Layout = Literal["voc07+12", "coco"]


@dataclass(frozen=True)
class Published:
    """An experiment of the paper.

    Attributes:
        layout: of the data.
        protocol: budgets and training.
        reported: the paper's figure in percent by labeled images, per arm.
        note: what to know when comparing.
    """

    layout: Layout
    protocol: Protocol
    reported: Mapping[str, Mapping[int, float]]
    note: str


def _row(first: int, step: int, values: tuple[float, ...]) -> dict[int, float]:
    return {first + step * place: value for place, value in enumerate(values)}


EXPERIMENTS: dict[str, Published] = {
    "voc07+12-retinanet": Published(
        layout="voc07+12",
        protocol=Protocol(
            initial=827,
            budget=413,
            cycles=7,
            training={"preset": "paper-voc"},
            figure="map50_voc07",
        ),
        reported={
            "mi-aod": _row(827, 413, (47.18, 58.41, 64.02, 67.72, 69.79, 71.07, 72.27)),
            # Selection at random after MI-AOD's training.
            "random": _row(827, 413, (47.18, 57.12, 60.68, 63.72, 66.10, 67.59, 68.48)),
            "plain": _row(827, 413, (28.31, 49.42, 56.03, 59.81, 64.02, 65.95, 67.09)),
        },
        note="One run each in the paper; its author's second run lay up to 2 points away.",
    ),
    "coco-retinanet": Published(
        layout="coco",
        protocol=Protocol(
            initial=2345,
            budget=2345,
            cycles=5,
            training={"preset": "paper-coco"},
            candidates=23453,
            figure="map",
        ),
        reported={
            "mi-aod": _row(2345, 2345, (7.3, 13.8, 16.9, 19.1, 20.8)),
            # Read off a chart.
            "plain": _row(2345, 2345, (6.7, 13.1, 15.7, 17.8, 19.0)),
        },
        note="The paper's random arm was trained without MI-AOD's losses.",
    ),
    "voc07+12-ssd": Published(
        layout="voc07+12",
        protocol=Protocol(
            initial=1000,
            budget=1000,
            cycles=10,
            training={"preset": "paper-voc-ssd"},
            figure="map50_voc07",
        ),
        reported={
            "mi-aod": _row(
                1000,
                1000,
                (53.62, 62.86, 66.83, 69.33, 70.80, 72.21, 72.84, 73.74, 74.18, 74.91),
            ),
            # Read off a chart.
            "plain": _row(1000, 1000, (51, 61, 64.4, 66.5, 67.5, 68.9, 69.4, 70.0, 70.7, 71.4)),
        },
        note="The paper took the other methods' figures from the charts of earlier papers.",
    ),
}


def read_published(layout: Layout, root: Path) -> LabeledData:
    """The data of a published experiment.

    Args:
        layout: `voc07+12` wants VOCdevkit's `VOC2007` and `VOC2012` below the root (the test images
            of 2007 among them); `coco` wants `annotations/instances_{train,val}2017.json`,
            `train2017` and `val2017`.
        root: the folder.

    Raises:
        DataRefused: something is missing.
    """
    if layout == "coco":
        return join_data([(root, {"train": "pool", "val": "test"})], corners="zero-based")
    for year in ("VOC2007", "VOC2012"):
        if not (root / year).is_dir():
            raise DataRefused(f"{root / year} is missing: {root} must be a VOCdevkit folder")
    return join_data(
        [
            (root / "VOC2007", {"trainval": "pool", "test": "test"}),
            (root / "VOC2012", {"trainval": "pool"}),
        ],
        corners="voc",
    )


def beside(published: Published, ours: Mapping[str, Mapping[int, float]]) -> str:
    """The paper's rows with ours below, as a markdown table.

    Args:
        published: the experiment.
        ours: mean figure in percent by labeled images, per arm.
    """
    images = list(next(iter(published.reported.values())))
    rows = [
        "| | " + " | ".join(map(str, images)) + " |",
        "|---|" + "---|" * len(images),
    ]
    for arm, reported in published.reported.items():
        rows.append(f"| {arm}, paper | " + " | ".join(f"{reported[i]:.2f}" for i in images) + " |")
        if arm in ours:
            cells = (f"{ours[arm][i]:.2f}" if i in ours[arm] else "" for i in images)
            rows.append(f"| {arm}, ours | " + " | ".join(cells) + " |")
    return "\n".join([published.note, "", *rows, ""])
