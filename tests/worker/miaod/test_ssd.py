"""SSD where no figures of the reference are needed: its rules, and the whole way at 1/32 width."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import vgg16

from tests.worker.miaod.pictures import CPU, Squares, uncertainties
from worker.miaod.checkpoint import dump_model, load_model, warm_start
from worker.miaod.config import PRESETS, TrainingConfig
from worker.miaod.engine import TRAINED, StepReport, build_optimizer, loss_config, train
from worker.miaod.head_outputs import HeadOutputs
from worker.miaod.inference import predict, score
from worker.miaod.loading import PlainBatches
from worker.miaod.losses import LossConfig
from worker.miaod.model import build_model
from worker.miaod.samples import Sample
from worker.miaod.scoring import heat_map
from worker.miaod.ssd import anchors, losses, scores, targets
from worker.miaod.ssd.network import ChannelNorm, MiaodSsd
from worker.miaod.ssd.vgg import build_vgg16, convolutions
from worker.miaod.strategies import Strategy, rank_pool, score_pool
from worker.miaod.targets import Targets

PARITY = loss_config(PRESETS["paper-voc-ssd"])
OURS = LossConfig()
NUM_ANCHORS = 8732
NOTHING = Squares(0)


def tiny_config(**changes: Any) -> TrainingConfig:
    """The preset at 1/32 of its width, without its random pictures, a handful of steps."""
    small: dict[str, Any] = {
        "width_divisor": 32,
        "pretrained": False,
        "photometric_distortion": False,
        "expand_max": 1.0,
        "iou_crop": False,
        "batch_size": 2,
        "unlabeled_batch_size": 2,
        "num_loader_workers": 0,
        "repeats": 1,
        "rounds": 1,
        "label_min_steps": 2,
        "label_max_steps": 2,
        "adversarial_min_steps": 2,
        "adversarial_max_steps": 2,
        "warmup_steps": 0,
        "num_threads": 1,
    }
    return dataclasses.replace(PRESETS["paper-voc-ssd"], **(small | changes))


def ours(**changes: Any) -> TrainingConfig:
    """The same without the reference's quirks."""
    sound = {
        "pseudo_label_gate": "image",
        "skip_empty_images": True,
        "mask_padding": True,
        "keep_zero_terms": False,
        "require_positive_iou": True,
        "background_as_class": False,
        "sigmoid_scores": False,
        "average_discrepancy": True,
    }
    return tiny_config(**(sound | changes))


def tiny_model(config: TrainingConfig, num_classes: int = 2, seed: int = 0) -> MiaodSsd:
    model = build_model(config, num_classes, weights_dir=None, seed=seed)
    assert isinstance(model, MiaodSsd)
    return model


def run(
    config: TrainingConfig,
    *,
    labeled: Squares | None = None,
    unlabeled: Squares | None = None,
    model: MiaodSsd | None = None,
) -> tuple[MiaodSsd, list[StepReport]]:
    labeled = labeled or Squares(4)
    model = model or tiny_model(config, labeled.num_classes)
    reports: list[StepReport] = []
    unlabeled = Squares(5, first_ordinal=50) if unlabeled is None else unlabeled
    train(model, labeled, unlabeled, config, seed=0, device=CPU, on_step=reports.append)
    return model, reports


def outputs(num_images: int = 2, num_classes: int = 2, *, seed: int = 0) -> HeadOutputs:
    generator = torch.Generator().manual_seed(seed)
    sizes = [level.num_cells**2 * level.num_base_anchors for level in anchors.LEVELS]

    def levels(columns: int) -> tuple[Tensor, ...]:
        return tuple(
            torch.randn(num_images, size, columns, generator=generator).requires_grad_()
            for size in sizes
        )

    every = num_classes + 1
    return HeadOutputs(f1=levels(every), f2=levels(every), mil=levels(every), deltas=levels(4))


def assign(
    boxes: list[list[float]], *, require_positive_iou: bool = True, valid: Tensor | None = None
) -> Targets:
    return targets.assign(
        torch.cat(anchors.level_anchors()),
        torch.ones(NUM_ANCHORS, dtype=torch.bool) if valid is None else valid,
        torch.tensor(boxes).reshape(-1, 4).float(),
        torch.arange(len(boxes)) % 2,
        2,
        require_positive_iou=require_positive_iou,
    )


# Targets ------------------------------------------------------------------------------------------


def test_a_box_takes_one_anchor_only_however_many_are_as_good() -> None:
    # The smallest square anchor is 30 pixels wide: many of them lie around a box of 8 alike.
    found = assign([[100.0, 100.0, 108.0, 108.0]])
    best = found.overlaps_A == found.overlaps_A.max()
    assert int(best.sum()) > 1
    assert found.assigned_A.nonzero().flatten().tolist() == [int(best.nonzero()[0])]


def test_what_no_box_owns_is_background_and_nothing_is_ignored() -> None:
    found = assign([[40.0, 60.0, 120.0, 160.0], [150.0, 150.0, 290.0, 280.0]])
    assert set(found.assigned_A.tolist()) == {0, 1, 2}
    assert bool((found.label_weights_A == 1).all())
    assert bool((found.labels_A[found.assigned_A == 0] == 2).all())
    assert bool((found.assigned_A[found.overlaps_A >= 0.5] > 0).all())


def test_a_later_box_takes_the_anchor_from_its_duplicate() -> None:
    box = [100.0, 100.0, 108.0, 108.0]
    assert assign([box, box]).assigned_A.max() == 2
    assert int(assign([box, box]).num_pos) == 1


@pytest.mark.parametrize("box", [[50.0, 20.0, 50.0, 90.0], [-1.0, -1.0, -1.0, -1.0]])
def test_a_box_without_area_gets_no_anchor_unless_the_reference_is_to_be_followed(
    box: list[float],
) -> None:
    assert int(assign([box]).num_pos) == 0
    followed = assign([box], require_positive_iou=False)
    assert followed.assigned_A.nonzero().flatten().tolist() == [0]
    assert bool(followed.deltas_A4[0].isinf().any())


def test_anchors_in_the_padding_belong_to_nobody() -> None:
    valid = torch.ones(NUM_ANCHORS, dtype=torch.bool)
    whole = assign([[40.0, 60.0, 120.0, 160.0]])
    valid[whole.assigned_A > 0] = False
    masked = assign([[40.0, 60.0, 120.0, 160.0]], valid=valid)
    assert bool((masked.label_weights_A == valid).all())
    assert int(masked.num_pos) == 1
    assert not bool((masked.assigned_A[~valid] >= 0).any())


# Hard negatives and detection losses --------------------------------------------------------------


def test_three_negatives_for_each_positive_and_the_first_of_equal_ones() -> None:
    loss = torch.tensor([[1.0, 5.0, 5.0, 5.0, 5.0, 9.0, 0.5]])
    positive = torch.tensor([[False, False, False, False, False, True, False]])
    mined = losses.hard_negatives(loss, ~positive, positive)
    assert mined.nonzero()[:, 1].tolist() == [1, 2, 3]


def test_fewer_negatives_than_wanted_are_all_taken_and_padding_never() -> None:
    loss = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    positive = torch.tensor([[True, True, False, False, False]])
    negative = torch.tensor([[False, False, True, True, False]])
    assert losses.hard_negatives(loss, negative, positive).tolist() == [negative[0].tolist()]


def test_each_image_and_each_classifier_has_its_own_hard_negatives() -> None:
    found = [assign([[100.0, 100.0, 108.0, 108.0]]), assign([[0.0, 0.0, 300.0, 300.0]])]
    given = outputs()
    expected = []
    for level in (given.f1, given.f2):
        logits = torch.cat(level, 1).detach()
        for image, target in enumerate(found):
            entropy = functional.cross_entropy(logits[image], target.labels_A, reduction="none")
            positive = target.assigned_A > 0
            hardest = entropy[~positive].sort(descending=True).values[: 3 * int(positive.sum())]
            expected.append(float(entropy[positive].sum() + hardest.sum()))
    total_positives = sum(int(target.num_pos) for target in found)
    actual = losses.classification_losses(given, found)
    assert actual.tolist() == pytest.approx(
        [
            (expected[0] + expected[2]) / 2 / total_positives,
            (expected[1] + expected[3]) / 2 / total_positives,
        ],
        rel=1e-5,
    )


def test_images_without_boxes_have_no_detection_loss_and_no_gradient() -> None:
    given = outputs()
    found = [assign([]), assign([])]
    classification = losses.classification_losses(given, found)
    localisation = losses.box_losses(given, found)
    assert classification.tolist() == localisation.tolist() == [0.0, 0.0]
    (classification.sum() + localisation.sum()).backward()  # type: ignore[no-untyped-call]
    assert given.f1[0].grad is not None
    assert not given.f1[0].grad.any()


def test_a_class_added_later_is_neither_present_nor_absent() -> None:
    given = outputs()
    found = [assign([[100.0, 100.0, 180.0, 180.0]])] * 2
    present = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    known = torch.tensor([[True, False], [True, True]])
    terms = losses.labeled_losses(given, found, present, "label", OURS, known_BC=known)
    terms["total"].backward()  # type: ignore[no-untyped-call]
    for level in (*given.f1, *given.f2):
        assert level.grad is not None
        assert bool(level.grad.isfinite().all())
        assert not level.grad[0, :, 1].any(), "the unknown class was taught"
    for tower in (given.f1, given.f2):
        assert any(bool(level.grad[1, :, 1].any()) for level in tower if level.grad is not None)


# Image level, discrepancy, scores -----------------------------------------------------------------


def test_background_is_a_class_only_where_the_reference_is_followed() -> None:
    given = outputs()
    # Background says 1 everywhere, the classes are far from it.
    for level in (*given.f1, *given.f2):
        level.data[..., :2] = -20.0
        level.data[..., 2] = 20.0
    assert losses.pseudo_labels(given, PARITY).tolist() == [[0.0, 0.0, 1.0]] * 2
    assert losses.pseudo_labels(given, OURS).tolist() == [[0.0, 0.0]] * 2
    assert losses.instance_weights(given, PARITY)[0].shape[2] == 3
    assert losses.instance_weights(given, OURS)[0].shape[2] == 2
    unlabeled = losses.unlabeled_losses(given, "min", OURS)
    assert unlabeled["l_imgcls"] == 0
    assert losses.unlabeled_losses(given, "min", PARITY)["l_imgcls"] > 0


def test_a_shift_of_all_logits_of_an_anchor_changes_sigmoids_only() -> None:
    given = outputs()
    shifted = dataclasses.replace(given, f1=tuple(level + 3.0 for level in given.f1))
    for config, same in ((OURS, True), (PARITY, False)):
        before, after = (
            scores.anchor_discrepancy(torch.cat(out.f1, 1), torch.cat(out.f2, 1), config)
            for out in (given, shifted)
        )
        assert torch.allclose(before, after, atol=1e-6) == same
        assert bool((losses.pseudo_labels(given, config) <= 1).all())


def test_the_image_level_loss_can_say_that_nothing_is_there() -> None:
    given = outputs()
    for level in given.mil or ():
        level.data[..., 2] = 20.0
    found = [assign([]), assign([])]
    present = torch.zeros(2, 2)
    config = dataclasses.replace(PARITY, skip_empty_images=True)
    assert losses.labeled_losses(given, found, present, "label", OURS)["l_imgcls"] < 1e-4
    # As a class, background is absent from every labeled image: that cannot be met.
    assert losses.labeled_losses(given, found, present, "label", PARITY)["l_imgcls"] > 1
    assert losses.labeled_losses(given, found, present, "label", config)["l_imgcls"] == 0


@pytest.mark.parametrize("attention", ["reference", "paper"])
@pytest.mark.parametrize("config", [PARITY, OURS], ids=["parity", "ours"])
def test_instance_weights_of_a_level_are_shares(config: LossConfig, attention: Any) -> None:
    config = dataclasses.replace(config, mil_attention=attention)
    given = outputs()
    for level, mil in zip(losses.instance_weights(given, config), given.mil or (), strict=True):
        assert level.shape[:2] == mil.shape[:2]
        assert bool((level > 0).all())
        assert bool((level.sum(dim=1) < 1).all())
        if config.background_as_class and attention == "reference":
            torch.testing.assert_close(level.sum(dim=(1, 2)), torch.ones(2))


def test_an_averaged_discrepancy_does_not_depend_on_the_batch() -> None:
    one, two = outputs(1), outputs(1)
    both = HeadOutputs(
        f1=tuple(torch.cat(pair) for pair in zip(one.f1, two.f1, strict=True)),
        f2=tuple(torch.cat(pair) for pair in zip(one.f2, two.f2, strict=True)),
        mil=tuple(torch.cat(pair) for pair in zip(one.mil or (), two.mil or (), strict=True)),
    )
    single = losses.unlabeled_losses(one, "max", OURS)["l_wave_dis_minus"]
    double = losses.unlabeled_losses(both, "max", OURS)["l_wave_dis_minus"]
    torch.testing.assert_close(single, double)
    assert 0 < float(double) <= OURS.lambda_discrepancy


def test_an_unlabeled_batch_has_no_label_stage() -> None:
    with pytest.raises(ValueError, match="labeled batches only"):
        losses.unlabeled_losses(outputs(), "label", OURS)


# Network ------------------------------------------------------------------------------------------


def test_a_position_where_nothing_is_has_the_gradient_zero() -> None:
    norm = ChannelNorm(3)
    x = torch.tensor([[[[0.0, 3.0]], [[0.0, 4.0]], [[0.0, 0.0]]]], requires_grad=True)
    y = norm(x)
    assert y[0, :, 0, 0].tolist() == [0.0, 0.0, 0.0]
    assert y[0, :, 0, 1].tolist() == pytest.approx([12.0, 16.0, 0.0])
    y.square().sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    assert not x.grad[0, :, 0, 0].any()
    assert norm.weight.grad is not None
    assert bool(norm.weight.grad.isfinite().all())


def test_the_full_network_has_the_layers_of_the_reference() -> None:
    model = tiny_model(tiny_config(width_divisor=1), num_classes=20)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert len(shapes) == 95
    assert shapes["backbone.stages.5.1.weight"] == (1024, 512, 3, 3)
    assert shapes["pyramid.norm.weight"] == (512,)
    assert shapes["towers.f2.convs.1.weight"] == (6 * 21, 1024, 3, 3)
    assert shapes["towers.box.convs.5.weight"] == (4 * 4, 256, 3, 3)
    weight = model.get_parameter("towers.mil.convs.0.weight").detach()
    # Xavier uniform: sqrt(6 / (fan in + fan out)).
    bound = (6 / (9 * (512 + 4 * 21))) ** 0.5
    assert 0.99 * bound < float(weight.abs().max()) <= bound
    assert not model.get_parameter("towers.f1.convs.0.bias").any()
    assert bool((model.get_parameter("pyramid.norm.weight") == 20).all())


def test_each_stage_trains_as_many_weights_as_in_the_reference() -> None:
    model = tiny_model(tiny_config())
    counts = {}
    for kind, parts in TRAINED.items():
        model.train_only(parts)
        counts[kind] = sum(p.requires_grad for p in model.parameters())
    assert counts == {"label": 95, "min": 71, "max": 24}
    optimizer = build_optimizer(model, tiny_config())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 95
    assert {group["weight_decay"] for group in optimizer.param_groups} == {5e-4}


def test_the_published_weights_fill_the_convolutions_that_they_have(tmp_path: Path) -> None:
    published = vgg16(weights=None)
    # The file's dense layers hold nothing of use.
    for parameter in published.classifier.parameters():
        nn.init.constant_(parameter, torch.nan)
    torch.save(published.state_dict(), tmp_path / "vgg16_features-amdegroot-88682ab5.pth")
    generator = torch.Generator().manual_seed(0)
    backbone = build_vgg16(
        width_divisor=1, pretrained=True, weights_dir=tmp_path, generator=generator
    )
    theirs = [layer for layer in published.features if isinstance(layer, nn.Conv2d)]
    found = convolutions(backbone)
    assert (len(found), len(theirs)) == (15, 13)
    for conv, their in zip(found, theirs, strict=False):
        assert conv.bias is not None
        assert their.bias is not None
        assert torch.equal(conv.weight, their.weight)
        assert torch.equal(conv.bias, their.bias)
    for conv in found[13:]:
        assert bool(conv.weight.isfinite().all())
        assert float(conv.weight.detach().std()) > 0


def test_a_model_is_a_function_of_its_seed() -> None:
    same, again, other = (tiny_model(tiny_config(), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert not torch.equal(same["backbone.stages.0.0.weight"], other["backbone.stages.0.0.weight"])


def test_a_picture_smaller_than_its_frame_leaves_anchors_out() -> None:
    model = tiny_model(tiny_config())
    rows = model.valid_anchors([(300, 300), (150, 300)], (300, 300))
    assert rows.shape == (2, NUM_ANCHORS)
    assert bool(rows[0].all())
    centres = torch.cat(anchors.level_anchors())
    y = (centres[:, 1] + centres[:, 3]) / 2
    # A cell counts as long as it begins on the picture.
    assert bool(rows[1][y < 150].all())
    assert not bool(rows[1][:5776][y[:5776] > 158].any())


# The whole way ------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [tiny_config(), ours()], ids=["parity", "ours"])
@pytest.mark.parametrize("empty", [(), (0,), (0, 1, 2, 3)])
def test_a_training_goes_through_all_stages(config: TrainingConfig, empty: tuple[int, ...]) -> None:
    model, reports = run(config, labeled=Squares(4, empty=empty))
    assert [report.stage for report in reports] == [
        *["label 1/2"] * 2,
        *["minimise 1/1"] * 2,
        *["maximise 1/1"] * 2,
        *["label 2/2"] * 2,
    ]
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    named = {r.kind: {n for n, v in r.losses.items() if v != 0} for r in reports}
    assert {"unlabeled_l_wave_dis", "unlabeled_total"} <= named["min"]
    assert {"unlabeled_l_wave_dis_minus", "unlabeled_total"} <= named["max"]
    assert ("l_det_loc" in named["label"]) == (len(empty) < 4)


def test_each_stage_leaves_the_rest_bit_identical() -> None:
    config = tiny_config()
    model = tiny_model(config)
    held = {name: value.clone() for name, value in model.state_dict().items()}
    changed: dict[str, set[str]] = {}

    def on_step(report: StepReport) -> None:
        for name, value in model.state_dict().items():
            if not torch.equal(value, held[name]):
                part = name.split(".")[1 if name.startswith("towers") else 0]
                changed.setdefault(report.kind, set()).add(part)
                held[name] = value.clone()

    train(model, Squares(4), Squares(4), config, seed=0, device=CPU, on_step=on_step)
    assert changed == {kind: set(parts) for kind, parts in TRAINED.items()}


def test_in_parity_the_box_tower_moves_in_unlabeled_steps_too() -> None:
    """Zero gradients with decay and momentum are not the same as none."""
    weights = [
        run(tiny_config(keep_zero_terms=keep))[0].state_dict()["towers.box.convs.0.weight"]
        for keep in (True, False)
    ]
    assert not torch.equal(*weights)


def test_the_preset_s_random_pictures_are_a_function_of_the_seed() -> None:
    preset = PRESETS["paper-voc-ssd"]
    random = {n: getattr(preset, n) for n in ("photometric_distortion", "expand_max", "iou_crop")}
    config = tiny_config(**random)
    first, _ = run(config)
    torch.manual_seed(99)
    again, _ = run(config)
    plain, _ = run(tiny_config())
    assert all(
        torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items()
    )
    name = "towers.f1.convs.0.weight"
    assert not torch.equal(first.state_dict()[name], plain.state_dict()[name])


def test_the_labels_of_unlabeled_images_change_nothing_not_even_the_crop() -> None:
    class Mislabeled(Squares):
        def load(self, index: int) -> Sample:
            boxes = torch.tensor([[0.0, 0.0, 60.0, 60.0]] * 3)
            return dataclasses.replace(
                super().load(index), boxes=boxes, labels=torch.tensor([1, 0, 1])
            )

    config = tiny_config(iou_crop=True, expand_max=4.0)
    models = [
        run(config, unlabeled=kind(5, first_ordinal=50))[0].state_dict()
        for kind in (Squares, Mislabeled)
    ]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_pictures_fill_the_frame_whatever_their_ratio() -> None:
    dataset = Squares(3, size_hw=(40, 90))
    batches = PlainBatches(dataset, tiny_config(scoring_batch_size=4))
    (batch,) = (batches[place] for place in range(len(batches)))
    assert batch.images_BCHW.shape == (3, 3, 300, 300)
    assert batch.sizes_hw == ((300, 300),) * 3
    expected = dataset.load(0).boxes * torch.tensor([300 / 90, 7.5, 300 / 90, 7.5])
    torch.testing.assert_close(batch.boxes[0], expected)


@pytest.mark.parametrize("config", [tiny_config(), ours()], ids=["parity", "ours"])
def test_scores_detections_and_heat_maps_come_from_a_loaded_model_as_from_the_trained_one(
    config: TrainingConfig, tmp_path: Path
) -> None:
    model, _ = run(dataclasses.replace(config, score_threshold=0.0, detections_per_image=7))
    path = tmp_path / "model.safetensors"
    path.write_bytes(dump_model(model, ["small", "large"]))
    loaded = load_model(path)
    assert isinstance(loaded.model, MiaodSsd)
    assert loaded.class_names == ("small", "large")
    assert loaded.model.config == model.config
    pool = Squares(3, first_ordinal=10, size_hw=(60, 120))
    first, second = (
        (
            uncertainties(score(m, pool, m.config, CPU)),
            list(predict(m, pool, m.config, CPU, heat_maps=True)),
        )
        for m in (model, loaded.model)
    )
    assert first[0] == second[0]
    assert sorted(first[0]) == [10, 11, 12]
    assert all(0 < value < 1 for value in first[0].values())
    for mine, theirs in zip(first[1], second[1], strict=True):
        found = mine.detections
        assert torch.equal(found["boxes"], theirs.detections["boxes"])
        assert 0 < len(found["boxes"]) <= 7
        assert set(found["labels"].tolist()) <= {0, 1}
        # In the pixels of the original picture.
        assert float(found["boxes"][:, 0::2].max()) <= 120
        assert float(found["boxes"][:, 1::2].max()) <= 60
        assert mine.heat_map_HW is not None
        assert mine.heat_map_HW.shape == (300, 300)
        assert 0 < float(mine.heat_map_HW.max()) <= 1


def test_a_detector_that_learned_a_few_pictures_by_heart_finds_their_boxes() -> None:
    """From pictures to boxes: no link of the chain may be off by a pixel or a class."""
    config = ours(
        width_divisor=16,
        rounds=0,
        label_min_steps=100,
        label_max_steps=100,
        flip_probability=0.0,
        learning_rate=2e-3,
        weight_decay=0.0,
        optimizer="adamw",
        batch_size=3,
    )
    dataset = Squares(3)
    model, _ = run(config, labeled=dataset, unlabeled=NOTHING)
    for prediction in predict(model, dataset, config, CPU):
        sample = dataset.load(prediction.ordinal)
        best = prediction.detections["boxes"][0]
        assert prediction.detections["labels"][0] == sample.labels[0]
        assert float(prediction.detections["scores"][0]) > 0.5
        corner = torch.maximum(best[:2], sample.boxes[0, :2])
        opposite = torch.minimum(best[2:], sample.boxes[0, 2:])
        inside = float((opposite - corner).clamp(min=0).prod())
        areas = sum(float((box[2:] - box[:2]).prod()) for box in (best, sample.boxes[0]))
        assert inside / (areas - inside) > 0.6


@pytest.mark.parametrize(
    ("old_names", "new_names"),
    [(["car", "bus"], ["bus", "bike", "car"]), (["car"], ["car", "bus"]), (["a", "car"], ["car"])],
)
def test_a_warm_start_copies_the_columns_that_both_know_and_background(
    old_names: list[str], new_names: list[str]
) -> None:
    config = tiny_config()
    old = tiny_model(config, len(old_names), seed=1).eval()
    model = tiny_model(config, len(new_names), seed=2).eval()
    warm_start(model, new_names, old.state_dict(), old_names)
    images = torch.randn(1, 3, 300, 300)
    with torch.no_grad():
        said, says = old(images), model(images)
    for tower in ("f1", "f2", "mil"):
        for before, after in zip(getattr(said, tower), getattr(says, tower), strict=True):
            torch.testing.assert_close(after[..., -1], before[..., -1])
            for name in set(old_names) & set(new_names):
                torch.testing.assert_close(
                    after[..., new_names.index(name)], before[..., old_names.index(name)]
                )
    for before, after in zip(said.deltas or (), says.deltas or (), strict=True):
        torch.testing.assert_close(after, before)


def test_a_warm_start_from_the_other_detector_is_refused() -> None:
    retinanet = dataclasses.replace(PRESETS["cpu"], pretrained=False)
    other = build_model(retinanet, 2, weights_dir=None, seed=0)
    with pytest.raises(ValueError, match="a warm start needs the same network"):
        warm_start(tiny_model(tiny_config()), ["a", "b"], other.state_dict(), ["a", "b"])


def test_the_heat_map_is_hot_where_the_classifiers_differ() -> None:
    config = ours()
    model = tiny_model(config).eval()
    # Two classifiers that say the same, but for one anchor of the finest level.
    sizes = model.level_sizes((300, 300))
    levels = [torch.zeros(len(level)) for level in model.anchors_for((300, 300))]
    row, column = 10, 25
    levels[0][(row * 38 + column) * 4 + 2] = 1.0
    shown = heat_map(levels, sizes, model.strides, (300, 300), cell_offset=model.cell_offset)
    assert divmod(int(shown.argmax()), 300) == (row * 8 + 4, column * 8 + 4)
    assert float(shown.max()) == 1.0


def test_plain_training_and_every_strategy_work_with_ssd_too() -> None:
    config = tiny_config(method="plain", average_classifiers=False)
    model = tiny_model(config)
    reports: list[StepReport] = []
    labeled, pool = Squares(3), Squares(4, first_ordinal=10)
    train(model, labeled, pool, config, seed=0, device=CPU, on_step=reports.append)
    assert all("l_imgcls" not in report.losses for report in reports)
    config = tiny_config(average_classifiers=True)
    scores = score_pool(model, pool, config, CPU)
    assert all(0 < one.entropy < math.log(3) + 1e-6 for one in scores)
    assert all(one.presence_C.shape == (2,) for one in scores)
    for strategy in (
        Strategy("entropy"),
        Strategy("core-set"),
        Strategy("mi-aod", class_balance=1.0, diversity=2.0),
    ):
        order = rank_pool(
            strategy, scores, model, pool, labeled, [1, 2], config, CPU, budget=2, seed=0
        )
        assert sorted(order.tolist()) == [0, 1, 2, 3]
