"""Files named by the SHA-256 of their content, below the data folder.

A blob appears under its name only when all of it is on the disk: it is written to a temporary
file, synced, renamed, and its folder synced. A process that is killed on the way leaves at most a
temporary file, which `sweep` removes. Disk full and read-only disks show as the `OSError` they are.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast
from uuid import uuid4

CHUNK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class TooLarge(ValueError):
    """A stream went on beyond the number of bytes that it may have."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored file: its name (64 lowercase hexadecimal digits) and size."""

    sha256: str
    num_bytes: int


class BlobStore:
    """The blobs of one data folder; any number of threads and processes may use it at once."""

    def __init__(self, data_dir: Path) -> None:
        """Makes the folders that are missing."""
        self.root = data_dir / "blobs"
        self.tmp_dir = data_dir / "tmp"
        self.root.mkdir(parents=True, exist_ok=True)
        self.tmp_dir.mkdir(parents=True, exist_ok=True)
        # Many, so that a process which is frozen with one of them holds up hardly anybody.
        self._locks_dir = data_dir / "locks"
        self._locks_dir.mkdir(exist_ok=True)
        self._keep_path = self._locks_dir / "backup"

    def path(self, sha256: str) -> Path:
        """Where the blob is or would be.

        Raises:
            ValueError: the name is not a SHA-256, so nothing from outside can become a path.
        """
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is no blob name: 64 lowercase hexadecimal digits are")
        return self.root / sha256[:2] / sha256[2:4] / sha256

    def exists(self, sha256: str) -> bool:
        """Whether the blob is there."""
        return self.path(sha256).is_file()

    def open(self, sha256: str) -> BinaryIO:
        """Opens a blob for reading; `FileNotFoundError` if there is none."""
        return self.path(sha256).open("rb")

    def read_bytes(self, sha256: str) -> bytes:
        """All of a blob; `FileNotFoundError` if there is none."""
        return self.path(sha256).read_bytes()

    def raise_if_gone(self) -> None:
        """Tell a blob that is not there from a data folder that is not, as without its mount.

        Raises:
            OSError: ENODEV, the folder is not there.
        """
        if not self.root.is_dir() or not self.tmp_dir.is_dir():
            raise OSError(errno.ENODEV, "the data folder is not there", str(self.root.parent))

    def put_bytes(self, data: bytes) -> Blob:
        """Stores some bytes; storing the same ones again is free."""
        return self.put_stream([data])

    def put_stream(self, chunks: Iterable[bytes], max_bytes: int | None = None) -> Blob:
        """Stores a stream without ever holding all of it in memory.

        Raises:
            TooLarge: more than `max_bytes` came; nothing is left behind.
        """
        digest = hashlib.sha256()
        num_bytes = 0
        with self.spool() as file:
            for chunk in chunks:
                num_bytes += len(chunk)
                if max_bytes is not None and num_bytes > max_bytes:
                    raise TooLarge(f"more than {max_bytes} bytes came; at most that many may")
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
            blob = Blob(digest.hexdigest(), num_bytes)
            self._name(Path(file.name), blob.sha256)
        return blob

    def put_file(self, path: Path, *, move: bool = False) -> Blob:
        """Stores a file's content; with `move` the file itself is taken where that is possible."""
        if not move:
            with path.open("rb") as source:
                return self.put_stream(_chunks_of(source))
        with path.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            num_bytes = source.seek(0, os.SEEK_END)
            os.fsync(source.fileno())
        try:
            self._name(path, digest)
        except OSError as error:
            if error.errno != errno.EXDEV:  # on another file system: only a copy can be renamed
                raise
            blob = self.put_file(path)
            path.unlink()
            return blob
        path.unlink(missing_ok=True)
        return Blob(digest, num_bytes)

    @contextmanager
    def spool(self) -> Iterator[BinaryIO]:
        """A temporary file for reading and writing, gone at the end unless moved; see `.name`."""
        path = self.tmp_dir / uuid4().hex
        try:
            # Not `tempfile`: its files are for their owner only, and a blob keeps its file's mode.
            opened = path.open("x+b")
        except FileNotFoundError:
            self.raise_if_gone()
            raise
        with opened as file:
            try:
                yield cast(BinaryIO, file)
            finally:
                path.unlink(missing_ok=True)

    def delete(self, sha256: str, *, older_than: float | None = None) -> bool:
        """Removes a blob; says whether one was removed. None is while `keeping_all`.

        Args:
            sha256: its name.
            older_than: Unix seconds; a blob that was stored, also once again, since then is kept.
        """
        path = self.path(sha256)
        with ExitStack() as locks:
            try:
                locks.enter_context(self._lock(self._keep_path, fcntl.LOCK_SH | fcntl.LOCK_NB))
            except BlockingIOError:
                return False
            locks.enter_context(self._lock(self._lock_path(sha256), fcntl.LOCK_EX))
            try:
                if older_than is not None and path.stat().st_mtime >= older_than:
                    return False
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    @contextmanager
    def keeping_all(self) -> Iterator[None]:
        """As long as this lasts no process removes a blob; the next sweep does what was put off."""
        with self._lock(self._keep_path, fcntl.LOCK_EX):
            yield

    def iter_all(self) -> Iterator[tuple[str, float]]:
        """Every blob's name with the Unix time at which it was last stored, in order of name."""
        for folder in sorted(self.root.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]")):
            for path in sorted(folder.iterdir()):
                if _SHA256.fullmatch(path.name):
                    # Another process may remove it between the listing and the look at it.
                    with suppress(FileNotFoundError):
                        yield path.name, path.stat().st_mtime

    def _name(self, source: Path, sha256: str) -> None:
        """Gives a synced file its name; a blob that is there already only becomes young again."""
        target = self.path(sha256)
        self.raise_if_gone()
        target.parent.mkdir(parents=True, exist_ok=True)
        # Shared: many may store at once, but never while `delete` looks at the age and unlinks, or
        # a row could come to name a blob that is just being removed for want of one.
        with self._lock(self._lock_path(sha256), fcntl.LOCK_SH):
            if not target.exists():
                os.replace(source, target)
            os.utime(target)
        # Also where all was there already: whoever made a folder, or renamed the file, may not have
        # come to this line yet, or have been killed before it.
        for folder in (target.parent, target.parent.parent, self.root):
            _sync_folder(folder)

    def _lock_path(self, sha256: str) -> Path:
        return self._locks_dir / sha256[:2]

    @contextmanager
    def _lock(self, path: Path, mode: int) -> Iterator[None]:
        with path.open("ab") as file:
            fcntl.flock(file, mode)
            yield


def _chunks_of(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
