"""What is sent, how often, and what comes of refusals."""

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx2
import miaod_client
import pytest
from miaod_client import ApiError, Client, RetryPolicy
from miaod_client._errors import error_from_response
from miaod_client._retries import retry_after_seconds

MakeClient = Callable[..., Client]
Refusal = Callable[..., httpx2.Response]

NOW = datetime(2026, 11, 23, 8, 0, 0, tzinfo=UTC)


class Script:
    """A server that answers in turn, or raises, and remembers what it was asked."""

    def __init__(self, *steps: httpx2.Response | Exception) -> None:
        self._steps = itertools.chain(steps)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        self.requests.append(request)
        step = next(self._steps)
        if isinstance(step, Exception):
            raise step
        return step


def ok(json: Any) -> httpx2.Response:
    return httpx2.Response(200, json=json)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were asked for; none is really taken."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def test_the_key_and_the_client_name_go_with_every_request(
    make_client: MakeClient, project_json: dict[str, Any]
) -> None:
    server = Script(ok(project_json))
    make_client(server, api_key="secret").projects.get("p1")
    headers = server.requests[0].headers
    assert headers["authorization"] == "Bearer secret"
    assert headers["user-agent"].startswith("miaod-client/")


def test_without_a_key_no_authorization_is_sent(
    make_client: MakeClient, project_json: dict[str, Any]
) -> None:
    server = Script(ok(project_json))
    make_client(server).projects.get("p1")
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_reading_is_retried_when_the_server_is_busy_or_away(
    status: int, make_client: MakeClient, project_json: dict[str, Any], refusal: Refusal
) -> None:
    server = Script(refusal(status), refusal(status), ok(project_json))
    assert make_client(server).projects.get("p1").name == "street"
    assert len(server.requests) == 3


def test_reading_is_retried_when_the_line_breaks(
    make_client: MakeClient, project_json: dict[str, Any]
) -> None:
    server = Script(httpx2.ReadError("reset"), httpx2.ConnectError("refused"), ok(project_json))
    assert make_client(server).projects.get("p1").id == "p1"


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500, 507])
def test_a_refusal_that_would_only_be_repeated_is_not_retried(
    status: int, make_client: MakeClient, refusal: Refusal
) -> None:
    server = Script(refusal(status))
    with pytest.raises(ApiError):
        make_client(server).projects.get("p1")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "step",
    [
        httpx2.ConnectError("refused"),
        httpx2.ReadError("reset"),
        httpx2.ReadTimeout("slow"),
        httpx2.Response(429, json={}),
        httpx2.Response(502, json={}),
        httpx2.Response(504, json={}),
    ],
)
def test_a_creating_post_is_sent_again_under_the_same_key_although_it_may_have_worked(
    step: httpx2.Response | Exception, make_client: MakeClient, cycle_json: dict[str, Any]
) -> None:
    server = Script(step, ok(cycle_json))
    make_client(server).cycles.create(project="p1", budget=20)
    first, again = server.requests
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"]
    assert first.content == again.content


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (httpx2.ReadError("reset"), miaod_client.ConnectionFailedError),
        (httpx2.ReadTimeout("slow"), miaod_client.ResponseTimeoutError),
        (httpx2.Response(502, json={}), miaod_client.BadGatewayError),
        (httpx2.Response(504, json={}), miaod_client.GatewayTimeoutError),
    ],
)
def test_a_post_without_a_key_that_may_have_worked_is_not_sent_twice(
    step: httpx2.Response | Exception, error: type[Exception], make_client: MakeClient
) -> None:
    server = Script(step)
    with pytest.raises(error):
        make_client(server).projects._transport.request("POST", "/elsewhere", json={})
    assert len(server.requests) == 1


def test_a_post_without_a_key_is_sent_again_where_nothing_can_have_happened(
    make_client: MakeClient, refusal: Refusal
) -> None:
    server = Script(httpx2.ConnectError("refused"), refusal(503), refusal(429), ok({}))
    make_client(server).projects._transport.request("POST", "/elsewhere", json={})
    assert len(server.requests) == 4


def test_a_creating_post_keeps_its_idempotency_key_over_retries_and_takes_a_new_one_after(
    make_client: MakeClient, cycle_json: dict[str, Any], refusal: Refusal
) -> None:
    server = Script(refusal(503), ok(cycle_json), ok(cycle_json))
    client = make_client(server)
    client.cycles.create(project="p1", budget=20)
    client.cycles.create(project="p1", budget=20)
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert keys[0] == keys[1] != keys[2]


def test_pauses_double_and_are_jittered(
    make_client: MakeClient, refusal: Refusal, slept: list[float]
) -> None:
    policy = RetryPolicy(max_retries=4, first_seconds=1.0, max_seconds=5.0)
    server = Script(*(refusal(503) for _ in range(5)))
    with pytest.raises(miaod_client.UnavailableError):
        make_client(server, retry=policy).projects.get("p1")
    assert len(slept) == 4
    for pause, full in zip(slept, [1.0, 2.0, 4.0, 5.0], strict=True):
        assert full / 2 <= pause <= full


def test_retry_after_is_obeyed(
    make_client: MakeClient, project_json: dict[str, Any], refusal: Refusal, slept: list[float]
) -> None:
    server = Script(refusal(429, headers={"Retry-After": "7"}), ok(project_json))
    make_client(server).projects.get("p1")
    assert slept == [7.0]


def test_a_retry_after_beyond_our_patience_ends_the_retries(
    make_client: MakeClient, refusal: Refusal, slept: list[float]
) -> None:
    server = Script(refusal(429, headers={"Retry-After": "3600"}))
    with pytest.raises(miaod_client.RateLimitedError):
        make_client(server).projects.get("p1")
    assert slept == []


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("12", 12.0),
        ("-3", 0.0),
        ("Mon, 23 Nov 2026 08:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 07:00:00 GMT", 0.0),
        ("soon", None),
    ],
)
def test_retry_after_may_be_a_number_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, NOW) == seconds


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, miaod_client.BadRequestError),
        (401, miaod_client.AuthenticationError),
        (403, miaod_client.PermissionDeniedError),
        (404, miaod_client.NotFoundError),
        (405, miaod_client.MethodNotAllowedError),
        (409, miaod_client.ConflictError),
        (413, miaod_client.TooLargeError),
        (415, miaod_client.UnsupportedMediaError),
        (422, miaod_client.UnprocessableError),
        (429, miaod_client.RateLimitedError),
        (500, miaod_client.InternalServerError),
        (502, miaod_client.BadGatewayError),
        (503, miaod_client.UnavailableError),
        (504, miaod_client.GatewayTimeoutError),
        (507, miaod_client.StorageFullError),
        (418, ApiError),
        (599, miaod_client.ServerError),
    ],
)
def test_each_status_has_its_class(status: int, kind: type[ApiError], refusal: Refusal) -> None:
    response = refusal(status)
    response.request = httpx2.Request("GET", "http://server.test/x")
    error = error_from_response(response)
    assert type(error) is kind
    assert isinstance(error, ApiError)
    assert error.status == status


def test_an_error_carries_sentence_code_request_and_the_rest(
    make_client: MakeClient, refusal: Refusal
) -> None:
    current = {"state": "labeled", "version": 4, "boxes": []}
    server = Script(
        refusal(409, "image i1 is at version 4, not 3", "version_conflict", current=current)
    )
    with pytest.raises(miaod_client.ConflictError) as caught:
        make_client(server).annotations.put("i1", version=3, boxes=[])
    error = caught.value
    assert str(error) == "image i1 is at version 4, not 3 (409 version_conflict)"
    assert (error.code, error.request_id) == ("version_conflict", "r-1")
    assert error.current == current


def test_field_errors_become_one_line(make_client: MakeClient, refusal: Refusal) -> None:
    detail = [
        {"loc": ["body", "budget"], "msg": "must be at least 1", "type": "greater_than_equal"},
        {"loc": ["body", "seed"], "msg": "must be a whole number", "type": "int_type"},
    ]
    with pytest.raises(miaod_client.UnprocessableError) as caught:
        make_client(Script(refusal(422, detail, "malformed"))).cycles.create(project="p1")
    assert str(caught.value) == (
        "body.budget: must be at least 1; body.seed: must be a whole number (422 malformed)"
    )


def test_a_proxys_error_page_is_an_error_of_its_status(make_client: MakeClient) -> None:
    page = httpx2.Response(403, html="<h1>Forbidden</h1>")
    with pytest.raises(miaod_client.PermissionDeniedError) as caught:
        make_client(Script(page)).projects.get("p1")
    assert "Forbidden from http://server.test/projects/p1" in str(caught.value)


def test_another_programs_page_is_an_unexpected_response(make_client: MakeClient) -> None:
    page = httpx2.Response(200, html="<h1>Welcome</h1>")
    with pytest.raises(miaod_client.UnexpectedResponseError, match="did not answer with a Project"):
        make_client(Script(page)).projects.get("p1")


def test_a_redirect_says_which_address_would_be_right(make_client: MakeClient) -> None:
    moved = httpx2.Response(301, headers={"location": "https://server.test/projects/p1"})
    with pytest.raises(miaod_client.UnexpectedResponseError, match="https://server.test/projects"):
        make_client(Script(moved)).projects.get("p1")


def test_an_unreachable_server_is_named(make_client: MakeClient) -> None:
    server = Script(httpx2.ConnectError("connection refused"))
    with pytest.raises(miaod_client.ConnectionFailedError) as caught:
        make_client(server, retry=RetryPolicy(max_retries=0)).projects.get("p1")
    assert str(caught.value) == "cannot reach http://server.test: connection refused"


def test_fields_of_a_newer_server_are_kept(
    make_client: MakeClient, project_json: dict[str, Any]
) -> None:
    project = make_client(Script(ok({**project_json, "colour": "red"}))).projects.get("p1")
    assert project.model_dump()["colour"] == "red"


def test_ids_and_names_cannot_lead_to_another_address(
    make_client: MakeClient, project_json: dict[str, Any]
) -> None:
    server = Script(ok(project_json))
    make_client(server).projects.get("../images?x=1")
    assert server.requests[0].url.raw_path == b"/projects/..%2Fimages%3Fx%3D1"


def test_an_empty_id_is_refused_before_it_lists_everything(make_client: MakeClient) -> None:
    with pytest.raises(ValueError, match="empty"):
        make_client(Script()).projects.delete("")


def test_only_what_was_given_is_sent(
    make_client: MakeClient, cycle_json: dict[str, Any], body_of: Callable[..., Any]
) -> None:
    server = Script(ok(cycle_json), ok(cycle_json))
    client = make_client(server)
    client.cycles.create(project="p1")
    client.cycles.create(
        project="p1", strategy="random", preset="cpu", training={"batch_size": 2}, seed=0
    )
    assert body_of(server.requests[0]) == {"project": "p1"}
    assert body_of(server.requests[1]) == {
        "project": "p1",
        "strategy": {"name": "random"},
        "training": {"batch_size": 2, "preset": "cpu"},
        "seed": 0,
    }


def test_a_server_that_is_not_ready_is_an_answer(make_client: MakeClient) -> None:
    body = {"ready": False, "checks": {"database": {"ok": False, "detail": "away"}}}
    server = Script(httpx2.Response(503, json=body))
    readiness = make_client(server).health.ready()
    assert not readiness.ready
    assert readiness.checks["database"].detail == "away"
    assert len(server.requests) == 1
