"""Waiting for cycles and imports."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import miaod_client
import pytest
from miaod_client import Client, Cycle, RetryPolicy

MakeClient = Callable[..., Client]
Steps = list[dict[str, Any] | int | Exception]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Time that passes only by sleeping; the list holds the pauses."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(pauses))
    yield pauses
    monkeypatch.undo()


@pytest.fixture
def wait_for(
    make_client: MakeClient, cycle_json: dict[str, Any]
) -> Callable[..., tuple[Client, list[Cycle]]]:
    """A client whose cycle takes these steps; a state, a status or an error each."""

    def make(steps: Steps) -> tuple[Client, list[Cycle]]:
        left = list(steps)

        def answer(request: httpx2.Request) -> httpx2.Response:
            step = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(step, Exception):
                raise step
            if isinstance(step, int):
                return httpx2.Response(step, json={"detail": "away", "code": "unavailable"})
            return httpx2.Response(200, json={**cycle_json, **step})

        return make_client(answer, retry=RetryPolicy(max_retries=0)), []

    return make


def test_waiting_ends_with_the_succeeded_cycle_and_tells_every_step(
    wait_for: Callable[..., tuple[Client, list[Cycle]]], clock: list[float]
) -> None:
    client, seen = wait_for(
        [{}, {"state": "running", "progress": 0.5}, {"state": "succeeded", "progress": 1.0}]
    )
    assert client.cycles.wait("c1", on_progress=seen.append).state == "succeeded"
    assert [cycle.progress for cycle in seen] == [0.0, 0.5, 1.0]


def test_pauses_grow_up_to_the_longest_one(
    wait_for: Callable[..., tuple[Client, list[Cycle]]], clock: list[float]
) -> None:
    client, _ = wait_for([*({"state": "running"} for _ in range(12)), {"state": "succeeded"}])
    client.cycles.wait("c1", poll_seconds=1.0)
    assert clock == sorted(clock)
    assert clock[0] == pytest.approx(0.1)
    assert clock[-1] == 1.0


def test_a_failed_cycle_raises_with_its_reason(
    wait_for: Callable[..., tuple[Client, list[Cycle]]], clock: list[float]
) -> None:
    client, _ = wait_for([{"state": "failed", "error": "loss became NaN at step 40"}])
    with pytest.raises(miaod_client.CycleFailedError, match="loss became NaN at step 40") as caught:
        client.cycles.wait("c1")
    assert caught.value.job.state == "failed"


def test_a_cancelled_cycle_raises_its_own_error(
    wait_for: Callable[..., tuple[Client, list[Cycle]]], clock: list[float]
) -> None:
    client, _ = wait_for([{"state": "cancelled"}])
    with pytest.raises(miaod_client.CycleCancelledError):
        client.cycles.wait("c1")


def test_the_time_limit_ends_the_waiting_and_keeps_the_cycle(
    wait_for: Callable[..., tuple[Client, list[Cycle]]], clock: list[float]
) -> None:
    client, _ = wait_for([{"state": "running", "progress": 0.25}])
    with pytest.raises(miaod_client.WaitTimeoutError, match="still running after 10 s") as caught:
        client.cycles.wait("c1", timeout=10)
    assert sum(clock) == pytest.approx(10)
    assert caught.value.job.progress == 0.25


def test_a_server_that_restarts_is_borne(
    wait_for: Callable[..., tuple[Client, list[Cycle]]], clock: list[float]
) -> None:
    client, _ = wait_for(
        [{"state": "running"}, httpx2.ConnectError("refused"), 503, {"state": "succeeded"}]
    )
    assert client.cycles.wait("c1").state == "succeeded"


def test_a_server_that_stays_away_ends_the_waiting(
    wait_for: Callable[..., tuple[Client, list[Cycle]]], clock: list[float]
) -> None:
    client, _ = wait_for([{"state": "running"}, httpx2.ConnectError("refused")])
    with pytest.raises(miaod_client.ConnectionFailedError):
        client.cycles.wait("c1")
    assert 300 < sum(clock) < 310


def test_a_server_that_was_never_reached_is_an_error_at_once(
    wait_for: Callable[..., tuple[Client, list[Cycle]]], clock: list[float]
) -> None:
    client, _ = wait_for([httpx2.ConnectError("refused")])
    with pytest.raises(miaod_client.ConnectionFailedError):
        client.cycles.wait("c1")
    assert clock == []


def test_a_pause_of_zero_is_refused(
    wait_for: Callable[..., tuple[Client, list[Cycle]]],
) -> None:
    client, _ = wait_for([{}])
    with pytest.raises(ValueError, match="poll_seconds"):
        client.cycles.wait("c1", poll_seconds=0)


def test_a_failed_import_raises_with_its_reason(make_client: MakeClient) -> None:
    body = {
        "id": "m1",
        "project": "p1",
        "state": "failed",
        "progress": 0.1,
        "message": "",
        "error": "no room left",
        "format": "voc",
        "split": "pool",
        "counts": {},
        "num_refused": 0,
        "refused": [],
        "next_cursor": None,
        "created_at": "2026-11-23T08:00:00Z",
        "started_at": None,
        "finished_at": None,
    }
    client = make_client(lambda request: httpx2.Response(200, json=body))
    with pytest.raises(miaod_client.ImportFailedError, match="no room left"):
        client.imports.wait("m1")
