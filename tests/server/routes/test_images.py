from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow
from starlette.testclient import TestClient

from server.deps import Context
from server.main import create_app
from server.settings import Settings

Pool = Any
Scribe = Any
Picture = Callable[..., bytes]

# What is refused before any table is asked need not be tried on both databases.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def upload(
    client: TestClient, project: str, *files: tuple[str, bytes], split: str = "pool"
) -> list[dict[str, Any]]:
    answer = client.post(
        "/images",
        data={"project": project, "split": split},
        files=[("files", (name, content)) for name, content in files],
    )
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def test_an_uploaded_picture_comes_back_byte_for_byte(
    client: TestClient, pool: Pool, picture: Picture
) -> None:
    content = picture(1, 64, 48, "JPEG")
    (item,) = upload(client, pool.project, ("street/0001.jpg", content))
    assert item["status"] == "created"
    image = client.get(f"/images/{item['id']}").json()
    assert image["name"] == "street/0001.jpg"
    assert (image["width"], image["height"]) == (64, 48)
    assert image["media_type"] == "image/jpeg"
    assert image["sha256"] == hashlib.sha256(content).hexdigest()
    assert (image["split"], image["state"], image["ordinal"]) == ("pool", "unlabeled", 0)
    answer = client.get(image["content_url"])
    assert answer.content == content
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith("inline")
    again = client.get(image["content_url"], headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_every_file_of_a_batch_gets_its_own_answer_and_the_good_ones_are_kept(
    client: TestClient, pool: Pool, picture: Picture
) -> None:
    good, other = picture(1), picture(2)
    upload(client, pool.project, ("a.png", good))
    items = upload(
        client,
        pool.project,
        ("b.png", good),
        ("a.png", other),
        ("c.png", other),
        ("d.png", other),
        ("e.txt", b"no picture at all"),
        ("f.png", other[:40]),
        ("../g.png", picture(3)),
        ("/h.png", picture(4)),
        ("i.png", b""),
        ("j.png", picture(5)),
    )
    assert [item["status"] for item in items] == [
        "duplicate",
        "rejected",
        "created",
        "duplicate",
        "rejected",
        "rejected",
        "rejected",
        "rejected",
        "rejected",
        "created",
    ]
    assert items[0]["reason"] == "the same bytes as a.png"
    assert "taken by another picture" in items[1]["reason"]
    assert items[3]["id"] == items[2]["id"]
    assert all(
        item["id"] is None and item["reason"] for item in items if item["status"] == "rejected"
    )
    listed = client.get("/images", params={"project": pool.project}).json()["items"]
    assert [(image["name"], image["ordinal"]) for image in listed] == [
        ("a.png", 0),
        ("c.png", 1),
        ("j.png", 2),
    ]


def test_the_same_picture_in_another_split_is_rejected(
    client: TestClient, pool: Pool, picture: Picture
) -> None:
    upload(client, pool.project, ("a.png", picture(1)))
    (item,) = upload(client, pool.project, ("a.png", picture(1)), split="val")
    assert item["status"] == "rejected"
    assert "in split pool as a.png" in item["reason"]


def test_two_projects_may_hold_the_same_picture(
    client: TestClient, pool: Pool, picture: Picture
) -> None:
    other = client.post("/projects", json={"name": "other", "classes": ["x"]}).json()["id"]
    (first,) = upload(client, pool.project, ("a.png", picture(1)))
    (second,) = upload(client, other, ("a.png", picture(1)))
    assert second["status"] == "created"
    assert first["id"] != second["id"]


def test_a_deleted_image_is_gone_at_once_and_its_name_and_bytes_are_free(
    client: TestClient, pool: Pool, picture: Picture
) -> None:
    (item,) = upload(client, pool.project, ("a.png", picture(1)))
    path = f"/images/{item['id']}"
    assert client.delete(path).status_code == 204
    for url in (path, f"{path}/content", f"{path}/thumbnail", f"{path}/annotations"):
        assert client.get(url).status_code == 404
    assert client.delete(path).status_code == 404
    (again,) = upload(client, pool.project, ("a.png", picture(1)))
    assert again["status"] == "created"
    assert client.get(f"/images/{again['id']}").json()["ordinal"] == 1


def test_nothing_stays_in_the_temporary_folder_after_an_upload(
    client: TestClient, pool: Pool, picture: Picture, data_dir: Path
) -> None:
    upload(client, pool.project, ("a.png", picture(1)), ("b.txt", b"nothing"))
    assert list((data_dir / "tmp").iterdir()) == []
    assert sum(path.is_file() for path in (data_dir / "blobs").rglob("*")) == 1


@on_sqlite
def test_names_of_any_script_survive(client: TestClient, pool: Pool, picture: Picture) -> None:
    name = "straße/東京 100%.png"
    (item,) = upload(client, pool.project, (name, picture(1)))
    assert client.get(f"/images/{item['id']}").json()["name"] == name
    header = client.get(f"/images/{item['id']}/content").headers["content-disposition"]
    assert "filename*=UTF-8''%E6%9D%B1%E4%BA%AC%20100%25.png" in header
    found = client.get("/images", params={"project": pool.project, "name": name}).json()["items"]
    assert [image["id"] for image in found] == [item["id"]]


@on_sqlite
@pytest.mark.parametrize(
    ("data", "with_file", "status"),
    [
        ({}, True, 422),
        ({"project": "street"}, True, 422),
        ({"project": "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e"}, True, 404),
        ({"split": "train"}, True, 422),
        ({"colour": "red"}, True, 422),
        ({}, False, 422),
    ],
)
def test_a_form_that_says_too_little_or_too_much_is_refused_with_a_sentence(
    client: TestClient,
    pool: Pool,
    picture: Picture,
    data: dict[str, str],
    with_file: bool,
    status: int,
) -> None:
    if data and "project" not in data:
        data = {"project": pool.project, **data}
    files = [("files", ("a.png", picture(1)))] if with_file else [("project", (None, pool.project))]
    answer = client.post("/images", data=data, files=files)
    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)


@on_sqlite
def test_a_body_that_is_no_form_is_a_415_and_a_broken_one_a_400(
    client: TestClient, pool: Pool
) -> None:
    assert client.post("/images", json={"project": pool.project}).status_code == 415
    kind = {"content-type": "multipart/form-data; boundary=x"}
    cut = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nabc'
    for body in (b"", b"nonsense", cut):
        answer = client.post("/images", content=body, headers=kind)
        assert answer.status_code == 400, body
        assert answer.json()["code"] == "bad_request"


@on_sqlite
def test_a_file_over_the_limit_is_rejected_by_name_and_the_others_are_kept(
    settings: Settings, picture: Picture
) -> None:
    small, big = picture(1), picture(2) + b"\0" * 3000
    limited = settings.model_copy(update={"max_upload_bytes": 2000, "max_upload_files": 3})
    with TestClient(create_app(limited), base_url="http://127.0.0.1") as client:
        project = client.post("/projects", json={"name": "p", "classes": ["x"]}).json()["id"]
        items = upload(client, project, ("big.png", big), ("small.png", small))
        assert [item["status"] for item in items] == ["rejected", "created"]
        assert "2,000 bytes" in items[0]["reason"]
        too_many = client.post(
            "/images",
            data={"project": project},
            files=[("files", (f"{i}.png", picture(i))) for i in range(4)],
        )
        assert too_many.status_code == 413
        assert too_many.json()["code"] == "too_many_files"


@on_sqlite
def test_a_picture_over_the_pixel_limit_is_rejected(settings: Settings, picture: Picture) -> None:
    limited = settings.model_copy(update={"max_image_pixels": 100})
    with TestClient(create_app(limited), base_url="http://127.0.0.1") as client:
        project = client.post("/projects", json={"name": "p", "classes": ["x"]}).json()["id"]
        (item,) = upload(client, project, ("a.png", picture(1)))
        assert item["status"] == "rejected"
        assert "100" in item["reason"]


@on_sqlite
def test_renditions_are_upright_bounded_and_cached(client: TestClient, pool: Pool) -> None:
    picture = Pillow.new("RGB", (3000, 1000), "red")
    exif = Pillow.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", exif=exif)
    (item,) = upload(client, pool.project, ("a.jpg", buffer.getvalue()))
    image = client.get(f"/images/{item['id']}").json()
    assert (image["width"], image["height"]) == (1000, 3000)
    shown = client.get(image["content_url"], params={"rendition": "display"})
    assert Pillow.open(io.BytesIO(shown.content)).size == (683, 2048)
    small = client.get(image["thumbnail_url"])
    assert max(Pillow.open(io.BytesIO(small.content)).size) == 256
    for answer in (shown, small):
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = client.get(answer.url, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
    assert small.headers["etag"] != shown.headers["etag"]


def test_an_image_whose_bytes_are_lost_is_a_404_that_says_so(
    client: TestClient, pool: Pool, context: Context
) -> None:
    (image_id,) = pool.upload(1)
    context.blobs.delete(client.get(f"/images/{image_id}").json()["sha256"])
    for path in ("content", "content?rendition=display", "thumbnail"):
        answer = client.get(f"/images/{image_id}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "blob_missing")


def test_images_are_filtered_by_split_state_class_and_skip(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    first, second, third = pool.upload(3)
    (validation,) = pool.upload(1, split="val", start=10)
    pool.label(second)
    pool.label(validation, [{"class": "person", "x1": 0, "y1": 0, "x2": 5, "y2": 5}])

    def ids(**filters: object) -> list[str]:
        params = {"project": pool.project, **{key: str(value) for key, value in filters.items()}}
        return [image["id"] for image in client.get("/images", params=params).json()["items"]]

    assert ids() == [first, second, third, validation]
    assert ids(split="pool") == [first, second, third]
    assert ids(split="test") == []
    assert ids(state="labeled") == [second, validation]
    assert ids(**{"class": "car"}) == [second]
    assert ids(**{"class": "person", "split": "val"}) == [validation]
    scribe.run(pool.start_cycle(budget=1))
    (query,) = pool.queries()
    client.post(f"/queries/{query['id']}/skip", json={"reason": "blurred"})
    assert ids(skipped=True) == [first]
    assert first not in ids(skipped=False)
    unknown = client.get("/images", params={"project": pool.project, "class": "dog"})
    assert unknown.status_code == 422
    assert "it has car, person" in unknown.json()["detail"]


def test_pages_sorted_by_uncertainty_go_down_and_end_with_the_unscored(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    ids = pool.upload(7)
    pool.label(ids[0])
    scribe.run(pool.start_cycle(budget=2))
    pool.upload(1, start=20)
    seen: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        params = {"project": pool.project, "sort": "uncertainty", "limit": "3"}
        page = client.get("/images", params={**params, **({"cursor": cursor} if cursor else {})})
        seen += page.json()["items"]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert len({image["id"] for image in seen}) == len(seen) == 8
    known = [image["uncertainty"] for image in seen if image["uncertainty"] is not None]
    assert known == sorted(known, reverse=True)
    assert len(known) == 6
    assert [image["ordinal"] for image in seen[6:]] == [0, 7]
    one = client.get(f"/images/{ids[1]}").json()
    assert one["uncertainty"] == known[0]


def test_moving_an_image_out_of_the_pool_withdraws_its_query(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(3)
    scribe.run(pool.start_cycle(budget=2))
    first, second = pool.queries()
    moved = client.patch(f"/images/{first['image']['id']}", json={"split": "test"})
    assert moved.json()["split"] == "test"
    assert [query["id"] for query in pool.queries()] == [second["id"]]
    (withdrawn,) = pool.queries(state="withdrawn")
    assert withdrawn["id"] == first["id"]


def test_an_image_that_an_annotator_holds_cannot_be_moved(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(1)
    scribe.run(pool.start_cycle(budget=1))
    claim = client.post("/queries/claim", json={"project": pool.project, "author": "ana"}).json()
    image_id = claim["items"][0]["image"]["id"]
    answer = client.patch(f"/images/{image_id}", json={"split": "val"})
    assert (answer.status_code, answer.json()["code"]) == (409, "claimed")
    assert "claimed by ana" in answer.json()["detail"]


def test_deleting_an_image_withdraws_its_query(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(2)
    scribe.run(pool.start_cycle(budget=2))
    first, second = pool.queries()
    client.delete(f"/images/{first['image']['id']}")
    assert [query["id"] for query in pool.queries(state="all")] == [second["id"]]
    assert client.get(f"/queries/{first['id']}").status_code == 404


def test_predictions_are_those_of_the_newest_model_best_first(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    labeled, unlabeled = pool.upload(2)
    path = f"/images/{unlabeled}/predictions"
    assert client.get(path).json() == {"image": unlabeled, "cycle": None, "predictions": None}
    pool.label(labeled)
    cycle = pool.start_cycle(budget=1)
    scribe.run(cycle)
    found = client.get(path).json()
    assert found["cycle"] == cycle
    assert [(box["class"], box["score"]) for box in found["predictions"]] == [
        ("car", 0.75),
        ("person", 0.5),
    ]


def test_uploads_at_the_same_time_make_each_picture_once_and_leave_no_gap(
    client: TestClient, pool: Pool, picture: Picture
) -> None:
    def send(sender: int) -> list[dict[str, Any]]:
        files = [(f"{number}.png", picture(number)) for number in range(sender, sender + 4)]
        return upload(client, pool.project, *files)

    with ThreadPoolExecutor(4) as threads:
        items = [item for each in threads.map(send, range(4)) for item in each]
    statuses = [item["status"] for item in items]
    assert (statuses.count("created"), statuses.count("duplicate")) == (7, 9)
    images = client.get("/images", params={"project": pool.project}).json()["items"]
    assert [image["ordinal"] for image in images] == list(range(7))


@pytest.mark.parametrize("value", [0, 0.0, "false", True, [False]])
def test_only_false_itself_un_skips(pool: Any, value: Any) -> None:
    (image,) = pool.upload(1)
    answer = pool.client.patch(f"/images/{image}", json={"skipped": value})
    assert answer.status_code == 422


def test_a_range_of_a_picture_is_served_and_one_outside_is_refused(pool: Any) -> None:
    (image,) = pool.upload(1)
    part = pool.client.get(f"/images/{image}/content", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"\x89PNG")
    outside = pool.client.get(f"/images/{image}/content", headers={"Range": "bytes=99999-"})
    assert (outside.status_code, outside.json()["code"]) == (416, "range_not_satisfiable")
