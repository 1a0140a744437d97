"""Figures that only rise and outlive every process: attempts lost, cycles ended, images scored.

A count is written in the very transaction of what it counts, so it is exact whatever is killed
when. It is written last: a counter's row is shared by everybody, and locked for that instant only,
in one order, so that no two transactions can wait for each other.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import event, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from server.store.models import Counter

_PENDING = "counts to write at the commit"

Counts = dict[tuple[str, str], float]


def add(session: Session, name: str, label: str = "", value: float = 1.0) -> None:
    """Let a figure rise when this transaction commits.

    Args:
        session: writes.
        name: what is counted.
        label: which kind of it.
        value: by how much; not negative.
    """
    assert value >= 0, f"{name} would fall by {-value}"
    pending: Counts = session.info.setdefault(_PENDING, {})
    pending[name, label] = pending.get((name, label), 0.0) + value


def read_all(session: Session) -> Counts:
    """All figures, by name and label; one that never rose is missing."""
    rows = session.execute(select(Counter.name, Counter.label, Counter.value))
    return {(row.name, row.label): row.value for row in rows}


@event.listens_for(Session, "before_commit")
def _write(session: Session) -> None:
    pending: Counts = session.info.pop(_PENDING, {})
    if not pending:
        return
    is_postgres = session.get_bind().dialect.name == "postgresql"
    new: Any = (postgresql.insert if is_postgres else sqlite.insert)(Counter)
    session.execute(
        new.on_conflict_do_update(
            index_elements=[Counter.name, Counter.label],
            set_={"value": Counter.value + new.excluded.value},
        ).values(
            [
                {"name": name, "label": label, "value": value}
                for (name, label), value in sorted(pending.items())
            ]
        )
    )


@event.listens_for(Session, "after_soft_rollback")
def _forget(session: Session, _: object) -> None:
    session.info.pop(_PENDING, None)
