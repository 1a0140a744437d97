"""What MI-AOD costs on top of a plain detector: a step of each stage, and scoring an image."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from benchmarks.rows import Row, median_seconds
from worker.miaod.config import PRESETS
from worker.miaod.engine import StepReport, train
from worker.miaod.inference import score
from worker.miaod.model import build_model
from worker.miaod.samples import Sample
from worker.scenes import CLASS_NAMES, draw_scene

WIDTH, HEIGHT = 320, 240
STEPS = 6
CPU = torch.device("cpu")


class DrawnScenes:
    """Drawn pictures, kept decoded, so that the algorithm alone is measured."""

    def __init__(self, first: int, count: int) -> None:
        """Draw `count` scenes of pool 0."""
        self._samples = [_sample(first + offset) for offset in range(count)]

    @property
    def ordinals(self) -> Sequence[int]:
        """Their numbers."""
        return [sample.ordinal for sample in self._samples]

    @property
    def sizes_hw(self) -> Sequence[tuple[int, int]]:
        """All of one size."""
        return [(HEIGHT, WIDTH)] * len(self._samples)

    def __len__(self) -> int:
        """How many."""
        return len(self._samples)

    def load(self, index: int) -> Sample:
        """The picture with its boxes."""
        return self._samples[index]


def run() -> Iterator[Row]:
    """Steps of each kind against a label step; scoring against the bare network."""
    config = replace(
        PRESETS["cpu"],
        rounds=1,
        label_min_steps=STEPS,
        label_max_steps=STEPS,
        adversarial_min_steps=STEPS,
        adversarial_max_steps=STEPS,
    )
    labeled, unlabeled = DrawnScenes(0, 16), DrawnScenes(1000, 32)
    model = build_model(config, len(CLASS_NAMES), weights_dir=None, seed=0)
    seconds: dict[str, list[float]] = defaultdict(list)

    def note(report: StepReport) -> None:
        if report.step:  # the first one of a stage warms up
            seconds[report.kind].append(report.seconds)

    train(model, labeled, unlabeled, config, seed=0, device=CPU, on_step=note)
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    yield Row(f"label step, {config.batch_size} images of {WIDTH}x{HEIGHT}", medians["label"])
    yield Row("minimise step", medians["min"], "label step", medians["label"])
    yield Row("maximise step", medians["max"], "label step", medians["label"])

    model.eval()
    images = torch.randn(len(unlabeled), 3, HEIGHT + 16, WIDTH)
    with torch.inference_mode():
        bare = median_seconds(lambda: model(images), runs=3)
    scoring = median_seconds(lambda: list(score(model, unlabeled, config, CPU)), runs=3)
    yield Row(f"scoring {len(unlabeled)} images", scoring, "their forward pass, all towers", bare)


def _sample(number: int) -> Sample:
    scene = draw_scene(0, number, (WIDTH, HEIGHT))
    labels = [CLASS_NAMES.index(name) for name in scene.class_names]
    return Sample(
        image=torch.from_numpy(scene.image).permute(2, 0, 1).contiguous(),
        boxes=torch.from_numpy(scene.boxes),
        labels=torch.tensor(labels, dtype=torch.int64),
        ordinal=number,
        num_known_classes=len(CLASS_NAMES),
    )
