"""A server whose disk fills up: what it answers, what it keeps, and how it goes on."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image as Picture
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import OperationalError

from server.store.blobs import BlobStore
from server.store.database import make_engine, session_factory
from server.store.models import Image, Json
from tests.outages.processes import Server, StartServer, eventually
from tests.outages.small_disk import SmallDisk, files_in, pinned_log

BOX = {"class": "car", "x1": 1, "y1": 2, "x2": 11, "y2": 12}
BIG_SIDE = 1400


def picture(number: int, side: int = 32) -> bytes:
    """A bitmap, whose size follows from its side: three bytes a pixel."""
    file = io.BytesIO()
    Picture.new("RGB", (side, side), (number, 99, 7)).save(file, "BMP")
    return file.getvalue()


def upload(server: Server, project: str, **files: bytes) -> httpx2.Response:
    parts = [("files", (f"{name}.bmp", data, "image/bmp")) for name, data in files.items()]
    return server.http.post("/images", data={"project": project}, files=parts)


def make_project(server: Server) -> str:
    made = server.post("/projects", {"name": "street", "classes": ["car"]})
    project: str = made["id"]
    return project


def label(server: Server, image_id: str, version: int) -> httpx2.Response:
    body = {"version": version, "boxes": [{**BOX, "x2": 11 + version}]}
    return server.http.put(f"/images/{image_id}/annotations", json=body)


def test_a_full_disk_refuses_uploads_and_keeps_every_annotation_that_was_answered(
    disk: SmallDisk, start_server: StartServer, engine: Engine, is_sqlite: bool
) -> None:
    server = start_server()
    project = make_project(server)
    first = upload(server, project, **{f"p{number}": picture(number) for number in range(8)})
    ids = [item["id"] for item in first.json()["items"]]

    # Room for some, but not for all of a batch: each file is answered on its own.
    disk.fill(leave_bytes=4_000_000)
    answer = upload(server, project, big=picture(60, BIG_SIDE), small=picture(61))
    assert answer.status_code == 200, answer.text
    big, small = answer.json()["items"]
    assert (big["status"], small["status"]) == ("rejected", "created")
    assert big["reason"] == "the server's storage is full: send this file again once there is room"

    disk.fill()
    stored = set(BlobStore(disk.path).iter_all())
    answer = upload(server, project, a=picture(70), b=picture(71))
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert answer.json()["request_id"]
    assert not files_in(disk.path / "tmp")
    assert set(BlobStore(disk.path).iter_all()) == stored

    versions = dict.fromkeys(ids, 0)
    statuses = set()

    def label_all() -> None:
        for image_id in ids:
            answer = label(server, image_id, versions[image_id])
            statuses.add(answer.status_code)
            if answer.status_code == 200:
                versions[image_id] = answer.json()["version"]
            else:
                assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")

    label_all()
    if is_sqlite:
        with pinned_log(engine):
            label_all()
        assert 507 in statuses
    else:
        assert statuses == {200}

    # It lives, says what is wrong, and can be read.
    assert server.http.get("/healthz").status_code == 200
    ready = server.http.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"]["free_space"]["ok"] is False
    assert server.http.get(f"/images/{ids[0]}/content").content == picture(0)

    # It also stops and starts on a full disk.
    server.running.stop()
    server = start_server()
    disk.make_room()
    for image_id, version in versions.items():
        annotation = server.http.get(f"/images/{image_id}/annotations").json()
        assert annotation["version"] == version
        if version:
            assert annotation["boxes"][0]["x2"] == 10 + version
    for image_id in ids:
        assert label(server, image_id, versions[image_id]).status_code == 200
    answer = upload(server, project, big=picture(60, BIG_SIDE), a=picture(70), b=picture(71))
    assert [item["status"] for item in answer.json()["items"]] == ["created"] * 3
    assert all_blobs_are_whole(engine, disk.path)


def all_blobs_are_whole(engine: Engine, data_dir: Path) -> bool:
    blobs = BlobStore(data_dir)
    with session_factory(engine)() as session:
        images = session.execute(select(Image.sha256, Image.num_bytes)).all()
    return all(len(blobs.read_bytes(image.sha256)) == image.num_bytes for image in images)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A packed data set below an import root outside of the small disk: 6 of 6 MB each."""
    path = tmp_path / "roots" / "set.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as packed:
        for number in range(6):
            packed.writestr(f"images/{number}.bmp", picture(number, BIG_SIDE))
    return path


def test_an_import_waits_for_room_and_goes_on_also_in_another_server(
    disk: SmallDisk, start_server: StartServer, archive: Path, engine: Engine
) -> None:
    def start() -> Server:
        return start_server(MIAOD_IMPORT_ROOTS=str(archive.parent))

    def job() -> Json:
        found: Json = server.http.get(f"/imports/{job_id}").json()
        return found

    server = start()
    project = make_project(server)
    disk.fill(leave_bytes=20_000_000)
    asked = {"project": project, "path": str(archive), "labels": False}
    job_id = server.post("/imports", asked)["id"]
    eventually(lambda: "waiting: the disk is full (" in job()["message"])
    assert job()["state"] == "running"
    # While it waits, it takes no room for what it has unpacked.
    assert not files_in(disk.path / "tmp")
    server.running.stop()
    server = start()
    eventually(lambda: job()["state"] == "running" and "waiting" in job()["message"])
    disk.make_room()
    eventually(lambda: job()["state"] not in ("queued", "running"))
    ended = job()
    assert (ended["state"], ended["error"]) == ("succeeded", None)
    assert (ended["counts"]["created"], ended["counts"]["rejected"]) == (6, 0)
    assert not files_in(disk.path / "tmp")
    assert all_blobs_are_whole(engine, disk.path)


KILLED_AFTER_A_WRITE = """
import os, sys
from server.store.database import make_engine, session_factory
from server.store.models import Project
with session_factory(make_engine(sys.argv[1])).begin() as session:
    session.add(Project(name="street"))
os._exit(0)
"""


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_sqlite_connection_from_a_time_when_the_disk_was_read_only_does_not_stay_so(
    disk: SmallDisk, database_url: str
) -> None:
    # Killed: its write-ahead log stays, without which nothing is opened on a read-only disk.
    subprocess.run([sys.executable, "-c", KILLED_AFTER_A_WRITE, database_url], check=True)
    assert (disk.path / "miaod.db-wal").stat().st_size > 0
    disk.set_read_only(True)
    engine = make_engine(database_url)
    sessions = session_factory(engine)
    for _ in range(2):
        with pytest.raises(OperationalError), sessions.begin() as session:
            session.execute(text("UPDATE projects SET name = name"))
    disk.set_read_only(False)
    with sessions.begin() as session:
        session.execute(text("UPDATE projects SET name = name"))
    engine.dispose()


Put = Callable[[BlobStore, bytes], Any]


def put_from_a_spool(blobs: BlobStore, data: bytes) -> None:
    with blobs.spool() as file:
        file.write(data)
        file.flush()
        blobs.put_file(Path(file.name), move=True)


@pytest.mark.parametrize(
    "put",
    [
        BlobStore.put_bytes,
        lambda blobs, data: blobs.put_stream([data[:100], data[100:]]),
        put_from_a_spool,
    ],
    ids=["bytes", "stream", "spool"],
)
def test_a_blob_for_which_there_is_no_room_leaves_nothing_behind(disk: SmallDisk, put: Put) -> None:
    blobs = BlobStore(disk.path)
    before = blobs.put_bytes(b"before")
    disk.fill(leave_bytes=500_000)
    content = os.urandom(2_000_000)
    with pytest.raises(OSError, match="No space left"):
        put(blobs, content)
    assert not files_in(blobs.tmp_dir)
    assert [name for name, _ in blobs.iter_all()] == [before.sha256]
    disk.make_room()
    put(blobs, content)
    assert len(list(blobs.iter_all())) == 2
    assert files_in(disk.path / "tmp") == []
