"""The Alembic chain makes what the models say, and the programs know which revision they need."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from server.store.database import (
    WrongRevision,
    alembic_config,
    check_revision,
    make_engine,
    upgrade,
)
from server.store.models import Base, Project


@pytest.fixture
def empty_engine(empty_database_url: str) -> Iterator[Engine]:
    engine = make_engine(empty_database_url)
    yield engine
    engine.dispose()


def test_a_migrated_database_is_what_the_models_describe(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_migrated_and_freshly_made_tables_agree_also_in_what_alembic_does_not_compare(
    empty_engine: Engine,
) -> None:
    upgrade(empty_engine)
    migrated = described(empty_engine)
    Base.metadata.drop_all(empty_engine)
    Base.metadata.create_all(empty_engine)
    made = described(empty_engine)
    for table in Base.metadata.tables:
        assert migrated[table] == made[table]


def described(engine: Engine) -> dict[str, dict[str, list[str]]]:
    """What the database says of each table, in texts that can be compared."""
    inspector = inspect(engine)
    tables: dict[str, dict[str, list[str]]] = {}
    for table in Base.metadata.tables:
        aspects: dict[str, Sequence[Mapping[str, Any]]] = {
            "columns": inspector.get_columns(table),
            "primary key": [inspector.get_pk_constraint(table)],
            "checks": inspector.get_check_constraints(table),
            "foreign keys": inspector.get_foreign_keys(table),
            "unique": inspector.get_unique_constraints(table),
            "indexes": inspector.get_indexes(table),
        }
        # Sorted, since their order means nothing; as texts, since types compare by identity.
        tables[table] = {
            aspect: sorted(str(_with_texts(part)) for part in parts)
            for aspect, parts in aspects.items()
        }
    return tables


def _with_texts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_texts(part) for key, part in value.items()}
    return str(value)


def test_there_is_one_chain_with_one_head() -> None:
    script = ScriptDirectory.from_config(alembic_config())
    assert len(script.get_heads()) == 1
    assert len(script.get_bases()) == 1


def test_an_empty_database_is_refused_with_the_command_that_helps(empty_engine: Engine) -> None:
    with pytest.raises(WrongRevision, match=r"has no tables yet: run `python -m server migrate`"):
        check_revision(empty_engine)


def test_a_migrated_database_is_accepted(empty_engine: Engine) -> None:
    upgrade(empty_engine)
    check_revision(empty_engine)


def test_a_database_of_a_newer_release_is_refused_and_says_so(empty_engine: Engine) -> None:
    upgrade(empty_engine)
    with empty_engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(WrongRevision, match="revision 9999, which this program .* does not know"):
        check_revision(empty_engine)


def test_an_older_database_is_refused_with_the_command_that_helps(
    empty_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade(empty_engine)
    found = ScriptDirectory.from_config(alembic_config()).get_current_head()
    monkeypatch.setattr(ScriptDirectory, "get_current_head", lambda _: "9999")
    with pytest.raises(WrongRevision, match=f"at revision {found}, this program needs 9999"):
        check_revision(empty_engine)


def test_the_refusal_shows_no_password(
    empty_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(empty_engine, "url", empty_engine.url.set(password="secret"))
    with pytest.raises(WrongRevision) as refusal:
        check_revision(empty_engine)
    assert "secret" not in str(refusal.value)


def test_upgrading_again_changes_nothing(world: Any, engine: Engine) -> None:
    world.project(name="kept")
    upgrade(engine)
    assert [project.name for project in world.all(Project)] == ["kept"]


def test_foreign_keys_hold_again_after_an_upgrade(engine: Engine) -> None:
    upgrade(engine)
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_the_chain_can_be_taken_back_to_nothing_and_forth_again(empty_engine: Engine) -> None:
    upgrade(empty_engine)
    config = alembic_config()
    with empty_engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with empty_engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    upgrade(empty_engine)
    check_revision(empty_engine)


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    empty_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of space, perhaps")

    # The revision makes a dozen tables before it comes to its last index.
    monkeypatch.setattr("alembic.op.create_index", fail)
    with pytest.raises(RuntimeError, match="out of space"):
        upgrade(empty_engine)
    with empty_engine.connect() as connection:
        assert inspect(connection).get_table_names() == []


UPGRADE = """
import sys
from server.store.database import check_revision, make_engine, upgrade
engine = make_engine(sys.argv[1])
upgrade(engine)
check_revision(engine)
"""


def test_two_processes_may_upgrade_at_once(empty_database_url: str) -> None:
    command_line = [sys.executable, "-c", UPGRADE, empty_database_url]
    processes = [subprocess.Popen(command_line) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]


def test_the_chain_lies_next_to_the_server_package() -> None:
    config = alembic_config()
    folder = config.get_main_option("script_location")
    assert folder is not None
    assert (Path(folder) / "env.py").is_file()
    assert (Path(folder).parent / "server" / "store" / "database.py").is_file()
