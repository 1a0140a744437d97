"""Whether the server can do its work: database, schema, storage, free space.

The answer comes within `ANSWER_SECONDS`, also from a server whose database or disk hangs.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from server.services.watched import Watched
from server.store.blobs import BlobStore
from server.store.database import WrongRevision, check_revision

ANSWER_SECONDS = 3.0
# Below this, uploads and write-backs are about to fail: better to be told before.
MIN_FREE_BYTES = 500_000_000
MIN_FREE_FILES = 10_000
# More than a file system keeps beside a file's name, so that a full one shows.
_PROBE = b"ready" * 4000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the server needs, and how it is."""

    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Space:
    """Room on the data folder's disk; file systems without a limit of files have `free_files` None.

    Bytes and files are those that this process may use.
    """

    free_bytes: int
    total_bytes: int
    free_files: int | None


class Health:
    """The health of one application; see `readiness`."""

    def __init__(self, engine: Engine, blobs: BlobStore) -> None:
        """Prepare to look after a database and a data folder."""
        # Read-only: a check must not wait for a writer's lock.
        reading = engine.execution_options(read_only=True, postgresql_readonly=True)
        self._database = Watched(lambda: _database(reading), "the database's check")
        self._storage = Watched(lambda: _storage(blobs), "the storage's check")

    async def readiness(self) -> dict[str, Check]:
        """Look at everything that the server needs, or say what does not answer in time."""
        found = await asyncio.gather(
            _within(self._database, "the database", ("database", "schema")),
            _within(self._storage, "the data folder", ("storage", "free_space")),
        )
        return found[0] | found[1]


async def _within(
    look: Watched[dict[str, Check]], who: str, names: tuple[str, ...]
) -> dict[str, Check]:
    try:
        return await look.ask(ANSWER_SECONDS)
    except TimeoutError:
        silent = Check(False, f"{who} has not answered within {ANSWER_SECONDS:g} s")
        return dict.fromkeys(names, silent)


def space(blobs: BlobStore) -> Space:
    """The room that there is.

    Raises:
        OSError: the data folder is not there.
    """
    found = os.statvfs(blobs.tmp_dir)
    return Space(
        free_bytes=found.f_bavail * found.f_frsize,
        total_bytes=found.f_blocks * found.f_frsize,
        free_files=found.f_favail if found.f_files else None,
    )


def _database(engine: Engine) -> dict[str, Check]:
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        # The kind of trouble only: a driver's message may name hosts and users.
        database = Check(False, f"the database does not answer ({type(error).__name__})")
        return {"database": database, "schema": Check(False, "the database does not answer")}
    return {
        "database": Check(True, f"{engine.dialect.name} answers"),
        "schema": _schema(engine),
    }


def _schema(engine: Engine) -> Check:
    try:
        check_revision(engine)
    except WrongRevision as error:
        # Anybody may ask: where the database is, and as whom it is opened, is not theirs to know.
        return Check(False, f"the database {error.problem}")
    except SQLAlchemyError as error:
        return Check(False, f"the revision cannot be read ({type(error).__name__})")
    return Check(True, "the schema is this program's")


def _storage(blobs: BlobStore) -> dict[str, Check]:
    return {"storage": _writing(blobs), "free_space": _free_space(blobs)}


def _writing(blobs: BlobStore) -> Check:
    try:
        with blobs.spool() as file:
            file.write(_PROBE)
            file.flush()
            # A disk or a file server may say only now that there is no room.
            os.fsync(file.fileno())
    except OSError as error:
        return Check(False, f"the data folder cannot be written: {error.strerror}")
    if not os.access(blobs.root, os.W_OK):
        return Check(False, "the folder of the blobs cannot be written")
    return Check(True, "the data folder can be written")


def _free_space(blobs: BlobStore) -> Check:
    try:
        found = space(blobs)
    except OSError as error:
        return Check(False, f"the data folder cannot be examined: {error.strerror}")
    detail = f"{found.free_bytes / 1e9:.1f} GB free"
    if found.free_bytes < MIN_FREE_BYTES:
        return Check(False, f"{detail}; at least {MIN_FREE_BYTES / 1e9:.1f} GB should be")
    if found.free_files is not None and found.free_files < MIN_FREE_FILES:
        return Check(
            False, f"room for {found.free_files} more files; at least {MIN_FREE_FILES} should be"
        )
    return Check(True, detail)
