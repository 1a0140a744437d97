"""Training: the stages of MI-AOD as data for one loop.

All that the loop carries from step to step is in `TrainingState`; all else is a pure function of
the configuration, the data and the seed. Shape suffixes: B images, C classes, A anchors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from worker.miaod.backbones import Halfway
from worker.miaod.config import TrainingConfig
from worker.miaod.detector import TOWERS, Detector
from worker.miaod.frozen import FrozenCache
from worker.miaod.loading import BatchOrder, FittedImages, TrainingBatches, iterate
from worker.miaod.losses import LossConfig, StageKind
from worker.miaod.samples import Dataset
from worker.miaod.schedule import Stage, learning_rate, plan_stages
from worker.miaod.targets import Targets, known_classes, present_classes
from worker.miaod.transforms import Batch, normalise

TRAINED: dict[StageKind, tuple[str, ...]] = {
    "label": ("backbone", "pyramid", *TOWERS),
    "min": ("backbone", "pyramid", "mil", "box"),
    "max": ("f1", "f2"),
}
"""Parts that train in each kind of stage, as in the reference's code (its paper differs)."""

PLAIN = ("backbone", "pyramid", "f1", "box")
"""Parts of a detector without MI-AOD, for the method `plain`."""

# Streams of batches within a stage, see `loading`; and the draw of an unlabeled subset.
_LABELED, _UNLABELED, _SUBSET = 0, 1, 2


class TrainingDiverged(Exception):
    """A loss, the gradient or the result is not finite; the message says where and what helps."""


@dataclass(frozen=True)
class StepReport:
    """What happened in one step.

    Attributes:
        stage_index: 0-based.
        stage: its name for people, as "label 1/3".
        kind: label, min or max.
        step: 0-based, within the stage.
        steps_in_stage: steps of the stage.
        total_step: 1-based over all stages; equals `total_steps` after the last one.
        total_steps: steps of all stages.
        losses: each term by name; those of the unlabeled batch start with "unlabeled_".
        lr: learning rate.
        seconds: time the step took, reading its images included.
    """

    stage_index: int
    stage: str
    kind: StageKind
    step: int
    steps_in_stage: int
    total_step: int
    total_steps: int
    losses: dict[str, float]
    lr: float
    seconds: float


class TrainingState:
    """Where a training stands: model, optimiser, moving average, and the next step to do."""

    def __init__(self, model: Detector, config: TrainingConfig) -> None:
        """Stand at the first step of the first stage."""
        self.model = model
        self.stage_index = 0
        self.step = 0
        model.train_only(trained_parts(config, "label"))
        self._trainable = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(model, config)
        self._ema_decay = config.ema_decay
        self._averages = [p.detach().clone() for p in self._trainable] if config.ema_decay else []
        self._num_averaged = 0

    def average(self) -> None:
        """Take the weights after a step into the moving average, if there is one."""
        if self._averages:
            self._num_averaged += 1
            # Young averages forget faster, or they would remember the random start.
            decay = min(self._ema_decay, (1 + self._num_averaged) / (10 + self._num_averaged))
            weights = [p.detach() for p in self._trainable]
            torch._foreach_lerp_(self._averages, weights, 1 - decay)

    @torch.no_grad()
    def finish(self) -> None:
        """Put the moving average into the model, if there is one; nothing trains afterwards."""
        for weight, average in zip(self._trainable, self._averages, strict=False):
            weight.copy_(average)
        self.model.train_only(())

    def state_dict(self) -> dict[str, Any]:
        """All of it, in tensors and numbers."""
        return {
            "stage_index": self.stage_index,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averages": self._averages,
            "num_averaged": self._num_averaged,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where `state_dict` was taken."""
        self.stage_index = state["stage_index"]
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for average, saved in zip(self._averages, state["averages"], strict=True):
            average.copy_(saved)
        self._num_averaged = state["num_averaged"]


def train(
    model: Detector,
    labeled: Dataset,
    unlabeled: Dataset,
    config: TrainingConfig,
    *,
    seed: int,
    device: torch.device,
    on_step: Callable[[StepReport], None] | None = None,
    state: TrainingState | None = None,
    frozen: FrozenCache | None = None,
) -> TrainingState:
    """Train the model in place.

    On one kind of CPU, the same arguments give bit-identical weights.

    Args:
        model: from `build_model`; moved to the device.
        labeled: images with their boxes; some may have none.
        unlabeled: images whose boxes nobody reads; may be empty.
        config: everything else.
        seed: of the order and the augmentation of images.
        device: where to train.
        on_step: called after every step; an exception from it ends the training.
        state: where to go on; None starts anew.
        frozen: cache of the backbone's frozen stages, which other trainings may have filled.

    Returns:
        The state after the last step.

    Raises:
        ValueError: there is no labeled image to train on.
        TrainingDiverged: a loss, the gradient or a weight in the end is not finite.
    """
    torch.set_num_threads(config.num_threads)
    model.to(device).train()
    labeled_indices = _large_enough(labeled, config)
    unlabeled_indices = _large_enough(unlabeled, config)
    if config.unlabeled_subset and len(unlabeled_indices) > len(labeled_indices):
        draws = np.random.default_rng((seed, 0, _SUBSET))
        drawn = draws.choice(unlabeled_indices, len(labeled_indices), replace=False)
        unlabeled_indices = sorted(drawn.tolist())
    if not labeled_indices:
        raise ValueError(
            f"none of {len(labeled)} labeled images can be trained on: at least one with sides "
            f"of {config.min_image_side} pixels or more is needed"
        )
    labeled_images = FittedImages(labeled, config, config.scale_max)
    unlabeled_images = FittedImages(unlabeled, config, config.scale_max, with_boxes=False)

    def batches(
        images: FittedImages, dataset: Dataset, indices: Sequence[int], stage: int, stream: int
    ) -> TrainingBatches:
        key = (seed, stage, stream)
        size = config.batch_size if stream == _LABELED else config.unlabeled_batch_size
        order = BatchOrder(
            indices, dataset.sizes_hw, batch_size=size, repeats=config.repeats, key=key
        )
        return TrainingBatches(images, order, config, key)

    def labeled_batches(stage: int) -> TrainingBatches:
        return batches(labeled_images, labeled, labeled_indices, stage, _LABELED)

    stages = stages_of(labeled, unlabeled, config)
    state = state or TrainingState(model, config)
    if frozen is not None:
        frozen.require_same_stages(model.backbone)
    stepper = _Stepper(state, config, device, frozen)
    total_steps = sum(stage.num_steps for stage in stages)
    while state.stage_index < len(stages):
        index, stage = state.stage_index, stages[state.stage_index]
        if config.fresh_optimizer and state.step == 0:
            state.optimizer = build_optimizer(model, config)
        model.train_only(trained_parts(config, stage.kind))
        places = range(state.step, stage.num_steps)
        source = iterate(labeled_batches(index), places, config)
        other = (
            iterate(
                batches(unlabeled_images, unlabeled, unlabeled_indices, index, _UNLABELED),
                places,
                config,
            )
            if stage.kind != "label"
            else None
        )
        for step in places:
            started = time.perf_counter()
            lr = learning_rate(config, stages, index, step)
            losses = stepper.step(stage.kind, lr, next(source), next(other) if other else None)
            _check_finite(losses, stage, step)
            state.average()
            state.step = step + 1
            if on_step is not None:
                on_step(
                    StepReport(
                        stage_index=index,
                        stage=stage.name,
                        kind=stage.kind,
                        step=step,
                        steps_in_stage=stage.num_steps,
                        total_step=sum(s.num_steps for s in stages[:index]) + step + 1,
                        total_steps=total_steps,
                        losses=losses,
                        lr=lr,
                        seconds=time.perf_counter() - started,
                    )
                )
        state.stage_index, state.step = index + 1, 0
    state.finish()
    # The last step has no next one whose losses would show what it did.
    if not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise TrainingDiverged(
            "the weights are not finite after the last step: a lower learning_rate or a "
            "clip_norm may help"
        )
    return state


def stages_of(labeled: Dataset, unlabeled: Dataset, config: TrainingConfig) -> list[Stage]:
    """The stages that `train` goes through with these arguments."""
    order = BatchOrder(
        _large_enough(labeled, config),
        labeled.sizes_hw,
        batch_size=config.batch_size,
        repeats=config.repeats,
        key=(),
    )
    has_unlabeled = bool(_large_enough(unlabeled, config))
    return plan_stages(config, order.batches_per_epoch, has_unlabeled=has_unlabeled)


def images_per_step(config: TrainingConfig, kind: StageKind) -> int:
    """How many images a step of a kind of stage trains on."""
    return config.batch_size + (0 if kind == "label" else config.unlabeled_batch_size)


def trained_parts(config: TrainingConfig, kind: StageKind) -> tuple[str, ...]:
    """The parts that train in a kind of stage."""
    return PLAIN if config.method == "plain" else TRAINED[kind]


def build_optimizer(model: Detector, config: TrainingConfig) -> torch.optim.Optimizer:
    """A new optimiser over everything that ever trains.

    Parameters that a stage leaves out have no gradient there, and are skipped.
    """
    frozen = {
        id(parameter)
        for stage in list(model.backbone.stages)[: config.frozen_stages]
        for parameter in stage.parameters()
    }
    groups: list[dict[str, Any]] = []
    for part_name, part in model.parts().items():
        factor = config.backbone_lr_factor if part_name == "backbone" else 1.0
        parameters = [p for p in part.parameters() if id(p) not in frozen]
        for decays in (True, False):
            # Vectors are biases and normalisation factors.
            group = [p for p in parameters if (config.decay_biases or p.ndim > 1) == decays]
            if group:
                decay = config.weight_decay if decays else 0.0
                groups.append({"params": group, "weight_decay": decay, "lr_factor": factor})
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)


def loss_config(config: TrainingConfig) -> LossConfig:
    """What the losses read of the configuration."""
    return LossConfig(
        lambda_discrepancy=config.lambda_discrepancy,
        average_discrepancy=config.average_discrepancy,
        focal_alpha=config.focal_alpha,
        focal_gamma=config.focal_gamma,
        mil_attention="paper" if config.mil_attention == "paper" else "reference",
        pseudo_label_threshold=config.pseudo_label_threshold,
        pseudo_label_gate="batch" if config.pseudo_label_gate == "batch" else "image",
        skip_empty_images=config.skip_empty_images,
        keep_zero_terms=config.keep_zero_terms,
        mask_padding=config.mask_padding,
        require_positive_iou=config.require_positive_iou,
        background_as_class=config.background_as_class,
        sigmoid_scores=config.sigmoid_scores,
    )


def autocast(config: TrainingConfig, device: torch.device) -> torch.autocast:
    """Bfloat16 convolutions if asked for and the GPU has them in hardware; else nothing."""
    # Not float16: it would need a loss scaler, one more thing to save and restore. Not on the CPU:
    # the backward passes of depthwise convolutions are slower in bfloat16 there.
    has_it = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.amp and has_it)


class _Stepper:
    """One step: a labeled batch and an update; in min and max an unlabeled batch and another."""

    def __init__(
        self,
        state: TrainingState,
        config: TrainingConfig,
        device: torch.device,
        frozen: FrozenCache | None,
    ) -> None:
        self._state = state
        self._model = state.model
        self._config = config
        self._losses = loss_config(config)
        self._device = device
        self._frozen = frozen

    def step(
        self, kind: StageKind, lr: float, labeled: Batch, unlabeled: Batch | None
    ) -> dict[str, float]:
        for group in self._state.optimizer.param_groups:
            group["lr"] = lr * group["lr_factor"]
        joint = unlabeled is None or self._config.joint_update
        terms = self._backward(self._labeled_terms(kind, labeled))
        if not joint:
            terms |= self._update()
        if unlabeled is not None:
            other = self._backward(self._unlabeled_terms(kind, unlabeled))
            if not joint:
                other |= self._update()
            terms |= {f"unlabeled_{name}": term for name, term in other.items()}
        if joint:
            terms |= self._update()
        # One transfer for all of them: each would wait for the device.
        values = torch.stack([term.float() for term in terms.values()]).tolist()
        return dict(zip(terms, values, strict=True))

    def _labeled_terms(self, kind: StageKind, batch: Batch) -> dict[str, Tensor]:
        if self._config.method == "plain":
            towers: tuple[str, ...] = ("f1", "box")
        else:
            # The box tower is frozen in max, but its loss is reported.
            towers = TOWERS if kind != "max" else ("f1", "f2", "box")
        with autocast(self._config, self._device):
            outputs = self._model(self._images(batch), towers)
        num_classes = self._model.num_classes
        known_BC = known_classes(batch.num_known_classes, num_classes).to(self._device)
        return self._model.labeled_losses(
            outputs,
            self._targets(batch),
            present_classes(batch.labels, num_classes).to(self._device),
            kind,
            self._losses,
            known_BC=known_BC,
            valid_BA=self._valid(batch),
        )

    def _unlabeled_terms(self, kind: StageKind, batch: Batch) -> dict[str, Tensor]:
        towers = TOWERS if self._config.keep_zero_terms else ("f1", "f2", "mil")
        with autocast(self._config, self._device):
            outputs = self._model(self._images(batch), towers)
        return self._model.unlabeled_losses(
            outputs, kind, self._losses, valid_BA=self._valid(batch)
        )

    def _backward(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        # Gradients add up until the next update.
        terms["total"].backward()  # type: ignore[no-untyped-call]
        return {name: term.detach() for name, term in terms.items()}

    def _update(self) -> dict[str, Tensor]:
        reported = {}
        if self._config.keep_zero_terms:
            # What trains in this stage but has no part in these losses: the reference's gradients
            # are zeros there, by which decay and momentum act.
            for parameter in self._model.parameters():
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        if self._config.clip_norm:
            reported["gradient_norm"] = nn.utils.clip_grad_norm_(
                self._model.parameters(), self._config.clip_norm
            )
        self._state.optimizer.step()
        self._model.zero_grad(set_to_none=True)
        return reported

    def _images(self, batch: Batch) -> Tensor | Halfway:
        backbone = self._model.backbone
        if self._frozen is not None:
            return self._frozen(backbone, batch, self._device)
        return normalise(batch, backbone.pixel_mean, backbone.pixel_std, self._device)

    def _targets(self, batch: Batch) -> list[Targets]:
        anchors_A4 = torch.cat(self._model.anchors_for(batch.padded_hw))
        return [
            self._model.assign(
                anchors_A4,
                valid_A,
                boxes_N4.to(self._device),
                labels_N.to(self._device),
                require_positive_iou=self._losses.require_positive_iou,
            )
            for valid_A, boxes_N4, labels_N in zip(
                self._valid(batch), batch.boxes, batch.labels, strict=True
            )
        ]

    def _valid(self, batch: Batch) -> Tensor:
        return self._model.valid_anchors(batch.sizes_hw, batch.padded_hw).to(self._device)


def _large_enough(dataset: Dataset, config: TrainingConfig) -> list[int]:
    return [
        index
        for index, size_hw in enumerate(dataset.sizes_hw)
        if min(size_hw) >= config.min_image_side
    ]


def _check_finite(losses: dict[str, float], stage: Stage, step: int) -> None:
    for name, value in losses.items():
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"{name} is {value} in stage {stage.name}, step {step + 1} of {stage.num_steps}: "
                "a lower learning_rate, a longer warm-up or a smaller clip_norm may help"
            )
