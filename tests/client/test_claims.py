"""Claims: what is labeled, skipped, given back, and lost."""

from collections.abc import Callable
from typing import Any

import httpx2
import miaod_client
import pytest
from miaod_client import Box, Claim, Client

MakeClient = Callable[..., Client]
EXPIRES = "2026-11-23T08:10:00Z"
LABELED = {"state": "labeled", "version": 1, "boxes": []}


class ClaimServer:
    """Gives out two queries and remembers what happens to them."""

    def __init__(self, query_json: Callable[..., dict[str, Any]], read: Callable[..., Any]) -> None:
        self._query = query_json
        self._read = read
        self.calls: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        self.stale: set[str] = set()

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self.calls.append((request.method, path))
        self.bodies.append(self._read(request))
        if path in self.stale:
            return httpx2.Response(409, json={"detail": "lapsed", "code": "stale_claim"})
        if path == "/queries/claim":
            items = [self._query(1), self._query(2)]
            return httpx2.Response(
                200, json={"claim_token": "t", "expires_at": EXPIRES, "items": items}
            )
        if path.endswith("/heartbeat"):
            return httpx2.Response(200, json={"expires_at": "2026-11-23T08:20:00Z"})
        return httpx2.Response(200, json=LABELED if "annotations" in path else self._query(1))


@pytest.fixture
def server(query_json: Callable[..., dict[str, Any]], body_of: Callable[..., Any]) -> ClaimServer:
    return ClaimServer(query_json, body_of)


@pytest.fixture
def claim(make_client: MakeClient, server: ClaimServer) -> Claim:
    return make_client(server).queries.claim(project="p1", limit=2, author="ana")


def test_annotating_sends_token_version_author_and_boxes(claim: Claim, server: ClaimServer) -> None:
    first, second = claim
    suggestion = first.predictions[0].as_box()
    drawn = {"class": "person", "x1": 5, "y1": 6.5, "x2": 20, "y2": 30, "difficult": True}
    claim.annotate(first, boxes=[suggestion, drawn], seconds=4.5)
    assert server.calls[-1] == ("PUT", "/images/i1/annotations")
    assert server.bodies[-1] == {
        "version": 0,
        "boxes": [
            {"class": "car", "x1": 1, "y1": 2, "x2": 30, "y2": 40, "difficult": False},
            {"class": "person", "x1": 5, "y1": 6.5, "x2": 20, "y2": 30, "difficult": True},
        ],
        "claim_token": "t",
        "seconds": 4.5,
        "author": "ana",
    }
    assert claim.pending == (second,)


def test_a_negative_is_an_empty_list(claim: Claim, server: ClaimServer) -> None:
    claim.annotate(claim.items[0], boxes=[])
    assert server.bodies[-1]["boxes"] == []


def test_a_box_without_a_class_is_refused_before_it_is_sent(
    claim: Claim, server: ClaimServer
) -> None:
    with pytest.raises(ValueError, match="class"):
        claim.annotate(claim.items[0], boxes=[{"x1": 0, "y1": 0, "x2": 5, "y2": 5}])
    assert len(server.calls) == 1


def test_leaving_the_block_gives_back_what_is_pending(claim: Claim, server: ClaimServer) -> None:
    with claim:
        claim.annotate(claim.items[0], boxes=[])
    assert server.calls[-1] == ("POST", "/queries/q2/release")
    assert claim.pending == ()


def test_leaving_the_block_by_an_error_gives_back_and_keeps_the_error(
    claim: Claim, server: ClaimServer
) -> None:
    with pytest.raises(RuntimeError, match="annotator fell asleep"), claim:
        raise RuntimeError("annotator fell asleep")
    assert [path for _, path in server.calls[1:]] == [
        "/queries/q1/release",
        "/queries/q2/release",
    ]


def test_what_was_lost_already_needs_no_giving_back(claim: Claim, server: ClaimServer) -> None:
    server.stale.update({"/queries/q1/release", "/queries/q2/release"})
    claim.release()
    assert claim.pending == ()


def test_skipping_ends_the_claim_on_the_image(claim: Claim, server: ClaimServer) -> None:
    claim.skip(claim.items[0], reason="too dark")
    assert server.bodies[-1] == {"reason": "too dark", "claim_token": "t"}
    assert [query.id for query in claim.pending] == ["q2"]


def test_a_heartbeat_goes_through_a_pending_query_and_moves_the_end(
    claim: Claim, server: ClaimServer
) -> None:
    claim.annotate(claim.items[0], boxes=[])
    before = claim.expires_at
    assert claim.heartbeat() > before
    assert server.calls[-1] == ("POST", "/queries/q2/heartbeat")
    assert server.bodies[-1] == {"claim_token": "t", "seconds": 600}


def test_a_heartbeat_of_nothing_is_an_error(claim: Claim) -> None:
    claim.release()
    with pytest.raises(ValueError, match="nothing of this claim"):
        claim.heartbeat()


def test_a_lapsed_claim_cannot_annotate(claim: Claim, server: ClaimServer) -> None:
    server.stale.add("/images/i1/annotations")
    with pytest.raises(miaod_client.ConflictError, match="lapsed"):
        claim.annotate(claim.items[0], boxes=[])
    assert len(claim.pending) == 2


def test_a_claim_of_nothing_is_empty_and_false(make_client: MakeClient) -> None:
    answer = {"claim_token": "t", "expires_at": EXPIRES, "items": []}
    claim = make_client(lambda request: httpx2.Response(200, json=answer)).queries.claim(
        project="p1"
    )
    assert not claim
    assert list(claim) == []


def test_annotations_without_a_version_are_based_on_the_current_one(
    make_client: MakeClient, body_of: Callable[..., Any]
) -> None:
    sent: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.method == "PUT":
            sent.append(body_of(request))
        return httpx2.Response(200, json={**LABELED, "version": 5})

    box = Box(class_name="car", x1=0, y1=0, x2=9, y2=9)
    make_client(answer).annotations.put("i1", boxes=[box])
    assert sent[0]["version"] == 5
