"""What an experiment compares, and under which rules: all that decides its figures but the data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from worker.miaod.config import TrainingConfig, from_dict
from worker.miaod.strategies import Strategy

STRATEGY_OPTIONS = ("class_balance", "diversity")

PLAIN = "plain"
"""The control arm: random selection, and training without MI-AOD's losses."""


@dataclass(frozen=True)
class Arm:
    """A strategy and, where it differs from the experiment's, a training.

    Attributes:
        name: as the user wrote it, `NAME` or `NAME:option=value,…`.
        strategy: how it selects.
        training: settings in which its training differs.
    """

    name: str
    strategy: Strategy
    training: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def training_key(self) -> str:
        """The same for arms that train alike: their first cycles are one."""
        return json.dumps(self.training, sort_keys=True)


def parse_arm(text: str) -> Arm:
    """An arm from the command line.

    `mi-aod:diversity=4,mil_attention=paper` is MI-AOD's selection with an option of the strategy
    and a setting of the training. `plain` is `random:method=plain`.

    Raises:
        ValueError: an unknown strategy, option or setting.
    """
    name, _, rest = text.partition(":")
    options = parse_settings(rest.split(",")) if rest else {}
    if name == PLAIN:
        name, options = "random", {"method": "plain", **options}
    chosen = {key: float(options.pop(key)) for key in STRATEGY_OPTIONS if key in options}
    from_dict(options)
    return Arm(text, Strategy(name, **chosen), options)


def parse_settings(parts: list[str]) -> dict[str, Any]:
    """`name=value` settings; values as JSON has them, anything else is a word.

    Raises:
        ValueError: a part has no value.
    """
    settings = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r} is no setting: write name=value")
        try:
            settings[key] = json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value
    return settings


@dataclass(frozen=True)
class Protocol:
    """The rules of an experiment.

    Attributes:
        initial: images labeled before the first cycle, drawn at random by the seed.
        budget: images that each cycle adds.
        cycles: how many cycles train.
        training: `preset` and overrides, as in `POST /cycles`.
        candidates: unlabeled images, drawn anew for each cycle, that are scored; None: all.
        figure: the metric that tables and curves show.
    """

    initial: int
    budget: int
    cycles: int
    training: dict[str, Any] = field(hash=False)
    candidates: int | None = None
    figure: Literal["map50", "map50_voc07", "map"] = "map50"

    def config(self, arm: Arm) -> TrainingConfig:
        """The training of an arm."""
        return from_dict({**self.training, **arm.training})

    def check(self, num_pool: int) -> None:
        """Refuse a protocol that a pool of that size cannot serve.

        Raises:
            ValueError: says what is too large.
        """
        last = self.initial + self.budget * (self.cycles - 1)
        if min(self.initial, self.budget, self.cycles) < 1 or last > num_pool:
            raise ValueError(
                f"{self.initial} images and {self.budget} more in each of {self.cycles} cycles end "
                f"at {last}, but the pool has {num_pool}: at least 1 each, and no more than that"
            )


def draw(seed: int, cycle: int, purpose: str) -> np.random.Generator:
    """The random stream for one purpose of one cycle; the same in every arm of a seed.

    Arms then differ by what they do and not by their luck, which makes paired differences small.
    """
    return np.random.default_rng([seed, cycle, *purpose.encode()])


def cycle_seed(seed: int, cycle: int) -> int:
    """The seed of a cycle's training and of its random order."""
    return int(draw(seed, cycle, "training").integers(2**31))


def to_json(protocol: Protocol) -> Mapping[str, Any]:
    """What identifies the protocol, with every setting of its training spelled out."""
    values = dict(vars(protocol))
    values["training"] = from_dict(protocol.training).to_dict()
    return values
