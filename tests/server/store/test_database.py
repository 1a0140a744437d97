"""Engines, sessions, the clock, the types: the same behaviour on both databases."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, StatementError
from sqlalchemy.orm import Session, sessionmaker

from server.store import queue
from server.store.database import (
    BUSY_TIMEOUT_SECONDS,
    default_database_url,
    limit_statements,
    make_engine,
    now_seconds,
    now_utc,
    session_factory,
)
from server.store.models import Cycle, Image, Project, Query
from server.store.outage import is_outage


def test_the_default_database_is_a_file_in_the_data_folder(tmp_path: Path) -> None:
    url = default_database_url(tmp_path / "not there yet")
    engine = make_engine(url)
    with engine.connect():
        pass
    engine.dispose()
    assert (tmp_path / "not there yet" / "miaod.db").is_file()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_sqlite_in_memory_is_refused_because_connections_could_not_share_it(url: str) -> None:
    with pytest.raises(ValueError, match="name a file"):
        make_engine(url)


def test_another_kind_of_database_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown database 'mysql'"):
        make_engine("mysql://localhost/miaod")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgres_takes_the_same_driver(scheme: str) -> None:
    engine = make_engine(f"{scheme}://somebody@localhost/miaod")
    assert engine.url.drivername == "postgresql+psycopg"


def test_a_datetime_comes_back_aware_and_in_utc(world: Any) -> None:
    in_india = datetime(2026, 3, 1, 12, 30, 0, 123456, timezone(timedelta(hours=5, minutes=30)))
    project_id = world.project(created_at=in_india)
    created_at = world.get(Project, project_id).created_at
    assert created_at == in_india
    assert created_at.tzinfo is UTC


def test_a_naive_datetime_is_refused(world: Any) -> None:
    with pytest.raises(StatementError, match="naive datetime"):
        world.project(created_at=datetime(2026, 3, 1))  # noqa: DTZ001 (that is the point)


def test_a_json_column_without_a_value_is_null(world: Any, sessions: sessionmaker[Session]) -> None:
    project_id = world.project()
    world.cycle(project_id, metrics=None)
    with sessions() as session:
        assert session.scalar(text("SELECT count(*) FROM cycles WHERE metrics IS NULL")) == 1


def test_json_refuses_nan_on_both_databases(world: Any) -> None:
    project_id = world.project()
    # SQLAlchemy serialises for the one, the driver for the other.
    with pytest.raises((StatementError, ValueError), match="not JSON compliant"):
        world.cycle(project_id, metrics={"map50": float("nan")})


def test_a_file_of_many_gigabytes_has_a_size(world: Any) -> None:
    [image_id] = world.images(world.project(), 1, num_bytes=20_000_000_000)
    assert world.get(Image, image_id).num_bytes == 20_000_000_000


def test_foreign_keys_are_enforced(world: Any) -> None:
    with pytest.raises(IntegrityError):
        world.images("no such project", 1)


def test_the_clock_is_the_databases_and_counts_unix_seconds(
    sessions: sessionmaker[Session],
) -> None:
    before = time.time()
    with sessions() as session:
        seconds, moment = session.execute(select(now_seconds(), now_utc())).one()
    # The database runs on this machine, so its clock is ours; SQLite's ticks in milliseconds.
    assert before - 0.01 <= seconds <= time.time() + 0.01
    assert moment.tzinfo is UTC
    assert abs(moment.timestamp() - seconds) < 0.01


def test_the_databases_clock_goes_on_inside_a_transaction(
    sessions: sessionmaker[Session],
) -> None:
    with sessions() as session:
        first = session.scalar(select(now_seconds()))
        time.sleep(0.02)
        second = session.scalar(select(now_seconds()))
    assert first is not None
    assert second is not None
    assert second > first


def test_times_of_the_database_and_of_programs_can_be_compared(world: Any) -> None:
    earlier = world.project(created_at=datetime.now(UTC) - timedelta(seconds=5))
    world.project(created_at=datetime.now(UTC) + timedelta(seconds=5))
    with world.sessions() as session:
        found = session.scalars(select(Project.id).where(Project.created_at < now_utc())).all()
    assert found == [earlier]


def test_a_read_only_session_refuses_to_write(world: Any, engine: Engine) -> None:
    readers = session_factory(engine, read_only=True)
    with readers() as session:
        session.add(Project(name="street"))
        with pytest.raises(DBAPIError, match=r"read-?only"):
            session.flush()
    # The same connection goes back to the pool and must serve a writer next.
    world.project()
    assert len(world.all(Project)) == 1


def test_readers_neither_wait_for_a_writer_nor_see_its_unfinished_work(
    world: Any, engine: Engine
) -> None:
    project_id = world.project(name="before")
    readers = session_factory(engine, read_only=True)
    with world.sessions.begin() as writer:
        writer.get_one(Project, project_id).name = "after"
        writer.flush()
        with readers() as session:
            assert session.get_one(Project, project_id).name == "before"
    with readers() as session:
        assert session.get_one(Project, project_id).name == "after"


def test_a_reader_sees_one_state_from_its_first_statement_to_its_last(
    world: Any, engine: Engine
) -> None:
    world.project(name="before")
    readers = session_factory(engine, read_only=True)
    with readers() as session:
        assert session.scalars(select(Project.name)).all() == ["before"]
        world.project(name="after")
        assert session.scalars(select(Project.name)).all() == ["before"]
    with readers() as session:
        assert len(session.scalars(select(Project.name)).all()) == 2


def test_an_error_of_the_database_does_not_say_what_was_to_be_stored(
    sessions: sessionmaker[Session],
) -> None:
    with pytest.raises(DBAPIError) as failed, sessions.begin() as session:
        session.execute(text("SELECT * FROM nowhere WHERE token = :token"), {"token": "s3cret"})
    assert "nowhere" in str(failed.value)
    assert "s3cret" not in str(failed.value)


def test_a_rolled_back_transaction_leaves_nothing(sessions: sessionmaker[Session]) -> None:
    with sessions() as session:
        session.add(Project(name="street"))
        session.flush()
        session.rollback()
        assert session.scalars(select(Project)).all() == []


def test_a_savepoint_can_be_rolled_back_alone(world: Any) -> None:
    project_id = world.project()
    world.images(project_id, 1)
    with world.sessions.begin() as session:
        session.add(Project(name="kept"))
        taken = session.scalars(select(Image)).one()
        with pytest.raises(IntegrityError), session.begin_nested():
            session.add(
                Query(
                    cycle_id="no such cycle",
                    project_id=project_id,
                    image_id=taken.id,
                    rank=1,
                    reason="random",
                )
            )
    assert [row.name for row in world.all(Project, Project.created_at)] == [project_id, "kept"]


INCREMENT_MANY_TIMES = """
import sys
from server.store.database import make_engine, session_factory
from server.store.models import Project
sessions = session_factory(make_engine(sys.argv[1]))
for _ in range(25):
    with sessions.begin() as session:
        # Read, then write: with deferred transactions this is what SQLite answers "locked" to.
        project = session.get_one(Project, sys.argv[2], with_for_update=True)
        project.next_ordinal += 1
"""


def test_processes_that_read_and_then_write_neither_fail_nor_lose_an_update(
    world: Any, database_url: str
) -> None:
    project_id = world.project()
    command = [sys.executable, "-c", INCREMENT_MANY_TIMES, database_url, project_id]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert world.get(Project, project_id).next_ordinal == 75


OPEN_IT = """
import sys
from server.store.database import make_engine
with make_engine(sys.argv[1]).connect() as connection:
    print(connection.exec_driver_sql("PRAGMA journal_mode").scalar())
"""


def test_a_fresh_sqlite_file_can_be_opened_by_several_processes_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN_IT, f"sqlite:///{tmp_path / 'new.db'}"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[0] for process in processes] == ["wal\n"] * 4


def test_a_postgres_that_is_gone_without_a_word_is_let_go_of_on_both_sides(
    fresh_postgres: Callable[[], str],
) -> None:
    url = make_url(fresh_postgres())
    for chosen, expected in ((url, "20"), (url.update_query_dict({"keepalives_idle": "7"}), "7")):
        engine = make_engine(chosen.render_as_string(hide_password=False))
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            told = driver.info.get_parameters()
            assert (told["keepalives_idle"], told["tcp_user_timeout"]) == (expected, "30000")
            shown = connection.scalar(text("SHOW idle_in_transaction_session_timeout"))
            assert shown == "10min"
        engine.dispose()


def test_an_error_that_the_disk_may_have_caused_costs_sqlite_its_connections(
    tmp_path: Path, sqlite_template: Path
) -> None:
    path = tmp_path / "miaod.db"
    shutil.copyfile(sqlite_template, path)
    engine = make_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        first = connection.connection.driver_connection
        connection.exec_driver_sql("PRAGMA query_only = 1")
        with pytest.raises(OperationalError, match="readonly database") as refused:
            connection.exec_driver_sql("UPDATE projects SET name = name")
        assert refused.value.connection_invalidated
    with engine.begin() as connection:
        assert connection.connection.driver_connection is not first
        connection.exec_driver_sql("UPDATE projects SET name = name")
    engine.dispose()


def test_a_worker_that_is_frozen_in_a_transaction_keeps_its_cycle_from_nobody_for_long(
    world: Any, database_url: str, engine: Engine
) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one lock for all; it is the holder's until it goes on or dies")
    world.cycle(world.project())
    late = world.lapsing_claim()
    frozen = session_factory(make_engine(database_url, idle_transaction_seconds=0.5))()
    queue.record(frozen, late)
    deadline = time.monotonic() + 60
    while True:
        with world.sessions.begin() as session:
            if queue.claim(session, Cycle, "worker-2", 60.0) is not None:
                break
        assert time.monotonic() < deadline, "the row stayed locked"
        time.sleep(0.05)
    with pytest.raises(DBAPIError) as caught:
        frozen.execute(text("SELECT 1"))
    # Whoever was only slow does the same again.
    assert is_outage(caught.value)
    frozen.close()


def test_what_would_keep_a_request_is_given_up_on_postgres(engine: Engine) -> None:
    limit_statements(engine, 0.2)
    if engine.dialect.name == "sqlite":  # its waiting for the lock ends by itself, as before
        return
    with engine.connect() as connection, pytest.raises(OperationalError, match="statement timeout"):
        connection.execute(text("SELECT pg_sleep(30)"))
    with engine.connect() as connection:
        shown = connection.execute(text("SHOW lock_timeout")).scalar()
    assert shown == f"{BUSY_TIMEOUT_SECONDS:g}s"
