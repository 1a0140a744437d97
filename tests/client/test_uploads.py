"""Many files to the server."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import miaod_client
import pytest
from miaod_client import Client, ImageFile, UploadProgress

MakeClient = Callable[..., Client]


class ImageServer:
    """Takes multipart uploads; remembers the names of each request and what the files held."""

    def __init__(self, max_request_bytes: int = 10**9) -> None:
        self.batches: list[list[str]] = []
        self.contents: dict[str, bytes] = {}
        self.fields: dict[str, str] = {}
        self._max_request_bytes = max_request_bytes

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        assert "content-length" in request.headers  # so that a stranger's body can be refused early
        body = request.read()
        if len(body) > self._max_request_bytes:
            return httpx2.Response(413, json={"detail": "too many bytes", "code": "too_large"})
        boundary = request.headers["content-type"].partition("boundary=")[2].encode()
        names = []
        for part in body.split(b"--" + boundary)[1:-1]:
            head, _, content = part.strip(b"\r\n").partition(b"\r\n\r\n")
            found = re.search(rb'name="(\w+)"(?:; filename="(.*?)")?', head)
            assert found is not None
            if found[2] is None:
                self.fields[found[1].decode()] = content.decode()
            else:
                assert found[1] == b"files"
                names.append(found[2].decode())
                self.contents[names[-1]] = content
        self.batches.append(names)
        items = [
            {"name": name, "status": "created", "id": f"id-{name}", "reason": None}
            for name in names
        ]
        return httpx2.Response(200, json={"items": items, "created": len(items)})


def write_files(folder: Path, *names: str, size: int = 10) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode().ljust(size, b"."))
    return paths


def test_files_arrive_whole_with_project_and_split(make_client: MakeClient, tmp_path: Path) -> None:
    paths = write_files(tmp_path, "a.jpg", "b.png", size=200_000)
    server = ImageServer()
    report = make_client(server).images.upload(project="p1", paths=paths, split="val")
    assert server.fields == {"project": "p1", "split": "val"}
    assert server.contents == {path.name: path.read_bytes() for path in paths}
    assert [(item.name, item.id) for item in report.items] == [
        ("a.jpg", "id-a.jpg"),
        ("b.png", "id-b.png"),
    ]
    assert len(report.created) == 2


def test_a_folder_gives_its_images_under_their_relative_names(
    make_client: MakeClient, tmp_path: Path
) -> None:
    write_files(tmp_path, "b.JPG", "sub/a.png", "notes.txt", ".hidden.jpg", ".cache/c.jpg")
    server = ImageServer()
    make_client(server).images.upload(project="p1", paths=tmp_path)
    assert server.batches == [["b.JPG", "sub/a.png"]]


def test_a_file_can_be_given_a_name_of_its_own(make_client: MakeClient, tmp_path: Path) -> None:
    (path,) = write_files(tmp_path, "0001.jpg")
    server = ImageServer()
    make_client(server).images.upload(
        project="p1", paths=ImageFile(path=path, name="north gate/übersicht 1.jpg")
    )
    assert server.batches == [["north gate/übersicht 1.jpg"]]


def test_batches_are_bounded_by_files_and_by_bytes(make_client: MakeClient, tmp_path: Path) -> None:
    small = write_files(tmp_path, "1.jpg", "2.jpg", "3.jpg", size=10)
    large = write_files(tmp_path, "4.jpg", "5.jpg", size=90)
    server = ImageServer()
    make_client(server).images.upload(
        project="p1", paths=[*small, *large], batch_files=2, batch_bytes=100
    )
    assert server.batches == [["1.jpg", "2.jpg"], ["3.jpg", "4.jpg"], ["5.jpg"]]


def test_progress_counts_bytes_and_files_up_to_the_end(
    make_client: MakeClient, tmp_path: Path
) -> None:
    paths = write_files(tmp_path, "1.jpg", "2.jpg", "3.jpg", size=100_000)
    seen: list[UploadProgress] = []
    make_client(ImageServer()).images.upload(
        project="p1", paths=paths, batch_files=2, on_progress=seen.append
    )
    assert seen[-1] == UploadProgress(
        files_done=3, files_total=3, bytes_sent=300_000, bytes_total=300_000
    )
    assert len({progress.bytes_sent for progress in seen}) > 3


def test_a_batch_is_sent_again_whole_and_not_counted_twice(
    make_client: MakeClient, tmp_path: Path
) -> None:
    paths = write_files(tmp_path, "1.jpg", "2.jpg", size=100_000)
    server = ImageServer()
    failures = [httpx2.ReadError("reset")]
    seen: list[UploadProgress] = []

    def flaky(request: httpx2.Request) -> httpx2.Response:
        request.read()
        if failures:
            raise failures.pop()
        return server(request)

    make_client(flaky).images.upload(project="p1", paths=paths, on_progress=seen.append)
    assert server.contents == {path.name: path.read_bytes() for path in paths}
    assert seen[-1].bytes_sent == 200_000


def test_a_batch_that_is_too_large_is_sent_file_by_file(
    make_client: MakeClient, tmp_path: Path
) -> None:
    paths = [
        *write_files(tmp_path, "1.jpg", "2.jpg", size=1_000),
        *write_files(tmp_path, "huge.jpg", size=9_000),
    ]
    server = ImageServer(max_request_bytes=2_500)
    seen: list[UploadProgress] = []
    report = make_client(server).images.upload(project="p1", paths=paths, on_progress=seen.append)
    assert [item.status for item in report.items] == ["created", "created", "rejected"]
    assert report.rejected[0].reason == "too many bytes"
    assert seen[-1].files_done == 3


def test_a_file_that_cannot_be_read_is_reported_and_the_rest_is_sent(
    make_client: MakeClient, tmp_path: Path
) -> None:
    first, last = write_files(tmp_path, "1.jpg", "3.jpg")
    gone = ImageFile(path=tmp_path / "gone.jpg", name="2.jpg")
    report = make_client(ImageServer()).images.upload(project="p1", paths=[first, gone, last])
    assert [(item.name, item.status) for item in report.items] == [
        ("1.jpg", "created"),
        ("2.jpg", "rejected"),
        ("3.jpg", "created"),
    ]
    assert report.rejected[0].reason == "cannot be read: No such file or directory"


def test_nothing_is_sent_where_a_path_does_not_exist(
    make_client: MakeClient, tmp_path: Path
) -> None:
    server = ImageServer()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        make_client(server).images.upload(
            project="p1", paths=[*write_files(tmp_path, "1.jpg"), tmp_path / "nowhere"]
        )
    assert server.batches == []


@pytest.mark.parametrize("paths", [[], "folder"])
def test_nothing_to_upload_is_an_error(
    paths: Any, make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"nothing to upload|no image files"):
        make_client(ImageServer()).images.upload(project="p1", paths=paths)


def test_an_answer_for_another_number_of_files_is_not_believed(
    make_client: MakeClient, tmp_path: Path
) -> None:
    paths = write_files(tmp_path, "1.jpg", "2.jpg")
    one = {"items": [{"name": "1.jpg", "status": "created", "id": "i", "reason": None}]}
    client = make_client(lambda request: httpx2.Response(200, json=one))
    with pytest.raises(miaod_client.UnexpectedResponseError, match="1 of 2 files"):
        client.images.upload(project="p1", paths=paths)


@pytest.mark.parametrize("given", [{}, {"path": "/srv/a", "archive": "a.zip"}])
def test_an_import_takes_either_a_path_or_an_archive(
    given: dict[str, str], make_client: MakeClient
) -> None:
    with pytest.raises(ValueError, match="either path"):
        make_client(ImageServer()).imports.create(project="p1", **given)  # type: ignore[arg-type]
