"""Which images differ, so that a budget is not spent on twenty views of one thing.

Two notions: the distance of what the backbone sees in whole pictures (`k_center_order`, the
core-set strategy), and a class-conditioned distance of what was detected in them (`spread_out`).

Shape suffixes: I images, L labeled images, D channels of a look, P candidates, N detections of all
candidates together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from worker.miaod.inference import Prediction
from worker.miaod.selection import Order

NOTHING_ALIKE = 2.0
"""Distance from a detection to a picture without one of its class: that of opposite directions."""

MAX_MEDOID_ROUNDS = 100

BLOCK = 1024
"""Detections that are compared at once with the others of their class, fewer where those are many:
in all no more than `BLOCK_PAIRS` pairs."""
BLOCK_PAIRS = 2**24

CENTERS_AT_ONCE = 64
EXACT_PAIRS = 4096
ROUNDING = 1e-9
"""Of |a|² + |b|², far above what |a|² + |b|² - 2ab is off by in float64."""


def silent(words: str) -> None:
    """Hear how far a long computation is, and tell nobody."""


def k_center_order(
    looks_ID: ArrayLike,
    labeled_LD: ArrayLike,
    *,
    num_wanted: int,
    say: Callable[[str], None] = silent,
) -> Order:
    """Positions such that each image is the one farthest from all labeled and all earlier ones.

    Args:
        looks_ID: of the pool; an image with a NaN ranks last.
        labeled_LD: of the labeled images; L may be 0, then the pool's first image is the start.
        num_wanted: images to choose so; the others follow by their distance from what was chosen.
        say: hears often and in words how far it is.

    Returns:
        All positions of the pool. Equal distances go by position.
    """
    looks = np.asarray(looks_ID, dtype=np.float64)
    known = np.asarray(labeled_LD, dtype=np.float64)
    num_images = len(looks)
    if num_images == 0:
        return np.empty(0, dtype=np.int64)
    known = known[np.isfinite(known).all(axis=1)] if len(known) else known.reshape(0, 1)
    is_broken: NDArray[np.bool_] = np.logical_not(np.isfinite(looks).all(axis=1))
    # Zeros compare with everything; where they end up is overwritten below.
    looks = np.where(is_broken[:, None], 0.0, looks) if is_broken.any() else looks
    squares = np.einsum("id,id->i", looks, looks)
    nearest = np.full(num_images, np.inf)
    for start in range(0, len(known), CENTERS_AT_ONCE):
        say(f"comparing the pool with labeled image {start + 1}/{len(known)}")
        _approach(nearest, looks, squares, known[start : start + CENTERS_AT_ONCE])
    nearest[is_broken] = -1.0
    chosen: list[int] = []
    for _ in range(min(num_wanted, num_images)):
        position = int(nearest.argmax())
        if nearest[position] < 0:
            break
        say(f"choosing image {len(chosen) + 1}/{min(num_wanted, num_images)}")
        chosen.append(position)
        _approach(nearest, looks, squares, looks[position : position + 1])
        nearest[position] = -2.0
    left = np.setdiff1d(np.arange(num_images), chosen)
    left = left[np.argsort(-nearest[left], kind="stable")]
    return np.concatenate((np.array(chosen, dtype=np.int64), left)).astype(np.int64)


def spread_out(
    candidates: Sequence[Prediction],
    *,
    num_wanted: int,
    say: Callable[[str], None] = silent,
) -> Order:
    """Choose candidates that differ in what was detected in them.

    k-centre greedy from the first candidate, then k-medoids, on `content_distances`.

    Args:
        candidates: the most urgent first, with their `looks_ND`.
        num_wanted: images to choose.
        say: hears often and in words how far it is.

    Returns:
        All places of the candidates: the chosen ones by their urgency, then the others by theirs.
    """
    num_candidates = len(candidates)
    if num_wanted >= num_candidates:
        return np.arange(num_candidates, dtype=np.int64)
    distances = content_distances(candidates, say=say)
    centers = [0]
    nearest = distances[0].copy()
    while len(centers) < num_wanted:
        nearest[centers] = -1.0
        centers.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, distances[centers[-1]])
    medoids = _medoids(distances, np.array(centers), say)
    others = np.setdiff1d(np.arange(num_candidates), medoids)
    return np.concatenate((np.sort(medoids), others)).astype(np.int64)


def content_distances(
    predictions: Sequence[Prediction], *, say: Callable[[str], None] = silent
) -> NDArray[np.float64]:
    """(P, P) how much the detections of two pictures differ, symmetric, in [0, 2].

    From x to y: each detection of x looks for the most similar one of its class in y (1 - cosine of
    their looks, `NOTHING_ALIKE` if there is none); the mean is weighted by score. The distance is
    the mean of both ways. Two pictures without detections are alike; one without and one with are
    as far apart as can be.
    """
    num_pictures = len(predictions)
    owner_N = torch.cat(
        [torch.full((len(p.detections["labels"]),), i) for i, p in enumerate(predictions)]
    )
    label_N = torch.cat([p.detections["labels"] for p in predictions])
    score_N = torch.cat([p.detections["scores"] for p in predictions]).double()
    look_ND = torch.cat([_looks(p) for p in predictions])
    # In place: of many detections these are gigabytes.
    functional.normalize(look_ND, dim=1, out=look_ND)
    one_way = torch.zeros((num_pictures, num_pictures), dtype=torch.float64)
    done = 0
    for label in sorted(set(label_N.tolist())):
        of_class = (label_N == label).nonzero()[:, 0]
        for block in of_class.split(min(BLOCK, max(1, BLOCK_PAIRS // len(of_class)))):
            say(f"comparing detection {done + 1}/{len(label_N)}")
            done += len(block)
            distance = 1 - look_ND[block] @ look_ND[of_class].T
            nearest = torch.full((len(block), num_pictures), NOTHING_ALIKE)
            owners = owner_N[of_class].expand(len(block), -1)
            # include_self: a cosine of -1 and no detection at all are the same distance.
            nearest.scatter_reduce_(1, owners, distance, "amin")
            one_way.index_add_(0, owner_N[block], nearest.double() * score_N[block, None])
    weight = torch.zeros(num_pictures, dtype=torch.float64).index_add_(0, owner_N, score_N)
    empty = weight == 0
    one_way /= weight.masked_fill(empty, 1)[:, None]
    one_way[empty] = torch.where(empty, 0.0, NOTHING_ALIKE).double()
    distances = ((one_way + one_way.T) / 2).clamp_(0, NOTHING_ALIKE).fill_diagonal_(0)
    return distances.numpy()


def _looks(prediction: Prediction) -> Tensor:
    assert prediction.looks_ND is not None, "predictions must be made with looks=True"
    return prediction.looks_ND.float()


def _medoids(distances: NDArray[np.float64], medoids: Order, say: Callable[[str], None]) -> Order:
    """k-medoids from given ones: until nothing changes, or some rounds long."""
    for turn in range(1, MAX_MEDOID_ROUNDS + 1):
        say(f"grouping the candidates, round {turn}")
        cluster = distances[:, medoids].argmin(axis=1)
        # Of identical pictures each medoid keeps itself, so that no cluster is ever empty.
        cluster[medoids] = np.arange(len(medoids))
        better = medoids.copy()
        for number in range(len(medoids)):
            members = np.flatnonzero(cluster == number)
            better[number] = members[distances[np.ix_(members, members)].sum(axis=0).argmin()]
        if np.array_equal(better, medoids):
            break
        medoids = better
    return medoids


def _approach(
    nearest_I: NDArray[np.float64],
    looks_ID: NDArray[np.float64],
    squares_I: NDArray[np.float64],
    centers_KD: NDArray[np.float64],
) -> None:
    """Lower the distances to the nearest centre by some more centres, in place.

    A product of matrices finds the pairs that may count, many times faster than differences would;
    only those pairs are measured by their difference, so that equal looks are at distance 0.
    """
    scale_IK = squares_I[:, None] + np.einsum("kd,kd->k", centers_KD, centers_KD)
    squared_IK = scale_IK - 2 * (looks_ID @ centers_KD.T)
    scale_IK *= ROUNDING
    # Negative marks stay: there is no closer distance.
    limit_I = np.where(nearest_I < 0, -np.inf, nearest_I**2)
    limit_I = np.minimum(limit_I, (squared_IK + scale_IK).min(axis=1))
    images, centers = np.nonzero(squared_IK - scale_IK <= limit_I[:, None])
    for start in range(0, len(images), EXACT_PAIRS):
        pairs = slice(start, start + EXACT_PAIRS)
        difference = looks_ID[images[pairs]] - centers_KD[centers[pairs]]
        np.minimum.at(nearest_I, images[pairs], np.linalg.norm(difference, axis=1))
