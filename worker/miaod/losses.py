"""What the network is told to do: find the boxes, name the picture, and (dis)agree with itself.

Six losses: a labeled or an unlabeled batch in one of three stages. The terms and their names:

    l_det_cls         focal loss of both classifiers, averaged
    l_det_loc         L1 of the box offsets
    l_imgcls          cross entropy of what the image as a bag of instances shows (MIL)
    l_wave_dis        discrepancy of the classifiers on instances that the MIL tower finds relevant
    l_wave_dis_minus  its complement

    stage   labeled batch                      unlabeled batch
    label   l_det_cls + l_det_loc + l_imgcls   -
    min     l_det_cls + l_det_loc + l_imgcls   l_wave_dis + l_imgcls (pseudo labels)
    max     l_det_cls + l_det_loc              l_wave_dis_minus

Which towers learn in which stage is the engine's business; the losses are the same whoever does.

Shape suffixes: B images, A anchors (of a level; of all levels in `Targets` and `valid_BA`),
C classes, L levels. A list of levels has one tensor per level.

All of it runs in float32, inside autocast too: image scores are clamped at 1e-5, which half
precision cannot tell from zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from worker.miaod.head_outputs import HeadOutputs
from worker.miaod.targets import Targets

StageKind = Literal["label", "min", "max"]

SCORE_MARGIN = 1e-5
"""Image scores stay this far from 0 and 1, where the cross entropy's slope would be infinite."""


@dataclass(frozen=True)
class LossConfig:
    """What can be chosen in the losses; the defaults are ours, `PARITY` is the reference's.

    A background column of the MIL tower is not chosen here: it is there when `HeadOutputs.mil` has
    C + 1 columns. With one class it must be, since a softmax over one column says nothing.

    Attributes:
        lambda_discrepancy: weight of the discrepancy. The paper finds 0.2 to 2 alike.
        average_discrepancy: average the discrepancy over images and levels and sum it over classes,
            so that it lies in [0, 1] whatever the batch. The reference sums it over images and
            levels and averages over classes: 2 images and 20 classes give it a bound of 0.5, but 8
            images and 3 classes one of 13, which tears the classifiers apart.
        focal_alpha: weight of a positive in the focal loss; a negative weighs 1 - alpha.
        focal_gamma: how far a decided anchor is faded out.
        mil_attention: "reference" weighs anchors by a softmax of probabilities, which is nearly
            flat; "paper" by a softmax of logits for each class, as its equation 5 has it.
        pseudo_label_threshold: an unlabeled image shows a class from this mean probability of both
            classifiers on, anywhere in it.
        pseudo_label_gate: unlabeled images that show no class have no l_imgcls. "image": each for
            itself. "batch": one such image takes it from the whole batch.
        skip_empty_images: no l_imgcls for labeled images without a box. Without a background column
            an image's scores sum to 1 on each level, so that "no class" cannot be said.
        keep_zero_terms: leave the offsets in an unlabeled batch's graph, times zero. Their tower
            then has zero gradients rather than none, and SGD goes on with decay and momentum.
        mask_padding: leave anchors in the padding out of the MIL terms and the discrepancy.
        require_positive_iou: see `targets.assign`, which it is for.
        background_as_class: SSD only, see `ssd.losses`: background is a class of the image, absent
            from labeled images and present in unlabeled ones.
        sigmoid_scores: SSD only: pseudo labels, attention and uncertainty read sigmoids of logits
            that are trained as a softmax.
    """

    lambda_discrepancy: float = 0.25
    average_discrepancy: bool = True
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    mil_attention: Literal["reference", "paper"] = "reference"
    pseudo_label_threshold: float = 0.5
    pseudo_label_gate: Literal["image", "batch"] = "image"
    skip_empty_images: bool = True
    keep_zero_terms: bool = False
    mask_padding: bool = True
    require_positive_iou: bool = True
    background_as_class: bool = False
    sigmoid_scores: bool = False


PARITY = LossConfig(
    lambda_discrepancy=0.5,
    average_discrepancy=False,
    pseudo_label_gate="batch",
    skip_empty_images=False,
    keep_zero_terms=True,
    mask_padding=False,
    require_positive_iou=False,
)
"""What the reference code computes, its quirks included."""


def labeled_losses(
    outputs: HeadOutputs,
    targets: Sequence[Targets],
    present_BC: Tensor,
    stage: StageKind,
    config: LossConfig,
    *,
    known_BC: Tensor | None = None,
    valid_BA: Tensor | None = None,
) -> dict[str, Tensor]:
    """Losses of a labeled batch.

    Args:
        outputs: f1, f2, deltas; mil too unless the stage is "max". Where that tower did not run
            there is no l_imgcls.
        targets: one per image, from `targets.assign`.
        present_BC: 1.0 where the image has a box of the class (`targets.present_classes`).
        stage: see the table at the top of the module.
        config: what can be chosen.
        known_BC: False where a class did not exist yet when the image was annotated: it is neither
            present nor absent, and takes no part. None: all known.
        valid_BA: False for anchors in the padding; read if `config.mask_padding`. None: no padding.

    Returns:
        Scalars by the name of the term, detached, and "total", their sum with its gradient. Terms
        of the stage that a labeled batch has no part in are 0.
    """
    with in_float32(outputs):
        classification = classification_losses(outputs, targets, config, known_BC).sum()
        localisation = box_losses(outputs, targets).sum()
        terms = {"l_det_cls": classification, "l_det_loc": localisation}
        total = classification + localisation
        if stage != "max" and outputs.mil is not None:
            counted_BC = torch.ones_like(present_BC) if known_BC is None else known_BC.float()
            if config.skip_empty_images and not _has_background_column(outputs):
                counted_BC = counted_BC * present_BC.amax(dim=1, keepdim=True)
            weights = instance_weights(outputs, config, valid_BA)
            terms["l_imgcls"] = image_class_loss(image_scores(weights), present_BC, counted_BC)
            total = total + terms["l_imgcls"]
        if stage != "label":
            terms[discrepancy_name(stage)] = total.new_zeros(())
        return report(terms, total)


def unlabeled_losses(
    outputs: HeadOutputs,
    stage: StageKind,
    config: LossConfig,
    *,
    valid_BA: Tensor | None = None,
) -> dict[str, Tensor]:
    """Losses of a batch of which nothing but the pictures is known.

    Args:
        outputs: f1, f2, mil; deltas too if `config.keep_zero_terms`.
        stage: "min" or "max".
        config: what can be chosen.
        valid_BA: False for anchors in the padding; read if `config.mask_padding`. None: no padding.

    Returns:
        As `labeled_losses`; the detection terms are 0.

    Raises:
        ValueError: the stage is "label", in which unlabeled images have no part.
    """
    if stage == "label":
        raise ValueError("the label stage takes labeled batches only: expected stage min or max")
    with in_float32(outputs):
        weights = instance_weights(outputs, config, valid_BA)
        discrepancy = discrepancy_losses(outputs, weights, config, complement=stage == "max").sum()
        zero = discrepancy.new_zeros(())
        terms = {"l_det_cls": zero, "l_det_loc": zero, discrepancy_name(stage): discrepancy}
        total = discrepancy
        if stage == "min":
            labels_BC = pseudo_labels(outputs, config, valid_BA)
            shows_B1 = labels_BC.amax(dim=1, keepdim=True)
            if config.pseudo_label_gate == "batch":
                shows_B1 = shows_B1.amin(dim=0, keepdim=True)
            counted_BC = shows_B1.expand_as(labels_BC)
            terms["l_imgcls"] = image_class_loss(image_scores(weights), labels_BC, counted_BC)
            total = total + terms["l_imgcls"]
        if config.keep_zero_terms and outputs.deltas is not None:
            total = total + sum((level * 0).sum() for level in outputs.deltas)
        return report(terms, total)


def classification_losses(
    outputs: HeadOutputs,
    targets: Sequence[Targets],
    config: LossConfig,
    known_BC: Tensor | None = None,
) -> Tensor:
    """Focal loss (L,) of both classifiers, averaged, over the positives of the batch."""
    labels_BA1 = torch.stack([target.labels_A for target in targets])[..., None]
    counted_BA1 = torch.stack([target.label_weights_A for target in targets])[..., None]
    # Focal loss is symmetric: a positive of logit z costs what a negative of logit -z does, but for
    # alpha. One formula with a sign saves the dense one-hot branch.
    is_target_BAC = labels_BA1 == torch.arange(outputs.num_classes, device=labels_BA1.device)
    sign_BAC = torch.where(is_target_BAC, -1.0, 1.0)
    weight_BAC = counted_BA1 * torch.where(
        is_target_BAC, config.focal_alpha, 1 - config.focal_alpha
    )
    if known_BC is not None:
        weight_BAC = weight_BAC * known_BC[:, None, :]

    per_level = []
    signs = _split(sign_BAC, outputs)
    weights = _split(weight_BAC, outputs)
    for f1, f2, sign, weight in zip(outputs.f1, outputs.f2, signs, weights, strict=True):
        both = [_focal(logits * sign, weight, config.focal_gamma) for logits in (f1, f2)]
        per_level.append(0.5 * (both[0] + both[1]))
    return torch.stack(per_level) / num_positives(targets)


def box_losses(outputs: HeadOutputs, targets: Sequence[Targets]) -> Tensor:
    """L1 (L,) of the positives' four offsets, over the positives of the batch."""
    assert outputs.deltas is not None, "the box tower has to run for a labeled batch"
    wanted_BA4 = torch.stack([target.deltas_A4 for target in targets])
    positive_BA1 = torch.stack([target.assigned_A > 0 for target in targets])[..., None].float()
    wanted = _split(wanted_BA4, outputs)
    positive = _split(positive_BA1, outputs)
    per_level = [
        ((deltas - want).abs() * on).sum()
        for deltas, want, on in zip(outputs.deltas, wanted, positive, strict=True)
    ]
    return torch.stack(per_level) / num_positives(targets)


def instance_weights(
    outputs: HeadOutputs, config: LossConfig, valid_BA: Tensor | None = None
) -> tuple[Tensor, ...]:
    """How much each anchor stands for each class of its image, per level (B, A, C).

    The MIL tower's softmax over classes times the attention of the anchor within its level. Only
    the tower has a gradient; the classifiers, which give the attention, do not. Over the anchors
    and columns of a level an image's weights sum to 1.
    """
    assert outputs.mil is not None, "the MIL tower has to run for instance weights"
    valid = valid_levels(outputs, config, valid_BA)
    levels = []
    for f1, f2, mil, on_image in zip(outputs.f1, outputs.f2, outputs.mil, valid, strict=True):
        mean_BAC = (f1.detach() + f2.detach()) / 2
        if config.mil_attention == "paper":
            score = mean_BAC
        else:
            # The largest probability is the probability of the largest logit: A sigmoids, not A*C.
            score = mean_BAC.amax(dim=2, keepdim=True).sigmoid()
        if on_image is not None:
            score = score.masked_fill(~on_image[..., None], -torch.inf)
        attention = score.softmax(dim=1)
        levels.append(mil.softmax(dim=2)[..., : outputs.num_classes] * attention)
    return tuple(levels)


def image_scores(weights: Sequence[Tensor]) -> Tensor:
    """(B, C) in (0, 1): how much the image shows each class, on the level that shows it most."""
    per_level = torch.stack([level.sum(dim=1) for level in weights])
    return per_level.amax(dim=0).clamp(SCORE_MARGIN, 1 - SCORE_MARGIN)


def image_class_loss(scores_BC: Tensor, labels_BC: Tensor, counted_BC: Tensor) -> Tensor:
    """Cross entropy of the image scores, a mean over all B * C.

    An entry that is not counted adds 0 to the sum but stays in the divisor, so that what an image
    weighs does not depend on its neighbours in the batch.
    """
    cross_entropy = -(labels_BC * scores_BC.log() + (1 - labels_BC) * (1 - scores_BC).log())
    return (cross_entropy * counted_BC).mean()


@torch.no_grad()
def pseudo_labels(
    outputs: HeadOutputs, config: LossConfig, valid_BA: Tensor | None = None
) -> Tensor:
    """(B, C) 1.0 where any anchor's mean probability of both classifiers reaches the threshold."""
    valid = valid_levels(outputs, config, valid_BA)
    per_level = []
    for f1, f2, on_image in zip(outputs.f1, outputs.f2, valid, strict=True):
        mean_BAC = (f1.sigmoid() + f2.sigmoid()) / 2
        if on_image is not None:
            mean_BAC = mean_BAC * on_image[..., None]
        per_level.append(mean_BAC.amax(dim=1))
    highest_BC = torch.stack(per_level).amax(dim=0)
    return (highest_BC >= config.pseudo_label_threshold).float()


def discrepancy_losses(
    outputs: HeadOutputs, weights: Sequence[Tensor], config: LossConfig, *, complement: bool
) -> Tensor:
    """Weighted difference (L,) of the classifiers' probabilities, or of its complement to 1.

    The weights of an image's level sum to 1 over its anchors and classes, so that the sum over them
    lies in [0, 1]; what is then made of images, levels and classes: `config.average_discrepancy`.
    """
    if config.average_discrepancy:
        divisor = outputs.num_images * len(outputs.f1)
    else:
        divisor = outputs.num_classes
    per_level = []
    for f1, f2, weight in zip(outputs.f1, outputs.f2, weights, strict=True):
        difference = (f1.sigmoid() - f2.sigmoid()).abs()
        if complement:
            difference = 1 - difference
        per_level.append((difference * weight.detach()).sum() / divisor)
    return config.lambda_discrepancy * torch.stack(per_level)


def _focal(signed_logits: Tensor, weight: Tensor, gamma: float) -> Tensor:
    return (weight * signed_logits.sigmoid().pow(gamma) * functional.softplus(signed_logits)).sum()


def num_positives(targets: Sequence[Targets]) -> Tensor:
    """Positives of the batch; an image without any counts as one."""
    return torch.stack([target.num_pos for target in targets]).clamp(min=1).sum()


def _split(all_levels: Tensor, outputs: HeadOutputs) -> Sequence[Tensor]:
    return torch.split(all_levels, list(outputs.anchors_per_level), dim=1)


def valid_levels(
    outputs: HeadOutputs, config: LossConfig, valid_BA: Tensor | None
) -> Sequence[Tensor | None]:
    """(B, A) bool per level: anchors that the MIL terms read; None where they read all."""
    if valid_BA is None or not config.mask_padding:
        return [None] * len(outputs.f1)
    return _split(valid_BA, outputs)


def _has_background_column(outputs: HeadOutputs) -> bool:
    return outputs.mil is not None and outputs.mil[0].shape[-1] > outputs.num_classes


def discrepancy_name(stage: StageKind) -> str:
    """The discrepancy's name as a term of that stage."""
    return "l_wave_dis_minus" if stage == "max" else "l_wave_dis"


def in_float32(outputs: HeadOutputs) -> torch.autocast:
    """Autocast, turned off."""
    return torch.autocast(outputs.f1[0].device.type, enabled=False)


def report(terms: dict[str, Tensor], total: Tensor) -> dict[str, Tensor]:
    """The terms for people to read, the total for learning."""
    return {name: term.detach() for name, term in terms.items()} | {"total": total}
