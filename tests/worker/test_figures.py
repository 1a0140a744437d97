"""What a cycle leaves for monitoring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from server.store import counters
from tests.worker.small_pools import Pool
from worker.records import CycleRecords


def risen(sessions: sessionmaker[Session]) -> counters.Counts:
    with sessions.begin() as session:
        return counters.read_all(session)


def test_a_cycle_counts_its_stages_its_images_and_its_checkpoints(
    make_pool: Callable[..., Pool],
    run_here: Callable[[], list[dict[str, Any]]],
    sessions: sessionmaker[Session],
) -> None:
    pool = make_pool(unlabeled=5)
    pool.order_cycle("trained")
    run_here()
    found = risen(sessions)
    stages = ("start", "train", "evaluate", "score", "rank", "predict")
    assert {label for name, label in found if name == "stages"} == set(stages)
    for stage in stages:
        assert found["stages", stage] == 1
        assert found["stage_seconds", stage] > 0
    assert found["images_scored", ""] == 5
    # The first border is saved in any case, the others if enough time has passed.
    assert found["checkpoints_saved", ""] >= 1
    assert found["checkpoint_seconds", ""] > 0
    assert ("checkpoints_failed", "") not in found
    assert found["cycles_ended", "succeeded"] == 1


def test_a_checkpoint_that_finds_no_room_is_counted_and_the_cycle_goes_on(
    make_pool: Callable[..., Pool],
    run_here: Callable[[], list[dict[str, Any]]],
    sessions: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_room(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CycleRecords, "save_checkpoint", no_room)
    pool = make_pool(unlabeled=5)
    cycle_id = pool.order_cycle("trained")
    run_here()
    assert pool.row(cycle_id).state == "succeeded"
    found = risen(sessions)
    assert found["checkpoints_failed", ""] >= 1
    assert ("checkpoints_saved", "") not in found


def test_figures_that_cannot_be_written_hold_up_no_cycle(
    make_pool: Callable[..., Pool],
    run_here: Callable[[], list[dict[str, Any]]],
    sessions: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add = counters.add

    def full(session: Session, name: str, label: str = "", value: float = 1.0) -> None:
        if name in ("stages", "images_scored"):
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        add(session, name, label, value)

    monkeypatch.setattr(counters, "add", full)
    pool = make_pool(unlabeled=5)
    cycle_id = pool.order_cycle("trained")
    run_here()
    assert pool.row(cycle_id).state == "succeeded"
    assert ("stage_seconds", "train") not in risen(sessions)
