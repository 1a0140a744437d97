from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.worker.miaod.pictures import CPU, Squares, tiny_config, tiny_model
from tests.worker.miaod.test_inference import differing_model
from worker.miaod.inference import ImageScore
from worker.miaod.selection import balance_classes, rank_at_random, rank_by_uncertainty
from worker.miaod.strategies import Strategy, rank_pool, score_pool, strategy_from

CONFIG = tiny_config(score_threshold=0.0)


def ranked(strategy: Strategy, *, budget: int = 2, counts: tuple[int, int] = (4, 4)) -> list[int]:
    model = differing_model()
    pool, labeled = Squares(12, first_ordinal=20), Squares(3)
    scores = score_pool(model, pool, CONFIG, CPU)
    order = rank_pool(
        strategy, scores, model, pool, labeled, counts, CONFIG, CPU, budget=budget, seed=7
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


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "best"}, "one of mi-aod, random, entropy, core-set"),
        ({"name": "random", "diversity": 4.0}, "takes no options"),
        ({"name": "mi-aod", "diversity": 0.5}, "1 or more"),
        ({"name": "mi-aod", "class_balance": 0.0}, "greater than 0"),
        ({"name": "mi-aod", "colour": 1}, "no option 'colour'"),
    ],
)
def test_a_strategy_that_makes_no_sense_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        strategy_from(values)


def test_a_strategy_is_made_of_its_json_object() -> None:
    assert strategy_from({"name": "mi-aod", "class_balance": 2.0}) == Strategy("mi-aod", 2.0, None)
    assert strategy_from({"name": "core-set"}) == Strategy("core-set")


def test_a_few_images_of_a_rare_class_are_enough() -> None:
    """What was picked counts as labeled, so that the next pick is not the same once more."""
    presence = [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]
    order = balance_classes([3, 0, 1, 2], presence, [1, 0], weight=1.0, num_wanted=4).tolist()
    # 3: 1 + 1/2; 0: 3/4 + 1, after which another of its class is worth half.
    assert order == [0, 3, 1, 2]


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
