import math

import numpy as np
import pytest

from worker.miaod.selection import initial_sets, rank_at_random, rank_by_uncertainty, update_sets


def test_the_most_uncertain_comes_first() -> None:
    assert rank_by_uncertainty([10, 11, 12], [0.2, 0.9, 0.5]).tolist() == [1, 2, 0]


def test_ties_go_by_ordinal_whatever_the_order_of_the_rows() -> None:
    ordinals = np.array([7, 3, 9, 1])
    scores = np.array([0.5, 0.5, 0.5, 0.5])
    assert ordinals[rank_by_uncertainty(ordinals, scores)].tolist() == [1, 3, 7, 9]


def test_images_without_a_finite_score_come_last() -> None:
    order = rank_by_uncertainty([1, 2, 3, 4], [math.nan, 0.1, -math.nan, 0.0])
    assert order.tolist() == [1, 3, 0, 2]


def test_one_score_per_image_is_asked_for() -> None:
    with pytest.raises(ValueError, match="2 ordinals and 1 uncertainties"):
        rank_by_uncertainty([1, 2], [0.5])


def test_a_seed_gives_one_random_order_and_another_seed_another() -> None:
    ordinals = np.arange(100)
    first = rank_at_random(ordinals, seed=1)
    assert sorted(first.tolist()) == list(range(100))
    assert first.tolist() == rank_at_random(ordinals, seed=1).tolist()
    assert first.tolist() != rank_at_random(ordinals, seed=2).tolist()


def test_taking_images_out_leaves_the_random_order_of_the_others() -> None:
    everything = np.arange(50)
    rest = np.array([40, 3, 17, 22, 9])
    kept = [image for image in everything[rank_at_random(everything, 4)] if image in rest]
    assert rest[rank_at_random(rest, 4)].tolist() == kept


def test_an_empty_pool_has_an_empty_order() -> None:
    assert rank_at_random([], seed=1).tolist() == []
    assert rank_by_uncertainty([], []).tolist() == []


def test_the_papers_budgets_give_the_papers_set_sizes() -> None:
    num_images, sizes = 16_551, []
    everything, labeled, unlabeled = initial_sets(num_images, 827, seed=666)
    scores = np.random.default_rng(0).random(num_images)
    for cycle in range(7):
        sizes.append(len(labeled))
        assert len(unlabeled) == len(labeled)
        labeled, unlabeled = update_sets(scores, everything, labeled, 413, seed=cycle)
        assert not np.intersect1d(labeled, unlabeled).size
    assert sizes == [827, 1240, 1653, 2066, 2479, 2892, 3305]


def test_where_the_pool_runs_out_labeled_images_fill_the_unlabeled_set() -> None:
    labeled, unlabeled = update_sets(np.arange(10.0), np.arange(10), np.arange(4), 3, seed=0)
    assert labeled.tolist() == [0, 1, 2, 3, 7, 8, 9]
    assert len(unlabeled) == 7
    assert {4, 5, 6} <= set(unlabeled.tolist())
