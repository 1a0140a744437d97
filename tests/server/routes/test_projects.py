from __future__ import annotations

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from server.deps import Context

# What is refused before any table is asked need not be tried on both databases.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@on_sqlite
@pytest.mark.parametrize("wrong", ["street", "019ab3a1", "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e%0A"])
def test_what_is_no_id_is_named_and_shown_how_one_looks(client: TestClient, wrong: str) -> None:
    (problem,) = client.get(f"/projects/{wrong}").json()["detail"]
    assert problem["loc"] == ["path", "project_id"]
    assert problem["msg"].endswith("is no id: ids look like 019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e")


def test_a_project_is_created_read_listed_and_found_by_name(client: TestClient) -> None:
    body = {
        "name": " street ",
        "classes": ["car", "person"],
        "instructions": "Box tightly.",
        "validation_images": 5,
        "cycle_defaults": {"budget": 10, "strategy": {"name": "random"}},
    }
    created = client.post("/projects", json=body)
    assert created.status_code == 201
    project = created.json()
    assert created.headers["location"] == f"/projects/{project['id']}"
    assert project["name"] == "street"
    assert project["cycle_defaults"] == {"budget": 10, "strategy": {"name": "random"}}
    read = client.get(f"/projects/{project['id']}").json()
    assert read.pop("counts") == {
        "images": 0,
        "labeled": 0,
        "unlabeled": 0,
        "skipped": 0,
        "val": 0,
        "val_labeled": 0,
        "test": 0,
        "test_labeled": 0,
        "boxes": 0,
    }
    assert read == project
    assert client.get("/projects").json()["items"] == [project]
    assert client.get("/projects", params={"name": "street"}).json()["items"] == [project]
    assert client.get("/projects", params={"name": "other"}).json()["items"] == []


def test_a_second_project_of_the_same_name_is_a_conflict_until_the_first_is_deleted(
    client: TestClient,
) -> None:
    body = {"name": "street", "classes": ["car"]}
    first = client.post("/projects", json=body).json()["id"]
    again = client.post("/projects", json=body)
    assert again.status_code == 409
    assert again.json()["code"] == "name_taken"
    assert "'street'" in again.json()["detail"]
    assert client.delete(f"/projects/{first}").status_code == 204
    assert client.get(f"/projects/{first}").status_code == 404
    assert client.post("/projects", json=body).status_code == 201


def test_classes_can_be_appended_but_neither_reordered_nor_removed(client: TestClient) -> None:
    project = client.post("/projects", json={"name": "p", "classes": ["car", "person"]}).json()
    path = f"/projects/{project['id']}"
    longer = client.patch(path, json={"classes": ["car", "person", "bicycle"]})
    assert longer.json()["classes"] == ["car", "person", "bicycle"]
    for wrong in (["car"], ["person", "car", "bicycle"], ["dog", "car", "person", "bicycle"]):
        refused = client.patch(path, json={"classes": wrong})
        assert refused.status_code == 409
        assert refused.json()["code"] == "classes_append_only"
        assert "must begin with car, person, bicycle" in refused.json()["detail"]
    assert client.get(path).json()["classes"] == ["car", "person", "bicycle"]


def test_a_patch_changes_what_it_names_and_nothing_else(client: TestClient) -> None:
    project = client.post(
        "/projects", json={"name": "p", "classes": ["car"], "instructions": "old"}
    ).json()
    client.post("/projects", json={"name": "q", "classes": ["car"]})
    path = f"/projects/{project['id']}"
    changed = client.patch(path, json={"instructions": "new", "validation_images": 3}).json()
    assert changed == {**project, "instructions": "new", "validation_images": 3}
    assert client.patch(path, json={"name": "q"}).status_code == 409
    assert client.get(path).json()["name"] == "p"


@on_sqlite
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"name": "p"}, "Field required"),
        ({"name": "p", "classes": []}, "at least 1 item"),
        ({"name": "p", "classes": ["car", "car"]}, "class 'car' stands twice"),
        ({"name": " ", "classes": ["car"]}, "at least 1 character"),
        ({"name": "a\x00b", "classes": ["car"]}, "control character"),
        ({"name": "\ud800", "classes": ["car"]}, "valid"),
        ({"name": "p", "classes": ["car"], "validation_images": -1}, "greater than or equal to 0"),
        ({"name": "p", "classes": ["car"], "validation_images": 2**40}, "less than or equal"),
        ({"name": "p", "classes": ["car"], "colour": "red"}, "not permitted"),
        ({"name": "p", "classes": ["car"], "cycle_defaults": {"budget": 0}}, "greater than"),
        (
            {"name": "p", "classes": ["car"], "cycle_defaults": {"strategy": {"name": "best"}}},
            "mi-aod",
        ),
    ],
)
def test_a_malformed_project_is_refused_field_by_field(
    client: TestClient, body: dict[str, object], words: str
) -> None:
    import json

    answer = client.post(
        "/projects", content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422
    error = answer.json()
    assert error["code"] == "invalid_request"
    assert words in " ".join(problem["msg"] for problem in error["detail"])


@on_sqlite
def test_training_defaults_that_cannot_be_are_refused_when_they_are_set(
    client: TestClient,
) -> None:
    body = {
        "name": "p",
        "classes": ["car"],
        "cycle_defaults": {"training": {"preset": "cpu", "learning_rte": 0.1}},
    }
    answer = client.post("/projects", json=body)
    assert answer.status_code == 422
    assert "did you mean learning_rate" in answer.json()["detail"]


def test_projects_come_in_pages_and_are_counted_on_request(client: TestClient) -> None:
    names = [f"p{number}" for number in range(5)]
    for name in names:
        client.post("/projects", json={"name": name, "classes": ["car"]})
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": 2, "count": True, **({"cursor": cursor} if cursor else {})}
        page = client.get("/projects", params=params).json()
        assert page["total"] == 5
        seen += [project["name"] for project in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == names
    assert client.get("/projects").json()["total"] is None


@on_sqlite
@pytest.mark.parametrize("cursor", ["?", "e30", "W10", "WyJpbWFnZXMub3JkaW5hbCIsIDFd", "ÿ"])
def test_a_cursor_that_is_not_of_this_list_is_refused(client: TestClient, cursor: str) -> None:
    answer = client.get("/projects", params={"cursor": cursor})
    assert answer.status_code == 422
    assert answer.json()["code"] == "bad_cursor"


@on_sqlite
@pytest.mark.parametrize("limit", [0, 1001, "many"])
def test_a_page_has_between_one_and_a_thousand_items(client: TestClient, limit: object) -> None:
    assert client.get("/projects", params={"limit": str(limit)}).status_code == 422


def test_a_commit_that_fails_is_never_answered_as_a_success(
    client: TestClient, context: Context
) -> None:
    def fail(session: Session) -> None:
        raise OperationalError("COMMIT", {}, Exception("connection lost"))

    event.listen(context.sessions, "before_commit", fail)
    answer = client.post("/projects", json={"name": "p", "classes": ["car"]})
    event.remove(context.sessions, "before_commit", fail)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert client.get("/projects").json()["items"] == []


@on_sqlite
def test_a_refusal_is_our_sentence_without_the_validators_preface(client: TestClient) -> None:
    body = {"name": "p", "classes": ["car", "car"]}
    (problem,) = client.post("/projects", json=body).json()["detail"]
    assert problem["msg"] == "class 'car' stands twice in the list"
