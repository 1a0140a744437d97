"""Whether the server can do its work: database, schema, storage, free space."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from server.store.blobs import BlobStore
from server.store.database import WrongRevision, check_revision

# Below this, uploads and write-backs are about to fail: better to be told before.
MIN_FREE_BYTES = 500_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the server needs, and how it is."""

    ok: bool
    detail: str


def readiness(engine: Engine, blobs: BlobStore) -> dict[str, Check]:
    """Look at everything that the server needs. Never raises for what it is meant to find."""
    # Read-only: a check must not wait for a writer's lock.
    reading = engine.execution_options(read_only=True, postgresql_readonly=True)
    database = _database(reading)
    schema = _schema(reading) if database.ok else Check(False, "the database does not answer")
    return {
        "database": database,
        "schema": schema,
        "storage": _storage(blobs),
        "free_space": _free_space(blobs),
    }


def _database(engine: Engine) -> Check:
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        # The kind of trouble only: a driver's message may name hosts and users.
        return Check(False, f"the database does not answer ({type(error).__name__})")
    return Check(True, f"{engine.dialect.name} answers")


def _schema(engine: Engine) -> Check:
    try:
        check_revision(engine)
    except WrongRevision as error:
        return Check(False, str(error))
    except SQLAlchemyError as error:
        return Check(False, f"the revision cannot be read ({type(error).__name__})")
    return Check(True, "the schema is this program's")


def _storage(blobs: BlobStore) -> Check:
    try:
        with blobs.spool() as file:
            file.write(b"ready")
            file.flush()
    except OSError as error:
        return Check(False, f"the data folder cannot be written: {error.strerror}")
    return Check(True, "the data folder can be written")


def _free_space(blobs: BlobStore) -> Check:
    try:
        free = shutil.disk_usage(blobs.tmp_dir).free
    except OSError as error:
        return Check(False, f"the data folder cannot be examined: {error.strerror}")
    detail = f"{free / 1e9:.1f} GB free"
    if free < MIN_FREE_BYTES:
        return Check(False, f"{detail}; at least {MIN_FREE_BYTES / 1e9:.1f} GB should be")
    return Check(True, detail)
