"""Engines, sessions, the database's clock, and the schema's revision, on SQLite and on Postgres.

Two kinds of sessions, so that SQLite behaves under many processes:

* `session_factory(engine)` writes. On SQLite its transaction is `BEGIN IMMEDIATE`: it takes the
  one write lock at its first statement and waits for it up to `BUSY_TIMEOUT_SECONDS`. One that
  began as a reader and then wrote could instead fail at once with SQLITE_BUSY, which no time-out
  cures. Keep such sessions short: the lock is held from the first statement to the commit.
* `session_factory(engine, read_only=True)` reads one consistent state, takes no lock and waits for
  no writer (WAL). Both databases refuse a write in it.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, Float, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from server.store.models import UtcDateTime

BUSY_TIMEOUT_SECONDS = 30.0

# What lets go of a Postgres that is gone without a word (power cut, a network that drops packets)
# within a minute; Linux by itself would wait a quarter of an hour for an answer and, while a query
# runs, forever.
_POSTGRES_PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# The same on the other side, for a worker or a server that is gone: the locks of its transaction
# would stay for two hours.
_POSTGRES_SESSION = (
    "SET tcp_keepalives_idle = 20; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; "
    "SET tcp_user_timeout = 30000"
)
# After these a SQLite connection may have been opened on a disk that was read-only, which it then
# is forever.
_SQLITE_REOPENS = ("readonly database", "disk I/O error", "unable to open database file")

# Next to the `server` package both in a checkout and in an installed wheel.
MIGRATIONS_DIR = Path(__file__).resolve().parents[2] / "migrations"


class WrongRevision(Exception):
    """The database's schema is not the one this program was written for; says what to do.

    Its sentence names the database, host and user included; `problem` is the rest of it.
    """

    def __init__(self, where: str, problem: str) -> None:
        """Keep both."""
        super().__init__(f"{where} {problem}")
        self.problem = problem


def default_database_url(data_dir: Path) -> str:
    """The SQLite database that is used where no other is named: `miaod.db` in the data folder."""
    return URL.create("sqlite", database=str(data_dir / "miaod.db")).render_as_string()


def make_engine(url: str, *, idle_transaction_seconds: float = 600.0) -> Engine:
    """An engine for a SQLite file or a Postgres database, set up as this store needs it.

    Args:
        url: `sqlite:///path/to/file.db` (its folder is made if missing) or
            `postgresql+psycopg://…`; `postgresql://` and `postgres://` mean the same.
        idle_transaction_seconds: Postgres drops a transaction in which nothing was said for so
            long. A worker that is frozen or cut off in the middle of one would otherwise keep its
            cycle locked, for hours, against those who should take it over.

    Raises:
        ValueError: another database, or SQLite in memory (each connection would be its own).
    """
    parsed = make_url(url)
    backend = parsed.drivername.partition("+")[0]
    # A connection for each of the server's 40 threads, so that no request waits for another's.
    options: dict[str, Any] = {
        "json_serializer": _strict_json,
        "pool_size": 10,
        "max_overflow": 35,
        # An error's text goes into the log: without hashes of keys, claim tokens and labels.
        "hide_parameters": True,
    }
    if backend in ("postgresql", "postgres"):
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            # What the URL says itself goes first.
            connect_args={k: v for k, v in _POSTGRES_PATIENCE.items() if k not in parsed.query},
            **options,
        )
        event.listen(
            engine, "connect", partial(_set_up_postgres_connection, idle_transaction_seconds)
        )
        return engine
    if backend != "sqlite":
        raise ValueError(f"unknown database {backend!r}: use sqlite:/// or postgresql+psycopg://")
    if parsed.database in (None, "", ":memory:"):
        raise ValueError("SQLite in memory cannot be shared between connections: name a file")
    Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        parsed,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        **options,
    )
    event.listen(engine, "connect", _set_up_sqlite_connection)
    event.listen(engine, "begin", _begin_sqlite_transaction)
    event.listen(engine, "handle_error", _drop_spoiled_sqlite_connection)
    return engine


def limit_statements(engine: Engine, seconds: float) -> None:
    """Let Postgres give up what would keep a request: `OperationalError`.

    A statement that it works on for more than `seconds`, or that waits for a lock for more than
    `BUSY_TIMEOUT_SECONDS`, as SQLite's waiting ends anyway. For servers only: a worker may wait.
    """
    if engine.dialect.name != "postgresql":
        return
    settings = {"statement_timeout": seconds, "lock_timeout": BUSY_TIMEOUT_SECONDS}

    def limit(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for name, limit_seconds in settings.items():
            cursor.execute(f"SET {name} = {round(limit_seconds * 1000)}")
        cursor.close()
        connection.commit()

    event.listen(engine, "connect", limit)


def session_factory(engine: Engine, *, read_only: bool = False) -> sessionmaker[Session]:
    """Makes sessions; see the top of this file for what `read_only` means.

    Objects stay usable after the commit (`expire_on_commit=False`), so that an answer can be built
    from them once the transaction is over.
    """
    if read_only and engine.dialect.name == "postgresql":
        # One state for all statements of the transaction, as SQLite's readers have it anyway.
        engine = engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
    elif read_only:
        engine = engine.execution_options(read_only=True)
    return sessionmaker(engine, expire_on_commit=False)


def _strict_json(value: Any) -> str:
    """NaN and infinity are refused on both databases; on its own only Postgres would."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _set_up_sqlite_connection(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # The driver's own transaction control is off: `_begin_sqlite_transaction` says BEGIN.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    # A committed annotation survives a power cut; NORMAL would lose the last ones.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _drop_spoiled_sqlite_connection(context: ExceptionContext) -> None:
    if not any(words in str(context.original_exception) for words in _SQLITE_REOPENS):
        return
    context.is_disconnect = True
    # SQLite closes a connection, gives up its lock, and opens its shared files anew only when no
    # statement is left; this one would live as long as somebody holds the error's traceback.
    with suppress(sqlite3.Error):
        if context.execution_context is not None:
            context.execution_context.cursor.close()
        if context.connection is not None:
            context.connection.connection.rollback()


def _set_up_postgres_connection(
    idle_transaction_seconds: float, connection: DBAPIConnection, _: ConnectionPoolEntry
) -> None:
    cursor = connection.cursor()
    cursor.execute(_POSTGRES_SESSION)
    milliseconds = round(idle_transaction_seconds * 1000)
    cursor.execute(f"SET idle_in_transaction_session_timeout = {milliseconds}")
    cursor.close()
    connection.commit()


def _begin_sqlite_transaction(connection: Connection) -> None:
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql(f"PRAGMA query_only = {int(read_only)}")
    connection.exec_driver_sql("BEGIN DEFERRED" if read_only else "BEGIN IMMEDIATE")


class now_seconds(FunctionElement[float]):  # noqa: N801 (reads as the SQL function it is)
    """The database's clock as Unix seconds: what leases and claims are measured with."""

    type = Float()
    inherit_cache = True


@compiles(now_seconds, "sqlite")
def _now_seconds_sqlite(element: now_seconds, compiler: SQLCompiler, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now_seconds, "postgresql")
def _now_seconds_postgres(element: now_seconds, compiler: SQLCompiler, **_: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"


class now_utc(FunctionElement[Any]):  # noqa: N801 (reads as the SQL function it is)
    """The database's clock as an aware UTC datetime, for the `*_at` columns."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(now_utc, "sqlite")
def _now_utc_sqlite(element: now_utc, compiler: SQLCompiler, **_: Any) -> str:
    # The form in which SQLAlchemy stores datetimes, so that texts compare as times do.
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"


@compiles(now_utc, "postgresql")
def _now_utc_postgres(element: now_utc, compiler: SQLCompiler, **_: Any) -> str:
    return "clock_timestamp()"


def alembic_config() -> Config:
    """Alembic's configuration, made in code so that an installed wheel needs no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS_DIR).replace("%", "%%"))
    return config


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Brings the schema up to `revision`; safe to run from several processes at once."""
    config = alembic_config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def revision_of_program() -> str | None:
    """The revision of the schema that this program was written for."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def check_revision(engine: Engine) -> None:
    """Returns if the database has exactly this program's schema.

    Raises:
        WrongRevision: it is empty, older, or of a newer program; the message says what to do.
    """
    script = ScriptDirectory.from_config(alembic_config())
    wanted = script.get_current_head()
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    if found == wanted:
        return
    where = engine.url.render_as_string(hide_password=True)
    if found is None:
        raise WrongRevision(where, "has no tables yet: run `python -m server migrate`")
    if found in {revision.revision for revision in script.walk_revisions()}:
        raise WrongRevision(
            where,
            f"is at revision {found}, this program needs {wanted}: run `python -m server migrate`",
        )
    raise WrongRevision(
        where,
        f"is at revision {found}, which this program (revision {wanted}) does not know: it was "
        "migrated by a newer release; install that release",
    )
