"""One cycle of an experiment: train on what is labeled, test, and select for each arm.

The same functions that the worker's cycles call, on a data set that is at hand.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worker.miaod import metrics
from worker.miaod.config import TrainingConfig
from worker.miaod.detector import Detector
from worker.miaod.engine import StepReport, train
from worker.miaod.frozen import FrozenCache, frozen_cache
from worker.miaod.inference import predict
from worker.miaod.model import build_model
from worker.miaod.samples import Subset
from worker.miaod.selection import initial_sets
from worker.miaod.strategies import rank_pool, score_pool
from worker.simulation.pictures import LabeledData, Pictures, count_boxes, ground_truth
from worker.simulation.protocol import Arm, Protocol, cycle_seed, draw

Line = dict[str, Any]


@dataclass(frozen=True)
class Order:
    """A cycle to run.

    Attributes:
        seed: which repetition.
        cycle: 1-based.
        arms: those that it is for; more than one where they are still the same, in the first cycle.
        labeled: ordinals of the labeled images, ascending.
    """

    seed: int
    cycle: int
    arms: tuple[Arm, ...]
    labeled: tuple[int, ...]


class Bench:
    """What cycles of one process share: data, device, and caches of frozen stages."""

    def __init__(
        self, data: LabeledData, protocol: Protocol, device: torch.device, weights_dir: Path
    ) -> None:
        """Prepare; nothing runs yet."""
        self._data = data
        self._protocol = protocol
        self._device = device
        self._weights_dir = weights_dir
        self._caches: dict[tuple[object, ...], FrozenCache | None] = {}

    def run(self, order: Order) -> list[Line]:
        """Run a cycle; one line of the journal for each of its arms."""
        data, protocol = self._data, self._protocol
        config = protocol.config(order.arms[0])
        seed = cycle_seed(order.seed, order.cycle)
        known = set(order.labeled)
        chosen = [data.pool[ordinal] for ordinal in order.labeled]
        rest = [picture for picture in data.pool if picture.ordinal not in known]
        labeled = Pictures(chosen, data.class_names, labeled=True)
        pool = Pictures(rest, data.class_names, labeled=False)

        seconds: dict[str, float] = defaultdict(float)
        started = time.perf_counter()
        model = build_model(config, len(data.class_names), weights_dir=self._weights_dir, seed=seed)
        frozen = self._cache(model, config)

        def on_step(report: StepReport) -> None:
            seconds[report.kind] += report.seconds

        train(
            model,
            labeled,
            pool,
            config,
            seed=seed,
            device=self._device,
            on_step=on_step,
            frozen=frozen,
        )
        tested = time.perf_counter()
        found = predict(
            model,
            Pictures(data.test, data.class_names, labeled=False),
            config,
            self._device,
            frozen=frozen,
        )
        figures = metrics.evaluate(
            [ground_truth(one, data.class_names, config.box_corners) for one in data.test],
            [one.detections for one in sorted(found, key=lambda one: one.ordinal)],
            data.class_names,
        )
        seconds["test"] = time.perf_counter() - tested
        counts = count_boxes(chosen, data.class_names)
        scoring = time.perf_counter()
        candidates = self._candidates(pool, order)
        is_last = order.cycle == protocol.cycles
        scores = (
            [] if is_last else score_pool(model, candidates, config, self._device, frozen=frozen)
        )
        seconds["score"] = time.perf_counter() - scoring
        lines = []
        for arm in order.arms:
            selecting = time.perf_counter()
            selected: list[int] = []
            if not is_last:
                ranking = rank_pool(
                    arm.strategy,
                    scores,
                    model,
                    candidates,
                    labeled,
                    counts,
                    config,
                    self._device,
                    budget=protocol.budget,
                    seed=seed,
                    frozen=frozen,
                )
                best = ranking[: protocol.budget].tolist()
                selected = sorted(candidates.ordinals[place] for place in best)
            spent = {**seconds, "select": time.perf_counter() - selecting}
            spent["total"] = scoring - started + spent["score"] + spent["select"]
            lines.append(
                {
                    "arm": arm.name,
                    "seed": order.seed,
                    "cycle": order.cycle,
                    "images": len(chosen),
                    "boxes": sum(counts),
                    "map50": figures["map50"],
                    "map50_voc07": figures["map50_voc07"],
                    "map": figures["map"],
                    "ap50": {entry["class"]: entry["ap50"] for entry in figures["per_class"]},
                    "boxes_per_class": dict(zip(data.class_names, counts, strict=True)),
                    "seconds": {stage: round(value, 2) for stage, value in spent.items()},
                    "shared_by": len(order.arms),
                    "selected": selected,
                }
            )
        return lines

    def _candidates(self, pool: Pictures, order: Order) -> Pictures | Subset:
        if self._protocol.candidates is None:
            return pool
        some = draw(order.seed, order.cycle, "candidates").permutation(len(pool))
        return Subset(pool, np.sort(some[: self._protocol.candidates]).tolist())

    def _cache(self, model: Detector, config: TrainingConfig) -> FrozenCache | None:
        # What the frozen stages make of a picture is the same in all cycles, arms and seeds.
        key = (config.backbone, config.frozen_stages, config.frozen_cache_megabytes)
        if not config.pretrained:
            return frozen_cache(model.backbone, config)
        if key not in self._caches:
            model.to(self._device)
            self._caches[key] = frozen_cache(model.backbone, config)
        return self._caches[key]


def first_labeled(data: LabeledData, protocol: Protocol, seed: int) -> tuple[int, ...]:
    """The images that are labeled before the first cycle: a random draw, as in the paper."""
    return tuple(initial_sets(len(data.pool), protocol.initial, seed)[1].tolist())


def next_labeled(labeled: Sequence[int], line: Line) -> tuple[int, ...]:
    """The images that are labeled after a cycle."""
    return tuple(sorted({*labeled, *line["selected"]}))
