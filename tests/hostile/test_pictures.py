"""Every bad picture through every entry: an upload, an archive, a folder."""

from __future__ import annotations

import json
import re
import resource
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from tests.hostile.archives import packed_zip
from tests.hostile.conftest import Service
from tests.hostile.pictures import encoded, flat_png, many_scans, polyglots, refused

pytestmark = pytest.mark.xdist_group("hostile")


@dataclass
class Corpus:
    """Bad pictures by name, with one good one, and what must be said of the bad."""

    files: dict[str, bytes]
    words: dict[str, str]

    def assert_each_is_refused(self, refusals: Iterable[Mapping[str, Any]]) -> None:
        reasons = {refusal["name"]: refusal["reason"] or "" for refusal in refusals}
        assert reasons.keys() >= self.words.keys()
        for name, words in self.words.items():
            assert re.search(words, reasons[name]), f"{name}: {reasons[name]}"


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    bad = list(refused())
    files = {name: content for name, content, _ in bad}
    words = {name: words for name, _, words in bad}
    return Corpus({**files, "good.png": encoded("PNG")}, words)


def test_an_upload_of_bad_pictures_is_refused_file_by_file(
    service: Service, corpus: Corpus
) -> None:
    project = service.new_project()
    before = service.stored()
    items = service.upload(project, corpus.files)
    assert [item["name"] for item in items if item["status"] != "rejected"] == ["good.png"]
    corpus.assert_each_is_refused(items)
    assert len(service.stored() - before) == 1


def test_an_archive_of_bad_pictures_gives_those_that_are_good(
    service: Service, corpus: Corpus
) -> None:
    (ended,) = service.import_archives([packed_zip(corpus.files)])
    assert ended["state"] == "succeeded"
    assert (ended["counts"]["created"], ended["counts"]["rejected"]) == (1, len(corpus.words))
    corpus.assert_each_is_refused(ended["refused"])


def test_a_folder_of_bad_pictures_gives_those_that_are_good(
    service: Service, corpus: Corpus
) -> None:
    folder = service.import_root / "pictures"
    folder.mkdir()
    for name, content in corpus.files.items():
        (folder / name).write_bytes(content)
    ended = service.import_folder(folder)
    assert (ended["counts"]["created"], ended["counts"]["rejected"]) == (1, len(corpus.words))
    corpus.assert_each_is_refused(ended["refused"])


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        "C:evil.png",
        "a/\u202egnp.exe",
        "line\u2028break.png",
        "n" * 600,
        " ",
    ],
)
def test_a_name_that_is_none_is_refused(service: Service, name: str) -> None:
    (item,) = service.upload(service.new_project(), {name: encoded("PNG")})
    assert item["status"] == "rejected"
    assert len(item["reason"]) < 1000


def test_a_picture_that_is_something_else_as_well_is_served_inert(service: Service) -> None:
    project = service.new_project()
    for name, content, media_type in polyglots():
        plain = name.replace("\u202f", "")
        (item,) = service.upload(project, {plain: content})
        assert item["status"] == "created", item
        paths = {
            f"/images/{item['id']}/content": media_type,
            f"/images/{item['id']}/content?rendition=display": "image/jpeg",
            f"/images/{item['id']}/thumbnail": "image/jpeg",
        }
        for path, expected in paths.items():
            answer = service.client.get(path)
            assert answer.status_code == 200
            headers = answer.headers
            assert headers["content-type"] == expected
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["content-security-policy"] == "default-src 'none'; sandbox"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert headers["cache-control"].startswith("private")
            assert re.fullmatch(
                r"inline; filename=\"[^\"\\\r\n]+\"; filename\*=UTF-8''[A-Za-z0-9._~%-]+",
                headers["content-disposition"],
            )


def test_a_picture_at_the_limit_does_not_make_the_server_large(service: Service) -> None:
    (item,) = service.upload(service.new_project(), {"flat.png": flat_png(10_000, 10_000)})
    assert item["status"] == "created"
    shown = service.client.get(f"/images/{item['id']}/thumbnail")
    assert shown.status_code == 200


@pytest.mark.slow
def test_many_renditions_of_large_pictures_at_once_do_not_add_up(service: Service) -> None:
    (item,) = service.upload(service.new_project(), {"flat.png": flat_png(9_900, 9_900)})
    with Watch(service.process.pid) as watch, ThreadPoolExecutor(12) as threads:
        answers = threads.map(
            lambda _: service.client.get(f"/images/{item['id']}/thumbnail").status_code, range(12)
        )
        assert set(answers) == {200}
    # One at a time: 200 megabytes of samples, and not twelve times as many.
    assert watch.decoders_megabytes < 400


@pytest.mark.slow
def test_a_picture_of_endless_scans_is_given_up(service: Service) -> None:
    (item,) = service.upload(service.new_project(), {"scans.jpg": many_scans(8_000, 5_000)})
    assert item["status"] == "rejected"
    assert "longer than 30 s" in item["reason"]


class Watch:
    """Looks at the memory of a process's children while the block lasts."""

    def __init__(self, pid: int) -> None:
        self.decoders_megabytes = 0.0
        self._children = Path(f"/proc/{pid}/task")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.02):
            pids = {
                pid
                for task in self._children.glob("*/children")
                for pid in task.read_text().split()
            }
            pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
            total = sum(pages) * resource.getpagesize() / 1e6
            self.decoders_megabytes = max(self.decoders_megabytes, total)


def test_texts_with_odd_characters_are_refused_not_crashed_on(service: Service) -> None:
    for name in ("a\x00b", "\ud800", "\udfffx"):
        body = json.dumps({"name": name, "classes": ["car"]})
        answer = service.client.post(
            "/projects", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 422
