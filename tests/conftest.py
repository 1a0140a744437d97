"""Fixtures for every room: a fresh, migrated database of each kind, sessions, blobs.

A test that takes `database_url` (or `engine`, `sessions`) runs twice, with `sqlite` and `postgres`
in its id. Postgres comes from `MIAOD_TEST_POSTGRES_URL` (a user who may create databases) or from a
PyPI package; it starts when the first test needs it, once per pytest process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from server.store.blobs import BlobStore
from server.store.database import (
    WrongRevision,
    check_revision,
    make_engine,
    session_factory,
    upgrade,
)
from server.store.models import Base
from tests.postgres_server import start_postgres


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_admin_url() -> Iterator[str]:
    """The URL of a running Postgres whose user may create databases."""
    given = os.environ.get("MIAOD_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    # Not below pytest's own folder: as root the server runs as another user, who may not enter it.
    folder = Path(tempfile.mkdtemp(prefix="miaod-postgres-"))
    server = start_postgres(folder / "data")
    try:
        url = server.get_uri()
        with _admin(url) as execute:
            # Nothing here outlives the tests, so nothing needs to reach the disk.
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                execute(f"ALTER SYSTEM SET {setting} = off")
            execute("SELECT pg_reload_conf()")
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def fresh_postgres(postgres_admin_url: str) -> Iterator[Callable[[], str]]:
    """Gives the URL of a migrated Postgres database without rows.

    It is the same one again and again: to delete all rows takes a twentieth of the time of cloning
    a template. A test that has spoiled more than the rows costs a new one.
    """
    with ExitStack() as databases:
        url: str | None = None

        def fresh() -> str:
            nonlocal url
            if url is None or not _emptied(url):
                url = databases.enter_context(_postgres_database(postgres_admin_url))
                _migrate(url)
            return url

        yield fresh


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh database with all tables; the test runs on SQLite and on Postgres."""
    # Fetched by name so that a SQLite test starts no Postgres.
    if request.param == "sqlite":
        path = tmp_path / "data" / "miaod.db"
        path.parent.mkdir()
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
    else:
        yield request.getfixturevalue("fresh_postgres")()


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any table; SQLite and Postgres in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        with _postgres_database(request.getfixturevalue("postgres_admin_url")) as url:
            yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on a fresh, migrated database."""
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[Session]:
    """Makes writing sessions on a fresh, migrated database."""
    return session_factory(engine)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data folder; the SQLite database of `database_url` lies in it as well."""
    path = tmp_path / "data"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture
def blobs(data_dir: Path) -> BlobStore:
    """An empty blob store."""
    return BlobStore(data_dir)


def _migrate(url: str) -> None:
    engine = make_engine(url)
    upgrade(engine)
    engine.dispose()


def _emptied(url: str) -> bool:
    """Deletes every row; False if the database's schema is no longer what the tests need."""
    with _admin(url) as execute:
        # A connection that a test left open may hold a lock.
        execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        try:
            for table in reversed(Base.metadata.sorted_tables):
                execute(f"DELETE FROM {table.name}")
        except DBAPIError:
            return False
    engine = make_engine(url)
    try:
        check_revision(engine)
    except WrongRevision:
        return False
    finally:
        engine.dispose()
    return True


@contextmanager
def _admin(url: str) -> Iterator[Callable[[str], object]]:
    """Runs statements outside a transaction, as CREATE DATABASE wants it."""
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        yield lambda statement: connection.execute(text(statement))
    engine.dispose()


@contextmanager
def _postgres_database(admin_url: str) -> Iterator[str]:
    """An empty database for the time of the block; gives its URL."""
    name = f"miaod_test_{uuid4().hex}"
    with _admin(admin_url) as execute:
        execute(f"CREATE DATABASE {name}")
    try:
        url = make_url(admin_url).set(drivername="postgresql+psycopg", database=name)
        yield url.render_as_string(hide_password=False)
    finally:
        with _admin(admin_url) as execute:
            # A connection that a test left open must not keep the database.
            execute(f"DROP DATABASE {name} WITH (FORCE)")
