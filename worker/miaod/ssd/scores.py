"""What the logits of SSD's classifiers mean: for detections, for uncertainty, for the losses.

Shape suffixes: B images, A anchors, C classes, D = C + 1 columns, background last, K columns that
count: C + 1 where background counts as a class, else C.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Reading(Protocol):
    """How logits are read; both `LossConfig` and `TrainingConfig` say it."""

    @property
    def background_as_class(self) -> bool:
        """Background's column counts like that of a class."""

    @property
    def sigmoid_scores(self) -> bool:
        """Sigmoids instead of the softmax that is trained."""


def class_probabilities(logits_BAD: Tensor) -> Tensor:
    """(B, A, C): the softmax over classes and background, background's share left out."""
    return logits_BAD.float().softmax(dim=-1)[..., :-1]


def scores(logits_BAD: Tensor, reading: Reading) -> Tensor:
    """(B, A, K) in [0, 1]: how sure a classifier is of each column.

    Softmax probabilities; or, as the reference has it, sigmoids of logits that were never trained
    as such: a shift of all of an anchor's logits changes them.
    """
    probabilities = logits_BAD.sigmoid() if reading.sigmoid_scores else logits_BAD.softmax(dim=2)
    return columns_that_count(probabilities, reading)


def columns_that_count(values_BAD: Tensor, reading: Reading) -> Tensor:
    """(B, A, K): without background's column, unless it counts as a class."""
    return values_BAD if reading.background_as_class else values_BAD[..., :-1]


def anchor_discrepancy(f1_logits_BAD: Tensor, f2_logits_BAD: Tensor, reading: Reading) -> Tensor:
    """(B, A) float32 in [0, 1]: squared difference of the classifiers' scores, a mean over K."""
    difference = scores(f1_logits_BAD.float(), reading) - scores(f2_logits_BAD.float(), reading)
    return difference.square().mean(dim=2)


def anchor_entropy(logits_BAD: Tensor) -> Tensor:
    """(B, A) float32 in [0, ln (C + 1)]: entropy of the softmax over classes and background."""
    log_probabilities = logits_BAD.float().log_softmax(dim=2)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=2)
