from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from server.services.review import disagreement
from tests.server.conftest import Pool, Scribe

BOX = {"class_id": 0, "x1": 10.0, "y1": 10.0, "x2": 30.0, "y2": 30.0, "difficult": False}
SEEN = {"class_id": 0, "x1": 11.0, "y1": 10.0, "x2": 31.0, "y2": 30.0, "score": 0.8}


@pytest.mark.parametrize(
    ("boxes", "detections", "expected"),
    [
        ([BOX], [SEEN], 0.0),
        ([], [], 0.0),
        ([BOX], [], 1.0),
        ([{**BOX, "difficult": True}], [], 0.0),
        ([], [SEEN], 0.8),
        ([], [{**SEEN, "score": 0.2}], 0.0),
        ([BOX], [{**SEEN, "class_id": 1}], 1.8),
        ([BOX], [{**SEEN, "x1": 25.0, "x2": 45.0}], 1.8),
        ([BOX], [SEEN, {**SEEN, "score": 0.5}], 0.5),
        ([BOX, {**BOX, "x1": 12.0, "x2": 32.0}], [SEEN], 1.0),
    ],
)
def test_only_what_one_of_both_sees_counts(
    boxes: list[dict[str, object]], detections: list[dict[str, object]], expected: float
) -> None:
    assert disagreement(boxes, detections) == pytest.approx(expected)


def test_the_labels_that_the_model_contradicts_most_come_first(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    wrong, right, negative, unlabeled = pool.upload(4)
    # What the scribe's model sees: a car and a person, both at this place.
    there = {"x1": 1, "y1": 2, "x2": 9, "y2": 9}
    pool.label(wrong, [{"class": "person", "x1": 20, "y1": 20, "x2": 30, "y2": 29}])
    pool.label(right, [{"class": name, **there} for name in ("car", "person")])
    pool.label(negative, [])
    scribe.run(pool.start_cycle(budget=1))

    path = f"/projects/{pool.project}/review"
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    found = [(item["image"]["id"], item["disagreement"]) for item in answer.json()["items"]]
    assert found == [(wrong, 2.25), (negative, 1.25), (right, 0.0)]
    assert unlabeled not in dict(found)
    assert len(client.get(path, params={"limit": 1}).json()["items"]) == 1

    pool.label(wrong, [{"class": name, **there} for name in ("car", "person")])
    assert client.get(path).json()["items"][0]["image"]["id"] == negative
    client.delete(f"/images/{negative}")
    assert len(client.get(path).json()["items"]) == 2


def test_a_project_without_a_model_has_nothing_to_review(client: TestClient, pool: Pool) -> None:
    pool.label(pool.upload(1)[0])
    assert client.get(f"/projects/{pool.project}/review").json() == {"items": []}
    nowhere = "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e"
    assert client.get(f"/projects/{nowhere}/review").status_code == 404
