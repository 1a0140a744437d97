from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from server.services import keys
from server.store.models import ApiKey, ApiKeyProject, utc_now

NO_SUCH = "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e"


@pytest.fixture
def admin(client: TestClient) -> TestClient:
    """A client with the first admin key."""
    key = client.post("/keys", json={"name": "root", "role": "admin"}).json()["key"]
    client.headers["Authorization"] = f"Bearer {key}"
    return client


def project(client: TestClient, name: str = "street") -> str:
    answer = client.post("/projects", json={"name": name, "classes": ["car"]})
    return str(answer.json()["id"])


def test_a_key_is_shown_once_and_described_ever_after(admin: TestClient) -> None:
    street = project(admin)
    ends = (utc_now() + timedelta(days=1)).isoformat()
    made = admin.post(
        "/keys",
        json={"name": "ana", "role": "annotator", "projects": [street, street], "expires_at": ends},
    )
    assert made.status_code == 201
    assert made.headers["location"] == f"/keys/{made.json()['id']}"
    assert made.headers["cache-control"] == "no-store"
    described = {name: value for name, value in made.json().items() if name != "key"}
    assert described["projects"] == [street]
    assert described["created_by"] == "root"
    assert described["last_used_at"] is None
    assert admin.get(made.headers["location"]).json() == described
    listed = admin.get("/keys", params={"count": True}).json()
    assert listed["total"] == 2
    assert listed["items"][0] == described
    assert listed["items"][1]["name"] == "root"
    assert listed["items"][1]["projects"] is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"name": "x", "role": "viewer"}, "say which projects it is for"),
        ({"name": "x", "role": "viewer", "projects": []}, "at least 1 item"),
        ({"name": "x", "role": "viewer", "projects": [NO_SUCH]}, f"no project {NO_SUCH}"),
        (
            {"name": "x", "role": "viewer", "projects": [NO_SUCH], "all_projects": True},
            "not both",
        ),
        ({"name": "x", "role": "admin", "projects": [NO_SUCH]}, "for all projects"),
        ({"name": "x", "role": "owner", "all_projects": True}, "'viewer', 'annotator'"),
        ({"name": "local user", "role": "admin"}, "stands for somebody without a key"),
        ({"name": "MIAOD_ADMIN_KEY", "role": "admin"}, "stands for somebody without a key"),
        ({"name": "x", "role": "admin", "expires_at": "2020-01-01T00:00:00Z"}, "in the past"),
        ({"name": "x", "role": "admin", "expires_at": "2099-01-01T00:00:00"}, "timezone"),
        ({"name": "x", "role": "admin", "key": "miaod_mine"}, "Extra inputs"),
    ],
)
def test_a_key_that_cannot_be_is_refused_with_the_reason(
    admin: TestClient, body: dict[str, Any], said: str
) -> None:
    answer = admin.post("/keys", json=body)
    assert answer.status_code == 422
    assert said in answer.text


def test_no_two_live_keys_share_a_name(admin: TestClient) -> None:
    body = {"name": "ana", "role": "viewer", "all_projects": True}
    first = admin.post("/keys", json=body).json()
    again = admin.post("/keys", json=body)
    assert (again.status_code, again.json()["code"]) == (409, "name_taken")
    renamed = admin.patch(f"/keys/{first['id']}", json={"name": "root"})
    assert (renamed.status_code, renamed.json()["code"]) == (409, "name_taken")
    assert admin.delete(f"/keys/{first['id']}").status_code == 204
    assert admin.post("/keys", json=body).status_code == 201


def test_other_projects_count_from_the_next_request_on(admin: TestClient) -> None:
    one, two = project(admin, "one"), project(admin, "two")
    made = admin.post("/keys", json={"name": "ana", "role": "viewer", "projects": [one]}).json()

    def visible() -> list[str]:
        headers = {"Authorization": f"Bearer {made['key']}"}
        items = admin.get("/projects", headers=headers).json()["items"]
        return [item["id"] for item in items]

    assert visible() == [one]
    for change, seen in (
        ({"projects": [two]}, [two]),
        ({"all_projects": True}, [one, two]),
        ({"name": "anna"}, [one, two]),
        ({"projects": [one]}, [one]),
    ):
        answer = admin.patch(f"/keys/{made['id']}", json=change)
        assert answer.status_code == 200
        assert visible() == seen
    assert answer.json()["name"] == "anna"


def test_a_retry_tells_nothing_of_a_project_that_its_key_has_lost(admin: TestClient) -> None:
    one, two = project(admin, "one"), project(admin, "two")
    made = admin.post("/keys", json={"name": "ana", "role": "annotator", "projects": [one]}).json()
    headers = {"Authorization": f"Bearer {made['key']}", "Idempotency-Key": "claim-1"}
    claim = {"project": one}
    first = admin.post("/queries/claim", json=claim, headers=headers)
    again = admin.post("/queries/claim", json=claim, headers=headers)
    assert (first.status_code, again.json()) == (200, first.json())
    assert admin.patch(f"/keys/{made['id']}", json={"projects": [two]}).status_code == 200
    assert admin.post("/queries/claim", json=claim, headers=headers).status_code == 404


def test_a_key_of_a_project_that_is_gone_is_for_nothing_and_never_for_all(
    admin: TestClient, sessions: sessionmaker[Session]
) -> None:
    one, _ = project(admin, "one"), project(admin, "two")
    made = admin.post("/keys", json={"name": "ana", "role": "viewer", "projects": [one]}).json()
    assert admin.delete(f"/projects/{one}").status_code == 204
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert admin.get("/projects", headers=headers).json()["items"] == []
    with sessions.begin() as session:  # as the sweep does in the end
        session.execute(ApiKeyProject.__table__.delete())  # type: ignore[attr-defined]
    assert admin.get("/projects", headers=headers).json()["items"] == []
    assert admin.get(f"/keys/{made['id']}").json()["projects"] == []


def test_a_revoked_key_stays_listed_and_cannot_be_changed(admin: TestClient) -> None:
    made = admin.post("/keys", json={"name": "ana", "role": "viewer", "all_projects": True}).json()
    for _ in range(2):
        assert admin.delete(f"/keys/{made['id']}").status_code == 204
    assert admin.get(f"/keys/{made['id']}").json()["revoked_at"] is not None
    answer = admin.patch(f"/keys/{made['id']}", json={"name": "anna"})
    assert (answer.status_code, answer.json()["code"]) == (409, "key_revoked")


def test_the_last_admin_key_cannot_be_revoked(admin: TestClient) -> None:
    (root,) = admin.get("/keys").json()["items"]
    answer = admin.delete(f"/keys/{root['id']}")
    assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")
    other = admin.post("/keys", json={"name": "ada", "role": "admin"}).json()
    assert admin.delete(f"/keys/{root['id']}").status_code == 204
    headers = {"Authorization": f"Bearer {other['key']}"}
    assert admin.delete(f"/keys/{other['id']}", headers=headers).status_code == 409


def test_an_admin_key_that_has_expired_does_not_count_as_the_one_that_stays(
    admin: TestClient, sessions: sessionmaker[Session]
) -> None:
    (root,) = admin.get("/keys").json()["items"]
    admin.post("/keys", json={"name": "ada", "role": "admin"})
    with sessions.begin() as session:
        ada = session.scalars(select(ApiKey).where(ApiKey.name == "ada")).one()
        ada.expires_at = utc_now() - timedelta(seconds=1)
    assert admin.delete(f"/keys/{root['id']}").status_code == 409


def test_the_first_admin_key_is_made_once_and_anew_only_when_none_lives(
    sessions: sessionmaker[Session],
) -> None:
    def ensure() -> str | None:
        with sessions.begin() as session:
            return keys.ensure_admin(session)

    first = ensure()
    assert first is not None
    assert first.startswith("miaod_")
    assert ensure() is None
    with sessions.begin() as session:
        session.scalars(select(ApiKey)).one().expires_at = utc_now() - timedelta(seconds=1)
    second = ensure()
    assert second is not None
    assert second != first


def test_an_unknown_key_is_a_404(admin: TestClient) -> None:
    for answer in (
        admin.get(f"/keys/{NO_SUCH}"),
        admin.patch(f"/keys/{NO_SUCH}", json={"name": "x"}),
        admin.delete(f"/keys/{NO_SUCH}"),
    ):
        assert answer.status_code == 404
