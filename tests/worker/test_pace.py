"""How far a cycle is, and how long it says it will take."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from worker.pace import LossMeans, Pace
from worker.progress import ProgressLines, ProgressPipe

Read = Callable[[], list[dict[str, Any]]]


class Clock:
    """Goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ProgressPipe, Read]]:
    """A pipe that drops no report, and what has been written into it since the last look."""
    monkeypatch.setattr("worker.progress.MIN_SECONDS_BETWEEN_REPORTS", 0.0)
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    yield ProgressPipe(write_fd), lambda: ProgressLines().feed(os.read(read_fd, 1_000_000))
    os.close(read_fd)
    os.close(write_fd)


def train(pace: Pace, step: int, steps: int = 10) -> None:
    pace.step("train", "", done=30.0 * step, step=step, steps=steps)


def test_the_time_left_comes_from_the_speed_of_the_stage_and_the_work_of_those_to_come(
    pipe: tuple[ProgressPipe, Read], clock: Clock
) -> None:
    pace, read = Pace(pipe[0], clock), pipe[1]
    pace.plan({"train": 300, "score": 100})
    clock.now = 60  # what it took to begin counts for nothing
    train(pace, 1)
    clock.now = 63
    train(pace, 2)
    clock.now = 66
    train(pace, 3)
    # 30 units take 3 s: 7 steps of 30 are left, and 100 units of scoring.
    assert [line["detail"]["seconds_left"] for line in read()] == [None, 28 + 6, 31.0]


def test_a_stage_is_reckoned_by_the_speed_of_the_one_before_until_it_has_its_own(
    pipe: tuple[ProgressPipe, Read], clock: Clock
) -> None:
    pace, read = Pace(pipe[0], clock), pipe[1]
    pace.plan({"train": 300, "score": 100})
    train(pace, 9)
    clock.now = 30
    train(pace, 10)
    for clock.now, done in ((40, 1), (41, 2), (44, 21)):
        pace.step("score", "", done=done, step=done, steps=100)
    left = [line["detail"]["seconds_left"] for line in read()]
    assert left == [None, 100, 99, 98, pytest.approx(79 * 4 / 20)]


def test_after_a_resume_only_the_steps_of_this_attempt_count_for_the_speed(
    pipe: tuple[ProgressPipe, Read], clock: Clock
) -> None:
    pace, read = Pace(pipe[0], clock), pipe[1]
    pace.plan({"train": 300})
    clock.now = 1
    train(pace, 8)
    clock.now = 11
    train(pace, 9)
    first, second = read()
    assert first["progress"] == pytest.approx(0.99 * 0.8)
    assert first["detail"]["seconds_left"] is None
    assert second["detail"]["seconds_left"] == 10


def test_progress_is_the_share_of_the_work_and_never_falls(
    pipe: tuple[ProgressPipe, Read], clock: Clock
) -> None:
    pace, read = Pace(pipe[0], clock), pipe[1]
    pace.say("start", "reading")
    pace.plan({"train": 300, "evaluate": 0, "score": 100, "select": 0})
    pace.say("start", "ready")
    train(pace, 5)
    pace.say("evaluate", "comparing")
    pace.say("train", "once more")
    pace.step("score", "", done=100, step=100, steps=100)
    pace.say("store", "storing")
    lines = read()
    assert [line["progress"] for line in lines] == [
        0,
        0,
        pytest.approx(0.99 * 150 / 400, abs=1e-4),
        pytest.approx(0.99 * 300 / 400, abs=1e-4),
        pytest.approx(0.99 * 300 / 400, abs=1e-4),
        0.99,
        0.99,
    ]
    assert lines[3]["detail"] == {}


def test_losses_are_means_over_the_last_steps_of_one_training_stage() -> None:
    means = LossMeans()
    assert means.add("label 1/2", {"total": 1.0}) == {"total": 1.0}
    assert means.add("label 1/2", {"total": 2.0}) == {"total": 1.5}
    for _ in range(20):
        means.add("label 1/2", {"total": 4.0})
    assert means.add("label 1/2", {"total": 4.0}) == {"total": 4.0}
    assert means.add("minimise 1/1", {"total": 9.0, "gap": 1 / 3}) == {"total": 9.0, "gap": 0.3333}
