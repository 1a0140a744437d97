from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from server.deps import Context
from server.services.imports import ImportRunner
from server.settings import Settings

Pool = Any
Json = dict[str, Any]
Picture = Callable[..., bytes]
NOBODY = "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e"


@pytest.fixture
def settings(database_url: str, data_dir: Path, tmp_path: Path) -> Settings:
    (tmp_path / "roots").mkdir()
    return Settings.model_validate(
        {
            "data_dir": data_dir,
            "database_url": database_url,
            "admin_key": None,
            "import_roots": [tmp_path / "roots"],
            "max_archive_bytes": 100_000,
        }
    )


def archive_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return buffer.getvalue()


def send(client: TestClient, project: str, archive: bytes, **fields: str) -> Any:
    return client.post(
        "/imports",
        data={"project": project, **fields},
        files={"archive": ("data.zip", archive, "application/zip")},
    )


def run(context: Context) -> None:
    assert ImportRunner(context.sessions, context.blobs, context.settings).run_one()


def test_an_uploaded_archive_is_accepted_and_imported(
    client: TestClient, context: Context, pool: Pool, picture: Picture
) -> None:
    archive = archive_of({"a.png": picture(1), "street/b.png": picture(2), "c.png": b"none"})
    answer = send(client, pool.project, archive)
    assert answer.status_code == 202, answer.text
    accepted = answer.json()
    assert accepted["state"] == "queued"
    assert accepted["progress"] == 0
    assert answer.headers["location"] == f"/imports/{accepted['id']}"

    run(context)

    done = client.get(answer.headers["location"]).json()
    assert done["state"] == "succeeded"
    assert done["progress"] == 1
    assert done["counts"] == {
        "total": 3,
        "created": 2,
        "duplicate": 0,
        "rejected": 1,
        "labeled": 0,
        "boxes": 0,
    }
    assert done["num_refused"] == 1
    assert done["refused"][0]["name"] == "c.png"
    images = client.get("/images", params={"project": pool.project}).json()["items"]
    assert [image["name"] for image in images] == ["a.png", "street/b.png"]
    assert not list(context.blobs.tmp_dir.iterdir())


def test_a_folder_below_an_import_root_is_imported(
    client: TestClient, context: Context, pool: Pool, picture: Picture, tmp_path: Path
) -> None:
    (tmp_path / "roots" / "data").mkdir()
    (tmp_path / "roots" / "data" / "a.png").write_bytes(picture(1))
    body = {"project": pool.project, "path": str(tmp_path / "roots" / "data"), "split": "val"}
    answer = client.post("/imports", json=body)
    assert answer.status_code == 202, answer.text
    run(context)
    (image,) = client.get("/images", params={"project": pool.project}).json()["items"]
    assert (image["name"], image["split"]) == ("a.png", "val")


def test_form_fields_mean_what_the_json_fields_mean(
    client: TestClient, context: Context, pool: Pool, picture: Picture
) -> None:
    annotation = (
        "<annotation><object><name>lorry</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
        "<xmax>5</xmax><ymax>5</ymax></bndbox></object></annotation>"
    )
    archive = archive_of(
        {
            "JPEGImages/a.png": picture(1),
            "JPEGImages/b.png": picture(2),
            "Annotations/a.xml": annotation.encode(),
            "ImageSets/Main/mine.txt": b"a",
        }
    )
    answer = send(
        client,
        pool.project,
        archive,
        add_classes="true",
        splits='{"mine": "test"}',
        corners="zero-based",
        author="ana",
    )
    assert answer.status_code == 202, answer.text
    run(context)
    (image,) = client.get("/images", params={"project": pool.project}).json()["items"]
    assert image["split"] == "test"
    labels = client.get(f"/images/{image['id']}/annotations").json()
    assert labels["boxes"][0] == {
        "class": "lorry",
        "x1": 1,
        "y1": 1,
        "x2": 5,
        "y2": 5,
        "difficult": False,
    }
    assert (labels["author"], labels["source"]) == ("ana", "import")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"format": "yolo"}, "format"),
        ({"labels": "perhaps"}, "labels"),
        ({"splits": "{"}, "splits"),
        ({"splits": '{"train": "everywhere"}'}, "splits"),
        ({"colour": "red"}, "colour"),
        ({"project": "no id"}, "project"),
    ],
)
def test_a_malformed_field_is_a_422_that_names_it(
    client: TestClient, context: Context, pool: Pool, fields: dict[str, str], said: str
) -> None:
    answer = send(client, **{"project": pool.project, "archive": b"x", **fields})
    assert answer.status_code == 422
    assert said in str(answer.json()["detail"])
    assert not list(context.blobs.tmp_dir.iterdir())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"project": "%s", "path": "x", "labels": "yes"}' % NOBODY.encode(), 422),
        (b'{"project": "%s", "path": "x"}' % NOBODY.encode(), 404),
        (b"\xff", 400),
    ],
)
def test_a_malformed_json_body_is_refused(client: TestClient, body: bytes, status: int) -> None:
    answer = client.post("/imports", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.json()["request_id"]


def test_a_path_outside_the_import_roots_is_refused(
    client: TestClient, pool: Pool, tmp_path: Path
) -> None:
    answers = [
        client.post("/imports", json={"project": pool.project, "path": path}).json()
        for path in ("/etc", str(tmp_path), "../..", str(tmp_path / "roots" / "nowhere"))
    ]
    assert {answer["code"] for answer in answers} == {"outside_import_roots"}


def test_another_kind_of_body_is_a_415(client: TestClient) -> None:
    answer = client.post("/imports", content=b"x", headers={"content-type": "text/plain"})
    assert answer.status_code == 415


def test_an_archive_over_the_limit_is_refused(
    client: TestClient, context: Context, pool: Pool
) -> None:
    answer = send(client, pool.project, bytes(100_001))
    assert answer.status_code == 413
    assert not list(context.blobs.tmp_dir.iterdir())
    assert list(context.blobs.iter_all()) == []


def test_an_import_without_an_archive_is_a_422(client: TestClient, pool: Pool) -> None:
    files = {"picture": ("a.png", b"x")}
    answer = client.post("/imports", data={"project": pool.project}, files=files)
    assert answer.status_code == 422
    assert "archive" in answer.json()["detail"]


def test_the_refused_items_come_in_pages(client: TestClient, context: Context, pool: Pool) -> None:
    archive = archive_of({f"{i}.jpg": b"no picture %d" % i for i in range(5)})
    job = send(client, pool.project, archive).json()["id"]
    run(context)
    names: list[str] = []
    cursor = None
    while True:
        page: Json = client.get(
            f"/imports/{job}", params={"limit": 2, **({"cursor": cursor} if cursor else {})}
        ).json()
        assert page["num_refused"] == 5
        names += [item["name"] for item in page["refused"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert names == [f"{i}.jpg" for i in range(5)]


def test_an_import_of_a_deleted_project_is_gone(
    client: TestClient, context: Context, pool: Pool, picture: Picture
) -> None:
    job = send(client, pool.project, archive_of({"a.png": picture(1)})).json()["id"]
    assert client.delete(f"/projects/{pool.project}").status_code == 204
    assert client.get(f"/imports/{job}").status_code == 404
    assert not ImportRunner(context.sessions, context.blobs, context.settings).run_one()


def test_an_unknown_import_is_a_404(client: TestClient) -> None:
    assert client.get(f"/imports/{NOBODY}").status_code == 404
