"""What SSD is told to do; the stages and the names of the terms are those of `worker.miaod.losses`.

Other than RetinaNet's, its classifiers have a softmax over the classes and background:

    l_det_cls         cross entropy of both classifiers, averaged, over the positives and the three
                      hardest negatives for each positive
    l_det_loc         smooth L1 of the box offsets
    l_imgcls          as for RetinaNet, over K columns
    l_wave_dis(_minus)  the same, of softmax probabilities

The reference takes background for one more class of the image: never present in a labeled one,
always found in an unlabeled one. `background_as_class` says so too (K = C + 1); without it these
terms read the columns of the C classes alone (K = C), and the MIL tower's softmax can leave an
empty picture to background.

Shape suffixes: B images, A anchors (of a level; of all levels in `Targets` and `valid_BA`),
C classes, D = C + 1 columns of the convolutions, background last, K columns that count.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from worker.miaod.head_outputs import HeadOutputs
from worker.miaod.losses import (
    LossConfig,
    StageKind,
    discrepancy_name,
    image_class_loss,
    image_scores,
    in_float32,
    num_positives,
    report,
    valid_levels,
)
from worker.miaod.ssd.scores import columns_that_count, scores
from worker.miaod.targets import Targets

NEGATIVES_PER_POSITIVE = 3
"""Background anchors that are learned for each positive one of the image, the hardest first."""


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
    """Losses of a labeled batch; arguments and result as of `worker.miaod.losses.labeled_losses`.

    The targets are those of `worker.miaod.ssd.targets.assign`.
    """
    with in_float32(outputs):
        classification = classification_losses(outputs, targets, known_BC).sum()
        localisation = box_losses(outputs, targets).sum()
        terms = {"l_det_cls": classification, "l_det_loc": localisation}
        total = classification + localisation
        if stage != "max" and outputs.mil is not None:
            present_BK = present_BC
            counted_BK = torch.ones_like(present_BC) if known_BC is None else known_BC.float()
            if config.background_as_class:
                if config.skip_empty_images:
                    counted_BK = counted_BK * present_BC.amax(dim=1, keepdim=True)
                present_BK = functional.pad(present_BC, (0, 1), value=0.0)
                counted_BK = torch.cat((counted_BK, counted_BK.amax(dim=1, keepdim=True)), dim=1)
            weights = instance_weights(outputs, config, valid_BA)
            terms["l_imgcls"] = image_class_loss(image_scores(weights), present_BK, counted_BK)
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
    """Losses of an unlabeled batch, as those of `worker.miaod.losses.unlabeled_losses`.

    The offsets have no part in the graph. What the reference's optimiser does with its box tower
    all the same is the engine's business (`keep_zero_terms`).

    Raises:
        ValueError: the stage is "label".
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
            labels_BK = pseudo_labels(outputs, config, valid_BA)
            shows_B1 = labels_BK.amax(dim=1, keepdim=True)
            if config.pseudo_label_gate == "batch":
                shows_B1 = shows_B1.amin(dim=0, keepdim=True)
            counted_BK = shows_B1.expand_as(labels_BK)
            terms["l_imgcls"] = image_class_loss(image_scores(weights), labels_BK, counted_BK)
            total = total + terms["l_imgcls"]
        return report(terms, total)


def classification_losses(
    outputs: HeadOutputs, targets: Sequence[Targets], known_BC: Tensor | None = None
) -> Tensor:
    """Cross entropy (B,) of both classifiers, averaged, over the positives of the batch.

    Each classifier has its own hard negatives. An image without positives has no negatives either,
    so that a picture without boxes teaches its background to nobody; that is SSD's way.

    A class that did not exist yet when the image was annotated leaves the softmax of that image:
    its anchors say neither that it is there nor that it is not.
    """
    labels_BA = torch.stack([target.labels_A for target in targets])
    counts_BA = torch.stack([target.label_weights_A for target in targets]) > 0
    positive_BA = torch.stack([target.assigned_A > 0 for target in targets])
    per_classifier = []
    for levels in (outputs.f1, outputs.f2):
        logits_BAD = torch.cat(levels, dim=1)
        if known_BC is not None:
            unknown_BD = functional.pad(~known_BC, (0, 1), value=False)
            logits_BAD = logits_BAD.masked_fill(unknown_BD[:, None, :], -torch.inf)
        entropy_BA = functional.cross_entropy(
            logits_BAD.transpose(1, 2), labels_BA, reduction="none"
        )
        mined_BA = hard_negatives(entropy_BA.detach(), counts_BA & ~positive_BA, positive_BA)
        per_classifier.append(entropy_BA.where(positive_BA | mined_BA, 0.0).sum(dim=1))
    return 0.5 * (per_classifier[0] + per_classifier[1]) / num_positives(targets)


def hard_negatives(loss_BA: Tensor, negative_BA: Tensor, positive_BA: Tensor) -> Tensor:
    """(B, A) bool: of each image the negatives of largest loss, three for each positive.

    Of equal ones the first: an untrained network says the same of all even surfaces, and what it
    learns should not depend on the device's way to sort.
    """
    candidates_BA = loss_BA.masked_fill(~negative_BA, -1.0)
    order_BA = candidates_BA.argsort(dim=1, descending=True, stable=True)
    wanted_B1 = NEGATIVES_PER_POSITIVE * positive_BA.sum(dim=1, keepdim=True)
    ranks_A = torch.arange(loss_BA.shape[1], device=loss_BA.device)
    mined_BA = torch.zeros_like(negative_BA).scatter(1, order_BA, ranks_A < wanted_B1)
    return mined_BA & negative_BA


def box_losses(outputs: HeadOutputs, targets: Sequence[Targets]) -> Tensor:
    """Smooth L1 (B,) of the positives' four offsets, over the positives of the batch."""
    assert outputs.deltas is not None, "the box tower has to run for a labeled batch"
    deltas_BA4 = torch.cat(outputs.deltas, dim=1)
    wanted_BA4 = torch.stack([target.deltas_A4 for target in targets])
    positive_BA1 = torch.stack([target.assigned_A > 0 for target in targets])[..., None].float()
    loss_BA4 = functional.smooth_l1_loss(deltas_BA4, wanted_BA4, reduction="none")
    return (loss_BA4 * positive_BA1).sum(dim=(1, 2)) / num_positives(targets)


def instance_weights(
    outputs: HeadOutputs, config: LossConfig, valid_BA: Tensor | None = None
) -> tuple[Tensor, ...]:
    """How much each anchor stands for each class of its image, per level (B, A, K).

    As `worker.miaod.losses.instance_weights`; the MIL tower's softmax always has background.
    """
    assert outputs.mil is not None, "the MIL tower has to run for instance weights"
    valid = valid_levels(outputs, config, valid_BA)
    levels = []
    for f1, f2, mil, on_image in zip(outputs.f1, outputs.f2, outputs.mil, valid, strict=True):
        mean_BAD = (f1.detach() + f2.detach()) / 2
        if config.mil_attention == "paper":
            score = columns_that_count(mean_BAD, config)
        else:
            score = scores(mean_BAD, config).amax(dim=2, keepdim=True)
        if on_image is not None:
            score = score.masked_fill(~on_image[..., None], -torch.inf)
        attention = score.softmax(dim=1)
        levels.append(columns_that_count(mil.softmax(dim=2), config) * attention)
    return tuple(levels)


@torch.no_grad()
def pseudo_labels(
    outputs: HeadOutputs, config: LossConfig, valid_BA: Tensor | None = None
) -> Tensor:
    """(B, K) 1.0 where any anchor's mean score of both classifiers reaches the threshold."""
    valid = valid_levels(outputs, config, valid_BA)
    per_level = []
    for f1, f2, on_image in zip(outputs.f1, outputs.f2, valid, strict=True):
        mean_BAK = (scores(f1, config) + scores(f2, config)) / 2
        if on_image is not None:
            mean_BAK = mean_BAK * on_image[..., None]
        per_level.append(mean_BAK.amax(dim=1))
    highest_BK = torch.stack(per_level).amax(dim=0)
    return (highest_BK >= config.pseudo_label_threshold).float()


def discrepancy_losses(
    outputs: HeadOutputs, weights: Sequence[Tensor], config: LossConfig, *, complement: bool
) -> Tensor:
    """Weighted difference (B,) of the classifiers' probabilities, or of its complement to 1.

    An image's weights of a level sum to at most 1 over its anchors and columns; what is then made
    of images, levels and columns: `config.average_discrepancy`.
    """
    if config.average_discrepancy:
        divisor = outputs.num_images * len(outputs.f1)
    else:
        divisor = weights[0].shape[2]
    per_level = []
    for f1, f2, weight in zip(outputs.f1, outputs.f2, weights, strict=True):
        difference = columns_that_count((f1.softmax(dim=2) - f2.softmax(dim=2)).abs(), config)
        if complement:
            difference = 1 - difference
        per_level.append((difference * weight.detach()).sum(dim=(1, 2)) / divisor)
    return config.lambda_discrepancy * torch.stack(per_level).sum(dim=0)
