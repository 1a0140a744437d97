from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from server.main import MAX_JSON_BYTES, STATIC, create_app
from server.settings import Settings

NO_SUCH = "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e"


@pytest.fixture
def settings(data_dir: Path) -> Settings:
    """What is tested here looks alike on both databases, and mostly needs no table."""
    return Settings(data_dir=data_dir, database_url=None, admin_key=None)


@pytest.fixture
def keyed(settings: Settings) -> Iterator[TestClient]:
    with_key = settings.model_copy(update={"admin_key": SecretStr("s3cret")})
    with TestClient(create_app(with_key)) as client:
        yield client


def failing(app: FastAPI, error: Exception) -> TestClient:
    """A client of the application with one more route, which fails."""

    @app.get("/fail")
    def fail() -> None:
        raise error

    return TestClient(app)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("DELETE", "/projects", 405, "method_not_allowed"),
        ("GET", "/projects/no-id", 422, "invalid_request"),
        ("GET", "/projects/%00", 422, "invalid_request"),
        ("GET", f"/queries/{NO_SUCH}?x=%FF", 503, "unavailable"),
    ],
)
def test_every_error_has_the_one_form(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    body = answer.json()
    assert set(body) == {"detail", "code", "request_id"}
    assert body["code"] == code
    assert body["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"


def test_a_wrong_method_names_the_right_ones(client: TestClient) -> None:
    answer = client.delete("/projects")
    assert set(re.split(r", *", answer.headers["allow"])) >= {"GET"}


def test_a_caller_s_request_id_is_kept_if_it_is_one(client: TestClient) -> None:
    kept = client.get("/healthz", headers={"X-Request-ID": "abc-1.2_3"})
    assert kept.headers["x-request-id"] == "abc-1.2_3"
    for odd in ("a b", "x" * 65, 'a"b'):
        made = client.get("/healthz", headers={"X-Request-ID": odd})
        assert re.fullmatch(r"[0-9a-f]{32}", made.headers["x-request-id"])


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[1,", b"{'name': 1}"])
def test_a_body_that_cannot_be_read_is_a_400(client: TestClient, body: bytes) -> None:
    answer = client.post("/projects", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_a_body_of_another_kind_is_a_415(client: TestClient, kind: str | None) -> None:
    headers = {"content-type": kind} if kind else {}
    answer = client.post("/projects", content=b'{"name": "p"}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media")


def test_a_body_that_is_too_large_is_refused_by_its_length_or_on_the_way(
    client: TestClient,
) -> None:
    big = b" " * (MAX_JSON_BYTES + 1)
    headers = {"content-type": "application/json"}
    declared = client.post("/projects", content=big, headers=headers)

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(big), 65_536):
            yield big[start : start + 65_536]

    streamed = client.post("/projects", content=chunks(), headers=headers)
    for answer in (declared, streamed):
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_crash_is_a_500_in_the_common_form_that_tells_nothing(app: FastAPI) -> None:
    with failing(app, RuntimeError("the secret of the house")) as client:
        answer = client.get("/fail")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 507),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 507),
        (OSError(errno.EROFS, "Read-only file system"), 503),
        (OSError(errno.ENOEXEC, "Exec format error"), 500),
        (OperationalError("SELECT", {}, Exception("connection refused")), 503),
        (OperationalError("INSERT", {}, Exception("database or disk is full")), 507),
        (OperationalError("INSERT", {}, Exception("…: No space left on device")), 507),
    ],
)
def test_trouble_of_the_machine_has_its_status(app: FastAPI, error: Exception, status: int) -> None:
    with failing(app, error) as client:
        answer = client.get("/fail")
    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)
    assert ("retry-after" in answer.headers) == (status == 503)


def test_with_a_key_everything_but_health_is_closed_to_strangers(keyed: TestClient) -> None:
    for path in ("/projects", "/docs", "/openapi.json", "/nowhere", "/apples"):
        answer = keyed.get(path, follow_redirects=False)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert keyed.get("/healthz").status_code == 200
    assert keyed.get("/readyz").status_code == 503
    for presented in ("Bearer wrong", "Bearer", "s3cret", "Basic s3cret", "Bearer s3crét"):
        headers = {b"Authorization": presented.encode("latin-1")}
        assert keyed.get("/openapi.json", headers=headers).status_code == 401
    for presented in ("Bearer s3cret", "Token s3cret", "bearer s3cret"):
        headers = {b"Authorization": presented.encode("latin-1")}
        assert keyed.get("/openapi.json", headers=headers).status_code == 200


def test_a_key_may_be_any_text(settings: Settings) -> None:
    with_key = settings.model_copy(update={"admin_key": SecretStr("schlüssel-鍵")})
    headers = {b"Authorization": "Bearer schlüssel-鍵".encode()}
    with TestClient(create_app(with_key)) as client:
        assert client.get("/openapi.json", headers=headers).status_code == 200


def test_a_stranger_s_body_is_refused_before_it_is_read(keyed: TestClient) -> None:
    read = 0

    def chunks() -> Iterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield b"x" * 65_536

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/images",
        "headers": [(b"content-type", b"multipart/form-data; boundary=x")],
    }
    answers: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(iter(chunks())), "more_body": True}

    async def send(message: Any) -> None:
        answers.append(message)

    import asyncio

    asyncio.run(keyed.app(scope, receive, send))  # type: ignore[arg-type]
    assert answers[0]["status"] == 401
    assert read == 0


def test_the_documentation_is_served_from_our_own_files_only(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) >= 4
    for link in links:
        assert link.startswith("/static/"), link
        assert client.get(link).status_code == 200, link
    assert "://" not in page.text
    assert '"/openapi.json"' in (STATIC / "docs.js").read_text()


def test_vendored_files_carry_their_version_and_licence() -> None:
    vendored = [path.name for path in STATIC.iterdir() if path.name.startswith("swagger-ui")]
    assert all(re.search(r"-\d+\.\d+\.\d+\.", name) for name in vendored)
    assert "Apache License" in (STATIC / "swagger-ui-5.35.0.LICENSE.txt").read_text()


def test_operation_ids_are_unique_and_every_operation_documents_its_errors(
    app: FastAPI,
) -> None:
    document = app.openapi()
    operations = [
        operation for methods in document["paths"].values() for operation in methods.values()
    ]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    for operation in operations:
        assert operation["summary"]
        assert operation["description"], operation["operationId"]
        schema = operation["responses"]["422"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorOut"}
    assert "HTTPValidationError" not in json.dumps(document)
