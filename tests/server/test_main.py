from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from server.access import requires
from server.main import MAX_JSON_BYTES, STATIC
from server.settings import Settings

LOCAL = "http://127.0.0.1"
NO_SUCH = "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e"


@pytest.fixture
def settings(data_dir: Path, sqlite_template: Path) -> Settings:
    """What is tested here looks alike on both databases."""
    shutil.copyfile(sqlite_template, data_dir / "miaod.db")
    return Settings(data_dir=data_dir, database_url=None, admin_key=None)


def failing(app: FastAPI, error: Exception) -> TestClient:
    """A client of the application with one more route, which fails."""

    @app.get("/fail")
    @requires("anyone")
    def fail() -> None:
        raise error

    return TestClient(app, base_url=LOCAL)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("DELETE", "/projects", 405, "method_not_allowed"),
        ("GET", "/projects/no-id", 422, "invalid_request"),
        ("GET", "/projects/%00", 422, "invalid_request"),
        ("GET", f"/queries/{NO_SUCH}?x=%FF", 404, "not_found"),
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


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/projects", "GET, POST"),
        ("HEAD", "/projects", "GET, POST"),
        ("GET", "/queries/claim", "POST"),
        ("OPTIONS", "/queries/claim", "POST"),
        ("POST", "/static/docs.js", "GET, HEAD"),
        ("BREW", "/docs", "GET"),
    ],
)
def test_a_wrong_method_names_the_right_ones(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    if method != "HEAD":
        assert allowed in answer.json()["detail"]


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [("bytes=9999999-", 416, "range_not_satisfiable"), ("bytes=x", 400, "bad_request")],
)
def test_a_range_that_cannot_be_is_refused_in_the_common_form(
    client: TestClient, asked: str, status: int, code: str
) -> None:
    answer = client.get("/static/docs.js", headers={"Range": asked})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert ("content-range" in answer.headers) == (status == 416)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"name": ' + b"9" * 5000 + b"}",
        b'{"name": "p", "classes": ["car"], "cycle_defaults": {"training": {"a": '
        + b"[" * 3000
        + b"]" * 3000
        + b"}}}",
        b"\x1f\x8b\x08",
    ],
    ids=["deep", "long number", "deep inside", "compressed"],
)
def test_a_body_that_breaks_the_parser_is_a_400(client: TestClient, body: bytes) -> None:
    answer = client.post("/projects", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert "no JSON that can be read" in answer.json()["detail"]


def test_a_long_address_is_not_repeated_whole(client: TestClient) -> None:
    assert len(client.get("/" + "a" * 50_000).json()["detail"]) < 300


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


def test_the_documentation_is_served_from_our_own_files_only(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) >= 4
    for link in links:
        assert link.startswith("/static/"), link
        assert client.get(link).status_code == 200, link
    assert "://" not in page.text
    script = (STATIC / "docs.js").read_text()
    assert '"/openapi.json"' in script
    # A key that is tried out there must not stay in the browser.
    assert "persistAuthorization: false" in script
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy


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
