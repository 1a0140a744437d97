from __future__ import annotations

import dataclasses

import pytest

from worker.miaod.config import PRESETS
from worker.miaod.schedule import learning_rate, plan_stages

PAPER = PRESETS["paper-voc"]


def test_the_paper_schedule_has_26_labeled_and_8_unlabeled_passes() -> None:
    # 827 images at batch 2; an epoch shows each of them twice.
    stages = plan_stages(PAPER, 827, has_unlabeled=True)
    assert [(stage.kind, stage.num_steps) for stage in stages] == [
        ("label", 3 * 827),
        *[("min", 827), ("max", 827), ("label", 3 * 827)] * 2,
    ]
    assert sum(stage.num_steps for stage in stages) * 2 == 26 * 827
    assert sum(stage.num_steps for stage in stages if stage.kind != "label") * 2 == 8 * 827


def test_the_paper_lowers_the_rate_for_the_last_two_passes() -> None:
    stages = plan_stages(PAPER, 827, has_unlabeled=True)
    last = len(stages) - 1
    assert learning_rate(PAPER, stages, 0, 0) == 1e-3
    assert learning_rate(PAPER, stages, last, 2 * 827 - 1) == 1e-3
    assert learning_rate(PAPER, stages, last, 2 * 827) == pytest.approx(1e-4)


def test_without_unlabeled_images_only_label_stages_are_left() -> None:
    stages = plan_stages(PRESETS["cpu"], 10, has_unlabeled=False)
    assert [stage.name for stage in stages] == ["label 1/3", "label 2/3", "label 3/3"]


@pytest.mark.parametrize(("batches", "steps"), [(1, 50), (30, 90), (1000, 200)])
def test_steps_follow_the_epochs_between_their_bounds(batches: int, steps: int) -> None:
    config = dataclasses.replace(
        PRESETS["cpu"], label_epochs=3.0, label_min_steps=50, label_max_steps=200
    )
    assert plan_stages(config, batches, has_unlabeled=True)[0].num_steps == steps


def test_the_rate_warms_up_once_or_in_each_stage() -> None:
    once = dataclasses.replace(PAPER, warmup_steps=10, warmup_factor=0.1)
    each = dataclasses.replace(once, warmup_each_stage=True)
    stages = plan_stages(once, 20, has_unlabeled=True)
    for config in (once, each):
        assert learning_rate(config, stages, 0, 0) == pytest.approx(1e-4)
        assert learning_rate(config, stages, 0, 5) == pytest.approx(5.5e-4)
        assert learning_rate(config, stages, 0, 10) == pytest.approx(1e-3)
    assert learning_rate(once, stages, 1, 0) == pytest.approx(1e-3)
    assert learning_rate(each, stages, 1, 0) == pytest.approx(1e-4)


def test_the_cosine_falls_over_the_whole_training() -> None:
    config = dataclasses.replace(PRESETS["cpu"], warmup_steps=0)
    stages = plan_stages(config, 10, has_unlabeled=True)
    rates = [
        learning_rate(config, stages, index, step)
        for index, stage in enumerate(stages)
        for step in range(stage.num_steps)
    ]
    assert rates[0] == config.learning_rate
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.02 * config.learning_rate


def test_plain_training_sees_as_many_labeled_batches_as_mi_aod() -> None:
    for has_unlabeled in (True, False):
        plain = plan_stages(
            dataclasses.replace(PRESETS["cpu"], method="plain"), 10, has_unlabeled=has_unlabeled
        )
        ours = plan_stages(PRESETS["cpu"], 10, has_unlabeled=True)
        assert {stage.kind for stage in plain} == {"label"}
        assert sum(stage.num_steps for stage in plain) == sum(stage.num_steps for stage in ours)


def test_the_paper_s_ssd_has_304_passes_the_last_64_at_the_lowered_rate() -> None:
    ssd = PRESETS["paper-voc-ssd"]
    # 1000 images sixteen times make 2000 batches of 8.
    stages = plan_stages(ssd, 2000, has_unlabeled=True)
    assert [stage.kind for stage in stages] == [
        *("label", "min", "max"),
        *("label", "min", "max", "label"),
    ]
    assert sum(stage.num_steps for stage in stages) * 8 == 304 * 1000
    last = len(stages) - 1
    rates = [learning_rate(ssd, stages, last, step) for step in range(stages[last].num_steps)]
    assert sum(rate == pytest.approx(1e-4) for rate in rates[500:]) * 8 == 64 * 1000
    assert rates[1999] == pytest.approx(1e-3)
    # Each stage warms up anew.
    for index in range(len(stages)):
        assert learning_rate(ssd, stages, index, 0) == pytest.approx(1e-6)
        assert learning_rate(ssd, stages, index, 250) == pytest.approx(1e-3 * (0.001 + 0.999 / 2))
