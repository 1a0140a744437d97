"""Which images to ask for next.

Images are named by their ordinal, their place in the project's import order, so that ties and draws
do not depend on the order in which a database returns them.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import ArrayLike, NDArray

Order = NDArray[np.int64]


def rank_by_uncertainty(ordinals: ArrayLike, uncertainty: ArrayLike) -> Order:
    """Positions from the most to the least uncertain image.

    Args:
        ordinals: of the images, all different.
        uncertainty: of the same images. NaN ranks last; the reference's sort puts it first and so
            asks for every image on which the network failed.

    Returns:
        Indices into the arguments. Images of equal uncertainty come by ordinal.

    Raises:
        ValueError: the arguments differ in length.
    """
    numbers = np.asarray(ordinals, dtype=np.int64)
    scores = np.asarray(uncertainty, dtype=np.float64)
    if numbers.shape != scores.shape:
        raise ValueError(
            f"{numbers.size} ordinals and {scores.size} uncertainties: one of each per image"
        )
    return np.lexsort((numbers, -scores)).astype(np.int64)


def rank_at_random(ordinals: ArrayLike, seed: int) -> Order:
    """Positions in an order drawn from the seed.

    Each ordinal has its own draw: taking images out of the pool leaves the order of the others.

    Returns:
        Indices into `ordinals`.
    """
    numbers = np.asarray(ordinals, dtype=np.int64)
    if numbers.size == 0:
        return np.empty(0, dtype=np.int64)
    draws = np.random.default_rng(seed).random(int(numbers.max()) + 1)[numbers]
    return np.lexsort((numbers, draws)).astype(np.int64)


def balance_classes(
    order: ArrayLike,
    presence_IC: ArrayLike,
    box_counts_C: ArrayLike,
    *,
    weight: float,
    num_wanted: int,
) -> Order:
    """Move images up that seem to show classes with few labels.

    One after the other, the image with the highest u + weight * sum_c p_c / (1 + n_c) is taken: u
    is its place in the order, 1 for the first and falling to 0; p_c how sure the network is to see
    class c in it; n_c the labeled boxes of the class, those expected from the images taken before
    included. A rare class counts for much until a few images with it are taken.

    Args:
        order: positions of the I images, the most uncertain first.
        presence_IC: by position, in [0, 1]; NaN counts as 0.
        box_counts_C: labeled boxes of each class.
        weight: of the classes against the uncertainty.
        num_wanted: images to choose so; the others follow in their old order.

    Returns:
        The same positions.

    Raises:
        ValueError: the shapes do not fit.
    """
    before = np.asarray(order, dtype=np.int64)
    presence = np.nan_to_num(np.asarray(presence_IC, dtype=np.float64))
    counts = np.array(box_counts_C, dtype=np.float64)
    if presence.shape != (len(before), len(counts)):
        raise ValueError(
            f"presence has shape {presence.shape}: expected {(len(before), len(counts))}, a row "
            "per image and a column per class"
        )
    presence = presence[before]
    urgency = 1 - np.arange(len(before)) / max(len(before), 1)
    gains = urgency + weight * (presence / (1 + counts)).sum(axis=1)
    # Counts only grow, so gains only fall: one that was computed earlier is a bound, and few need
    # to be computed again until the highest bound is a gain of now. Ties go by place.
    bounds = [(-gain, place) for place, gain in enumerate(gains.tolist())]
    heapq.heapify(bounds)
    taken: list[int] = []
    while bounds and len(taken) < num_wanted:
        bound, place = heapq.heappop(bounds)
        gain = urgency[place] + weight * (presence[place] / (1 + counts)).sum()
        if -gain > bound:
            heapq.heappush(bounds, (-gain, place))
            continue
        taken.append(place)
        counts += presence[place]
    others = np.setdiff1d(np.arange(len(before)), taken)
    balanced: Order = np.concatenate((before[taken], before[others]))
    return balanced


def initial_sets(num_images: int, labeled_size: int, seed: int) -> tuple[Order, Order, Order]:
    """The reference's first draw: permutation of all, labeled set and unlabeled set (both sorted).

    The sets are the first and the last `labeled_size` of the permutation. They overlap where the
    pool is smaller than twice that.
    """
    everything = np.arange(num_images, dtype=np.int64)
    np.random.RandomState(seed).shuffle(everything)
    return (
        everything,
        np.sort(everything[:labeled_size]),
        np.sort(everything[-labeled_size:]),
    )


def update_sets(
    uncertainty: ArrayLike, everything: ArrayLike, labeled: ArrayLike, budget: int, seed: int
) -> tuple[Order, Order]:
    """The reference's step from one cycle's sets to the next.

    The most uncertain unlabeled images become labeled; as many as are then labeled are drawn from
    the rest as the unlabeled set. Where the rest is too small, labeled images fill it up.

    Args:
        uncertainty: of image i at index i, labeled ones included.
        everything: indices of all images.
        labeled: indices of those labeled so far.
        budget: images to add.
        seed: of the draw, in NumPy's legacy stream, which is what the reference used.

    Returns:
        Next labeled and unlabeled set, both sorted.
    """
    labeled_before = np.asarray(labeled, dtype=np.int64)
    scores = np.asarray(uncertainty)
    pool = np.setdiff1d(np.asarray(everything, dtype=np.int64), labeled_before)
    selected = pool[rank_by_uncertainty(pool, scores[pool])[:budget]]
    # Least uncertain first, as the reference appends them: the fill below shuffles this array.
    labeled_next = np.concatenate((labeled_before, selected[::-1]))

    stream = np.random.RandomState(seed)
    rest = np.setdiff1d(pool, selected)
    stream.shuffle(rest)
    unlabeled_next = rest[: len(labeled_next)]
    missing = len(labeled_next) - len(unlabeled_next)
    if missing:
        stream.shuffle(labeled_next)
        unlabeled_next = np.concatenate((unlabeled_next, labeled_next[:missing]))
    return np.sort(labeled_next), np.sort(unlabeled_next)
