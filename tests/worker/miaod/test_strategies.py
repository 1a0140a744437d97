from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tests.worker.miaod.pictures import CPU, Squares, tiny_config, tiny_model
from tests.worker.miaod.test_inference import differing_model
from worker.miaod import strategies
from worker.miaod.detections import Detections
from worker.miaod.diversity import silent
from worker.miaod.inference import ImageScore, Prediction
from worker.miaod.model import MiaodRetinaNet
from worker.miaod.samples import Subset
from worker.miaod.selection import balance_classes, rank_at_random, rank_by_uncertainty
from worker.miaod.strategies import Strategy, rank_pool, require_measure, score_pool, strategy_from

CONFIG = tiny_config(score_threshold=0.0)


def ranked(
    strategy: Strategy,
    *,
    budget: int = 2,
    counts: tuple[int, int] = (4, 4),
    say: Callable[[str], None] = silent,
) -> list[int]:
    model = differing_model()
    pool, labeled = Squares(12, first_ordinal=20), Squares(3)
    scores = score_pool(model, pool, CONFIG, CPU)
    order = rank_pool(
        strategy, scores, model, pool, labeled, counts, CONFIG, CPU, budget=budget, seed=7, say=say
    )
    return [int(place) for place in order]


def pool_scores() -> list[ImageScore]:
    return score_pool(differing_model(), Squares(12, first_ordinal=20), CONFIG, CPU)


@pytest.mark.parametrize(
    "strategy",
    [
        Strategy("mi-aod"),
        Strategy("random"),
        Strategy("entropy"),
        Strategy("core-set"),
        Strategy("mi-aod", class_balance=1.0),
        Strategy("mi-aod", diversity=3.0),
        Strategy("entropy", class_balance=1.0, diversity=2.5),
    ],
    ids=str,
)
def test_every_strategy_puts_the_whole_pool_into_one_order(strategy: Strategy) -> None:
    order = ranked(strategy)
    assert sorted(order) == list(range(12))
    assert ranked(strategy) == order


def test_the_plain_strategies_rank_by_their_measure() -> None:
    scores = pool_scores()
    ordinals = [one.ordinal for one in scores]
    assert ordinals == list(range(20, 32))
    uncertainty = rank_by_uncertainty(ordinals, [one.uncertainty for one in scores])
    entropy = rank_by_uncertainty(ordinals, [one.entropy for one in scores])
    assert ranked(Strategy("mi-aod")) == uncertainty.tolist()
    assert ranked(Strategy("entropy")) == entropy.tolist()
    assert ranked(Strategy("random")) == rank_at_random(ordinals, 7).tolist()
    assert uncertainty.tolist() != entropy.tolist()


def test_diversity_chooses_among_the_most_urgent_candidates_only() -> None:
    plain = ranked(Strategy("mi-aod"))
    spread = ranked(Strategy("mi-aod", diversity=3.0))
    assert set(spread[:6]) == set(plain[:6])
    assert spread[6:] == plain[6:]
    assert set(ranked(Strategy("mi-aod", diversity=1.0))[:2]) == set(plain[:2])


def test_class_balance_asks_for_the_class_that_has_no_labels() -> None:
    scores = pool_scores()
    rare = 1
    weight = 1e6
    order = ranked(Strategy("mi-aod", class_balance=weight), counts=(1000, 0))
    presence = np.array([one.presence_C.tolist() for one in scores])
    assert order[0] == int((presence / np.array([1001, 1])).sum(axis=1).argmax())
    assert presence[order[0], rare] == presence[:, rare].max()


def test_an_empty_pool_has_an_empty_order() -> None:
    for strategy in (
        Strategy("mi-aod", class_balance=1.0, diversity=4.0),
        Strategy("core-set"),
        Strategy("random"),
    ):
        model = tiny_model(CONFIG)
        nothing, labeled = Squares(0), Squares(2)
        order = rank_pool(
            strategy, [], model, nothing, labeled, [1, 1], CONFIG, CPU, budget=5, seed=0
        )
        assert order.tolist() == []


def test_images_that_the_network_failed_on_come_last_in_every_strategy() -> None:
    model = differing_model()
    pool = Squares(6)
    nan = torch.tensor(torch.nan)
    scores = score_pool(model, pool, CONFIG, CPU)
    broken = scores[2]
    scores[2] = ImageScore(broken.ordinal, float("nan"), float("nan"), nan.expand(2), nan.expand(8))
    for strategy in (
        Strategy("mi-aod"),
        Strategy("entropy"),
        Strategy("core-set"),
        Strategy("mi-aod", class_balance=1e-3),
    ):
        order = rank_pool(
            strategy, scores, model, pool, Squares(1), [1, 1], CONFIG, CPU, budget=6, seed=0
        )
        assert order.tolist()[-1] == 2


def test_diversity_does_not_take_an_image_that_the_network_failed_on_for_a_different_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def seen(
        model: MiaodRetinaNet, some: Subset, *args: object, **options: object
    ) -> Iterator[Prediction]:
        for ordinal in some.ordinals:
            # Where the network fails there is no detection, in the others the same one.
            count = 0 if ordinal == 2 else 1
            detections = Detections(
                boxes=torch.zeros(count, 4),
                labels=torch.zeros(count, dtype=torch.int64),
                scores=torch.ones(count),
            )
            yield Prediction(ordinal, detections, None, torch.ones(count, 8))

    monkeypatch.setattr(strategies, "predict", seen)
    model, pool = differing_model(), Squares(6)
    scores = score_pool(model, pool, CONFIG, CPU)
    nan = torch.tensor(torch.nan)
    scores[2] = ImageScore(scores[2].ordinal, math.nan, math.nan, nan.expand(2), nan.expand(8))
    for budget in (2, 4, 5):
        order = rank_pool(
            Strategy("mi-aod", diversity=3.0),
            scores,
            model,
            pool,
            Squares(1),
            [1, 1],
            CONFIG,
            CPU,
            budget=budget,
            seed=0,
        )
        assert order.tolist()[-1] == 2


def test_no_more_candidates_are_compared_than_a_machine_can_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = ranked(Strategy("mi-aod"))
    monkeypatch.setattr(strategies, "MAX_CANDIDATES", 5)
    spread = ranked(Strategy("mi-aod", diversity=4.0))
    assert set(spread[:5]) == set(plain[:5])
    assert spread[5:] == plain[5:]
    # A budget beyond that is not spread out, and nobody looks at candidates for it.
    monkeypatch.setattr(strategies, "predict", None)
    assert ranked(Strategy("mi-aod", diversity=4.0), budget=5) == plain


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (Strategy("core-set"), ["looking at labeled image 3/3", "choosing image 3/3"]),
        (
            Strategy("mi-aod", diversity=3.0),
            ["looking at candidate 6/6", "comparing detection 1/", "grouping the candidates"],
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Strategy) else "",
)
def test_a_strategy_that_takes_long_says_how_far_it_is(
    strategy: Strategy, words: list[str]
) -> None:
    said: list[str] = []
    ranked(strategy, say=said.append)
    for word in words:
        assert any(line.startswith(word) for line in said)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "best"}, "one of mi-aod, random, entropy, core-set"),
        ({"name": "random", "diversity": 4.0}, "takes no options"),
        ({"name": "mi-aod", "diversity": 0.5}, "1 or more"),
        ({"name": "mi-aod", "class_balance": 0.0}, "greater than 0"),
        ({"name": "mi-aod", "diversity": math.inf}, "1 or more"),
        ({"name": "mi-aod", "class_balance": math.nan}, "greater than 0"),
        ({"name": "mi-aod", "colour": 1}, "no option 'colour'"),
    ],
)
def test_a_strategy_that_makes_no_sense_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        strategy_from(values)


def test_plain_training_leaves_nothing_to_rank_by_disagreement() -> None:
    plain = tiny_config(method="plain")
    with pytest.raises(ValueError, match="take strategy entropy, core-set or random"):
        require_measure(Strategy("mi-aod", diversity=2.0), plain)
    require_measure(Strategy("entropy"), plain)
    require_measure(Strategy("mi-aod"), CONFIG)


def test_a_strategy_is_made_of_its_json_object() -> None:
    assert strategy_from({"name": "mi-aod", "class_balance": 2.0}) == Strategy("mi-aod", 2.0, None)
    assert strategy_from({"name": "core-set"}) == Strategy("core-set")


def test_a_few_images_of_a_rare_class_are_enough() -> None:
    """What was picked counts as labeled, so that the next pick is not the same once more."""
    presence = [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]
    order = balance_classes([3, 0, 1, 2], presence, [1, 0], weight=1.0, num_wanted=4).tolist()
    # 3: 1 + 1/2; 0: 3/4 + 1, after which another of its class is worth half.
    assert order == [0, 3, 1, 2]


@pytest.mark.parametrize("seed", range(4))
def test_the_fast_way_to_the_highest_gain_finds_what_the_plain_one_finds(seed: int) -> None:
    draws = np.random.default_rng(seed)
    presence = draws.random((60, 9)) ** 4
    if seed % 2:  # Many equal gains.
        presence = presence.round()
    counts = draws.integers(0, 4, 9).astype(float)
    before = draws.permutation(60)
    expected: list[int] = []
    expected_counts = counts.copy()
    for _ in range(25):
        urgency = 1 - np.arange(60) / 60
        gain = urgency + 3.0 * (presence[before] / (1 + expected_counts)).sum(axis=1)
        gain[[before.tolist().index(position) for position in expected]] = -np.inf
        expected.append(int(before[gain.argmax()]))
        expected_counts += presence[expected[-1]]
    found = balance_classes(before, presence, counts, weight=3.0, num_wanted=25).tolist()
    assert found[:25] == expected
    assert found[25:] == [position for position in before.tolist() if position not in expected]


def test_without_weight_worth_mentioning_the_order_stays() -> None:
    presence = np.random.default_rng(0).random((6, 2))
    order = [5, 1, 0, 4, 2, 3]
    assert balance_classes(order, presence, [1, 2], weight=1e-9, num_wanted=6).tolist() == order


def test_beyond_the_wanted_images_the_order_stays() -> None:
    presence = [[0.0], [0.0], [0.0], [1.0]]
    order = balance_classes([0, 1, 2, 3], presence, [0], weight=10.0, num_wanted=1).tolist()
    assert order == [3, 0, 1, 2]


def test_presence_must_fit_the_images_and_classes() -> None:
    with pytest.raises(ValueError, match=r"expected \(2, 3\)"):
        balance_classes([0, 1], [[0.5], [0.5]], [1, 2, 3], weight=1.0, num_wanted=1)
