from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from server.deps import Context


def actions(client: TestClient, **filters: Any) -> list[str]:
    items = client.get("/audit", params={"limit": 1000, **filters}).json()["items"]
    return [item["action"] for item in reversed(items)]


def test_what_is_changed_and_what_is_taken_out_stands_in_the_log(
    client: TestClient, pool: Any, scribe: Any
) -> None:
    images = pool.upload(4)
    pool.label(images[0])
    cycle = pool.start_cycle(budget=1)
    scribe.run(cycle, metrics={})
    model = client.get("/models").json()["items"][0]["id"]
    query = pool.queries()[0]
    client.post(f"/queries/{query['id']}/skip", json={"reason": "blurred"})
    client.patch(f"/images/{query['image']['id']}", json={"skipped": False})
    client.delete(f"/images/{images[3]}")
    client.patch(f"/projects/{pool.project}", json={"instructions": "all of them"})
    client.patch(f"/models/{model}", json={"pinned": True})
    for path in (
        f"/models/{model}/checkpoint",
        f"/cycles/{cycle}/artifacts/config.json",
        f"/exports?project={pool.project}",
    ):
        assert client.get(path).status_code == 200
    client.delete(f"/models/{model}")
    second = pool.start_cycle(budget=1)
    client.post(f"/cycles/{second}/cancel")
    client.post(f"/cycles/{second}/resume")
    client.delete(f"/projects/{pool.project}")
    assert actions(client, project=pool.project) == [
        "project_created",
        "images_uploaded",
        "cycle_created",
        "image_skipped",
        "image_changed",
        "image_deleted",
        "project_changed",
        "model_changed",
        "checkpoint_downloaded",
        "artifact_downloaded",
        "labels_exported",
        "model_deleted",
        "cycle_created",
        "cycle_cancelled",
        "cycle_resumed",
        "project_deleted",
    ]


def test_an_entry_says_who_when_what_and_in_which_request(client: TestClient) -> None:
    body = {"name": "street", "classes": ["car"], "instructions": "a text of many words"}
    made = client.post("/projects", json=body, headers={"X-Request-ID": "r-1"})
    (entry,) = client.get("/audit").json()["items"]
    assert entry.pop("at").endswith("Z")
    assert entry.pop("id")
    assert entry == {
        "key": None,
        "actor": "local user",
        "action": "project_created",
        "project": made.json()["id"],
        "object": made.json()["id"],
        "request_id": "r-1",
        "detail": {"name": "street"},
    }


def test_the_key_is_named_by_its_id_and_its_name(client: TestClient) -> None:
    made = client.post("/keys", json={"name": "root", "role": "admin"}).json()
    client.headers["Authorization"] = f"Bearer {made['key']}"
    client.post("/session", json={"key": made["key"]})
    client.post("/projects", json={"name": "street", "classes": ["car"]})
    found = client.get("/audit", params={"actor": "root"}).json()["items"]
    assert [(item["action"], item["key"]) for item in found] == [
        ("project_created", made["id"]),
        ("session_created", made["id"]),
    ]
    assert actions(client, action="key_created") == ["key_created"]
    assert made["key"] not in client.get("/audit").text


def test_reading_and_annotating_leave_no_entry(client: TestClient, pool: Any) -> None:
    (image,) = pool.upload(1)
    before = actions(client)
    pool.label(image)
    client.get(f"/images/{image}/content")
    assert actions(client) == before


def test_what_is_refused_or_rolled_back_leaves_no_entry(
    client: TestClient, context: Context, sessions: sessionmaker[Session]
) -> None:
    body = {"name": "street", "classes": ["car"]}
    client.post("/projects", json=body)
    assert client.post("/projects", json=body).status_code == 409

    def fail(session: Session) -> None:
        raise OperationalError("COMMIT", {}, Exception("connection lost"))

    event.listen(context.sessions, "before_commit", fail)
    assert client.post("/projects", json={**body, "name": "other"}).status_code == 503
    event.remove(context.sessions, "before_commit", fail)
    assert actions(client) == ["project_created"]


def test_no_route_changes_or_deletes_an_entry(client: TestClient) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert client.request(method, "/audit").status_code == 405
