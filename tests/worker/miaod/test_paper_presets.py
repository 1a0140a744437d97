"""The presets `paper-voc` and `paper-coco`, fact by fact: the reference's network, data, schedule.

Names like D16 and Q23 are those of docs/parity.md: D1 to D19 are places where the paper's code
differs from its text, Q1 to Q25 quirks of the code. What the golden tests show is not repeated
here: they run this preset's own losses, targets, stages and optimiser.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from tests.worker.miaod.pictures import CPU, Squares, small, tiny_model
from worker.miaod import engine
from worker.miaod.config import PRESETS
from worker.miaod.corners import as_evaluated_on, as_trained_on
from worker.miaod.engine import StepReport, build_optimizer, loss_config, train
from worker.miaod.loading import BatchOrder
from worker.miaod.losses import PARITY
from worker.miaod.metrics import GroundTruth, evaluate
from worker.miaod.model import MiaodRetinaNet, Tower, build_model
from worker.miaod.samples import Sample
from worker.miaod.schedule import learning_rate, plan_stages
from worker.miaod.transforms import augment, collate, fit, fitted_size, normalise, with_targets

PAPER = ("paper-voc", "paper-coco")
VOC, COCO = PRESETS["paper-voc"], PRESETS["paper-coco"]


# The network --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> MiaodRetinaNet:
    """The whole network for VOC's 20 classes, its backbone drawn rather than downloaded."""
    config = dataclasses.replace(VOC, pretrained=False)
    model = build_model(config, 20, weights_dir=None, seed=0)
    assert isinstance(model, MiaodRetinaNet)
    return model


def test_the_network_is_a_resnet_50_with_a_pyramid_of_256_channels(
    network: MiaodRetinaNet,
) -> None:
    assert (VOC.backbone, VOC.pretrained, VOC.warm_start) == ("resnet50", True, False)
    assert network.strides == (8, 16, 32, 64, 128)
    assert network.backbone.channels == (512, 1024, 2048)
    lateral = [conv.weight.shape for conv in convolutions(network.pyramid.lateral)]
    assert lateral == [(256, 512, 1, 1), (256, 1024, 1, 1), (256, 2048, 1, 1)]
    # P6 is made of C5, not of P5.
    halvings = convolutions(network.pyramid.extra)
    assert [conv.weight.shape[1] for conv in halvings] == [2048, 256]
    assert all((conv.stride, conv.padding) == ((2, 2), (1, 1)) for conv in halvings)
    assert not any(isinstance(module, nn.GroupNorm) for module in network.modules())


def test_there_is_no_relu_between_p6_and_p7(network: MiaodRetinaNet) -> None:
    features = [
        torch.randn(1, channels, 8 // 2**level, 8 // 2**level)
        for level, channels in enumerate(network.backbone.channels)
    ]
    with torch.no_grad():
        levels = network.pyramid(features)
        assert float(levels[3].min()) < 0
        assert torch.equal(levels[4], network.pyramid.extra[1](levels[3]))


def test_four_towers_of_four_convolutions_start_as_in_the_reference(
    network: MiaodRetinaNet,
) -> None:
    """Hidden convolutions of f_mil are left at Kaiming's, all else is N(0, 0.01)."""
    columns = {"f1": 20, "f2": 20, "mil": 20, "box": 4}
    assert set(network.towers) == set(columns)
    for name, tower in network.towers.items():
        assert isinstance(tower, Tower)
        hidden = convolutions(tower.convs)
        assert [conv.weight.shape for conv in hidden] == [(256, 256, 3, 3)] * 4
        expected = math.sqrt(2 / (256 * 9)) if name == "mil" else 0.01
        for conv in hidden:
            assert float(conv.weight.detach().std()) == pytest.approx(expected, rel=0.01)
            assert conv.bias is not None
            assert not conv.bias.any()
        assert tower.output.weight.shape == (9 * columns[name], 256, 3, 3)
        assert float(tower.output.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
        assert tower.output.bias is not None
        wanted = 0.0 if name == "box" else -math.log(99)
        assert tower.output.bias.tolist() == pytest.approx([wanted] * 9 * columns[name])
    first, second = (network.towers[name].get_parameter("output.weight") for name in ("f1", "f2"))
    assert not torch.equal(first, second)


def test_the_pyramid_starts_uniform_by_xavier(network: MiaodRetinaNet) -> None:
    for conv in (
        *convolutions(network.pyramid.lateral),
        *convolutions(network.pyramid.smooth),
        *convolutions(network.pyramid.extra),
    ):
        area = conv.kernel_size[0] * conv.kernel_size[1]
        bound = math.sqrt(6 / ((conv.in_channels + conv.out_channels) * area))
        largest = float(conv.weight.detach().abs().max())
        assert largest == pytest.approx(bound, rel=0.01)
        assert largest <= bound
        assert conv.bias is not None
        assert not conv.bias.any()


def test_stem_and_layer1_never_train_but_later_normalisation_factors_do(
    network: MiaodRetinaNet,
) -> None:
    """Statistics of batch normalisation are fixed everywhere."""
    network.train_only(tuple(network.parts()))
    for number, stage in enumerate(network.backbone.stages):
        assert all(p.requires_grad == (number >= 2) for p in stage.parameters())
        for module in stage.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert not module.training
                assert module.weight.requires_grad == (number >= 2)


def test_a_voc_image_has_as_many_anchors_as_in_the_reference(network: MiaodRetinaNet) -> None:
    for size_hw, expected in (((608, 928), 105_849), ((608, 1024), 116_712)):
        assert sum(len(level) for level in network.anchors_for(size_hw)) == expected


def test_every_cycle_starts_from_the_same_heads() -> None:
    config = small("paper-voc", backbone="resnet18")
    first, second = (
        build_model(config, 3, weights_dir=None, seed=666).state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def convolutions(modules: nn.Module) -> list[nn.Conv2d]:
    found = list(modules.children())
    assert all(isinstance(module, nn.Conv2d) for module in found)
    return [module for module in found if isinstance(module, nn.Conv2d)]


# The data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "size_hw", "fitted_hw"),
    [
        ("paper-voc", (375, 500), (600, 800)),
        ("paper-voc", (500, 333), (901, 600)),
        ("paper-voc", (200, 500), (400, 1000)),
        ("paper-coco", (480, 640), (800, 1067)),
        ("paper-coco", (640, 427), (1199, 800)),
        ("paper-coco", (240, 640), (500, 1333)),
    ],
)
def test_images_are_resized_into_the_papers_frame(
    preset: str, size_hw: tuple[int, int], fitted_hw: tuple[int, int]
) -> None:
    assert fitted_size(size_hw, PRESETS[preset]) == fitted_hw


@pytest.mark.parametrize("preset", PAPER)
def test_a_flip_of_every_second_image_is_the_only_augmentation(preset: str) -> None:
    config = small(preset)
    image = torch.randint(0, 256, (3, 64, 48), dtype=torch.uint8)
    box = torch.tensor([[4.0, 8.0, 20.0, 40.0]])
    fitted = fit(Sample(image, box, torch.tensor([0]), 0, 1), config)
    flipped = 0
    for seed in range(400):
        shown = augment(fitted, config, np.random.default_rng(seed)).sample.image
        is_flipped = torch.equal(shown, fitted.sample.image.flip(2))
        assert is_flipped or torch.equal(shown, fitted.sample.image)
        flipped += is_flipped
    assert 160 < flipped < 240


def test_pixels_are_normalised_by_imagenets_figures_and_padded_to_multiples_of_32(
    network: MiaodRetinaNet,
) -> None:
    backbone = network.backbone
    config = small("paper-voc", image_long_side=80, image_short_side=50)
    image = torch.full((3, 50, 80), 200, dtype=torch.uint8)
    sample = Sample(image, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 0, 1)
    batch = collate([fit(sample, config)], 32)
    pixels = normalise(batch, backbone.pixel_mean, backbone.pixel_std, CPU)
    assert pixels.shape == (1, 3, 64, 96)
    expected = [(200 - 123.675) / 58.395, (200 - 116.28) / 57.12, (200 - 103.53) / 57.375]
    assert pixels[0, :, 49, 79].tolist() == pytest.approx(expected)
    assert not pixels[0, :, 50:].any()
    assert not pixels[0, :, :, 80:].any()


def test_a_voc_box_is_trained_on_and_evaluated_on_with_1_off_all_four_numbers() -> None:
    """An XML's (48, 240, 195, 371) is stored as (47, 239, 195, 371); fractions are cut off."""
    stored = torch.tensor([[47.0, 239.0, 195.0, 371.0], [44.7, 10.0, 90.2, 80.5]])
    expected = [[47, 239, 194, 370], [44, 10, 89, 79]]
    assert as_trained_on(stored, VOC.box_corners).tolist() == expected
    assert as_evaluated_on(stored, VOC.box_corners).tolist() == expected


def test_a_coco_box_is_trained_on_with_1_off_all_four_numbers_but_evaluated_as_it_is() -> None:
    """COCO's x, y, width, height of 47.5, 239.2, 147.5, 132 go through the same reader."""
    stored = torch.tensor([[47.5, 239.2, 195.0, 371.2]])
    assert as_trained_on(stored, COCO.box_corners).tolist() == [[46, 238, 194, 370]]
    assert torch.equal(as_evaluated_on(stored, COCO.box_corners), stored)


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {*PAPER, "paper-voc-ssd"}))
def test_other_presets_take_boxes_as_they_are(preset: str) -> None:
    stored = torch.tensor([[47.5, 239.2, 195.0, 371.2]])
    corners = PRESETS[preset].box_corners
    assert torch.equal(as_trained_on(stored, corners), stored)
    assert torch.equal(as_evaluated_on(stored, corners), stored)


def test_corners_are_moved_in_the_original_picture_before_it_is_resized() -> None:
    config = small("paper-voc", image_long_side=128, image_short_side=128)
    image = torch.zeros((3, 64, 64), dtype=torch.uint8)
    sample = Sample(image, torch.tensor([[0.0, 10.5, 20.0, 64.0]]), torch.tensor([0]), 0, 1)
    assert fit(with_targets(sample, config), config).sample.boxes.tolist() == [[0, 20, 38, 126]]
    coco = dataclasses.replace(config, box_corners="coco")
    # One pixel left of the picture, then clipped to it.
    assert fit(with_targets(sample, coco), coco).sample.boxes.tolist() == [[0, 18, 38, 126]]


@pytest.mark.parametrize("preset", PAPER)
def test_images_below_32_pixels_are_dropped_from_both_training_sets(preset: str) -> None:
    class Watched(Squares):
        def load(self, index: int) -> Sample:
            assert min(self.sizes_hw[index]) >= 32
            return super().load(index)

    labeled, unlabeled = Watched(4), Watched(4, first_ordinal=50)
    labeled.sizes_hw[1] = unlabeled.sizes_hw[2] = (31, 64)
    run(preset, labeled=labeled, unlabeled=unlabeled)


@pytest.mark.parametrize("preset", PAPER)
def test_batches_of_two_hold_one_orientation_and_an_epoch_shows_each_image_twice(
    preset: str,
) -> None:
    """Each orientation is filled up by repeats to whole batches."""
    config = PRESETS[preset]
    assert (config.batch_size, config.unlabeled_batch_size, config.repeats) == (2, 2, 2)
    sizes = [(48, 64)] * 5 + [(64, 48), (64, 64), (50, 40)]
    order = BatchOrder(
        range(8), sizes, batch_size=config.batch_size, repeats=config.repeats, key=(0,)
    )
    assert order.batches_per_epoch == 5 + 3
    shown: Counter[int] = Counter()
    for step in range(order.batches_per_epoch):
        batch = order.batch(step)
        # Width over height above 1, or not.
        assert len({sizes[index][1] > sizes[index][0] for index in batch}) == 1
        shown.update(batch)
    assert set(shown.values()) == {2}
    odd = BatchOrder(range(3), sizes, batch_size=2, repeats=1, key=(0,))
    assert [len(odd.batch(step)) for step in range(odd.batches_per_epoch)] == [2, 2]


def test_as_many_pool_images_as_labeled_ones_take_part_drawn_anew_by_the_seed() -> None:
    """D15: not the whole pool."""
    seen = []
    for seed in (0, 0, 1):
        pool = Remembering(40, first_ordinal=100)
        run("paper-voc", unlabeled=pool, seed=seed, adversarial_max_steps=50)
        assert len(pool.loaded) == 4
        seen.append(pool.loaded)
    assert seen[0] == seen[1] != seen[2]

    pool = Remembering(40, first_ordinal=100)
    run("default", unlabeled=pool, rounds=1, adversarial_min_steps=10, adversarial_max_steps=10)
    assert len(pool.loaded) == 40


def test_the_subset_of_the_pool_stays_the_same_through_all_stages() -> None:
    pool = Remembering(40, first_ordinal=100)
    loaded_in: dict[str, set[int]] = {}

    def on_step(report: StepReport) -> None:
        loaded_in.setdefault(report.stage, set()).update(pool.loaded)
        pool.loaded.clear()

    run("paper-voc", unlabeled=pool, on_step=on_step, adversarial_max_steps=50)
    stages = [ordinals for ordinals in loaded_in.values() if ordinals]
    assert len(stages) == 4
    assert all(ordinals == stages[0] for ordinals in stages)


class Remembering(Squares):
    """Notes the ordinals of the pictures that were asked for."""

    def __init__(self, count: int, **more: Any) -> None:
        super().__init__(count, **more)
        self.loaded: set[int] = set()

    def load(self, index: int) -> Sample:
        self.loaded.add(self.ordinals[index])
        return super().load(index)


# The losses, the stages, the optimiser ------------------------------------------------------------


@pytest.mark.parametrize("preset", PAPER)
def test_the_losses_are_those_that_the_golden_figures_are_compared_with(preset: str) -> None:
    """D6 to D14, Q1 to Q3, Q6, Q9, Q18, Q20; alpha 0.25, gamma 2, lambda 0.5."""
    config = loss_config(PRESETS[preset])
    assert config == PARITY
    assert (config.focal_alpha, config.focal_gamma, config.lambda_discrepancy) == (0.25, 2.0, 0.5)
    assert (config.mil_attention, config.pseudo_label_threshold) == ("reference", 0.5)


def test_the_code_minimises_first_and_trains_other_parts_than_the_text_says() -> None:
    """D1 to D5, with a label stage at either end and one between the rounds."""
    kinds = [stage.kind for stage in plan_stages(VOC, 10, has_unlabeled=True)]
    assert kinds == ["label", "min", "max", "label", "min", "max", "label"]
    assert engine.TRAINED == {
        "label": ("backbone", "pyramid", "f1", "f2", "mil", "box"),
        "min": ("backbone", "pyramid", "mil", "box"),
        "max": ("f1", "f2"),
    }


@pytest.mark.parametrize("preset", PAPER)
def test_the_optimiser_is_plain_sgd_with_decay_on_everything(preset: str) -> None:
    """D16, Q23: 5e-4, not the paper's 1e-4; no clipping; forgotten at every stage border."""
    config = small(preset)
    optimizer = build_optimizer(tiny_model(config), config)
    assert type(optimizer) is torch.optim.SGD
    for group in optimizer.param_groups:
        assert (group["momentum"], group["weight_decay"]) == (0.9, 5e-4)
        assert (group["dampening"], group["nesterov"], group["lr_factor"]) == (0, False, 1.0)
    assert (config.clip_norm, config.ema_decay, config.amp) == (0.0, 0.0, False)
    assert config.fresh_optimizer
    assert not config.joint_update


def test_momentum_starts_empty_in_every_stage() -> None:
    """Q23."""
    at_start: dict[int, bool] = {}
    optimizers = []

    def look(optimizer: Optimizer, *_: object) -> None:
        optimizers.append(optimizer)
        at_start.setdefault(id(optimizer), not optimizer.state)

    hook = register_optimizer_step_pre_hook(look)
    try:
        reports = run("paper-voc")
    finally:
        hook.remove()
    assert len(at_start) == len({report.stage_index for report in reports}) == 7
    assert all(at_start.values())


@pytest.mark.parametrize("preset", PAPER)
def test_both_updates_of_an_iteration_have_the_same_rate(preset: str) -> None:
    """One labeled, one unlabeled batch in turn (D14), each with an update of its own."""
    rates: list[float] = []

    def look(optimizer: Optimizer, *_: object) -> None:
        rates.append(optimizer.param_groups[0]["lr"])

    hook = register_optimizer_step_pre_hook(look)
    try:
        reports = run(preset, adversarial_max_steps=3, label_max_steps=3)
    finally:
        hook.remove()
    expected = [report.lr for report in reports for _ in range(1 if report.kind == "label" else 2)]
    assert rates == expected


def test_voc_has_no_warm_up_and_coco_one_of_500_steps_in_every_stage() -> None:
    """From a thousandth of the rate, in a straight line, also in the last, lowered stage."""
    stages = plan_stages(VOC, 827, has_unlabeled=True)
    assert {learning_rate(VOC, stages, index, 0) for index in range(7)} == {1e-3}

    stages = plan_stages(COCO, 2345, has_unlabeled=True)
    for index in range(7):
        assert learning_rate(COCO, stages, index, 0) == pytest.approx(1e-6)
        assert learning_rate(COCO, stages, index, 250) == pytest.approx(0.5005e-3)
        assert learning_rate(COCO, stages, index, 500) == 1e-3
    assert learning_rate(COCO, stages, 6, 2 * 2345) == pytest.approx(1e-4)


@pytest.mark.parametrize("preset", PAPER)
def test_the_rate_falls_tenfold_for_the_last_epoch_of_the_last_label_stage(preset: str) -> None:
    """D16: for the last 2 of 26 passes, not the last 6."""
    config = PRESETS[preset]
    stages = plan_stages(config, 827, has_unlabeled=True)
    # An epoch shows every image twice.
    lowered = [
        (index, step)
        for index, stage in enumerate(stages)
        for step in range(500, stage.num_steps)
        if learning_rate(config, stages, index, step) < 1e-3
    ]
    assert lowered == [(6, step) for step in range(2 * 827, 3 * 827)]


@pytest.mark.parametrize("preset", PAPER)
def test_26_labeled_and_8_unlabeled_passes(preset: str) -> None:
    stages = plan_stages(PRESETS[preset], 827, has_unlabeled=True)
    assert sum(stage.num_steps for stage in stages) * 2 == 26 * 827
    assert sum(stage.num_steps for stage in stages if stage.kind != "label") * 2 == 8 * 827


# Scoring and evaluation ---------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PAPER)
def test_scoring_takes_the_10_000_most_uncertain_anchors_of_each_image_alone(preset: str) -> None:
    """D12; image by image."""
    assert (PRESETS[preset].scoring_k, PRESETS[preset].scoring_batch_size) == (10_000, 1)


@pytest.mark.parametrize("preset", PAPER)
def test_detections_are_filtered_as_in_the_references_evaluation(preset: str) -> None:
    config = PRESETS[preset]
    assert (config.nms_candidates, config.detections_per_image) == (1000, 100)
    assert (config.score_threshold, config.nms_iou) == (0.05, 0.5)


def test_the_papers_average_precision_has_11_points_and_no_extra_pixel() -> None:
    """Boxes whose IoU is 0.48 with far edges as they are would reach 0.5 with one pixel more."""
    truth = GroundTruth(
        np.array([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]]),
        np.array([0, 0]),
        np.array([False, False]),
        1,
    )
    near = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 53.5, 60.0, 63.5]])
    found = {"boxes": near, "labels": torch.tensor([0, 0]), "scores": torch.tensor([0.9, 0.8])}
    figures = evaluate([truth], [found], ["a"])  # type: ignore[list-item]
    # Half of the boxes are found, at precision 1: recalls 0, 0.1 .. 0.5, six points of eleven.
    assert figures["map50_voc07"] == pytest.approx(6 / 11)
    with_pixel = evaluate([truth], [found], ["a"], legacy_plus_one=True)  # type: ignore[list-item]
    assert with_pixel["map50_voc07"] == pytest.approx(1.0)


def run(
    preset: str,
    *,
    labeled: Squares | None = None,
    unlabeled: Squares | None = None,
    seed: int = 0,
    on_step: Any = None,
    **changes: Any,
) -> list[StepReport]:
    """A training of a small network in the preset."""
    config = small(preset, **changes)
    reports: list[StepReport] = []

    def note(report: StepReport) -> None:
        reports.append(report)
        if on_step is not None:
            on_step(report)

    train(
        tiny_model(config),
        labeled or Squares(4),
        unlabeled or Squares(6, first_ordinal=50),
        config,
        seed=seed,
        device=CPU,
        on_step=note,
    )
    return reports
