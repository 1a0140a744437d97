"""How uncertain the detector is about an anchor, and so about an image; and what it sees there.

Two classifiers that learned the same labels, one after the other pulled apart and together on the
unlabeled images, differ where the labels do not say enough.

Shape suffixes: B images, A anchors (of a level or of all), C classes, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def anchor_discrepancy(f1_logits_BAC: Tensor, f2_logits_BAC: Tensor) -> Tensor:
    """Squared difference of the classifiers' probabilities, a mean over classes.

    Not the weighted absolute difference that training pulls at: the reference scores without the
    MIL tower, which need not run here.

    Returns:
        (B, A) float32 in [0, 1].

    Raises:
        ValueError: the classifiers differ in shape.
    """
    if f1_logits_BAC.shape != f2_logits_BAC.shape:
        raise ValueError(
            f"classifier outputs of shape {tuple(f1_logits_BAC.shape)} and "
            f"{tuple(f2_logits_BAC.shape)}: both must be (B, A, C)"
        )
    difference = f1_logits_BAC.float().sigmoid() - f2_logits_BAC.float().sigmoid()
    return difference.square().mean(dim=2)


def anchor_entropy(logits_BAC: Tensor) -> Tensor:
    """Entropy of the classifier's yes or no to each class, a mean over classes.

    Returns:
        (B, A) float32 in [0, ln 2]; greatest where every class has probability one half.
    """
    logits = logits_BAC.float()
    # -p ln p - (1 - p) ln(1 - p), finite for any logit.
    entropy = functional.softplus(logits) - logits * logits.sigmoid()
    return entropy.mean(dim=2)


def image_uncertainty(discrepancy_BA: Tensor, k: int) -> Tensor:
    """Mean of an image's k largest anchor discrepancies (or entropies).

    Args:
        discrepancy_BA: of the anchors of all levels. Only images of one padded size may share a
            batch, or what evens it out would count too.
        k: anchors to average; more than the image has means all.

    Returns:
        (B,) >= 0; higher is labeled first. NaN where an anchor's discrepancy is NaN.

    Raises:
        ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}: the mean needs at least 1 anchor")
    num_anchors = discrepancy_BA.shape[1]
    return discrepancy_BA.topk(min(k, num_anchors), dim=1).values.mean(dim=1)


def heat_map(
    discrepancy_levels: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    image_hw: tuple[int, int],
    *,
    cell_offset: float = 0.0,
) -> Tensor:
    """Where in the picture the uncertainty sits.

    Each cell shows the largest discrepancy of its anchors, at the pixel where they are centred.
    Between cells it is interpolated, past the first and the last one it stays.
    A pixel shows the largest value of all levels.

    Args:
        discrepancy_levels: per level (A,), of one image.
        sizes: rows and columns of each level's map.
        strides: pixels between cells, per level.
        image_hw: height and width of the image in the network's pixels, without padding.
        cell_offset: where in its cell an anchor is centred, in strides.

    Returns:
        (H, W) float32 in [0, 1], in the units of `anchor_discrepancy`.
    """
    height, width = image_hw
    levels = []
    for discrepancy_A, (rows, columns), stride in zip(
        discrepancy_levels, sizes, strides, strict=True
    ):
        cells = discrepancy_A.float().reshape(1, 1, rows, columns, -1).amax(dim=-1)
        span = ((rows - 1) * stride + 1, (columns - 1) * stride + 1)
        pixels = functional.interpolate(cells, size=span, mode="bilinear", align_corners=True)
        before = int(cell_offset * stride)
        below, right = max(0, height - before - span[0]), max(0, width - before - span[1])
        pixels = functional.pad(pixels, (before, right, before, below), mode="replicate")
        levels.append(pixels[0, 0, :height, :width])
    return torch.stack(levels).amax(dim=0)
