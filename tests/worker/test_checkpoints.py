"""When a checkpoint is written: often enough to lose little, seldom enough to cost little."""

from __future__ import annotations

import threading
from typing import cast

import pytest

from worker.checkpoints import BORDER_WORTH, Checkpoints, State
from worker.failures import CycleStopped
from worker.records import CycleRecords

COST, EVERY = 0.5, 300.0


class Clock:
    """Time that passes when it is told to; saving takes some."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.saved_at: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def save_checkpoint(self, content: bytes, previous: str | None) -> str:
        self.now += COST
        self.saved_at.append(self.now)
        return "sha256"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("worker.checkpoints.time", clock)
    return clock


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def checkpoints(clock: Clock, stop: threading.Event) -> Checkpoints:
    return Checkpoints(cast(CycleRecords, clock), None, every_seconds=EVERY, stop=stop)


def state() -> State:
    return {"phase": "train"}


def test_within_a_stage_the_state_is_saved_every_so_many_seconds(
    checkpoints: Checkpoints, clock: Clock
) -> None:
    for _ in range(700):
        clock.now += 1
        checkpoints.pause(state)
    assert clock.saved_at == [1300 + COST, 1600 + 2 * COST]
    assert checkpoints.seconds_spent == 2 * COST


def test_the_first_border_is_always_saved_and_one_that_comes_soon_after_is_not(
    checkpoints: Checkpoints, clock: Clock
) -> None:
    clock.now += 1
    checkpoints.pause(state, is_border=True)
    assert len(clock.saved_at) == 1
    clock.now += BORDER_WORTH * COST - 1
    checkpoints.pause(state, is_border=True)
    assert len(clock.saved_at) == 1
    clock.now += 1
    checkpoints.pause(state)
    assert len(clock.saved_at) == 1
    checkpoints.pause(state, is_border=True)
    assert len(clock.saved_at) == 2


def test_borders_cost_a_hundredth_of_the_time_however_short_the_stages_are(
    checkpoints: Checkpoints, clock: Clock
) -> None:
    started = clock.now
    for _ in range(10_000):
        clock.now += 0.1
        checkpoints.pause(state, is_border=True)
    assert checkpoints.seconds_spent <= COST + (clock.now - started) / BORDER_WORTH


def test_a_border_never_waits_longer_than_any_other_place(
    checkpoints: Checkpoints, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.checkpoints.BORDER_WORTH", 10_000)
    checkpoints.pause(state, is_border=True)
    clock.now += EVERY
    checkpoints.pause(state, is_border=True)
    assert len(clock.saved_at) == 2


def test_what_was_not_saved_at_a_border_is_saved_later_where_nothing_has_changed(
    checkpoints: Checkpoints, clock: Clock
) -> None:
    checkpoints.pause(state, is_border=True)
    clock.now += 1
    checkpoints.pause(state, is_border=True)
    checkpoints.pause_unchanged()
    assert len(clock.saved_at) == 1
    clock.now += EVERY
    checkpoints.pause_unchanged()
    assert len(clock.saved_at) == 2
    clock.now += EVERY
    checkpoints.pause_unchanged()
    assert len(clock.saved_at) == 2, "it is saved already"


def test_whoever_is_told_to_stop_where_nothing_has_changed_saves_what_is_not_saved_yet(
    checkpoints: Checkpoints, clock: Clock, stop: threading.Event
) -> None:
    stop.set()
    with pytest.raises(CycleStopped):
        checkpoints.pause_unchanged()
    assert clock.saved_at == [], "there is no state yet"
    stop.clear()
    checkpoints.pause(state, is_border=True)
    checkpoints.pause(state, is_border=True)
    stop.set()
    for _ in range(2):
        with pytest.raises(CycleStopped):
            checkpoints.pause_unchanged()
        assert len(clock.saved_at) == 2


def test_whoever_is_told_to_stop_saves_first_however_fresh_the_last_state_is(
    checkpoints: Checkpoints, clock: Clock, stop: threading.Event
) -> None:
    checkpoints.pause(state, is_border=True)
    stop.set()
    with pytest.raises(CycleStopped):
        checkpoints.pause(state)
    assert len(clock.saved_at) == 2
