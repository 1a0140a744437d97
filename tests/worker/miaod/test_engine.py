from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.worker.miaod.pictures import CPU, Squares, tiny_config, tiny_model
from worker.miaod.config import PRESETS, TrainingConfig
from worker.miaod.engine import (
    TRAINED,
    StepReport,
    TrainingDiverged,
    TrainingState,
    build_optimizer,
    loss_config,
    train,
)
from worker.miaod.losses import StageKind, discrepancy_losses, instance_weights
from worker.miaod.model import MiaodRetinaNet
from worker.miaod.samples import Sample

NOTHING = Squares(0)


def run(
    config: TrainingConfig,
    *,
    labeled: Squares | None = None,
    unlabeled: Squares | None = None,
    model: MiaodRetinaNet | None = None,
    seed: int = 0,
) -> tuple[MiaodRetinaNet, list[StepReport]]:
    labeled = labeled or Squares(4)
    model = model or tiny_model(config, labeled.num_classes)
    reports: list[StepReport] = []
    train(
        model,
        labeled,
        Squares(5, first_ordinal=50) if unlabeled is None else unlabeled,
        config,
        seed=seed,
        device=CPU,
        on_step=reports.append,
    )
    return model, reports


def snapshot(model: MiaodRetinaNet) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed_parts(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    return {
        name.split(".")[1] if name.startswith("towers") else name.split(".")[0] for name in changed
    }


def test_the_stages_come_in_order_and_every_step_is_reported() -> None:
    _, reports = run(tiny_config(label_min_steps=3, label_max_steps=3))
    assert [(r.stage, r.step, r.kind) for r in reports] == [
        *(("label 1/2", step, "label") for step in range(3)),
        *(("minimise 1/1", step, "min") for step in range(2)),
        *(("maximise 1/1", step, "max") for step in range(2)),
        *(("label 2/2", step, "label") for step in range(3)),
    ]
    assert [r.total_step for r in reports] == list(range(1, 11))
    assert {r.total_steps for r in reports} == {10}
    assert [r.steps_in_stage for r in reports] == [3] * 3 + [2] * 4 + [3] * 3


def test_each_stage_reports_its_own_losses() -> None:
    _, reports = run(tiny_config())
    named = {r.kind: {n for n, v in r.losses.items() if v != 0} for r in reports}
    detection = {"l_det_cls", "l_det_loc", "total", "gradient_norm"}
    assert named["label"] == detection | {"l_imgcls"}
    # No pseudo label is likely after four steps, so that l_imgcls may or may not be there.
    assert named["min"] - {"unlabeled_l_imgcls"} == (
        detection | {"l_imgcls", "unlabeled_l_wave_dis", "unlabeled_total"}
    )
    assert named["max"] == detection | {"unlabeled_l_wave_dis_minus", "unlabeled_total"}


@pytest.mark.parametrize("preset", ["paper-voc", "cpu"])
@pytest.mark.parametrize("kind", ["label", "min", "max"])
def test_a_stage_leaves_what_it_does_not_train_bit_identical(
    kind: StageKind, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config()
    if preset == "paper-voc":
        parity = PRESETS["paper-voc"]
        names = ("keep_zero_terms", "joint_update", "optimizer", "fresh_optimizer", "clip_norm")
        config = dataclasses.replace(config, **{n: getattr(parity, n) for n in names})
    model = tiny_model(config)
    at_start: dict[str, dict[str, Tensor]] = {}
    at_end: dict[str, dict[str, Tensor]] = {}
    held = snapshot(model)

    def on_step(report: StepReport) -> None:
        nonlocal held
        at_start.setdefault(report.stage, held)
        held = snapshot(model)
        at_end[report.stage] = held

    train(model, Squares(4), Squares(4), config, seed=0, device=CPU, on_step=on_step)
    stage = {"label": "label 1/2", "min": "minimise 1/1", "max": "maximise 1/1"}[kind]
    changed = changed_parts(at_start[stage], at_end[stage])
    assert changed == set(TRAINED[kind])


def test_frozen_stages_and_normalisation_statistics_never_move() -> None:
    config = tiny_config(frozen_stages=2)
    model = tiny_model(config)
    before = snapshot(model)
    run(config, model=model)
    for name, value in model.state_dict().items():
        if name.startswith(("backbone.stages.0", "backbone.stages.1")) or "running" in name:
            assert torch.equal(value, before[name]), name
    assert not torch.equal(
        before["backbone.stages.2.conv.weight"],
        model.state_dict()["backbone.stages.2.conv.weight"],
    )


def test_zero_terms_let_the_optimiser_move_what_has_no_gradient_of_its_own() -> None:
    """With weight decay and momentum, a zero gradient is not the same as none."""
    weights = []
    for keep in (True, False):
        config = tiny_config(
            keep_zero_terms=keep, optimizer="sgd", joint_update=False, weight_decay=0.1
        )
        weights.append(run(config)[0].state_dict()["towers.box.output.weight"])
    assert not torch.equal(*weights)


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9}, {"scale_max": 1.3}])
def test_the_same_seed_gives_bit_identical_weights(changes: dict[str, Any]) -> None:
    config = tiny_config(color_jitter=0.2, **changes)
    first, _ = run(config)
    torch.manual_seed(4242)
    again, _ = run(config)
    other, _ = run(config, seed=1)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert any(
        not torch.equal(value, other.state_dict()[name])
        for name, value in first.state_dict().items()
    )


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop_after", [1, 3, 4, 7])
def test_training_goes_on_from_a_saved_state_as_if_it_had_never_stopped(stop_after: int) -> None:
    config = tiny_config(ema_decay=0.9, color_jitter=0.1)
    whole, _ = run(config)

    state = TrainingState(tiny_model(config), config)
    file = io.BytesIO()

    def stop(report: StepReport) -> None:
        if report.total_step == stop_after:
            torch.save(state.state_dict(), file)
            raise Stopped

    data: dict[str, Any] = {"labeled": Squares(4), "unlabeled": Squares(5, first_ordinal=50)}
    with pytest.raises(Stopped):
        train(state.model, **data, config=config, seed=0, device=CPU, on_step=stop, state=state)

    file.seek(0)
    resumed = TrainingState(tiny_model(config, seed=5), config)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    train(resumed.model, **data, config=config, seed=0, device=CPU, state=resumed)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_the_labels_of_unlabeled_images_change_nothing() -> None:
    class Mislabeled(Squares):
        def load(self, index: int) -> Sample:
            sample = super().load(index)
            boxes = torch.tensor([[0.0, 0.0, 60.0, 60.0]] * 3)
            return dataclasses.replace(sample, boxes=boxes, labels=torch.tensor([1, 0, 1]))

    config = tiny_config()
    models = [
        run(config, unlabeled=kind(5, first_ordinal=50))[0].state_dict()
        for kind in (Squares, Mislabeled)
    ]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_an_empty_pool_leaves_the_label_stages() -> None:
    _, reports = run(tiny_config(), unlabeled=NOTHING)
    assert {r.kind for r in reports} == {"label"}


def test_a_pool_smaller_than_a_batch_is_cycled() -> None:
    _, reports = run(tiny_config(unlabeled_batch_size=4), unlabeled=Squares(1))
    assert {r.kind for r in reports} == {"label", "min", "max"}


@pytest.mark.parametrize("empty", [(0,), (3,), (0, 1, 2, 3)])
@pytest.mark.parametrize("parity", [True, False])
def test_images_without_boxes_are_legal_anywhere(empty: tuple[int, ...], parity: bool) -> None:
    config = tiny_config(
        skip_empty_images=not parity, pseudo_label_gate="batch" if parity else "image"
    )
    run(config, labeled=Squares(4, empty=empty))


def test_one_class_trains_its_image_level_tower() -> None:
    config = tiny_config()
    model = tiny_model(config, num_classes=1)
    before = snapshot(model)
    run(config, labeled=Squares(4, num_classes=1), model=model)
    assert "mil" in changed_parts(before, model.state_dict())


def test_images_below_the_smallest_side_are_left_out_of_training() -> None:
    config = tiny_config(min_image_side=40)
    labeled = Squares(3)
    labeled.sizes_hw[0] = (39, 64)

    class Refusing(Squares):
        def load(self, index: int) -> Sample:
            assert index != 0
            return super().load(index)

    labeled.__class__ = Refusing
    run(config, labeled=labeled)
    with pytest.raises(ValueError, match="none of 2 labeled images can be trained on"):
        run(config, labeled=Squares(2, size_hw=(39, 39)))


def test_a_loss_that_is_not_finite_ends_the_training_and_says_where() -> None:
    config = tiny_config()
    model = tiny_model(config)
    with torch.no_grad():
        model.towers["box"].get_parameter("output.bias").fill_(torch.nan)
    with pytest.raises(TrainingDiverged, match=r"l_det_loc is nan in stage label 1/2, step 1 of 2"):
        run(config, model=model)


def test_weights_that_the_last_step_spoils_end_the_training_too() -> None:
    config = tiny_config(rounds=0, label_min_steps=1, label_max_steps=1, clip_norm=0.0)
    model = tiny_model(config)
    bias = model.towers["box"].get_parameter("output.bias")
    hook = bias.requires_grad_().register_hook
    hook(lambda gradient: gradient * torch.nan)  # type: ignore[no-untyped-call]
    with pytest.raises(TrainingDiverged, match="weights are not finite after the last step"):
        run(config, model=model)


def test_the_gradient_is_clipped_to_its_norm() -> None:
    # With plain sgd and a learning rate of one, a step is as long as the clipped gradient.
    config = tiny_config(
        optimizer="sgd",
        momentum=0.0,
        weight_decay=0.0,
        learning_rate=1.0,
        clip_norm=0.01,
        lr_schedule="step",
        rounds=0,
        label_min_steps=1,
        label_max_steps=1,
        lr_drop_fraction=0.0,
    )
    model = tiny_model(config)
    before = snapshot(model)
    _, reports = run(config, model=model)
    moved = sum(float((v - before[n]).double().square().sum()) for n, v in snapshot(model).items())
    assert reports[0].losses["gradient_norm"] > 0.01
    assert moved**0.5 == pytest.approx(0.01, rel=1e-3)


def test_a_moving_average_becomes_the_model() -> None:
    plain, _ = run(tiny_config())
    averaged, _ = run(tiny_config(ema_decay=0.9))
    start = tiny_model(tiny_config()).state_dict()["towers.box.output.weight"]
    moved = [
        float((m.state_dict()["towers.box.output.weight"] - start).norm())
        for m in (plain, averaged)
    ]
    assert 0 < moved[1] < moved[0]


def optimizer_groups(**changes: Any) -> Sequence[dict[str, Any]]:
    config = tiny_config(**changes)
    return build_optimizer(tiny_model(config), config).param_groups


def test_biases_decay_only_if_asked() -> None:
    for group in optimizer_groups(decay_biases=False, weight_decay=0.1):
        vectors = {p.ndim <= 1 for p in group["params"]}
        assert vectors == {group["weight_decay"] == 0.0}
    assert {g["weight_decay"] for g in optimizer_groups(decay_biases=True, weight_decay=0.1)} == {
        0.1
    }


def test_the_backbone_has_its_own_factor_of_the_learning_rate() -> None:
    assert {group["lr_factor"] for group in optimizer_groups(backbone_lr_factor=0.1)} == {0.1, 1.0}


def test_training_learns_to_see() -> None:
    """The detection loss on the labeled images falls to a fraction of what it was."""
    config = tiny_config(
        rounds=0,
        label_min_steps=150,
        label_max_steps=150,
        frozen_stages=0,
        flip_probability=0.0,
        batch_size=4,
        learning_rate=1e-2,
    )
    _, reports = run(config)

    def detection(report: StepReport) -> float:
        return report.losses["l_det_cls"] + report.losses["l_det_loc"]

    assert detection(reports[-1]) < 0.3 * detection(reports[0])


@pytest.mark.parametrize(("kind", "sign"), [("min", -1), ("max", 1)])
def test_minimising_lowers_and_maximising_raises_the_discrepancy(
    kind: StageKind, sign: int
) -> None:
    """On a fixed batch, with classifiers that differ."""
    config = tiny_config(lambda_discrepancy=1.0)
    model = tiny_model(config)
    for name in ("f1", "f2"):
        torch.nn.init.normal_(model.towers[name].get_parameter("output.weight"), std=0.3)
    images = torch.randn(2, 3, 64, 64)
    model.train_only(TRAINED[kind])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    seen = []
    for _ in range(6):
        outputs = model(images)
        weights = instance_weights(outputs, loss_config(config))
        seen.append(
            discrepancy_losses(outputs, weights, loss_config(config), complement=False).sum().item()
        )
        loss = discrepancy_losses(
            outputs, weights, loss_config(config), complement=kind == "max"
        ).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert sign * (seen[-1] - seen[0]) > 0


def test_plain_training_touches_nothing_of_mi_aod() -> None:
    config = tiny_config(method="plain", frozen_stages=0)
    model = tiny_model(config)
    before = snapshot(model)
    model, reports = run(config, model=model)
    changed = changed_parts(before, snapshot(model))
    assert changed == {"backbone", "pyramid", "f1", "box"}
    for report in reports:
        assert "unlabeled_total" not in report.losses
        assert "l_imgcls" not in report.losses
        total = report.losses["l_det_cls"] + report.losses["l_det_loc"]
        assert report.losses["total"] == pytest.approx(total)


def test_plain_training_is_the_focal_loss_of_one_classifier() -> None:
    """The first step's loss, which the same weights give in either method but for f2."""
    plain, ours = tiny_config(method="plain"), tiny_config()
    model = tiny_model(ours)
    model.towers["f2"].load_state_dict(model.towers["f1"].state_dict())
    _, [expected, *_] = run(ours, model=model)
    _, [found, *_] = run(plain)
    for name in ("l_det_cls", "l_det_loc"):
        assert found.losses[name] == pytest.approx(expected.losses[name], rel=1e-5)
