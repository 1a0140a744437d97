from __future__ import annotations

import io
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from server.formats.pictures import Picture, PictureRefused
from server.services import decoding
from server.services.decoding import _Budget, probe, rendition
from tests.hostile.pictures import encoded, flat_png, many_scans, refused

LIMIT = 100_000_000


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_picture_is_decoded_in_another_process(tmp_path: Path) -> None:
    path = put(tmp_path / "a", encoded("JPEG", (300, 200)))
    assert probe(path, LIMIT) == Picture(300, 200, "image/jpeg")
    made = rendition(path, "display", LIMIT, 150)
    assert made.media_type == "image/jpeg"
    with Image.open(io.BytesIO(made.data)) as shown:
        assert shown.size == (150, 100)
    assert rendition(path, "thumbnail", LIMIT, 0).data.startswith(b"\xff\xd8")


def test_a_relative_path_is_one_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a", encoded("PNG", (30, 20)))
    monkeypatch.chdir(tmp_path)
    assert probe(Path("a"), LIMIT) == Picture(30, 20, "image/png")


def test_trouble_of_the_disk_is_told_apart_from_a_bad_picture(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        probe(tmp_path / "missing", LIMIT)
    with pytest.raises(PictureRefused, match="is empty"):
        probe(put(tmp_path / "a", b""), LIMIT)
    with pytest.raises(PictureRefused, match="at most 10 pixels"):
        probe(put(tmp_path / "b", encoded("PNG")), 10)


def test_a_picture_that_takes_too_long_is_refused_and_the_next_one_is_taken(tmp_path: Path) -> None:
    path = put(tmp_path / "slow", many_scans(3000, 3000))
    with pytest.raises(PictureRefused, match="longer than 1 s"):
        probe(path, LIMIT, cpu_seconds=1)
    assert probe(put(tmp_path / "a", encoded("PNG")), LIMIT, cpu_seconds=1).width == 64


def test_a_decoder_that_dies_costs_its_picture_only(tmp_path: Path) -> None:
    path = put(tmp_path / "a", encoded("PNG"))
    probe(path, LIMIT)
    victim = decoding._POOL._idle[-1]._process
    os.kill(victim.pid, signal.SIGSEGV)
    victim.wait()
    with pytest.raises(PictureRefused, match="crashed its decoder"):
        probe(path, LIMIT)
    assert probe(path, LIMIT).width == 64


def test_a_decoder_gets_no_more_memory_than_the_pixels_need(tmp_path: Path) -> None:
    # 16383 x 16383 pixels of canvas for a picture of which the limit allows a hundredth.
    content = next(content for name, content, _ in refused() if name == "16383.webp")
    with pytest.raises(PictureRefused):
        probe(put(tmp_path / "a", content), 1_000_000)


def test_a_decoder_has_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIAOD_ADMIN_KEY", "s3cret")
    decoding._POOL.close()
    probe(put(tmp_path / "a", encoded("PNG")), LIMIT)
    pid = decoding._POOL._idle[-1]._process.pid
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"MIAOD" not in environment
    assert b"s3cret" not in environment


def test_many_at_once_are_all_answered(tmp_path: Path) -> None:
    paths = [put(tmp_path / str(i), encoded("PNG", (100 + i, 50))) for i in range(40)]
    large = put(tmp_path / "large", flat_png(5000, 4000))
    with ThreadPoolExecutor(20) as threads:
        found = threads.map(lambda path: probe(path, 20_000_000).width, [*paths, large, *paths])
        assert list(found) == [*range(100, 140), 5000, *range(100, 140)]


def test_pictures_that_together_are_too_large_wait_for_each_other() -> None:
    budget = _Budget()
    second_in = threading.Event()

    def second() -> None:
        with budget.taken(60, 100):
            second_in.set()

    with budget.taken(60, 100):
        thread = threading.Thread(target=second)
        thread.start()
        assert not second_in.wait(0.2)
    assert second_in.wait(30)
    thread.join()
    with budget.taken(1000, 100):  # accepted under a larger limit, long ago
        pass
