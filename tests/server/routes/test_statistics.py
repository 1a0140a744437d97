from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from tests.server.conftest import Pool

CAR = {"class": "car", "x1": 1, "y1": 2, "x2": 11, "y2": 12}
PERSON = {**CAR, "class": "person"}
NOBODY = "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e"


def test_labels_are_counted_by_class_and_by_author(client: TestClient, pool: Pool) -> None:
    first, second, third, fourth, gone = pool.upload(5)
    pool.label(first, [CAR, CAR], author="ana", seconds=4.0)
    pool.label(second, [CAR, PERSON], author="ana", seconds=10.0)
    pool.label(third, [], author="ana", seconds=1.0)
    pool.label(first, [CAR], author="ben")
    pool.label(fourth, [PERSON], author="ben", source="import")
    pool.label(gone, [PERSON], author="ana")
    assert client.delete(f"/images/{gone}").status_code == 204

    found = client.get(f"/projects/{pool.project}/statistics").json()
    by_class = {row["class"]: (row["boxes"], row["images"]) for row in found["classes"]}
    assert by_class == {"car": (2, 2), "person": (2, 2)}
    assert found["imported"] == 1
    ana, ben = found["authors"]
    assert ana.pop("last_at") < ben.pop("last_at")
    assert ana == {
        "author": "ana",
        "annotations": 3,
        "images": 2,
        "boxes": 2,
        "seconds_median": 4.0,
        "seconds_mean": 5.0,
    }
    assert ben == {
        "author": "ben",
        "annotations": 1,
        "images": 1,
        "boxes": 1,
        "seconds_median": None,
        "seconds_mean": None,
    }


@pytest.mark.parametrize(
    ("seconds", "median"), [([3.0], 3.0), ([1.0, 9.0], 5.0), ([9.0, 1.0, 2.0, None, 4.0], 3.0)]
)
def test_the_median_is_of_the_times_that_are_known(
    client: TestClient, pool: Pool, seconds: list[float | None], median: float
) -> None:
    for image, spent in zip(pool.upload(len(seconds)), seconds, strict=True):
        pool.label(image, [], author="ana", **({} if spent is None else {"seconds": spent}))
    (author,) = client.get(f"/projects/{pool.project}/statistics").json()["authors"]
    assert author["seconds_median"] == median


def test_a_project_without_labels_has_its_classes_and_no_author(
    client: TestClient, pool: Pool
) -> None:
    found = client.get(f"/projects/{pool.project}/statistics").json()
    assert [row["boxes"] for row in found["classes"]] == [0, 0]
    assert found["authors"] == []
    assert client.get(f"/projects/{NOBODY}/statistics").status_code == 404
