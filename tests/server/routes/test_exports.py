from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest
from starlette.testclient import TestClient

Pool = Any
NOBODY = "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e"


def test_labels_come_out_as_coco_by_default(client: TestClient, pool: Pool) -> None:
    first, second, _ = pool.upload(3)
    pool.label(first)
    pool.label(second, [])
    answer = client.get("/exports", params={"project": pool.project})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert 'filename="street-coco.json"' in answer.headers["content-disposition"]
    content = json.loads(answer.content)
    assert [image["file_name"] for image in content["images"]] == ["0000.png", "0001.png"]
    assert [annotation["bbox"] for annotation in content["annotations"]] == [[1, 2, 10, 10]]
    assert [category["name"] for category in content["categories"]] == ["car", "person"]


@pytest.mark.parametrize("format", ["coco", "voc"])
def test_pictures_come_along_where_asked(client: TestClient, pool: Pool, format: str) -> None:
    (image,) = pool.upload(1)
    pool.label(image)
    answer = client.get(
        "/exports", params={"project": pool.project, "format": format, "images": "true"}
    )
    assert answer.headers["content-type"] == "application/zip"
    original = client.get(f"/images/{image}/content").content
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        folder = {"coco": "images", "voc": "JPEGImages"}[format]
        assert packed.read(f"{folder}/0000.png") == original


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"project": NOBODY}, 404),
        ({"project": "street"}, 422),
        ({}, 422),
        ({"project": NOBODY, "format": "yolo"}, 422),
        ({"project": NOBODY, "images": "some"}, 422),
    ],
)
def test_an_export_that_cannot_be_is_refused_in_the_common_form(
    client: TestClient, params: dict[str, str], status: int
) -> None:
    answer = client.get("/exports", params=params)
    assert answer.status_code == status
    assert answer.json()["request_id"]
