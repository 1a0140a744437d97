"""Who gets in: the open server, keys, cookies, and what browsers may be made to send."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from server.access import RoleRoute, requires
from server.deps import CallerDep, Context
from server.main import create_app
from server.services import audit, keys
from server.services.identity import SESSION_IDLE_HOURS, Caller
from server.services.keys import KeyRequest
from server.settings import Settings
from server.store import scope
from server.store.models import ApiKey, AuditEntry, WebSession, utc_now
from server.throttle import FAILURES_PER_MINUTE

LOCAL = "http://127.0.0.1"
TEAM = "https://miaod.example.org"
MakeKey = Callable[..., str]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def make_key(sessions: sessionmaker[Session]) -> MakeKey:
    """Makes a key in the database, without asking the server."""

    def make(name: str = "root", role: Any = "admin", **more: Any) -> str:
        with scope.bound(sessions).begin() as session:
            _, secret = keys.create(
                session, KeyRequest(name, role, **more), created_by="test", admin_without=True
            )
        return secret

    return make


@pytest.fixture
def team(settings: Settings) -> Iterator[TestClient]:
    """A client of a server on an address that others reach, by TLS."""
    app = create_app(settings.model_copy(update={"host": "0.0.0.0"}))
    with TestClient(app, base_url=TEAM) as client:
        yield client


# --- the open server


def test_without_keys_the_user_of_the_machine_needs_none(client: TestClient) -> None:
    for host in ("localhost:8000", "127.0.0.1", "127.1.2.3:80", "[::1]:8000", "a.localhost"):
        answer = client.get("/session", headers={"Host": host})
        assert answer.status_code == 200, host
    assert answer.json() == {
        "user": {"id": None, "name": "local user", "role": "admin", "projects": None},
        "csrf_token": None,
        "open": True,
    }
    assert client.get("/projects", headers=bearer("of another server")).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "192.168.1.7:8000", "127.0.0.1.evil.example", ""])
def test_the_open_server_does_not_answer_to_a_name_that_was_made_to_point_at_it(
    client: TestClient, host: str
) -> None:
    answer = client.get("/projects", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (403, "not_local")
    assert "python -m server keys create" in answer.json()["detail"]


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "X-Real-IP", "Via"]
)
def test_the_open_server_is_not_open_through_a_proxy(client: TestClient, header: str) -> None:
    answer = client.get("/projects", headers={header: "203.0.113.9"})
    assert (answer.status_code, answer.json()["code"]) == (403, "not_local")


def test_the_open_server_is_not_open_through_a_proxy_that_says_nothing_of_itself(
    app: FastAPI,
) -> None:
    async def as_nginx_does(scope: Scope, receive: Receive, send: Send) -> None:
        version = {"http_version": "1.0"} if scope["type"] == "http" else {}
        await app({**scope, **version}, receive, send)

    with TestClient(as_nginx_does, base_url=LOCAL) as client:
        answer = client.get("/projects")
    assert (answer.status_code, answer.json()["code"]) == (403, "not_local")


OTHER_PAGES = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},  # another port of this machine
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:3000"},
    {"Origin": "null"},
    {"Origin": "http://[::1"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1"},
]


@pytest.mark.parametrize("headers", OTHER_PAGES)
def test_the_open_server_is_closed_to_pages_of_others(
    client: TestClient, headers: dict[str, str]
) -> None:
    body = {"name": "theirs", "classes": ["car"]}
    for answer in (
        client.post("/projects", json=body, headers=headers),
        client.get("/projects", headers=headers),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf")
    assert client.get("/projects").json()["items"] == []


def test_the_open_server_answers_its_own_pages_and_those_who_follow_a_link(
    client: TestClient,
) -> None:
    followed = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    for headers in (
        {"Sec-Fetch-Site": "same-origin", "Origin": LOCAL},
        {"Sec-Fetch-Site": "none"},
        {"Origin": LOCAL},
        {"Origin": f"{LOCAL}:80"},
        followed,
    ):
        assert client.get("/projects", headers=headers).status_code == 200, headers
    answer = client.post("/projects", json={"name": "p", "classes": ["a"]}, headers=followed)
    assert answer.status_code == 403


def test_the_first_key_closes_the_open_server_and_its_end_does_not_open_it_again(
    client: TestClient, sessions: sessionmaker[Session]
) -> None:
    refused = client.post("/keys", json={"name": "ana", "role": "viewer", "all_projects": True})
    assert (refused.status_code, refused.json()["code"]) == (409, "first_key_not_admin")
    made = client.post("/keys", json={"name": "root", "role": "admin"}).json()
    assert client.get("/projects").status_code == 401
    assert client.get("/projects", headers=bearer(made["key"])).status_code == 200
    with sessions.begin() as session:
        session.execute(update(ApiKey).values(expires_at=utc_now()))
    assert client.get("/projects").status_code == 401
    assert client.get("/projects", headers=bearer(made["key"])).status_code == 401


def test_a_server_that_others_reach_is_never_open(settings: Settings) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.7", "miaod.example.org"):
        app = create_app(settings.model_copy(update={"host": host}))
        with TestClient(app, base_url=LOCAL) as client:
            assert client.get("/projects").status_code == 401, host


# --- keys


def test_strangers_get_health_and_what_is_the_same_for_everyone(
    team: TestClient, make_key: MakeKey
) -> None:
    for path in ("/projects", "/workers", "/session", "/keys", "/audit"):
        answer = team.get(path)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json", "/static/docs.js"):
        assert team.get(path, headers=bearer("wrong")).status_code == 200, path
    key = make_key()
    for presented in ("wrong", "", key[:-1], key + "A", key.upper(), "miaod_"):
        assert team.get("/projects", headers=bearer(presented)).status_code == 401
    for kind in ("Bearer", "Token", "bearer"):
        answer = team.get("/projects", headers={"Authorization": f"{kind} {key}"})
        assert answer.status_code == 200
    assert team.get("/projects", headers={"Authorization": f"Basic {key}"}).status_code == 401


def test_the_key_of_the_settings_is_an_admin_s_and_may_be_any_text(settings: Settings) -> None:
    with_key = settings.model_copy(update={"admin_key": SecretStr("schlüssel-鍵")})
    with TestClient(create_app(with_key), base_url=LOCAL) as client:
        assert client.get("/projects").status_code == 401
        headers = {b"Authorization": "Bearer schlüssel-鍵".encode()}
        assert client.get("/session", headers=headers).json()["user"] == {
            "id": None,
            "name": "MIAOD_ADMIN_KEY",
            "role": "admin",
            "projects": None,
        }
        assert client.post("/session", json={"key": "schlüssel-鍵"}).status_code == 200
        made = client.post(
            "/keys", json={"name": "ana", "role": "viewer", "all_projects": True}, headers=headers
        )
        assert made.status_code == 201
        assert client.get("/projects", headers=bearer(made.json()["key"])).status_code == 200


def test_a_revoked_or_expired_key_opens_nothing(
    team: TestClient, make_key: MakeKey, sessions: sessionmaker[Session]
) -> None:
    root, short = make_key(), make_key("short", "viewer", expires_at=utc_now() + timedelta(days=1))
    assert team.get("/projects", headers=bearer(short)).status_code == 200
    with sessions.begin() as session:
        session.execute(update(ApiKey).where(ApiKey.name == "short").values(expires_at=utc_now()))
    assert team.get("/projects", headers=bearer(short)).status_code == 401
    ana = team.post(
        "/keys", json={"name": "ana", "role": "viewer", "all_projects": True}, headers=bearer(root)
    ).json()
    assert team.get("/projects", headers=bearer(ana["key"])).status_code == 200
    assert team.delete(f"/keys/{ana['id']}", headers=bearer(root)).status_code == 204
    assert team.get("/projects", headers=bearer(ana["key"])).status_code == 401


def test_the_last_use_of_a_key_is_written_at_most_once_a_minute(
    team: TestClient, make_key: MakeKey, sessions: sessionmaker[Session]
) -> None:
    def last_used() -> Any:
        with sessions() as session:
            return session.scalar(select(ApiKey.last_used_at))

    key = make_key()
    assert last_used() is None
    team.get("/projects", headers=bearer(key))
    first = last_used()
    assert first is not None
    team.get("/projects", headers=bearer(key))
    assert last_used() == first
    with sessions.begin() as session:
        session.execute(update(ApiKey).values(last_used_at=first - timedelta(seconds=90)))
    team.get("/projects", headers=bearer(key))
    assert last_used() >= first


def test_a_stranger_s_body_is_refused_before_it_is_read(
    team: TestClient, make_key: MakeKey
) -> None:
    viewer = make_key("viewer", "viewer", projects=None)
    for headers, status in (
        ([], 401),
        ([(b"authorization", b"Bearer wrong")], 401),
        ([(b"authorization", b"Bearer " + viewer.encode())], 403),
    ):
        read = 0
        answers: list[Any] = []

        async def receive() -> dict[str, Any]:
            nonlocal read
            read += 1
            return {"type": "http.request", "body": b"x" * 65_536, "more_body": True}

        async def send(message: Any, answers: list[Any] = answers) -> None:
            answers.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/images",
            "query_string": b"",
            "headers": [(b"content-type", b"multipart/form-data; boundary=x"), *headers],
        }
        asyncio.run(team.app(scope, receive, send))  # type: ignore[arg-type]
        assert answers[0]["status"] == status
        assert read == 0


def test_a_route_that_states_no_role_cannot_be_added(app: FastAPI) -> None:
    def forgotten() -> None: ...

    with pytest.raises(TypeError, match=r"/forgotten \(.*forgotten\) states no role"):
        app.get("/forgotten")(forgotten)


def test_what_asks_for_a_caller_where_anyone_may_come_fails(app: FastAPI) -> None:
    @app.get("/odd")
    @requires("anyone")
    def odd(caller: CallerDep) -> str:
        return caller.name

    with TestClient(app, base_url=LOCAL) as client:
        assert client.get("/odd").status_code == 500


def test_every_route_of_the_application_is_one_that_checks_roles(app: FastAPI) -> None:
    def walk(routes: Any) -> Iterator[Any]:
        for route in routes:
            inner = getattr(route, "original_router", None)
            if inner is None:
                yield route
            else:
                yield from walk(inner.routes)

    others = {route.path for route in walk(app.routes) if not isinstance(route, RoleRoute)}
    # The document, and files that are the same for everyone.
    assert others == {"/openapi.json", "/static"}


def test_no_route_reaches_around_the_context_that_knows_its_caller() -> None:
    folder = Path(__file__).parents[2] / "server" / "routes"
    for file in folder.glob("*.py"):
        assert "state.context" not in file.read_text(), file.name


# --- wrong keys


def test_wrong_keys_are_slowed_down_and_right_ones_of_the_table_are_not(
    settings: Settings, make_key: MakeKey, sessions: sessionmaker[Session]
) -> None:
    right = make_key()
    with_key = settings.model_copy(
        update={"host": "0.0.0.0", "admin_key": SecretStr("easy to guess")}
    )
    with TestClient(create_app(with_key), base_url=TEAM) as client:
        for _ in range(3):
            assert client.get("/projects").status_code == 401  # no key is no wrong key
        for number in range(FAILURES_PER_MINUTE):
            wrong = client.get("/projects", headers=bearer(f"wrong {number}"))
            assert wrong.status_code == 401
        refused = client.get("/projects", headers=bearer("miaod_wrong"))
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_failures")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert client.post("/session", json={"key": "wrong"}).status_code == 429
        # It may have been found by trying; 256 random bits were not.
        assert client.get("/projects", headers=bearer("easy to guess")).status_code == 429
        assert client.get("/projects", headers=bearer(right)).status_code == 200
        assert client.post("/session", json={"key": right}).status_code == 200
    with sessions() as session:
        (entry,) = session.scalars(
            select(AuditEntry).where(AuditEntry.action == "authentication_throttled")
        )
    assert entry.detail == {"address": "testclient", "wrong_keys": FAILURES_PER_MINUTE}


def test_nobody_locks_out_an_admin_key_that_cannot_be_found_by_trying(settings: Settings) -> None:
    key = "0123456789abcdef" * 2
    with_key = settings.model_copy(update={"host": "0.0.0.0", "admin_key": SecretStr(key)})
    with TestClient(create_app(with_key), base_url=TEAM) as client:
        for number in range(FAILURES_PER_MINUTE + 1):
            refused = client.get("/projects", headers=bearer(f"wrong {number}"))
        assert refused.status_code == 429
        assert client.get("/projects", headers=bearer(key)).status_code == 200
        assert client.post("/session", json={"key": key}).status_code == 200
        assert client.get("/projects", headers=bearer("wrong")).status_code == 429


# --- cookies


@pytest.fixture
def signed_in(team: TestClient, make_key: MakeKey) -> tuple[TestClient, dict[str, str]]:
    """A browser that signed in, and the headers with which its page changes things."""
    answer = team.post("/session", json={"key": make_key()}, headers={"Origin": TEAM})
    assert answer.status_code == 200, answer.text
    return team, {"X-CSRF-Token": answer.json()["csrf_token"], "Origin": TEAM}


def test_a_key_is_changed_for_a_cookie_that_scripts_and_other_sites_do_not_get(
    team: TestClient, make_key: MakeKey
) -> None:
    key = make_key("ana", "annotator", projects=None)
    answer = team.post("/session", json={"key": key})
    cookie = answer.headers["set-cookie"]
    for attribute in ("HttpOnly", "SameSite=strict", "Path=/", "Secure"):
        assert attribute in cookie
    assert answer.headers["cache-control"] == "no-store"
    said = answer.json()
    assert said["user"]["name"] == "ana"
    assert said["user"]["role"] == "annotator"
    assert said["open"] is False
    assert key not in answer.text + cookie
    assert team.get("/session").json() == said
    by_key = team.get("/session", headers=bearer(key)).json()
    assert by_key == {**said, "csrf_token": None}


def test_without_tls_the_cookie_is_not_bound_to_it(settings: Settings, make_key: MakeKey) -> None:
    with TestClient(create_app(settings), base_url=LOCAL) as client:
        answer = client.post("/session", json={"key": make_key()})
        assert "Secure" not in answer.headers["set-cookie"]
        assert client.get("/session").status_code == 200


def test_a_change_with_the_cookie_needs_the_token_and_a_page_of_ours(
    signed_in: tuple[TestClient, dict[str, str]],
) -> None:
    client, headers = signed_in
    body = {"name": "p", "classes": ["car"]}
    token = headers["X-CSRF-Token"]
    for wrong in (
        {},
        {"Origin": TEAM},
        {"X-CSRF-Token": token},
        {"X-CSRF-Token": "0" * 64, "Origin": TEAM},
        {"X-CSRF-Token": token, "Origin": "https://evil.example"},
        {"X-CSRF-Token": token, "Origin": f"{TEAM}:8443"},
        {"X-CSRF-Token": token, "Origin": TEAM, "Sec-Fetch-Site": "cross-site"},
        {"X-CSRF-Token": token, "Sec-Fetch-Site": "same-site"},
    ):
        answer = client.post("/projects", json=body, headers=wrong)
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf"), wrong
    assert client.get("/projects").json()["items"] == []
    assert client.post("/projects", json=body, headers=headers).status_code == 201
    own = {"X-CSRF-Token": token, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/projects", json={**body, "name": "q"}, headers=own).status_code == 201


def test_another_site_on_the_same_host_cannot_read_with_the_cookie(
    signed_in: tuple[TestClient, dict[str, str]],
) -> None:
    client, _ = signed_in
    answer = client.get("/projects", headers={"Sec-Fetch-Site": "same-site"})
    assert (answer.status_code, answer.json()["code"]) == (403, "csrf")


def test_no_other_page_can_sign_a_browser_in(team: TestClient, make_key: MakeKey) -> None:
    answer = team.post(
        "/session", json={"key": make_key()}, headers={"Origin": "https://evil.example"}
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "csrf")


def test_signing_out_ends_the_session_on_the_server(
    signed_in: tuple[TestClient, dict[str, str]],
) -> None:
    client, headers = signed_in
    token = client.cookies["miaod_session"]
    assert client.delete("/session").status_code == 403
    answer = client.delete("/session", headers=headers)
    assert answer.status_code == 204
    assert 'miaod_session=""' in answer.headers["set-cookie"]
    client.cookies.set("miaod_session", token, domain="miaod.example.org")
    assert client.get("/session").status_code == 401


def test_a_session_ends_with_its_key(
    signed_in: tuple[TestClient, dict[str, str]], sessions: sessionmaker[Session]
) -> None:
    client, _ = signed_in
    with sessions.begin() as session:
        session.execute(update(ApiKey).values(revoked_at=utc_now()))
    assert client.get("/session").status_code == 401


def test_a_session_ends_unused_and_by_its_age(
    signed_in: tuple[TestClient, dict[str, str]], sessions: sessionmaker[Session]
) -> None:
    client, _ = signed_in
    idle = utc_now() - timedelta(hours=SESSION_IDLE_HOURS, minutes=1)
    with sessions.begin() as session:
        session.execute(update(WebSession).values(last_used_at=idle))
    assert client.get("/session").status_code == 401
    with sessions.begin() as session:
        session.execute(update(WebSession).values(last_used_at=utc_now(), expires_at=idle))
    assert client.get("/session").status_code == 401


def test_a_new_sign_in_replaces_the_old_one_and_clears_what_has_ended(
    team: TestClient, make_key: MakeKey, sessions: sessionmaker[Session]
) -> None:
    def count() -> int | None:
        with sessions() as session:
            return session.scalar(select(func.count()).select_from(WebSession))

    key = make_key()
    for _ in range(2):
        assert team.post("/session", json={"key": key}).status_code == 200
        assert count() == 1
    team.cookies.clear()
    with sessions.begin() as session:
        session.execute(update(WebSession).values(expires_at=utc_now()))
    team.post("/session", json={"key": key})
    assert count() == 1


def test_a_changed_admin_key_ends_the_sessions_of_the_old_one(settings: Settings) -> None:
    def served(key: str) -> TestClient:
        changed = {"host": "0.0.0.0", "admin_key": SecretStr(key)}
        return TestClient(create_app(settings.model_copy(update=changed)), base_url=TEAM)

    with served("before") as client:
        assert client.post("/session", json={"key": "before"}).status_code == 200
        token = client.cookies["miaod_session"]
        assert client.get("/session").json()["user"]["name"] == "MIAOD_ADMIN_KEY"
    for key, status in (("before", 200), ("after", 401)):
        with served(key) as client:
            client.cookies.set("miaod_session", token, domain="miaod.example.org")
            assert client.get("/session").status_code == status


# --- behind a proxy


@pytest.mark.parametrize(("peer", "believed"), [("127.0.0.1", True), ("203.0.113.7", False)])
def test_only_a_trusted_proxy_says_who_asks_and_how(
    settings: Settings, make_key: MakeKey, peer: str, believed: bool
) -> None:
    key = make_key()
    app = create_app(settings.model_copy(update={"host": "0.0.0.0"}))
    # As uvicorn wraps it, with the setting's default.
    proxied = ProxyHeadersMiddleware(cast(Any, app), trusted_hosts=settings.trusted_proxies)
    headers = {"X-Forwarded-For": "198.51.100.1", "X-Forwarded-Proto": "https"}
    with TestClient(cast(Any, proxied), base_url="http://miaod", client=(peer, 1)) as client:
        answer = client.post("/session", json={"key": key}, headers=headers)
        assert ("Secure" in answer.headers["set-cookie"]) is believed
        for number in range(FAILURES_PER_MINUTE):
            client.get("/projects", headers={**headers, **bearer(f"wrong {number}")})
        other = {**headers, "X-Forwarded-For": "198.51.100.2", **bearer("wrong too")}
        assert client.get("/projects", headers=other).status_code == (401 if believed else 429)


# --- headers


def test_every_answer_carries_what_keeps_other_sites_away(client: TestClient) -> None:
    for path in ("/healthz", "/projects", "/nowhere", "/docs", "/static/docs.js"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_other_origins_are_told_nothing_unless_they_are_named(
    settings: Settings, make_key: MakeKey
) -> None:
    key = make_key()
    label = "https://label.example.org"
    asked = {"Origin": label, "Access-Control-Request-Method": "PUT"}
    with TestClient(create_app(settings), base_url=LOCAL) as client:
        assert client.options("/projects", headers=asked).status_code == 405
        answer = client.get("/projects", headers={"Origin": label, **bearer(key)})
        assert not [name for name in answer.headers if name.startswith("access-control")]
    named = settings.model_copy(update={"cors_origins": [label]})
    with TestClient(create_app(named), base_url=LOCAL) as client:
        preflight = client.options(
            "/projects", headers={**asked, "Access-Control-Request-Headers": "authorization"}
        )
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == label
        assert "access-control-allow-credentials" not in preflight.headers
        answer = client.get("/projects", headers={"Origin": label, **bearer(key)})
        assert answer.headers["access-control-allow-origin"] == label
        refused = client.get("/projects", headers={"Origin": label})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == label
        stranger = {"Origin": "https://evil.example", **bearer(key)}
        assert (
            "access-control-allow-origin" not in client.get("/projects", headers=stranger).headers
        )


# --- secrets stay secret


def test_keys_and_cookies_are_in_no_log_no_list_and_no_table(
    team: TestClient, make_key: MakeKey, sessions: sessionmaker[Session]
) -> None:
    root = make_key()
    with structlog.testing.capture_logs() as logged:
        made = team.post(
            "/keys",
            json={"name": "ana", "role": "viewer", "all_projects": True},
            headers=bearer(root),
        ).json()
        team.post("/session", json={"key": made["key"]})
        team.get("/projects", headers=bearer("miaod_wrong-key-of-somebody"))
        listed = team.get("/keys", headers=bearer(root)).text
        audited = team.get("/audit", headers=bearer(root)).text
    token = team.cookies["miaod_session"]
    secrets = [root, made["key"], token, "wrong-key-of-somebody"]
    with sessions() as session:
        rows = [
            [str(value) for value in row]
            for table in (ApiKey, WebSession, AuditEntry)
            for row in session.execute(select(*table.__table__.columns))
        ]
    for secret in secrets:
        for place in (str(logged), listed, audited, str(rows)):
            assert secret not in place
    assert re.fullmatch(r"miaod_[A-Za-z0-9_-]{43}", made["key"])
    assert made["key"].startswith(made["prefix"])
    assert len(made["prefix"]) == len("miaod_") + 6


def test_the_log_says_who_asked(team: TestClient, make_key: MakeKey) -> None:
    key = make_key("ana", "engineer", projects=None)
    seen: list[Any] = []

    def remember(_: Any, __: str, event: Any) -> Any:
        seen.append(dict(event))
        return event

    before = structlog.get_config()["processors"]
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, remember, *before[1:]])
    try:
        team.post("/projects", json={"name": "p", "classes": ["a"]}, headers=bearer(key))
    finally:
        structlog.configure(processors=before)
    assert any(
        event.get("action") == "project_created" and event.get("caller") == "ana" for event in seen
    )


def test_a_context_for_a_caller_knows_who_they_are(context: Context) -> None:
    ana = Caller("k", "ana", "viewer", frozenset({"p"}))
    limited = context.for_caller(ana, "r-1")
    with limited.reading() as session:
        assert session.info == {
            audit.CALLER: ana,
            audit.REQUEST_ID: "r-1",
            scope.PROJECTS: cast(Any, frozenset({"p"})),
        }
