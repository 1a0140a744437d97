"""Blobs: named by content, whole or not there at all."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from server.store.blobs import Blob, BlobStore, TooLarge

PICTURE = b"not really a picture" * 1000


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_blob_is_named_by_the_hash_of_its_content(blobs: BlobStore, data_dir: Path) -> None:
    digest = hashlib.sha256(PICTURE).hexdigest()
    assert blobs.put_bytes(PICTURE) == Blob(digest, len(PICTURE))
    assert blobs.path(digest) == data_dir / "blobs" / digest[:2] / digest[2:4] / digest
    assert blobs.read_bytes(digest) == PICTURE
    assert blobs.exists(digest)
    with blobs.open(digest) as file:
        assert file.read(10) == PICTURE[:10]


def test_an_empty_blob_is_a_blob(blobs: BlobStore) -> None:
    assert blobs.read_bytes(blobs.put_bytes(b"").sha256) == b""


def test_a_stream_is_stored_piece_by_piece_and_leaves_no_temporary_file(blobs: BlobStore) -> None:
    blob = blobs.put_stream(PICTURE[start : start + 777] for start in range(0, len(PICTURE), 777))
    assert blobs.read_bytes(blob.sha256) == PICTURE
    assert files_in(blobs.tmp_dir) == []


def test_the_same_bytes_are_stored_once_and_become_young_again(blobs: BlobStore) -> None:
    blob = blobs.put_bytes(PICTURE)
    os.utime(blobs.path(blob.sha256), (1.0, 1.0))
    assert blobs.put_bytes(PICTURE) == blob
    [(name, stored_at)] = blobs.iter_all()
    assert name == blob.sha256
    assert time.time() - stored_at < 60


def test_a_stream_beyond_its_limit_is_refused_and_leaves_nothing(blobs: BlobStore) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1000

    with pytest.raises(TooLarge, match="more than 5000 bytes"):
        blobs.put_stream(endless(), max_bytes=5000)
    assert files_in(blobs.root) == []
    assert files_in(blobs.tmp_dir) == []


def test_a_stream_of_exactly_its_limit_is_stored(blobs: BlobStore) -> None:
    assert blobs.put_stream([b"x" * 5000], max_bytes=5000).num_bytes == 5000


def test_a_stream_that_breaks_off_leaves_nothing(blobs: BlobStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 1000
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        blobs.put_stream(broken())
    assert files_in(blobs.root) == []
    assert files_in(blobs.tmp_dir) == []


KILLED_BEFORE_THE_RENAME = """
import os, signal, sys
from pathlib import Path
from server.store.blobs import BlobStore
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
BlobStore(Path(sys.argv[1])).put_bytes(b"x" * 1000)
"""


def test_a_process_killed_before_the_rename_leaves_no_named_blob(
    blobs: BlobStore, data_dir: Path
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_BEFORE_THE_RENAME, str(data_dir)], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert files_in(blobs.root) == []
    assert list(blobs.iter_all()) == []
    assert len(files_in(blobs.tmp_dir)) == 1
    # The lock that it held went with it.
    assert blobs.put_bytes(b"x" * 1000).num_bytes == 1000


def test_a_blob_is_on_the_disk_before_it_has_its_name(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        assert source.stat().st_ino in synced
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    path = blobs.path(blobs.put_bytes(PICTURE).sha256)
    assert {folder.stat().st_ino for folder in list(path.parents)[:3]} <= set(synced)


def test_a_file_can_be_copied_or_moved_in(blobs: BlobStore, tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(PICTURE)
    blob = blobs.put_file(file)
    assert file.exists()
    assert blobs.put_file(file, move=True) == blob
    assert not file.exists()
    assert blobs.read_bytes(blob.sha256) == PICTURE


def test_a_spooled_file_can_be_moved_in_without_a_copy(blobs: BlobStore) -> None:
    with blobs.spool() as file:
        file.write(PICTURE)
        file.flush()
        inode = os.fstat(file.fileno()).st_ino
        blob = blobs.put_file(Path(file.name), move=True)
    assert blobs.path(blob.sha256).stat().st_ino == inode
    assert files_in(blobs.tmp_dir) == []


def test_a_file_from_another_file_system_is_copied(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def replace_within(source: Path, target: Path) -> None:
        if source.parent != blobs.tmp_dir:
            raise OSError(18, "Invalid cross-device link")
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_within)
    file = tmp_path / "picture.png"
    file.write_bytes(PICTURE)
    blob = blobs.put_file(file, move=True)
    assert blobs.read_bytes(blob.sha256) == PICTURE
    assert not file.exists()


def test_a_spooled_file_that_nobody_moved_is_gone_afterwards(blobs: BlobStore) -> None:
    with blobs.spool() as file:
        file.write(b"abc")
        file.seek(0)
        assert file.read() == b"abc"
        assert Path(file.name).parent == blobs.tmp_dir
    assert files_in(blobs.tmp_dir) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "ab", "A" * 64, "a" * 63 + "/", "a" * 65, ""])
def test_a_name_that_is_no_hash_never_becomes_a_path(blobs: BlobStore, name: str) -> None:
    for use in (blobs.path, blobs.exists, blobs.open, blobs.read_bytes, blobs.delete):
        with pytest.raises(ValueError, match="no blob name"):
            use(name)


def test_a_blob_that_is_not_there_is_a_file_not_found(blobs: BlobStore) -> None:
    assert not blobs.exists("0" * 64)
    with pytest.raises(FileNotFoundError):
        blobs.open("0" * 64)
    assert blobs.delete("0" * 64) is False


def test_deleting_takes_one_blob_and_no_other(blobs: BlobStore) -> None:
    one, other = blobs.put_bytes(b"one"), blobs.put_bytes(b"other")
    assert blobs.delete(one.sha256) is True
    assert not blobs.exists(one.sha256)
    assert [name for name, _ in blobs.iter_all()] == [other.sha256]


def test_a_blob_stored_again_since_is_not_deleted_as_old(blobs: BlobStore) -> None:
    blob = blobs.put_bytes(PICTURE)
    os.utime(blobs.path(blob.sha256), (1.0, 1.0))
    cutoff = time.time() - 10
    blobs.put_bytes(PICTURE)
    assert blobs.delete(blob.sha256, older_than=cutoff) is False
    os.utime(blobs.path(blob.sha256), (1.0, 1.0))
    assert blobs.delete(blob.sha256, older_than=cutoff) is True


def test_foreign_files_in_the_folders_are_not_blobs(blobs: BlobStore) -> None:
    blob = blobs.put_bytes(PICTURE)
    (blobs.root / "README").write_text("hello")
    (blobs.path(blob.sha256).parent / "notes.txt").write_text("hello")
    assert [name for name, _ in blobs.iter_all()] == [blob.sha256]


def test_many_threads_may_store_the_same_and_other_bytes_at_once(blobs: BlobStore) -> None:
    def store() -> None:
        for number in range(20):
            blobs.put_bytes(f"blob {number}".encode())

    threads = [Thread(target=store) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [name for name, _ in blobs.iter_all()]
    assert found == sorted(hashlib.sha256(f"blob {i}".encode()).hexdigest() for i in range(20))
    assert files_in(blobs.tmp_dir) == []


FREEZES_WHILE_IT_REMOVES = """
import os, signal, sys
from pathlib import Path
from server.store.blobs import BlobStore
unlink = Path.unlink
def frozen(path, *args, **more):
    sys.stdout.write("removing\\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGSTOP)
    return unlink(path, *args, **more)
Path.unlink = frozen
BlobStore(Path(sys.argv[1])).delete(sys.argv[2])
"""


def test_a_process_that_is_frozen_while_it_removes_holds_up_nobody_who_stores_something_else(
    blobs: BlobStore,
) -> None:
    doomed = blobs.put_bytes(b"doomed").sha256
    others = [f"blob {number}".encode() for number in range(20)]
    others = [data for data in others if hashlib.sha256(data).hexdigest()[:2] != doomed[:2]]
    process = subprocess.Popen(
        [sys.executable, "-c", FREEZES_WHILE_IT_REMOVES, str(blobs.root.parent), doomed],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "removing\n"
        stored = [blobs.put_bytes(data).sha256 for data in others]
        assert all(blobs.delete(sha256) for sha256 in stored)
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
    assert not blobs.exists(doomed)
