"""Following a cycle's events over connections that break."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from miaod_client import (
    Client,
    ConnectionFailedError,
    InternalServerError,
    NotFoundError,
    RetryPolicy,
    UnexpectedResponseError,
)
from miaod_client import _following as following

MakeClient = Callable[..., Client]
Answer = httpx2.Response | Exception


def told(seq: int, state: str = "running", **changes: Any) -> dict[str, Any]:
    """An event as the server sends it."""
    return {
        "cycle": "c1",
        "seq": seq,
        "kind": "progress" if state == "running" else "state",
        "at": "2026-11-23T08:00:00Z",
        "state": state,
        "progress": seq / 10,
        "stage": "train",
        "message": f"step {seq}",
        "error": None,
        "attempts": 0,
        "worker": "w",
        "cancel_requested": False,
        "step": seq,
        "steps": 10,
        "losses": {"total": 0.5},
        "seconds_left": 60.0,
        **changes,
    }


def sent(*events: dict[str, Any]) -> bytes:
    return b"".join(
        f"event: {event['kind']}\ndata: {json.dumps(event)}\nid: {event['seq']}\n\n".encode()
        for event in events
    )


def stream(*events: dict[str, Any]) -> httpx2.Response:
    content = b"retry: 2000\n\n: ping\n\n" + sent(*events)
    return httpx2.Response(200, content=content, headers={"Content-Type": "text/event-stream"})


class Breaking(httpx2.SyncByteStream):
    """A body that breaks off in the middle of an event."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self._content = sent(*events)

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
        yield b"event: progress\ndata: {"
        raise httpx2.ReadError("connection reset")


def broken(*events: dict[str, Any]) -> httpx2.Response:
    headers = {"Content-Type": "text/event-stream"}
    return httpx2.Response(200, stream=Breaking(*events), headers=headers)


class Server:
    """Gives its answers one by one and remembers where its readers were."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.asked: list[str | None] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == "/cycles/c1/events"
        self.asked.append(request.headers.get("last-event-id"))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def seqs(client: Client, **options: Any) -> list[int]:
    return [event.seq for event in client.cycles.events("c1", **options)]


def test_events_come_typed_and_end_with_the_cycle(make_client: MakeClient) -> None:
    server = Server(stream(told(1, "queued"), told(2), told(3, "succeeded", losses=None)))
    first, second, last = make_client(server).cycles.events("c1")
    assert (first.state, second.step, second.losses, last.losses) == (
        "queued",
        2,
        {"total": 0.5},
        None,
    )
    assert second.at.tzinfo is not None
    assert server.asked == [None]


def test_a_broken_or_ended_connection_is_taken_up_behind_the_last_event(
    make_client: MakeClient,
) -> None:
    server = Server(
        stream(told(1), told(2)),
        broken(told(3)),
        httpx2.ConnectError("refused"),
        httpx2.Response(503, json={}),
        stream(told(4), told(5, "failed")),
    )
    assert seqs(make_client(server)) == [1, 2, 3, 4, 5]
    assert server.asked == [None, "2", "3", "3", "3"]


def test_the_end_of_an_earlier_attempt_is_not_the_end(make_client: MakeClient) -> None:
    server = Server(stream(told(1, "cancelled"), told(2, "queued")), stream(told(3, "succeeded")))
    assert seqs(make_client(server)) == [1, 2, 3]


def test_nothing_is_left_of_an_ended_cycle(make_client: MakeClient) -> None:
    server = Server(httpx2.Response(204))
    assert seqs(make_client(server), after=7) == []
    assert server.asked == ["7"]


def test_a_server_that_was_never_reached_is_an_error_at_once(make_client: MakeClient) -> None:
    server = Server(httpx2.ConnectError("refused"))
    client = make_client(server, retry=RetryPolicy(max_retries=0))
    with pytest.raises(ConnectionFailedError):
        seqs(client)
    assert len(server.asked) == 1


def test_a_server_that_stays_away_is_an_error_in_the_end(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "OUTAGE_SECONDS", 0.05)
    server = Server(stream(told(1)), httpx2.ConnectError("refused"))
    with pytest.raises(ConnectionFailedError):
        seqs(make_client(server))


def test_a_cycle_that_was_deleted_meanwhile_ends_with_that_error(
    make_client: MakeClient, refusal: Callable[..., httpx2.Response]
) -> None:
    server = Server(stream(told(1)), refusal(404, code="not_found"))
    with pytest.raises(NotFoundError):
        seqs(make_client(server))


def test_an_error_of_the_server_is_not_tried_again_for_ever(
    make_client: MakeClient, refusal: Callable[..., httpx2.Response]
) -> None:
    server = Server(stream(told(1)), refusal(500, code="internal_error"))
    with pytest.raises(InternalServerError):
        seqs(make_client(server))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx2.Response(200, json={}), "did not answer with a stream of events"),
        (stream({"kind": "progress", "seq": 1}), "is no event of a cycle: cycle"),
    ],
    ids=["another type", "another event"],
)
def test_what_is_no_event_of_this_api_says_so(
    make_client: MakeClient, answer: httpx2.Response, words: str
) -> None:
    with pytest.raises(UnexpectedResponseError, match=words):
        seqs(make_client(Server(answer)))
