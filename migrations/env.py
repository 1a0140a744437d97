"""How Alembic runs the chain: on a connection that `upgrade` gives, or on the configured database.

All revisions of one run are one transaction on both databases, so a failing one leaves nothing.
"""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection, text

from server.store.database import make_engine
from server.store.models import Base, UtcDateTime

# Any number will do, as long as nothing else takes an advisory lock of this name.
MIGRATION_LOCK = 4_916_202_711


def render_item(kind: str, item: Any, _: AutogenContext) -> str | Literal[False]:
    """Writes our datetime type as plain SQLAlchemy: an old revision must not need today's code."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def run(connection: Connection) -> None:
    """Runs the migrations of this Alembic command and commits."""
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite:
        # Batch mode drops and renames tables; with foreign keys on, the drop would cascade into
        # the rows of other tables. Inside a transaction the pragma does nothing, so before it.
        _pragma_outside_transaction(connection, "foreign_keys = OFF")
    try:
        with connection.begin():
            if not is_sqlite:  # SQLite's BEGIN IMMEDIATE already lets only one in
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK}
                )
            context.configure(
                connection=connection,
                target_metadata=Base.metadata,
                render_as_batch=True,
                render_item=render_item,
                compare_type=True,
            )
            context.run_migrations()
            if is_sqlite:
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                if broken:
                    raise RuntimeError(f"migration left rows without their parents: {broken[:5]}")
    finally:
        if is_sqlite:
            _pragma_outside_transaction(connection, "foreign_keys = ON")


def _pragma_outside_transaction(connection: Connection, pragma: str) -> None:
    raw = connection.connection.dbapi_connection
    assert raw is not None
    cursor = raw.cursor()
    cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


if context.is_offline_mode():
    raise SystemExit("SQL scripts are not written offline: run `python -m server migrate`")

given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    from server.settings import Settings  # only the `alembic` command of a developer comes here

    with make_engine(Settings().resolved_database_url).connect() as own:
        run(own)
