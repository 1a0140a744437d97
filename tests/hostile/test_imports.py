"""Archives, label files and folders that somebody made to do harm."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from tests.hostile.archives import GOOD, packed_zip, refused_members, refused_whole
from tests.hostile.conftest import Service
from tests.hostile.labels import coco, coco_files, voc, voc_files
from tests.hostile.pictures import encoded

pytestmark = pytest.mark.xdist_group("hostile")


def test_an_archive_that_does_harm_is_refused_whole(service: Service) -> None:
    before = service.stored()
    corpus = list(refused_whole())
    found = service.import_archives(make() for _, make, _ in corpus)
    for (name, _, words), ended in zip(corpus, found, strict=True):
        assert ended["state"] == "failed", name
        assert re.search(words, ended["error"]), f"{name}: {ended['error']}"
        assert ended["counts"]["created"] == 0
    assert service.stored() == before


def test_a_member_that_does_harm_is_left_out_by_name(service: Service) -> None:
    corpus = list(refused_members())
    found = service.import_archives(make() for _, make, _ in corpus)
    for (name, _, words), ended in zip(corpus, found, strict=True):
        assert ended["state"] == "succeeded", name
        assert ended["counts"]["created"] == 1
        reasons = {item["name"]: item["reason"] for item in ended["refused"]}
        assert reasons.keys() == words.keys(), name
        for member, reason in reasons.items():
            assert re.search(words[member], reason), f"{name}, {member}: {reason}"


def encoded_text(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode()


def test_bad_annotation_files_are_refused_by_name(service: Service) -> None:
    files = list(voc_files())
    members: dict[str, str | bytes] = {
        "JPEGImages/fine.png": encoded("PNG", (64, 47)),
        "Annotations/fine.xml": voc(),
    }
    for number, (_, make, _) in enumerate(files):
        members[f"JPEGImages/{number}.png"] = encoded("PNG", (64, 48), compress_level=number % 10)
        members[f"Annotations/{number}.xml"] = make()
    archive = packed_zip({name: encoded_text(content) for name, content in members.items()})
    (ended,) = service.import_archives([archive])
    assert ended["state"] == "succeeded", ended
    assert ended["counts"]["labeled"] == 1
    reasons = {item["name"]: item["reason"] for item in ended["refused"]}
    for number, (name, _, words) in enumerate(files):
        said = reasons.get(f"Annotations/{number}.xml") or reasons.get(f"{number}.png", "")
        assert re.search(words, said), f"{name}: {said}"
        assert len(said) < 1100
        assert "root:" not in said


def test_a_bad_label_file_is_refused_and_the_pictures_stay(service: Service) -> None:
    corpus = list(coco_files())
    picture = encoded("PNG")
    found = service.import_archives(
        packed_zip({"images/good.png": picture, "a/instances.json": encoded_text(make())})
        for _, make, _ in corpus
    )
    for (name, _, words), ended in zip(corpus, found, strict=True):
        assert ended["state"] == "succeeded", name
        assert ended["counts"]["created"] == 1
        said = " ".join(f"{item['name']}: {item['reason']}" for item in ended["refused"])
        assert re.search(words, said), f"{name}: {said[:2000]}"


def test_a_good_label_file_is_taken(service: Service) -> None:
    archive = packed_zip({"images/good.png": encoded("PNG"), "a.json": coco().encode()})
    (ended,) = service.import_archives([archive])
    assert (ended["state"], ended["refused"]) == ("succeeded", [])


def test_what_is_no_file_in_a_folder_is_left_out_and_not_waited_for(
    service: Service, tmp_path: Path
) -> None:
    folder = service.import_root / "special"
    (folder / "inner").mkdir(parents=True)
    (folder / GOOD).write_bytes(encoded("PNG"))
    (tmp_path / "secret.png").write_bytes(encoded("PNG", (9, 9)))
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "passwd.png").symlink_to("/etc/passwd")
    (folder / "outside").symlink_to(tmp_path)
    (folder / "round").symlink_to(folder)
    (folder / "gone.png").symlink_to("nothing")
    (folder / "memory.png").symlink_to("/proc/self/mem")
    (folder / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.png"))
        ended = service.import_folder(folder)
    assert ended["state"] == "succeeded"
    assert ended["counts"]["created"] == 1
    assert {item["name"] for item in ended["refused"]} == {
        "gone.png",
        "memory.png",
        "out.png",
        "outside",
        "passwd.png",
        "pipe.png",
        "round",
        "socket.png",
        "zero.png",
    }


def test_a_path_that_is_not_below_a_root_is_refused(service: Service, tmp_path: Path) -> None:
    root = service.import_root
    (root / "link").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    (root / "zero").symlink_to("/dev/zero")
    project = service.new_project()
    for path in (
        "/etc",
        "/etc/passwd",
        "..",
        f"{root}/../..",
        f"{root}/link",
        f"{root}/pipe",
        f"{root}/zero",
        f"{root}/missing",
        "/proc/self/root/etc",
        "file:///etc",
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:8000/",
        "s3://bucket/prefix",
        "\\\\server\\share",
    ):
        answer = service.client.post("/imports", json={"project": project, "path": path})
        assert (answer.status_code, answer.json()["code"]) == (422, "outside_import_roots")
