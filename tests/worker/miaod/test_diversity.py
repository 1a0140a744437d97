from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from worker.miaod import diversity
from worker.miaod.detections import Detections
from worker.miaod.diversity import content_distances, k_center_order, spread_out
from worker.miaod.inference import Prediction

Floats = NDArray[np.float64]


def seen(*things: tuple[int, float, float]) -> Prediction:
    """A picture with things of a class, a score, and a look given by its angle in degrees."""
    looks = [[math.cos(math.radians(angle)), math.sin(math.radians(angle))] for *_, angle in things]
    detections = Detections(
        boxes=torch.zeros((len(things), 4)),
        labels=torch.tensor([thing[0] for thing in things], dtype=torch.int64),
        scores=torch.tensor([thing[1] for thing in things]),
    )
    return Prediction(0, detections, None, torch.tensor(looks).reshape(-1, 2))


def naive_distance(x: Prediction, y: Prediction) -> float:
    """The definition, detection by detection."""

    def one_way(x: Prediction, y: Prediction) -> float:
        assert x.looks_ND is not None
        assert y.looks_ND is not None
        if not len(x.looks_ND):
            return 0.0 if not len(y.looks_ND) else 2.0
        total, weight = 0.0, 0.0
        for label, score, look in zip(
            x.detections["labels"], x.detections["scores"], x.looks_ND, strict=True
        ):
            of_class = [
                1 - float(torch.nn.functional.cosine_similarity(look, other, dim=0))
                for other, label_y in zip(y.looks_ND, y.detections["labels"], strict=True)
                if int(label_y) == int(label)
            ]
            total += float(score) * min([*of_class, 2.0])
            weight += float(score)
        return total / weight

    return (one_way(x, y) + one_way(y, x)) / 2


things = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0.05, 1.0), st.floats(0, 360)), max_size=4
).map(lambda parts: seen(*parts))


@settings(deadline=None)
@given(st.lists(things, min_size=1, max_size=5))
def test_the_distance_is_what_the_definition_says(pictures: list[Prediction]) -> None:
    found = content_distances(pictures)
    for i, x in enumerate(pictures):
        for j, y in enumerate(pictures):
            expected = 0.0 if i == j else naive_distance(x, y)
            assert found[i, j] == pytest.approx(expected, abs=2e-6)


def test_only_things_of_the_same_class_are_alike() -> None:
    distances = content_distances([seen((0, 0.9, 10)), seen((1, 0.9, 10)), seen((0, 0.5, 10))])
    assert distances[0, 1] == pytest.approx(2)
    assert distances[0, 2] == pytest.approx(0, abs=1e-6)


def test_an_empty_picture_is_like_another_empty_one_and_unlike_all_else() -> None:
    distances = content_distances([seen(), seen((0, 0.5, 0)), seen()])
    assert distances.tolist() == [[0, 2, 0], [2, 0, 2], [0, 2, 0]]


def test_one_picture_of_each_kind_is_chosen_before_a_second_of_the_first_kind() -> None:
    kinds = [0.0, 1, 2, 3, 90, 91, 180]
    pictures = [seen((0, 0.9, angle)) for angle in kinds]
    order = spread_out(pictures, num_wanted=3).tolist()
    assert sorted(order) == list(range(7))
    assert {(0 if place < 4 else 1 if place < 6 else 2) for place in order[:3]} == {0, 1, 2}
    assert order[:3] == sorted(order[:3])
    assert order[3:] == sorted(order[3:])


@settings(deadline=None)
@given(st.lists(things, max_size=8), st.integers(1, 10))
def test_the_order_is_a_permutation_and_the_same_every_time(
    pictures: list[Prediction], num_wanted: int
) -> None:
    order = spread_out(pictures, num_wanted=num_wanted).tolist()
    assert sorted(order) == list(range(len(pictures)))
    assert spread_out(pictures, num_wanted=num_wanted).tolist() == order


def test_identical_pictures_are_all_chosen_when_all_are_wanted_but_one() -> None:
    pictures = [seen((0, 0.9, 0))] * 5
    assert sorted(spread_out(pictures, num_wanted=4).tolist()) == [0, 1, 2, 3, 4]


def test_the_image_farthest_from_all_that_is_labeled_comes_first() -> None:
    looks = [[1.0], [5.0], [9.0], [5.1]]
    assert k_center_order(looks, [[0.0]], num_wanted=4).tolist() == [2, 1, 0, 3]
    assert k_center_order(looks, [[10.0]], num_wanted=4).tolist() == [0, 3, 2, 1]


def test_what_is_not_chosen_follows_by_its_distance() -> None:
    looks = [[1.0], [9.0], [8.0], [4.0]]
    assert k_center_order(looks, [[0.0]], num_wanted=1).tolist() == [1, 3, 0, 2]


def test_a_look_that_is_not_a_number_comes_last() -> None:
    order = k_center_order([[np.nan], [1.0], [2.0]], [[0.0]], num_wanted=3)
    assert order.tolist() == [2, 1, 0]
    assert k_center_order([[np.nan]], [[0.0]], num_wanted=1).tolist() == [0]


def test_without_labeled_images_the_first_of_the_pool_is_the_start() -> None:
    assert k_center_order([[1.0], [2.0], [9.0]], np.zeros((0, 1)), num_wanted=2).tolist() == [
        0,
        2,
        1,
    ]
    assert k_center_order(np.zeros((0, 1)), [[1.0]], num_wanted=3).tolist() == []


def test_the_chosen_images_cover_the_pool_within_twice_the_best_radius() -> None:
    """The guarantee of greedy k-centre, against every choice there is."""
    from itertools import combinations

    draws = np.random.default_rng(3)
    looks = draws.random((9, 2))
    labeled = draws.random((2, 2))

    def radius(chosen: tuple[int, ...]) -> float:
        centers = np.concatenate((labeled, looks[list(chosen)]))
        distances = np.linalg.norm(looks[:, None] - centers[None], axis=2)
        return float(distances.min(axis=1).max())

    found = radius(tuple(k_center_order(looks, labeled, num_wanted=3)[:3].tolist()))
    best = min(radius(chosen) for chosen in combinations(range(9), 3))
    assert found <= 2 * best


def naive_k_center(looks: Floats, labeled: Floats, num_wanted: int) -> list[int]:
    """The definition, with every distance measured."""
    nearest = np.full(len(looks), np.inf)
    for look in labeled:
        nearest = np.minimum(nearest, np.linalg.norm(looks - look, axis=1))
    chosen: list[int] = []
    for _ in range(min(num_wanted, len(looks))):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(looks - looks[chosen[-1]], axis=1))
        nearest[chosen] = -1.0
    left = [place for place in np.argsort(-nearest, kind="stable") if place not in chosen]
    return [*chosen, *map(int, left)]


@pytest.mark.parametrize("seed", range(6))
def test_the_fast_way_to_the_farthest_image_finds_what_the_plain_one_finds(seed: int) -> None:
    draws = np.random.default_rng(seed)
    looks, labeled = draws.random((90, 16)) * 30, draws.random((70, 16)) * 30
    if seed % 2:  # Many equal looks, and far from the origin, where products lose digits.
        looks, labeled = (np.round(x / 20) + 1e4 for x in (looks, labeled))
    found = k_center_order(looks, labeled, num_wanted=40)
    assert found.tolist() == naive_k_center(looks, labeled, 40)


def test_a_long_computation_says_how_far_it_is() -> None:
    said: list[str] = []
    k_center_order(np.eye(5), np.zeros((130, 5)), num_wanted=2, say=said.append)
    assert said[0] == "comparing the pool with labeled image 1/130"
    assert said[2] == "comparing the pool with labeled image 129/130"
    assert said[3:] == ["choosing image 1/2", "choosing image 2/2"]
    said.clear()
    spread_out(
        [seen((0, 0.9, 5.0 * k), (1, 0.5, 0)) for k in range(4)], num_wanted=2, say=said.append
    )
    assert said[:2] == ["comparing detection 1/8", "comparing detection 5/8"]
    assert said[2] == "grouping the candidates, round 1"


def test_of_a_class_with_many_detections_fewer_are_compared_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures = [seen((0, 0.9, 10.0 * k), (0, 0.4, 7.0 * k)) for k in range(6)]
    whole = content_distances(pictures)
    monkeypatch.setattr(diversity, "BLOCK_PAIRS", 36)
    said: list[str] = []
    assert content_distances(pictures, say=said.append) == pytest.approx(whole, abs=1e-6)
    assert len(said) == 4


def test_looks_are_needed() -> None:
    without = Prediction(0, seen((0, 0.5, 0)).detections, None)
    with pytest.raises(AssertionError, match="looks=True"):
        content_distances([without])
