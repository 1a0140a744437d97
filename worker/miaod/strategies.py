"""How the pool is put into an order: the strategy, and what it may add to an uncertainty.

    score the pool  ->  rank by the strategy's measure  ->  balance classes  ->  spread out

The last two are options on top of an uncertainty. Shape suffixes: C classes, D channels of a look,
I images of the pool, L labeled images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worker.miaod.config import TrainingConfig
from worker.miaod.detector import Detector
from worker.miaod.diversity import k_center_order, silent, spread_out
from worker.miaod.frozen import FrozenCache
from worker.miaod.inference import ImageScore, Prediction, predict, score
from worker.miaod.samples import Dataset, Subset
from worker.miaod.selection import Order, balance_classes, rank_at_random, rank_by_uncertainty

Floats = NDArray[np.float64]

NAMES = ("mi-aod", "random", "entropy", "core-set")
"""By what the pool is ranked: MI-AOD's uncertainty, a draw, entropy, distance from the labeled."""

UNCERTAINTIES = ("mi-aod", "entropy")
"""Those that take the options."""

RESERVE = 0.25
"""Images that are chosen beyond the budget, as a share of it: some may turn out to be labeled or
deleted by the time the cycle ends, and others then take their places."""

MAX_CANDIDATES = 10_000
"""That the re-ranking spreads out over: their distances from each other, in 2.5 GB on the way, are
what a worker can hold. A budget beyond it is not spread out."""


@dataclass(frozen=True)
class Strategy:
    """Which images to select.

    Attributes:
        name: one of `NAMES`.
        class_balance: weight of rare classes against uncertainty, > 0; None: classes do not count.
        diversity: how many candidates per wanted image the re-ranking spreads out over, >= 1, up
            to `MAX_CANDIDATES` in all; None: the most uncertain images, however alike.
    """

    name: str = "mi-aod"
    class_balance: float | None = None
    diversity: float | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.name not in NAMES:
            raise ValueError(
                f"strategy {self.name!r} is not known: it must be one of {', '.join(NAMES)}"
            )
        if self.class_balance is not None and not 0 < self.class_balance < math.inf:
            raise ValueError(f"class_balance is {self.class_balance}: it must be greater than 0")
        if self.diversity is not None and not 1 <= self.diversity < math.inf:
            raise ValueError(f"diversity is {self.diversity}: it must be 1 or more")
        options = self.class_balance is not None or self.diversity is not None
        if options and self.name not in UNCERTAINTIES:
            raise ValueError(
                f"strategy {self.name} takes no options: class_balance and diversity go with "
                f"{' and '.join(UNCERTAINTIES)}"
            )


def strategy_from(values: Mapping[str, Any]) -> Strategy:
    """A strategy from its JSON object.

    Raises:
        ValueError: an unknown name or option, or a value out of range.
    """
    unknown = sorted(set(values) - {"name", "class_balance", "diversity"})
    if unknown:
        raise ValueError(f"strategy has no option {unknown[0]!r}")
    return Strategy(**values)


def require_measure(strategy: Strategy, config: TrainingConfig) -> None:
    """Make sure that what a strategy ranks by is there after a training.

    Raises:
        ValueError: MI-AOD's uncertainty is asked of plain training.
    """
    if strategy.name == "mi-aod" and config.method == "plain":
        raise ValueError(
            "strategy mi-aod ranks by what two classifiers disagree on, and training method plain "
            "trains one: take strategy entropy, core-set or random, or method mi-aod"
        )


def score_pool(
    model: Detector,
    pool: Dataset,
    config: TrainingConfig,
    device: torch.device,
    *,
    frozen: FrozenCache | None = None,
    found: list[ImageScore] | None = None,
    on_image: Callable[[int], None] = lambda done: None,
) -> list[ImageScore]:
    """The scores of a dataset in its order.

    Args:
        model: trained.
        pool: the images; boxes are not read.
        config: how to read and score images.
        device: where to run.
        frozen: cache of the backbone's frozen stages.
        found: what an earlier call, cut off, had found; grows by the rest in the order of scoring.
        on_image: hears how many images are done.
    """
    found = [] if found is None else found
    for one in score(model, pool, config, device, frozen=frozen, num_done=len(found)):
        found.append(one)
        on_image(len(found))
    return sorted(found, key=lambda one: one.ordinal)


def rank_pool(
    strategy: Strategy,
    scores: Sequence[ImageScore],
    model: Detector,
    pool: Dataset,
    labeled: Dataset,
    box_counts_C: Sequence[int],
    config: TrainingConfig,
    device: torch.device,
    *,
    budget: int,
    seed: int,
    frozen: FrozenCache | None = None,
    say: Callable[[str], None] = silent,
) -> Order:
    """Put the pool into the strategy's order.

    Args:
        strategy: by what.
        scores: of the pool, from `score_pool`.
        model: trained.
        pool: the unlabeled images; boxes are not read.
        labeled: the images that were trained on; only their pictures are read, for `core-set`.
        box_counts_C: labeled boxes of each class.
        config: how to read images and run the model.
        device: where to run it.
        budget: images that are wanted.
        seed: of a random order.
        frozen: cache of the backbone's frozen stages.
        say: hears often and in words how far it is; some strategies take long over large pools.

    Returns:
        Positions in the pool, the first to select at the front.
    """
    if not scores:
        return np.empty(0, dtype=np.int64)
    ordinals = [one.ordinal for one in scores]
    if strategy.name == "random":
        return rank_at_random(ordinals, seed)
    if strategy.name == "core-set":
        known = score_pool(
            model,
            labeled,
            config,
            device,
            frozen=frozen,
            on_image=lambda done: say(f"looking at labeled image {done}/{len(labeled)}"),
        )
        wanted = _with_reserve(budget)
        return k_center_order(_looks(scores), _looks(known), num_wanted=wanted, say=say)

    measure = [one.entropy if strategy.name == "entropy" else one.uncertainty for one in scores]
    order = rank_by_uncertainty(ordinals, measure)
    if strategy.class_balance is not None:
        order = balance_classes(
            order,
            torch.stack([one.presence_C for one in scores]).numpy(),
            box_counts_C,
            weight=strategy.class_balance,
            num_wanted=_with_reserve(budget * (strategy.diversity or 1)),
        )
    if strategy.diversity is not None:
        # Without detections, images on which the network failed would count as different.
        num_known = int(np.isfinite(measure).sum())
        wanted = min(int(np.ceil(budget * strategy.diversity)), MAX_CANDIDATES)
        candidates, others = np.split(order, [min(wanted, num_known)])
        if len(candidates) > budget:
            predictions = _predictions(model, pool, candidates, config, device, frozen, say)
            chosen = spread_out(predictions, num_wanted=budget, say=say)
            order = np.concatenate((candidates[chosen], others))
    return order


def _with_reserve(wanted: float) -> int:
    return int(np.ceil(wanted * (1 + RESERVE)))


def _looks(scores: Sequence[ImageScore]) -> Floats:
    return np.array([one.look_D.numpy() for one in scores], dtype=np.float64)


def _predictions(
    model: Detector,
    pool: Dataset,
    positions: Order,
    config: TrainingConfig,
    device: torch.device,
    frozen: FrozenCache | None,
    say: Callable[[str], None],
) -> list[Prediction]:
    """What the model finds in some images of the pool, in the order of `positions`."""
    some = Subset(pool, np.sort(positions).tolist())
    by_ordinal = {}
    for found in predict(model, some, config, device, looks=True, frozen=frozen):
        by_ordinal[found.ordinal] = found
        say(f"looking at candidate {len(by_ordinal)}/{len(positions)}")
    return [by_ordinal[pool.ordinals[position]] for position in positions.tolist()]
