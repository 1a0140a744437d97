"""A short training of the whole network from the reference's start, by `engine.train` itself.

Only the borders are replaced: the images, which the figures bring ready, and the lengths of the
stages. Everything is recorded that the figures say something about.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from tests.worker.miaod.pictures import CPU, Squares
from tests.worker.miaod.reference_weights import network_for, our_weights, parity_config
from worker.miaod import engine, losses, scoring, targets
from worker.miaod.anchors import valid_flags
from worker.miaod.config import TrainingConfig
from worker.miaod.head_outputs import HeadOutputs
from worker.miaod.model import MiaodRetinaNet
from worker.miaod.schedule import Stage
from worker.miaod.transforms import Batch

Figures = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Inputs:
    """What the figures give: weights under our names, batches, and which batch is in which step."""

    stem: Path
    weights: dict[str, Tensor]
    batches: Figures
    phases: tuple[str, ...]
    batch_names: tuple[str, ...]
    learning_rate: float

    @property
    def num_classes(self) -> int:
        return int(self.batches["C"])

    def config(self, **changes: Any) -> TrainingConfig:
        """The parity preset on this network; the learning rate never falls."""
        given: dict[str, Any] = {
            # The reference does not count the stem.
            "frozen_stages": int(self.batches["frozen_stages"]) + 1,
            "lambda_discrepancy": float(self.batches["param_lambda"]),
            "learning_rate": self.learning_rate,
            "lr_drop_fraction": 0.0,
        }
        return parity_config(self.weights, **(given | changes))

    def stages(self) -> list[Stage]:
        """The phases as stages; a pair of a labeled and an unlabeled batch is one of our steps."""
        names = list(dict.fromkeys(self.phases))
        return [
            Stage(kind_of(name), name, len(self.batches_of(name, unlabeled=False)))
            for name in names
        ]

    def batches_of(self, phase: str, *, unlabeled: bool) -> list[str]:
        return [
            name
            for name, its_phase in zip(self.batch_names, self.phases, strict=True)
            if its_phase == phase and is_unlabeled(name) == unlabeled
        ]

    def batch(self, name: str) -> Batch:
        """A batch with its boxes, which an unlabeled one has too: nobody may look at them."""
        images = torch.from_numpy(self.batches[f"{name}_img"].copy())
        count, _, height, width = images.shape
        boxes = [torch.from_numpy(self.batches[f"{name}_gt_boxes_{i}"]) for i in range(count)]
        labels = [torch.from_numpy(self.batches[f"{name}_gt_labels_{i}"]) for i in range(count)]
        return Batch(
            images_BCHW=images,
            boxes=tuple(boxes),
            labels=tuple(labels),
            sizes_hw=((height, width),) * count,
            original_sizes_hw=((height, width),) * count,
            ordinals=tuple(range(count)),
            num_known_classes=(self.num_classes,) * count,
        )

    def unlabeled_images(self) -> Tensor:
        """All images of the unlabeled batches, in the order of the batches' names."""
        names = sorted(name for name in self.batches if is_unlabeled(name) and "_img" in name)
        return torch.cat([torch.from_numpy(self.batches[name]) for name in names])


@dataclass
class Step:
    """One update of the optimiser; parameters go by our names."""

    phase: str
    batch: str
    lr: float
    terms: dict[str, float]
    per_level: dict[str, list[float]] = field(default_factory=dict)
    gradient_norms: dict[str, float] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)


@dataclass
class Trajectory:
    """What happened."""

    steps: list[Step]
    weights_after: dict[str, dict[str, Tensor]]
    uncertainty_init: Tensor
    uncertainty_final: Tensor


def kind_of(phase: str) -> losses.StageKind:
    return "label" if phase.startswith("label") else "min" if phase.startswith("min") else "max"


def is_unlabeled(batch: str) -> bool:
    return batch.startswith("U")


def read_inputs(stem: Path) -> Inputs:
    """The inputs of the trajectory whose files begin with `stem`."""
    main, batches = read(stem.with_name(f"{stem.name}.npz")), read_part(stem, "batches")
    # Float32 in the file; the text of one is the decimal number that the reference was given.
    rates = {float(str(rate)) for rate in main["step_lr"]}
    assert len(rates) == 1, f"{stem.name} changes its learning rate: {sorted(rates)}"
    return Inputs(
        stem=stem,
        weights=our_weights(read_part(stem, "weights_init")),
        batches=batches,
        phases=tuple(main["step_phase"].tolist()),
        batch_names=tuple(main["step_batch"].tolist()),
        learning_rate=rates.pop(),
    )


def read(path: Path) -> Figures:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def read_part(stem: Path, part: str) -> Figures:
    return read(stem.with_name(f"{stem.name}_{part}.npz"))


def read_log(stem: Path) -> list[dict[str, Any]]:
    log: list[dict[str, Any]] = json.loads(stem.with_name(f"{stem.name}_log.json").read_text())
    return log


@cache
def trajectory_of(stem: Path) -> Trajectory:
    """The trajectory in the parity preset, computed once."""
    return run(read_inputs(stem))


def run(inputs: Inputs, **changes: Any) -> Trajectory:
    """Train as the figures' reference did, with some settings changed if asked for."""
    config = inputs.config(**changes)
    model = network_for(inputs.weights, inputs.num_classes, config)
    return _Recorder(inputs, config, model).run()


def uncertainties(model: MiaodRetinaNet, images_BCHW: Tensor) -> Tensor:
    """(B, A) of images scored one by one."""
    model.eval()
    rows = []
    with torch.inference_mode():
        for image in images_BCHW:
            outputs = model(image[None], ("f1", "f2"))
            rows.append(
                scoring.anchor_discrepancy(torch.cat(outputs.f1, 1), torch.cat(outputs.f2, 1))
            )
    return torch.cat(rows)


class _Recorder:
    """Runs `engine.train` and takes notes before and after every update."""

    def __init__(self, inputs: Inputs, config: TrainingConfig, model: MiaodRetinaNet) -> None:
        self._inputs = inputs
        self._config = config
        self._model = model
        self._steps: list[Step] = []
        self._weights_after: dict[str, dict[str, Tensor]] = {}
        self._levels: dict[str, list[float]] = {}
        self._held = self._parameters()

    def run(self) -> Trajectory:
        images = self._inputs.unlabeled_images()
        before = uncertainties(self._model, images)
        stages = self._inputs.stages()
        recorder = self

        class ReadyBatches:
            """The figures' batches in the place of those that a data set gives."""

            batches_per_epoch = 1

            def __init__(self, _: object, __: object, ___: object, key: Sequence[int]) -> None:
                _seed, stage, stream = key
                self._names = recorder._inputs.batches_of(
                    stages[stage].name, unlabeled=stream == engine._UNLABELED
                )

            def __getitem__(self, step: int) -> Batch:
                return recorder._inputs.batch(self._names[step])

        hooks = (
            self._model.register_forward_hook(self._after_forward),
            register_optimizer_step_pre_hook(self._before_update),
            register_optimizer_step_post_hook(self._after_update),
        )
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(engine, "TrainingBatches", ReadyBatches)
                patch.setattr(engine, "plan_stages", lambda *_, **__: stages)
                engine.train(
                    self._model,
                    Squares(2),
                    Squares(2),
                    self._config,
                    seed=0,
                    device=CPU,
                    on_step=self._after_step,
                )
        finally:
            for hook in hooks:
                hook.remove()
        return Trajectory(
            self._steps, self._weights_after, before, uncertainties(self._model, images)
        )

    def _parameters(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self._model.named_parameters()}

    def _after_forward(self, _: object, __: object, outputs: HeadOutputs) -> None:
        place = len(self._steps)
        phase, name = self._inputs.phases[place], self._inputs.batch_names[place]
        self._steps.append(Step(phase, name, lr=float("nan"), terms={}))
        with torch.no_grad():
            levels = self._per_level(outputs, kind_of(phase), name)
        self._steps[-1].per_level = {term: value.tolist() for term, value in levels.items()}

    def _per_level(
        self, outputs: HeadOutputs, kind: losses.StageKind, name: str
    ) -> dict[str, Tensor]:
        config = engine.loss_config(self._config)
        if is_unlabeled(name):
            complement = kind == "max"
            weights = losses.instance_weights(outputs, config)
            term = "l_wave_dis_minus" if complement else "l_wave_dis"
            return {
                term: losses.discrepancy_losses(outputs, weights, config, complement=complement)
            }
        batch = self._inputs.batch(name)
        wanted = [
            self._targets(batch, image, config.require_positive_iou)
            for image in range(len(batch.labels))
        ]
        return {
            "l_det_cls": losses.classification_losses(outputs, wanted, config),
            "l_det_loc": losses.box_losses(outputs, wanted),
        }

    def _targets(self, batch: Batch, image: int, require_positive_iou: bool) -> targets.Targets:
        model, sizes = self._model, self._model.level_sizes(batch.padded_hw)
        valid = valid_flags(sizes, model.strides, batch.sizes_hw[image], model.num_base_anchors)
        return targets.assign(
            torch.cat(model.anchors_for(batch.padded_hw)),
            torch.cat(valid),
            batch.boxes[image],
            batch.labels[image],
            model.num_classes,
            require_positive_iou=require_positive_iou,
        )

    def _before_update(self, optimizer: Optimizer, *_: object) -> None:
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._steps[-1].gradient_norms = {
            name: float(p.grad.norm())
            for name, p in self._model.named_parameters()
            if p.grad is not None and id(p) in owned
        }

    def _after_update(self, *_: object) -> None:
        now = self._parameters()
        self._steps[-1].changed = {n for n in now if not torch.equal(now[n], self._held[n])}
        self._held = now

    def _after_step(self, report: engine.StepReport) -> None:
        unlabeled = {
            name.removeprefix("unlabeled_"): value
            for name, value in report.losses.items()
            if name.startswith("unlabeled_")
        }
        labeled = {n: v for n, v in report.losses.items() if not n.startswith("unlabeled_")}
        both = [labeled, unlabeled] if unlabeled else [labeled]
        for step, terms in zip(self._steps[-len(both) :], both, strict=True):
            assert step.phase == report.stage
            step.terms, step.lr = terms, report.lr
        if report.step + 1 == report.steps_in_stage:
            state = self._model.state_dict()
            self._weights_after[report.stage] = {n: v.clone() for n, v in state.items()}
