"""The stages of a training as data, and the learning rate at each of their steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from worker.miaod.config import TrainingConfig
from worker.miaod.losses import StageKind

DROP_FACTOR = 0.1
"""What the learning rate of `step` is multiplied by near the end, as in the reference."""

COSINE_FLOOR = 0.01
"""Share of the highest learning rate at which `cosine` ends."""


@dataclass(frozen=True)
class Stage:
    """A row of the schedule.

    Attributes:
        kind: label (labeled images only), min or max (labeled and unlabeled in turn).
        name: for people, as "label 1/3".
        num_steps: steps; a step of min or max is one labeled and one unlabeled batch.
    """

    kind: StageKind
    name: str
    num_steps: int


def plan_stages(
    config: TrainingConfig, batches_per_epoch: int, *, has_unlabeled: bool
) -> list[Stage]:
    """The stages of one training.

    A label stage, then per round: minimise, maximise, label. The paper has maximise first, its code
    as here. Without unlabeled images only the label stages are left; plain training has a label
    stage in the place of each pair.

    Args:
        config: its schedule fields are read.
        batches_per_epoch: of the labeled images.
        has_unlabeled: whether there are any unlabeled images.
    """
    label = _steps(
        config.label_epochs, batches_per_epoch, config.label_min_steps, config.label_max_steps
    )
    adversarial = _steps(
        config.adversarial_epochs,
        batches_per_epoch,
        config.adversarial_min_steps,
        config.adversarial_max_steps,
    )
    rounds = config.rounds
    stages = [Stage("label", f"label 1/{rounds + 1}", label)]
    for turn in range(1, rounds + 1):
        if config.method == "plain":
            # The same number of labeled batches as below.
            stages.append(Stage("label", f"plain {turn}/{rounds}", 2 * adversarial))
        elif has_unlabeled:
            stages.append(Stage("min", f"minimise {turn}/{rounds}", adversarial))
            stages.append(Stage("max", f"maximise {turn}/{rounds}", adversarial))
        stages.append(Stage("label", f"label {turn + 1}/{rounds + 1}", label))
    return stages


def learning_rate(
    config: TrainingConfig, stages: Sequence[Stage], stage_index: int, step: int
) -> float:
    """Learning rate of a step, before any part's own factor.

    Args:
        config: its schedule fields are read.
        stages: all stages.
        stage_index: which of them.
        step: 0-based, within the stage.
    """
    before = sum(stage.num_steps for stage in stages[:stage_index])
    since_warmup = step if config.warmup_each_stage else before + step
    rate = config.learning_rate
    if since_warmup < config.warmup_steps:
        rise = since_warmup / config.warmup_steps
        rate *= config.warmup_factor + (1 - config.warmup_factor) * rise
    if config.lr_schedule == "cosine":
        total = sum(stage.num_steps for stage in stages)
        fallen = 0.5 * (1 + math.cos(math.pi * (before + step) / total))
        return rate * (COSINE_FLOOR + (1 - COSINE_FLOOR) * fallen)
    last = len(stages) - 1
    if stage_index == last and step >= round(
        stages[last].num_steps * (1 - config.lr_drop_fraction)
    ):
        rate *= DROP_FACTOR
    return rate


def _steps(epochs: float, batches_per_epoch: int, minimum: int, maximum: int) -> int:
    return min(max(math.ceil(epochs * batches_per_epoch), minimum), maximum)
