from __future__ import annotations

import pytest

from worker.miaod.strategies import Strategy
from worker.simulation.protocol import Protocol, cycle_seed, draw, parse_arm, parse_settings
from worker.simulation.published import EXPERIMENTS, beside


def test_an_arm_is_a_strategy_with_its_options_and_its_training() -> None:
    arm = parse_arm("mi-aod:diversity=4,mil_attention=paper,lambda_discrepancy=1,amp=false")
    assert arm.strategy == Strategy("mi-aod", diversity=4.0)
    assert arm.training == {"mil_attention": "paper", "lambda_discrepancy": 1, "amp": False}
    assert arm.name.startswith("mi-aod:diversity=4")
    assert parse_arm("core-set").strategy == Strategy("core-set")


def test_plain_is_random_selection_after_plain_training() -> None:
    arm = parse_arm("plain")
    assert arm.strategy == Strategy("random")
    assert arm.training == {"method": "plain"}
    assert parse_arm("plain:label_min_steps=5").training["label_min_steps"] == 5


def test_arms_that_train_alike_share_a_key() -> None:
    keys = {parse_arm(text).training_key for text in ("mi-aod", "random", "mi-aod:diversity=2")}
    assert len(keys) == 1
    assert parse_arm("plain").training_key not in keys


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("best", "not known"),
        ("random:diversity=4", "takes no options"),
        ("mi-aod:epochz=3", "not a training setting"),
        ("mi-aod:mil_attention=flat", "one of reference, paper"),
        ("mi-aod:diversity", "write name=value"),
    ],
)
def test_an_arm_that_cannot_be_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_arm(text)


def test_settings_are_numbers_words_and_truths() -> None:
    assert parse_settings(["a=1", "b=0.5", "c=true", "d=paper", "e=[1, 2]"]) == {
        "a": 1,
        "b": 0.5,
        "c": True,
        "d": "paper",
        "e": [1, 2],
    }


def test_a_protocol_must_fit_the_pool() -> None:
    protocol = Protocol(initial=10, budget=5, cycles=3, training={})
    protocol.check(20)
    with pytest.raises(ValueError, match="end at 20, but the pool has 19"):
        protocol.check(19)
    with pytest.raises(ValueError, match="at least 1"):
        Protocol(initial=0, budget=5, cycles=3, training={}).check(20)


def test_luck_is_the_same_for_all_arms_and_differs_otherwise() -> None:
    assert cycle_seed(3, 2) == cycle_seed(3, 2)
    assert len({cycle_seed(seed, cycle) for seed in range(5) for cycle in range(5)}) == 25
    assert draw(1, 1, "unlabeled").random() != draw(1, 1, "candidates").random()


def test_the_paper_s_experiments_count_as_the_paper_does() -> None:
    assert set(EXPERIMENTS) == {"voc07+12-retinanet", "coco-retinanet", "voc07+12-ssd"}
    for published in EXPERIMENTS.values():
        protocol = published.protocol
        images = [protocol.initial + protocol.budget * k for k in range(protocol.cycles)]
        for row in published.reported.values():
            assert list(row) == images
    # 5 % of 16,551 images, and 19.97 % in the end.
    retinanet = EXPERIMENTS["voc07+12-retinanet"].protocol
    assert retinanet.initial + 6 * retinanet.budget == 3305


def test_ours_stand_below_the_paper_s() -> None:
    text = beside(EXPERIMENTS["coco-retinanet"], {"mi-aod": {2345: 7.5, 4690: 13.25}})
    assert "| mi-aod, paper | 7.30 | 13.80 | 16.90 | 19.10 | 20.80 |" in text
    assert "| mi-aod, ours | 7.50 | 13.25 |  |  |  |" in text
    assert "random, ours" not in text
