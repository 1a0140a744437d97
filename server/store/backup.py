"""Backups of database and blobs in a form that does not depend on the kind of database.

    FOLDER/blobs/…             blobs, shared by all backups in the folder; only new ones are copied
    FOLDER/20260131T020000Z/   one backup
        rows.jsonl.gz          every table: a line that names it, then a line for each row
        blobs.txt              the blobs that these rows name, and what for
        manifest.json          written last: format, release, revision, counts

A backup is one state of the database, read in one transaction while everything else goes on. No
process removes a blob meanwhile (`BlobStore.keeping_all`), so whatever that state names is copied.
Whoever restores needs a program of the same revision, and may change from SQLite to Postgres on the
way, or back.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Table, func, insert, inspect, select, text
from sqlalchemy.orm import Session

from server import __version__
from server.store import queue
from server.store.blobs import BlobStore
from server.store.database import check_revision, revision_of_program, session_factory, upgrade
from server.store.models import Base, Cycle, Import, UtcDateTime
from server.store.references import named_blobs

FORMAT = "miaod-backup-1"
ROWS_AT_ONCE = 1000


class BackupRefused(Exception):
    """It cannot be done like this; the sentence says what would be right."""


@dataclass(frozen=True, slots=True)
class Named:
    """A blob, and what the database names it for: `image 019a…`."""

    sha256: str
    what: str


@dataclass(slots=True)
class Report:
    """What was done.

    Attributes:
        name: of the backup.
        rows: written or read.
        blobs: that the rows name.
        copied: of them, those that were not there yet.
        problems: blobs that are missing or damaged, a sentence each.
    """

    name: str = ""
    rows: int = 0
    blobs: int = 0
    copied: int = 0
    problems: list[str] = field(default_factory=list)


def back_up(engine: Engine, blobs: BlobStore, folder: Path, keep: int | None = None) -> Report:
    """Add a backup to a folder, while the service runs or not.

    Args:
        engine: the database.
        blobs: its blobs.
        folder: where backups are; made if missing.
        keep: afterwards remove all but so many of the newest; None removes none.

    Raises:
        BackupRefused: another backup is being made in this folder just now.
        WrongRevision: the database is not this program's.
        OSError: no room, no access.
    """
    check_revision(engine)
    target = BlobStore(folder)
    report = Report(_new_name())
    with _alone(folder), blobs.keeping_all():
        for leftover in folder.glob("*.partial"):
            shutil.rmtree(leftover)
        partial = folder / f"{report.name}.partial"
        partial.mkdir()
        _write_rows(engine, partial, report)
        for named in _read_names(partial):
            report.blobs += 1
            report.copied += _copy(named, blobs, target, report.problems)
        manifest = {
            "format": FORMAT,
            "release": __version__,
            "revision": revision_of_program(),
            "rows": report.rows,
            "blobs": report.blobs,
            "problems": report.problems,
        }
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        partial.rename(folder / report.name)
        if keep is not None:
            _prune(folder, target, keep)
    return report


def restore(engine: Engine, blobs: BlobStore, folder: Path, name: str | None = None) -> Report:
    """Put a backup into an empty database, and its blobs into the data folder.

    Jobs that ran when it was made are queued again; cycles go on from their checkpoints. The rows
    come in one transaction, after the blobs: what is cut off on the way can be done again.

    Args:
        engine: a database without rows, or without tables.
        blobs: of the service to be; blobs that are there already are checked and used.
        folder: where the backups are.
        name: of the backup; None: the newest.

    Raises:
        BackupRefused: no such backup, one of another revision, or the database is not empty.
    """
    backup = _find(folder, name)
    manifest = json.loads((backup / "manifest.json").read_text())
    ours = revision_of_program()
    if manifest["format"] != FORMAT or manifest["revision"] != ours:
        raise BackupRefused(
            f"{backup} is of revision {manifest['revision']} (release {manifest['release']}), this "
            f"program needs {ours}: restore with that release, then upgrade"
        )
    if not inspect(engine).get_table_names():
        upgrade(engine)
    check_revision(engine)
    source = BlobStore(folder)
    report = Report(backup.name)
    with session_factory(engine, read_only=True)() as session:
        _require_empty(session)
    for named in _read_names(backup):
        report.blobs += 1
        if blobs.exists(named.sha256) and _digest(blobs, named.sha256) != named.sha256:
            blobs.path(named.sha256).unlink()
        report.copied += _copy(named, source, blobs, report.problems)
    with session_factory(engine).begin() as session:
        _require_empty(session)
        for table, rows in _read_rows(backup):
            session.execute(insert(table), rows)
            report.rows += len(rows)
        if report.rows != manifest["rows"]:
            raise BackupRefused(
                f"{backup} has {report.rows} rows, and its manifest says {manifest['rows']}"
            )
        for queued in (Cycle, Import):
            queue.requeue_all(session, queued)
        _move_sequences_on(session)
    return report


def verify(engine: Engine, blobs: BlobStore) -> Report:
    """Check that every blob that the database names is there and has its hash."""
    report = Report()
    with session_factory(engine, read_only=True)() as session:
        found = session.execute(named_blobs(), execution_options={"yield_per": ROWS_AT_ONCE})
        for row in found:
            report.blobs += 1
            problem = _problem(Named(row.sha256, f"{row.kind} {row.owner}"), blobs)
            if problem:
                report.problems.append(problem)
    return report


def _new_name() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupRefused(f"another backup is being made in {folder} just now") from None
        yield


def _write_rows(engine: Engine, folder: Path, report: Report) -> None:
    at_once = {"yield_per": ROWS_AT_ONCE}
    with (
        session_factory(engine, read_only=True)() as session,
        gzip.open(folder / "rows.jsonl.gz", "wt", encoding="utf-8", compresslevel=3) as rows,
        (folder / "blobs.txt").open("w", encoding="utf-8") as names,
    ):
        for table in Base.metadata.sorted_tables:
            head = {"table": table.name, "columns": [column.name for column in table.columns]}
            rows.write(json.dumps(head) + "\n")
            for row in session.execute(select(table), execution_options=at_once):
                values = [
                    value.isoformat() if isinstance(value, datetime) else value for value in row
                ]
                rows.write(json.dumps(values, allow_nan=False) + "\n")
                report.rows += 1
        for row in session.execute(named_blobs(), execution_options=at_once):
            names.write(f"{row.sha256} {row.kind} {row.owner}\n")


def _read_rows(folder: Path) -> Iterator[tuple[Table, list[dict[str, Any]]]]:
    """The tables' rows in chunks, parents before children."""
    table: Table | None = None
    columns: list[str] = []
    chunk: list[dict[str, Any]] = []
    with gzip.open(folder / "rows.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            found = json.loads(line)
            if isinstance(found, dict) or len(chunk) == ROWS_AT_ONCE:
                if table is not None and chunk:
                    yield table, chunk
                chunk = []
            if isinstance(found, dict):
                table, columns = Base.metadata.tables[found["table"]], found["columns"]
                continue
            assert table is not None, "a row stands before its table"
            row = dict(zip(columns, found, strict=True))
            for column in table.columns:
                if isinstance(column.type, UtcDateTime) and row[column.name] is not None:
                    row[column.name] = datetime.fromisoformat(row[column.name])
            chunk.append(row)
    if table is not None and chunk:
        yield table, chunk


def _read_names(folder: Path) -> Iterator[Named]:
    with (folder / "blobs.txt").open(encoding="utf-8") as lines:
        for line in lines:
            sha256, _, what = line.strip().partition(" ")
            yield Named(sha256, what)


def _copy(named: Named, source: BlobStore, target: BlobStore, problems: list[str]) -> bool:
    """Copy a blob that is not there yet; says whether it was."""
    if target.exists(named.sha256):
        return False
    problem = _problem(named, source)
    if problem:
        problems.append(problem)
        return False
    target.put_file(source.path(named.sha256))
    return True


def _problem(named: Named, blobs: BlobStore) -> str | None:
    try:
        found = _digest(blobs, named.sha256)
    except FileNotFoundError:
        return f"{named.what}: the blob {named.sha256} is missing"
    if found != named.sha256:
        return f"{named.what}: the blob {named.sha256} is damaged, its bytes have the hash {found}"
    return None


def _digest(blobs: BlobStore, sha256: str) -> str:
    with blobs.path(sha256).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _backups(folder: Path) -> list[Path]:
    """The finished backups of a folder, the newest last."""
    return sorted(path.parent for path in folder.glob("*Z/manifest.json"))


def _find(folder: Path, name: str | None) -> Path:
    found = {path.name: path for path in _backups(folder)}
    if not found:
        raise BackupRefused(f"there is no backup in {folder}")
    if name is None:
        return found[max(found)]
    if name not in found:
        raise BackupRefused(f"there is no backup {name} in {folder}, only {', '.join(found)}")
    return found[name]


def _prune(folder: Path, target: BlobStore, keep: int) -> None:
    found = _backups(folder)
    kept = found[-keep:]
    for backup in found[:-keep]:
        shutil.rmtree(backup)
    named = {named.sha256 for backup in kept for named in _read_names(backup)}
    for sha256, _ in target.iter_all():
        if sha256 not in named:
            target.delete(sha256)


def _require_empty(session: Session) -> None:
    for table in Base.metadata.sorted_tables:
        if session.execute(select(table).limit(1)).first() is not None:
            raise BackupRefused(
                f"the database has rows already (in {table.name}): restore into an empty one"
            )


def _move_sequences_on(session: Session) -> None:
    """Postgres does not notice numbers that were given by hand, and would give them again."""
    if session.get_bind().dialect.name != "postgresql":
        return
    for table in Base.metadata.sorted_tables:
        column = table.autoincrement_column
        if column is None:
            continue
        highest = session.scalar(select(func.max(column)))
        if highest is not None:
            session.execute(
                text("SELECT setval(pg_get_serial_sequence(:table, :column), :highest)"),
                {"table": table.name, "column": column.name, "highest": highest},
            )
