from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from worker.miaod import losses
from worker.miaod.head_outputs import HeadOutputs
from worker.miaod.losses import PARITY, LossConfig, labeled_losses, unlabeled_losses
from worker.miaod.targets import Targets, assign, known_classes, present_classes

NUM_ANCHORS = (12, 5)
OURS = LossConfig()


def anchors() -> Tensor:
    corners = torch.arange(sum(NUM_ANCHORS), dtype=torch.float32)[:, None].repeat(1, 2) * 6
    return torch.cat((corners, corners + 20), dim=1)


def make_outputs(
    num_images: int = 2, num_classes: int = 3, *, mil_columns: int | None = None, seed: int = 0
) -> HeadOutputs:
    """Random logits that have gradients."""
    generator = torch.Generator().manual_seed(seed)

    def rows(columns: int) -> tuple[Tensor, ...]:
        return tuple(
            torch.randn(num_images, count, columns, generator=generator).requires_grad_()
            for count in NUM_ANCHORS
        )

    return HeadOutputs(
        f1=rows(num_classes),
        f2=rows(num_classes),
        mil=rows(mil_columns or num_classes),
        deltas=rows(4),
    )


def make_targets(
    boxes: list[list[list[float]]], labels: list[list[int]], classes: int
) -> list[Targets]:
    return [
        assign(
            anchors(),
            torch.ones(sum(NUM_ANCHORS), dtype=torch.bool),
            torch.tensor(image_boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(image_labels, dtype=torch.int64),
            classes,
            require_positive_iou=True,
        )
        for image_boxes, image_labels in zip(boxes, labels, strict=True)
    ]


BOXES = [[[2.0, 2.0, 22.0, 20.0], [30.0, 30.0, 52.0, 50.0]], [[60.0, 58.0, 82.0, 84.0]]]
LABELS = [[0, 2], [1]]


def labeled(
    outputs: HeadOutputs,
    config: LossConfig,
    *,
    boxes: list[list[list[float]]] = BOXES,
    labels: list[list[int]] = LABELS,
    stage: losses.StageKind = "label",
    known_BC: Tensor | None = None,
    valid_BA: Tensor | None = None,
) -> dict[str, Tensor]:
    classes = outputs.num_classes
    return labeled_losses(
        outputs,
        make_targets(boxes, labels, classes),
        present_classes([torch.tensor(image, dtype=torch.int64) for image in labels], classes),
        stage,
        config,
        known_BC=known_BC,
        valid_BA=valid_BA,
    )


def gradient(total: Tensor, levels: tuple[Tensor, ...] | None) -> Tensor:
    """Of all levels side by side; zeros where there is none."""
    assert levels is not None
    found = torch.autograd.grad(total, levels, retain_graph=True, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(x) if g is None else g for g, x in zip(found, levels, strict=True)], dim=1
    )


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def test_detection_losses_are_what_plain_loops_give() -> None:
    outputs = make_outputs()
    ours = labeled(outputs, OURS)
    all_targets = make_targets(BOXES, LABELS, 3)
    num_pos = sum(max(1, int(target.num_pos)) for target in all_targets)
    classification = localisation = 0.0
    for image, target in enumerate(all_targets):
        deltas = torch.cat(outputs.deltas or (), dim=1)[image]
        for anchor, number in enumerate(target.assigned_A.tolist()):
            if number == -1:
                continue
            if number > 0:
                difference = deltas[anchor] - target.deltas_A4[anchor]
                localisation += float(difference.detach().abs().sum())
            for classifier in (outputs.f1, outputs.f2):
                for label, z in enumerate(torch.cat(classifier, dim=1)[image, anchor].tolist()):
                    p = sigmoid(z)
                    if number > 0 and label == int(target.labels_A[anchor]):
                        classification -= 0.5 * 0.25 * (1 - p) ** 2 * math.log(p)
                    else:
                        classification -= 0.5 * 0.75 * p**2 * math.log(1 - p)
    assert num_pos >= 3
    assert float(ours["l_det_cls"]) == pytest.approx(classification / num_pos, rel=1e-5)
    assert float(ours["l_det_loc"]) == pytest.approx(localisation / num_pos, rel=1e-5)


def image_score_by_loops(outputs: HeadOutputs, image: int, label: int) -> float:
    assert outputs.mil is not None
    scores = []
    for f1, f2, mil in zip(outputs.f1, outputs.f2, outputs.mil, strict=True):
        means = (f1[image] + f2[image]) / 2
        attention = [math.exp(max(sigmoid(z) for z in row)) for row in means.tolist()]
        total = 0.0
        for anchor, row in enumerate(mil[image].tolist()):
            share = math.exp(row[label]) / sum(math.exp(z) for z in row)
            total += share * attention[anchor] / sum(attention)
        scores.append(total)
    return max(scores)


def test_the_image_loss_is_what_plain_loops_give() -> None:
    outputs = make_outputs()
    expected = 0.0
    for image in range(2):
        for label in range(3):
            score = image_score_by_loops(outputs, image, label)
            expected -= math.log(score if label in LABELS[image] else 1 - score) / 6
    assert float(labeled(outputs, OURS)["l_imgcls"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("attention", ["reference", "paper"])
def test_the_weights_of_a_level_sum_to_one(attention: Literal["reference", "paper"]) -> None:
    config = replace(OURS, mil_attention=attention)
    for level in losses.instance_weights(make_outputs(), config):
        if attention == "reference":
            torch.testing.assert_close(level.sum(dim=(1, 2)), torch.ones(2))
        else:
            # Each class has an attention of its own, so that no class can exceed 1 ...
            assert bool((level.sum(dim=1) < 1).all())


@pytest.mark.parametrize(("num_present", "expected"), [(1, 0.199), (2, 0.346)])
def test_the_image_loss_of_an_untrained_tower_is_known(num_present: int, expected: float) -> None:
    flat = tuple(torch.full((1, count, 20), -4.6) for count in NUM_ANCHORS)
    outputs = HeadOutputs(f1=flat, f2=flat, mil=flat)
    present = torch.zeros(1, 20)
    present[0, :num_present] = 1
    scores = losses.image_scores(losses.instance_weights(outputs, OURS))
    loss = losses.image_class_loss(scores, present, torch.ones(1, 20))
    assert float(loss) == pytest.approx(expected, abs=1e-3)


def test_the_papers_attention_looks_at_the_few_confident_anchors_and_the_codes_hardly() -> None:
    logits = torch.full((1, 87_552, 1), -6.0)
    logits[:, :50] = math.log(0.998 / 0.002)
    outputs = HeadOutputs(f1=(logits,), f2=(logits,), mil=(torch.zeros_like(logits),))
    shares = {}
    for attention in ("reference", "paper"):
        config = replace(OURS, mil_attention=attention)
        (weights,) = losses.instance_weights(outputs, config)
        shares[attention] = float(weights[:, :50].sum())
    assert shares["reference"] < 0.002
    assert shares["paper"] > 0.98


@pytest.mark.parametrize(("config", "expected"), [(OURS, 0.25 / 2), (PARITY, 0.5 * 2 / 3)])
def test_the_discrepancy_and_its_complement_add_up_to_the_weights(
    config: LossConfig, expected: float
) -> None:
    """On two images, three classes, two levels: ours averages the images and levels."""
    outputs = make_outputs()
    weights = losses.instance_weights(outputs, config)
    both = sum(
        losses.discrepancy_losses(outputs, weights, config, complement=complement)
        for complement in (False, True)
    )
    torch.testing.assert_close(both, torch.full((2,), expected))


def test_the_discrepancy_pulls_at_the_classifiers_only() -> None:
    outputs = make_outputs()
    weights = losses.instance_weights(outputs, OURS)
    total = losses.discrepancy_losses(outputs, weights, OURS, complement=False).sum()
    assert float(gradient(total, outputs.f1).abs().sum()) > 0
    assert float(gradient(total, outputs.mil).abs().sum()) == 0


def test_the_image_loss_pulls_at_its_tower_only() -> None:
    outputs = make_outputs()
    weights = losses.instance_weights(outputs, OURS)
    loss = losses.image_class_loss(
        losses.image_scores(weights), torch.tensor([[1.0, 0, 1], [0, 1, 0]]), torch.ones(2, 3)
    )
    assert float(gradient(loss, outputs.mil).abs().sum()) > 0
    assert float(gradient(loss, outputs.f1).abs().sum()) == 0


def test_one_class_teaches_the_reference_nothing_and_us_something() -> None:
    labels = [[0, 0], [0]]
    without = make_outputs(num_classes=1)
    total = labeled(without, PARITY, labels=labels)["total"]
    assert float(gradient(total, without.mil).abs().max()) == 0

    with_background = make_outputs(num_classes=1, mil_columns=2)
    total = labeled(with_background, OURS, labels=labels)["total"]
    assert float(gradient(total, with_background.mil).abs().max()) > 1e-4


@pytest.mark.parametrize("empty", [0, 1])
def test_an_image_without_boxes_may_stand_anywhere_in_the_batch(empty: int) -> None:
    boxes, labels = list(BOXES), list(LABELS)
    boxes[empty], labels[empty] = [], []
    outputs = make_outputs()
    ours = labeled(outputs, OURS, boxes=boxes, labels=labels)
    assert bool(ours["total"].isfinite())
    # Its background is learned from; "no class" cannot be said by scores that sum to 1.
    assert float(gradient(ours["total"], outputs.f1)[empty].abs().sum()) > 0
    assert float(gradient(ours["total"], outputs.mil)[empty].abs().sum()) == 0
    assert float(gradient(ours["total"], outputs.mil)[1 - empty].abs().sum()) > 0

    theirs = labeled(outputs, PARITY, boxes=boxes, labels=labels)
    assert float(gradient(theirs["total"], outputs.mil)[empty].abs().sum()) > 0


def test_a_batch_of_nothing_but_empty_images_has_a_finite_loss_and_no_box_loss() -> None:
    ours = labeled(make_outputs(), OURS, boxes=[[], []], labels=[[], []])
    assert bool(ours["total"].isfinite())
    assert float(ours["l_det_loc"]) == 0
    assert float(ours["l_imgcls"]) == 0


def test_with_a_background_column_an_empty_image_teaches_that_nothing_is_there() -> None:
    outputs = make_outputs(num_classes=1, mil_columns=2)
    ours = labeled(outputs, OURS, boxes=[[], BOXES[1]], labels=[[], [0]])
    assert float(gradient(ours["total"], outputs.mil)[0].abs().sum()) > 0


def test_a_box_without_area_does_not_make_the_loss_infinite() -> None:
    boxes = [[[2.0, 2.0, 2.0, 20.0], *BOXES[0][1:]], BOXES[1]]
    assert bool(labeled(make_outputs(), OURS, boxes=boxes)["total"].isfinite())


def test_a_class_added_after_the_annotation_is_neither_present_nor_absent() -> None:
    outputs = make_outputs()
    known = known_classes([3, 2], 3)
    total = labeled(outputs, OURS, known_BC=known)["total"]
    for classifier in (outputs.f1, outputs.f2):
        of_classes = gradient(total, classifier).abs().sum(dim=1)
        assert float(of_classes[1, 2]) == 0
        assert bool((of_classes[known] > 0).all())
    masked = torch.tensor([[1.0, 1, 1], [1, 1, 0]])
    scores = losses.image_scores(losses.instance_weights(outputs, OURS))
    present = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    expected = losses.image_class_loss(scores, present, masked)
    actual = labeled(outputs, OURS, known_BC=known)["l_imgcls"]
    torch.testing.assert_close(actual, expected.detach())


def outputs_with_one_sure_image() -> HeadOutputs:
    """Image 0 shows class 1 for sure, image 1 shows nothing."""
    outputs = make_outputs()
    with torch.no_grad():
        for f1, f2 in zip(outputs.f1, outputs.f2, strict=True):
            f1[:] = f1.clamp(-1, 1) - 3
            f2[:] = f2.clamp(-1, 1) - 3
        outputs.f1[1][0, 2, 1] = outputs.f2[1][0, 2, 1] = 5
    return outputs


def test_an_image_that_shows_no_class_silences_itself_and_in_parity_the_whole_batch() -> None:
    outputs = outputs_with_one_sure_image()
    ours = unlabeled_losses(outputs, "min", OURS)
    of_images = gradient(ours["total"], outputs.mil).abs().sum(dim=(1, 2))
    assert float(of_images[0]) > 0
    assert float(of_images[1]) == 0
    theirs = unlabeled_losses(outputs, "min", PARITY)
    assert float(theirs["l_imgcls"]) == 0
    assert float(gradient(theirs["total"], outputs.mil).abs().sum()) == 0


def test_a_mean_probability_of_exactly_one_half_is_a_pseudo_label() -> None:
    f1, f2 = torch.full((1, 4, 2), -9.0), torch.full((1, 4, 2), -9.0)
    f1[0, 1, 1] = f2[0, 1, 1] = 0.0
    outputs = HeadOutputs(f1=(f1,), f2=(f2,))
    assert losses.pseudo_labels(outputs, OURS).tolist() == [[0, 1]]


def test_kept_zero_terms_give_the_box_tower_zero_gradients_rather_than_none() -> None:
    for config, has_gradient in ((PARITY, True), (OURS, False)):
        outputs = make_outputs()
        unlabeled_losses(outputs, "min", config)["total"].backward()  # type: ignore[no-untyped-call]
        assert outputs.deltas is not None
        assert all((level.grad is not None) == has_gradient for level in outputs.deltas)
        if has_gradient:
            assert all(
                not bool(level.grad.any()) for level in outputs.deltas if level.grad is not None
            )


def test_without_zero_terms_an_unlabeled_batch_needs_no_box_tower() -> None:
    outputs = make_outputs()
    slim = HeadOutputs(f1=outputs.f1, f2=outputs.f2, mil=outputs.mil)
    expected = unlabeled_losses(outputs, "max", OURS)["total"]
    assert torch.equal(unlabeled_losses(slim, "max", OURS)["total"], expected)


def test_the_maximise_stage_has_no_image_loss() -> None:
    outputs = make_outputs()
    slim = HeadOutputs(f1=outputs.f1, f2=outputs.f2, deltas=outputs.deltas)
    assert set(labeled(slim, OURS, stage="max")) == {
        "l_det_cls", "l_det_loc", "l_wave_dis_minus", "total",
    }  # fmt: skip
    assert "l_imgcls" not in unlabeled_losses(outputs, "max", OURS)


def test_unlabeled_batches_have_no_part_in_the_label_stage() -> None:
    with pytest.raises(ValueError, match="labeled batches only"):
        unlabeled_losses(make_outputs(), "label", OURS)


def test_what_stands_in_the_padding_changes_nothing() -> None:
    outputs = make_outputs()
    valid = torch.ones(2, sum(NUM_ANCHORS), dtype=torch.bool)
    valid[1, 8:12] = valid[1, 15:] = False
    before = {
        stage: unlabeled_losses(outputs, stage, OURS, valid_BA=valid) for stage in ("min", "max")
    }
    scores = labeled(outputs, OURS, valid_BA=valid)["l_imgcls"]
    with torch.no_grad():
        for levels in (outputs.f1, outputs.f2, outputs.mil or ()):
            levels[0][1, 8:12] = 7.0
            levels[1][1, 3:] = 7.0
    for stage in ("min", "max"):
        after = unlabeled_losses(outputs, stage, OURS, valid_BA=valid)
        torch.testing.assert_close(after, before[stage])
    torch.testing.assert_close(labeled(outputs, OURS, valid_BA=valid)["l_imgcls"], scores)
    parity = unlabeled_losses(outputs, "min", PARITY, valid_BA=valid)
    assert not torch.equal(parity["l_wave_dis"], before["min"]["l_wave_dis"])


def test_autocast_changes_no_figure() -> None:
    outputs = make_outputs()
    plain = labeled(outputs, OURS, stage="min"), unlabeled_losses(outputs, "min", OURS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = labeled(outputs, OURS, stage="min"), unlabeled_losses(outputs, "min", OURS)
    for before, after in zip(plain, mixed, strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)
