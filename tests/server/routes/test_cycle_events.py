from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from server.deps import Context
from server.routes import cycle_events
from server.store import queue
from server.store.models import Cycle

Pool = Any
Scribe = Any

NO_SUCH = "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e"

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def events_of(text: str) -> list[dict[str, Any]]:
    """The events of a stream: their data, checked against their names and ids."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if "data" in fields:
            data = json.loads(fields["data"])
            assert fields["id"] == str(data["seq"])
            assert fields["event"] == data["kind"]
            found.append(data)
    return found


def test_the_stream_of_an_ended_cycle_tells_all_and_ends(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(3)
    cycle_id = pool.start_cycle(1)
    scribe.run(cycle_id)
    answer = client.get(f"/cycles/{cycle_id}/events")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.text.startswith("retry: 2000\n\n")
    found = events_of(answer.text)
    assert [(event["seq"], event["state"]) for event in found] == [
        (1, "queued"),
        (2, "running"),
        (3, "succeeded"),
    ]
    assert found[0]["message"].startswith("initial selection at random")
    assert (found[2]["progress"], found[2]["worker"], found[2]["cycle"]) == (1, "scribe", cycle_id)
    assert found[2]["seconds_left"] is None


@on_sqlite
def test_who_comes_back_gets_what_is_new_and_a_204_when_nothing_is_left(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(3)
    cycle_id = pool.start_cycle(1)
    scribe.run(cycle_id)
    url = f"/cycles/{cycle_id}/events"
    answer = client.get(url, headers={"Last-Event-ID": "2"})
    assert [event["seq"] for event in events_of(answer.text)] == [3]
    answer = client.get(url, headers={"Last-Event-ID": "3"})
    assert (answer.status_code, answer.content) == (204, b"")
    # A number that was never given out is from before the database was restored.
    answer = client.get(url, headers={"Last-Event-ID": "70"})
    assert [event["seq"] for event in events_of(answer.text)] == [1, 2, 3]


@on_sqlite
def test_a_resumed_cycle_is_watched_beyond_its_first_end(
    client: TestClient, pool: Pool, context: Context
) -> None:
    pool.upload(3)
    cycle_id = pool.start_cycle(1)
    client.post(f"/cycles/{cycle_id}/cancel")
    client.post(f"/cycles/{cycle_id}/resume")
    text = client.get(f"/cycles/{cycle_id}/events", params={"seconds": 0.1}).text
    assert [event["state"] for event in events_of(text)] == ["queued", "cancelled", "queued"]


@on_sqlite
def test_an_unknown_cycle_and_a_deleted_project_are_404(client: TestClient, pool: Pool) -> None:
    answer = client.get(f"/cycles/{NO_SUCH}/events")
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"
    pool.upload(3)
    cycle_id = pool.start_cycle(1)
    client.delete(f"/projects/{pool.project}")
    assert client.get(f"/cycles/{cycle_id}/events").status_code == 404


@on_sqlite
@pytest.mark.parametrize(
    ("headers", "params"),
    [
        ({"Last-Event-ID": "yesterday"}, {}),
        ({"Last-Event-ID": "-1"}, {}),
        ({"Last-Event-ID": "99999999999"}, {}),
        ({}, {"seconds": "0"}),
        ({}, {"seconds": "nan"}),
        ({}, {"seconds": "100000"}),
    ],
)
def test_what_makes_no_sense_is_refused_in_the_common_form(
    client: TestClient, pool: Pool, headers: dict[str, str], params: dict[str, str]
) -> None:
    pool.upload(1)
    url = f"/cycles/{pool.start_cycle(1)}/events"
    answer = client.get(url, headers=headers, params=params)
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_request"


@on_sqlite
def test_a_stream_ends_after_the_seconds_it_was_asked_for_and_shows_signs_of_life(
    client: TestClient, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycle_events, "KEEPALIVE_SECONDS", 0.05)
    pool.upload(3)
    cycle_id = pool.start_cycle(1)
    began = time.monotonic()
    text = client.get(f"/cycles/{cycle_id}/events", params={"seconds": 0.5}).text
    assert time.monotonic() - began >= 0.5
    assert [event["state"] for event in events_of(text)] == ["queued"]
    assert ": ping\n\n" in text


def test_what_happens_while_somebody_watches_is_told_up_to_the_end(
    client: TestClient, pool: Pool, context: Context
) -> None:
    pool.upload(3)
    cycle_id = pool.start_cycle(1)
    texts: list[str] = []
    # It holds what came only when the stream has ended.
    reader = threading.Thread(
        target=lambda: texts.append(client.get(f"/cycles/{cycle_id}/events").text)
    )
    reader.start()
    with context.sessions.begin() as session:
        lease = queue.claim(session, Cycle, "w", 60)
    assert lease is not None
    for step in (1, 2):
        with context.sessions.begin() as session:
            queue.heartbeat(session, lease, 60, stage="train", detail={"step": step, "steps": 9})
    assert client.get(f"/cycles/{cycle_id}").json()["step"] == 2
    with context.sessions.begin() as session:
        queue.fail(session, lease, "the disk is full")
    reader.join(timeout=60)
    (text,) = texts
    found = events_of(text)
    assert [event["seq"] for event in found] == [1, 2, 3, 4, 5]
    assert [(event["step"], event["steps"]) for event in found[2:4]] == [(1, 9), (2, 9)]
    assert (found[-1]["state"], found[-1]["error"]) == ("failed", "the disk is full")
    assert client.get(f"/cycles/{cycle_id}").json()["step"] is None


@on_sqlite
def test_the_stream_ends_when_the_project_is_deleted(
    client: TestClient, pool: Pool, context: Context
) -> None:
    pool.upload(3)
    cycle_id = pool.start_cycle(1)
    with context.sessions.begin() as session:
        queue.claim(session, Cycle, "w", 60)
    texts: list[str] = []
    reader = threading.Thread(
        target=lambda: texts.append(client.get(f"/cycles/{cycle_id}/events").text)
    )
    reader.start()
    wait_until(lambda: bool(context.feed._watchers))
    client.delete(f"/projects/{pool.project}")
    reader.join(timeout=60)
    assert [event["state"] for event in events_of(texts[0])][:2] == ["queued", "running"]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
