"""A client whose server is a function, and answers in the server's words."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from miaod_client import Client, RetryPolicy

Handler = Callable[[httpx2.Request], httpx2.Response]
MakeClient = Callable[..., Client]

URL = "http://server.test"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MIAOD_URL", "MIAOD_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    """Makes a client of a server that is a function; its retries wait for almost nothing."""
    opened: list[httpx2.Client] = []

    def make(
        handler: Handler,
        *,
        retry: RetryPolicy = RetryPolicy(first_seconds=0.001),  # noqa: B008 (frozen)
        api_key: str | None = None,
    ) -> Client:
        http = httpx2.Client(transport=httpx2.MockTransport(handler))
        opened.append(http)
        return Client(url=URL, api_key=api_key, http_client=http, retry=retry)

    yield make
    for http in opened:
        http.close()


@pytest.fixture
def project_json() -> dict[str, Any]:
    """A project as the server shows it in lists."""
    return {
        "id": "p1",
        "name": "street",
        "classes": ["car", "person"],
        "instructions": "",
        "validation_images": 0,
        "cycle_defaults": {},
        "created_at": "2026-11-23T08:00:00Z",
    }


@pytest.fixture
def cycle_json() -> dict[str, Any]:
    """A queued cycle."""
    return {
        "id": "c1",
        "project": "p1",
        "number": 1,
        "kind": "trained",
        "state": "queued",
        "budget": 20,
        "strategy": {"name": "mi-aod"},
        "training": {"preset": "cpu"},
        "seed": 7,
        "min_labeled": 1,
        "progress": 0.0,
        "stage": None,
        "message": "",
        "metrics": None,
        "error": None,
        "snapshot": None,
        "num_selected": None,
        "model": None,
        "worker": None,
        "attempts": 0,
        "cancel_requested": False,
        "created_at": "2026-11-23T08:00:00Z",
        "started_at": None,
        "finished_at": None,
    }


@pytest.fixture
def query_json() -> Callable[..., dict[str, Any]]:
    """Makes a query as the server shows it."""

    def make(number: int, **changes: Any) -> dict[str, Any]:
        return {
            "id": f"q{number}",
            "cycle": "c1",
            "project": "p1",
            "image": {
                "id": f"i{number}",
                "name": f"{number}.jpg",
                "width": 100,
                "height": 80,
                "annotation_version": 0,
                "content_url": f"/images/i{number}/content",
                "thumbnail_url": f"/images/i{number}/thumbnail",
            },
            "rank": number,
            "uncertainty": 0.5,
            "reason": "uncertainty",
            "state": "claimed",
            "claimed_by": "ana",
            "claim_expires_at": "2026-11-23T08:10:00Z",
            "predictions": [{"class": "car", "score": 0.9, "x1": 1, "y1": 2, "x2": 30, "y2": 40}],
            "heatmap_url": None,
            **changes,
        }

    return make


@pytest.fixture
def refusal() -> Callable[..., httpx2.Response]:
    """Makes an error answer in the one form of the API."""

    def make(
        status: int, detail: Any = "no", code: str = "refused", **more: Any
    ) -> httpx2.Response:
        headers = more.pop("headers", {})
        body = {"detail": detail, "code": code, "request_id": "r-1", **more}
        return httpx2.Response(status, json=body, headers=headers)

    return make


@pytest.fixture
def body_of() -> Callable[[httpx2.Request], Any]:
    """Reads the JSON body of a request."""

    def read(request: httpx2.Request) -> Any:
        return json.loads(request.read())

    return read
