"""A small file system of its own, to be filled and to be made read-only."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, text

from server.store.database import session_factory

DISK_BYTES = 160_000_000


@dataclass
class SmallDisk:
    """A mounted file system in memory."""

    path: Path

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"

    def fill(self, leave_bytes: int = 0) -> None:
        """Take all room but so many bytes."""
        with self._ballast.open("ab", buffering=0) as file:
            for chunk in (1 << 20, 1 << 12):
                while shutil.disk_usage(self.path).free >= leave_bytes + chunk:
                    try:
                        file.write(b"x" * chunk)
                    except OSError:
                        break

    def make_room(self) -> None:
        """Give it back."""
        self._ballast.unlink()

    def set_read_only(self, is_read_only: bool) -> None:
        """Remount; nobody may have a file open for writing."""
        mount("-o", f"remount,{'ro' if is_read_only else 'rw'}", str(self.path))


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def files_in(folder: Path) -> list[Path]:
    """All files below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


@contextmanager
def pinned_log(engine: Engine) -> Iterator[None]:
    """Keep SQLite from using the room of its write-ahead log again, so that each write needs more.

    A reader that stays where it is does that, as a long export would.
    """
    with session_factory(engine, read_only=True)() as session:
        session.execute(text("SELECT count(*) FROM projects"))
        yield
