from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from server.deps import Context
from server.store.models import Annotation, ImageClass, ProjectClass

Pool = Any
Scribe = Any

CAR = {"class": "car", "x1": 12.5, "y1": 4, "x2": 30, "y2": 28}

# What is refused before any table is asked need not be tried on both databases.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def put(client: TestClient, image_id: str, body: dict[str, Any]) -> Any:
    # Not `json=`: the test client refuses NaN before the server can.
    return client.put(
        f"/images/{image_id}/annotations",
        content=json.dumps(body),
        headers={"content-type": "application/json"},
    )


def test_an_image_goes_from_unlabeled_to_labeled_and_back(client: TestClient, pool: Pool) -> None:
    (image_id,) = pool.upload(1)
    path = f"/images/{image_id}/annotations"
    empty = client.get(path).json()
    assert (empty["state"], empty["version"], empty["boxes"]) == ("unlabeled", 0, None)
    body = {"version": 0, "boxes": [CAR], "author": "ana", "seconds": 14.2}
    saved = put(client, image_id, body).json()
    assert (saved["state"], saved["version"]) == ("labeled", 1)
    assert saved["boxes"] == [{**CAR, "difficult": False}]
    assert (saved["author"], saved["seconds"], saved["source"]) == ("ana", 14.2, "human")
    assert saved["updated_at"].endswith("Z")
    assert client.get(path).json() == saved
    image = client.get(f"/images/{image_id}").json()
    assert (image["state"], image["num_boxes"], image["annotation_version"]) == ("labeled", 1, 1)
    cleared = client.delete(path).json()
    assert (cleared["state"], cleared["version"], cleared["boxes"]) == ("unlabeled", 2, None)
    assert client.delete(path).json() == cleared
    image = client.get(f"/images/{image_id}").json()
    assert (image["state"], image["num_boxes"], image["labeled_at"]) == ("unlabeled", 0, None)


def test_a_negative_is_labeled_and_has_no_box(client: TestClient, pool: Pool) -> None:
    (image_id,) = pool.upload(1)
    saved = put(client, image_id, {"version": 0, "boxes": []}).json()
    assert (saved["state"], saved["version"], saved["boxes"]) == ("labeled", 1, [])
    counts = client.get(f"/projects/{pool.project}").json()["counts"]
    assert (counts["labeled"], counts["boxes"]) == (1, 0)


def test_the_same_body_again_changes_nothing(
    client: TestClient, pool: Pool, context: Context
) -> None:
    (image_id,) = pool.upload(1)
    body = {"version": 0, "boxes": [CAR]}
    first = put(client, image_id, body)
    again = put(client, image_id, body)
    assert again.status_code == 200
    assert again.json() == first.json()
    with context.reading() as session:
        assert session.query(Annotation).count() == 1


def test_an_outdated_version_is_a_conflict_that_carries_what_is_stored(
    client: TestClient, pool: Pool
) -> None:
    (image_id,) = pool.upload(1)
    stored = put(client, image_id, {"version": 0, "boxes": [CAR], "author": "ana"}).json()
    for version in (0, 7):
        other = {"version": version, "boxes": [{**CAR, "class": "person"}], "author": "ben"}
        answer = put(client, image_id, other)
        assert answer.status_code == 409
        error = answer.json()
        assert error["code"] == "version_conflict"
        assert error["current"]["boxes"] == stored["boxes"]
        assert (error["current"]["version"], error["current"]["author"]) == (1, "ana")
    stale = client.delete(f"/images/{image_id}/annotations", params={"version": 0})
    assert stale.status_code == 409
    assert client.get(f"/images/{image_id}/annotations").json() == stored


def test_revisions_are_kept_and_say_who_and_how_many_classes_there_were(
    client: TestClient, pool: Pool, context: Context
) -> None:
    (image_id,) = pool.upload(1)
    put(client, image_id, {"version": 0, "boxes": [CAR], "author": "ana"})
    client.patch(f"/projects/{pool.project}", json={"classes": ["car", "person", "bicycle"]})
    put(client, image_id, {"version": 1, "boxes": [], "author": "ben", "source": "suggestion"})
    client.delete(f"/images/{image_id}/annotations", params={"author": "cleo"})
    with context.reading() as session:
        found = session.query(Annotation).order_by(Annotation.version).all()
    assert [(a.version, a.author, a.source, a.num_classes) for a in found] == [
        (1, "ana", "human", 2),
        (2, "ben", "suggestion", 3),
        (3, "cleo", "human", 3),
    ]
    assert [None if a.boxes is None else len(a.boxes) for a in found] == [1, 0, None]


def test_boxes_per_class_follow_every_revision(
    client: TestClient, pool: Pool, context: Context
) -> None:
    (image_id,) = pool.upload(1)

    def counted() -> dict[str, int]:
        with context.reading() as session:
            rows = (
                session.query(ProjectClass.name, ImageClass.num_boxes)
                .join(ImageClass, ImageClass.class_id == ProjectClass.class_id)
                .filter(ImageClass.image_id == image_id, ProjectClass.project_id == pool.project)
            )
            return {name: int(number) for name, number in rows}

    person = {**CAR, "class": "person"}
    put(client, image_id, {"version": 0, "boxes": [CAR, CAR, person]})
    assert counted() == {"car": 2, "person": 1}
    put(client, image_id, {"version": 1, "boxes": [person]})
    assert counted() == {"person": 1}
    client.delete(f"/images/{image_id}/annotations")
    assert counted() == {}


@on_sqlite
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"class": "dog"}, "box 2 of image 0000.png has class 'dog'; the project has car, person"),
        ({"x2": 12.5}, "box 2 of image 0000.png is [12.5, 4, 12.5, 28]: x2 must exceed x1"),
        ({"y2": 3}, "y2 must exceed y1"),
        ({"x1": -1}, "inside the upright image of 40 x 30 pixels"),
        ({"x2": 40.5}, "inside the upright image of 40 x 30 pixels"),
        ({"y2": 31}, "inside the upright image of 40 x 30 pixels"),
        ({"x1": math.nan}, "box 2 of image 0000.png is [nan, 4, 30, 28]: corners must be finite"),
        ({"y2": math.inf}, "corners must be finite"),
    ],
)
def test_a_box_that_cannot_be_is_refused_by_its_number_and_image(
    client: TestClient, pool: Pool, wrong: dict[str, Any], words: str
) -> None:
    (image_id,) = pool.upload(1)
    answer = put(client, image_id, {"version": 0, "boxes": [CAR, {**CAR, **wrong}]})
    assert answer.status_code == 422
    assert words in answer.json()["detail"]
    assert client.get(f"/images/{image_id}/annotations").json()["version"] == 0


@on_sqlite
@pytest.mark.parametrize(
    "body",
    [
        {"boxes": []},
        {"version": 0},
        {"version": "0", "boxes": []},
        {"version": -1, "boxes": []},
        {"version": 0, "boxes": None},
        {"version": 0, "boxes": [{"class": "car", "x1": 1, "y1": 1, "x2": 2}]},
        {"version": 0, "boxes": [{**CAR, "x1": "1"}]},
        {"version": 0, "boxes": [{**CAR, "label": "x"}]},
        {"version": 0, "boxes": [], "seconds": math.nan},
        {"version": 0, "boxes": [], "author": ""},
        {"version": 0, "boxes": [], "source": "machine"},
    ],
)
def test_a_malformed_annotation_is_refused_field_by_field(
    client: TestClient, pool: Pool, body: dict[str, Any]
) -> None:
    (image_id,) = pool.upload(1)
    answer = put(client, image_id, body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][0] == "body"


def test_a_box_may_fill_the_whole_image(client: TestClient, pool: Pool) -> None:
    (image_id,) = pool.upload(1)
    whole = {"class": "car", "x1": 0, "y1": 0, "x2": 40, "y2": 30, "difficult": True}
    saved = put(client, image_id, {"version": 0, "boxes": [whole]})
    assert saved.json()["boxes"] == [whole]


def test_saving_closes_the_query_of_the_image_and_ends_a_skip(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(2)
    scribe.run(pool.start_cycle(budget=2))
    first, second = pool.queries()
    pool.label(first["image"]["id"])
    assert [query["id"] for query in pool.queries(state="labeled")] == [first["id"]]
    client.post(f"/queries/{second['id']}/skip", json={"reason": "dark"})
    image_id = second["image"]["id"]
    assert client.get(f"/images/{image_id}").json()["skip_reason"] == "dark"
    pool.label(image_id, [])
    image = client.get(f"/images/{image_id}").json()
    assert (image["skipped"], image["skip_reason"], image["state"]) == (False, None, "labeled")


def test_an_image_under_a_claim_is_saved_only_with_its_token(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(1)
    scribe.run(pool.start_cycle(budget=1))
    claim = client.post("/queries/claim", json={"project": pool.project, "author": "ana"}).json()
    (query,) = claim["items"]
    image_id = query["image"]["id"]
    body = {"version": query["image"]["annotation_version"], "boxes": [CAR]}
    for refused in (body, {**body, "claim_token": "someone-elses"}):
        answer = put(client, image_id, refused)
        assert (answer.status_code, answer.json()["code"]) == (409, "claimed")
    mine = {**body, "claim_token": claim["claim_token"]}
    saved = put(client, image_id, mine)
    assert saved.status_code == 200
    assert put(client, image_id, mine).json() == saved.json()
    assert client.get(f"/queries/{query['id']}").json()["state"] == "labeled"
    assert put(client, image_id, {"version": 1, "boxes": []}).status_code == 200


def test_of_two_who_save_at_the_same_time_one_gets_a_conflict(
    client: TestClient, pool: Pool
) -> None:
    (image_id,) = pool.upload(1)
    bodies = [
        {"version": 0, "boxes": [{**CAR, "x1": float(number)}], "author": f"a{number}"}
        for number in range(6)
    ]
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda body: put(client, image_id, body), bodies))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409, 409]
    winner = next(answer.json() for answer in answers if answer.status_code == 200)
    assert client.get(f"/images/{image_id}/annotations").json() == winner
