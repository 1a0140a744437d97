"""What happened to cycles, in order: written with the change that it tells, read by watchers.

Every event is the moving part of the cycle's row just after the change. Its number is given out
under the lock of that row and committed with the change, so that a reader who has seen an event has
seen, or can read, all before it. Two kinds:

- `state`: queued, claimed, lost, given back, to be cancelled, ended, taken up again;
- `progress`: the news of a heartbeat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import Row, and_, delete, func, insert, or_, select
from sqlalchemy.orm import Session, sessionmaker

from server.store.database import now_utc
from server.store.models import Cycle, CycleEvent, Json, Project

EventKind = Literal["state", "progress"]

ENDED = ("succeeded", "failed", "cancelled")

# What an UPDATE of cycles returns for `write`.
TOLD = (
    Cycle.id,
    Cycle.event_seq,
    Cycle.state,
    Cycle.progress,
    Cycle.stage,
    Cycle.detail,
    Cycle.message,
    Cycle.error,
    Cycle.attempts,
    Cycle.worker_id,
    Cycle.cancel_requested,
    now_utc().label("now"),
)

# A replay thins out progress to about so many events, and the sweep what is kept of it.
REPLAYED = 500
KEPT = 500
# Well below the depth that an expression may have in SQLite (1,000).
CYCLES_PER_STATEMENT = 200
EVENTS_PER_READ = 1000


def write(session: Session, kind: EventKind, rows: Sequence[Row[*tuple[Any, ...]]]) -> None:
    """Writes an event about each of some cycles that the transaction has just changed.

    Args:
        session: writes.
        kind: of all of them.
        rows: `TOLD` of the cycles; the change has raised `event_seq` by one.
    """
    events = [
        {
            "cycle_id": row.id,
            "seq": row.event_seq,
            "kind": kind,
            "data": _told(row),
            "created_at": row.now,
        }
        for row in rows
    ]
    if events:
        session.execute(insert(CycleEvent), events)


def write_first(session: Session, cycle: Cycle) -> None:
    """Writes the event that a cycle, new in this transaction and flushed, waits in the queue."""
    cycle.event_seq = 1
    session.flush()
    rows = session.execute(select(*TOLD).where(Cycle.id == cycle.id)).all()
    write(session, "state", rows)


def latest(session: Session, cycle_ids: Sequence[str]) -> dict[str, int]:
    """The number of each cycle's latest event; those that were deleted are missing."""
    found = session.execute(
        select(Cycle.id, Cycle.event_seq)
        .join(Project, Project.id == Cycle.project_id)
        .where(Cycle.id.in_(cycle_ids), Project.deleted_at.is_(None))
    )
    return {row.id: row.event_seq for row in found}


def read_after(session: Session, seen: Mapping[str, int]) -> list[CycleEvent]:
    """The next events of some cycles, in order for each; at most `EVENTS_PER_READ` at once.

    Args:
        session: reads.
        seen: cycle to the number of the last event that is known.
    """
    found: list[CycleEvent] = []
    places = list(seen.items())
    for start in range(0, len(places), CYCLES_PER_STATEMENT):
        some = places[start : start + CYCLES_PER_STATEMENT]
        news = or_(*(and_(CycleEvent.cycle_id == id, CycleEvent.seq > seq) for id, seq in some))
        found += session.scalars(
            select(CycleEvent)
            .where(news)
            .order_by(CycleEvent.cycle_id, CycleEvent.seq)
            .limit(EVENTS_PER_READ)
        )
    return found


def replay(session: Session, cycle_id: str, after: int, last: int) -> list[CycleEvent]:
    """A cycle's events from `after` (not included) to `last`, in order.

    All of kind `state`; of kind `progress` at most about `REPLAYED`, evenly, the last included.
    """
    stride = _stride(last - after, REPLAYED)
    return list(
        session.scalars(
            select(CycleEvent)
            .where(
                CycleEvent.cycle_id == cycle_id,
                CycleEvent.seq > after,
                CycleEvent.seq <= last,
                or_(
                    CycleEvent.kind == "state",
                    CycleEvent.seq % stride == 0,
                    CycleEvent.seq == last,
                ),
            )
            .order_by(CycleEvent.seq)
        )
    )


def thin_out(sessions: sessionmaker[Session]) -> int:
    """Removes progress of cycles with very many events; how many events that were.

    Of a cycle with more than twice `KEPT` events at most about `KEPT` of kind `progress` are left,
    evenly, and the latest; all of kind `state` stay.
    """
    with sessions() as session:
        long = session.execute(
            select(CycleEvent.cycle_id, func.max(CycleEvent.seq).label("last"))
            .group_by(CycleEvent.cycle_id)
            .having(func.count() > 2 * KEPT)
        ).all()
    removed = 0
    for cycle in long:
        with sessions.begin() as session:
            removed += len(
                session.scalars(
                    delete(CycleEvent)
                    .where(
                        CycleEvent.cycle_id == cycle.cycle_id,
                        CycleEvent.kind == "progress",
                        CycleEvent.seq % _stride(cycle.last, KEPT) != 0,
                        CycleEvent.seq < cycle.last,
                    )
                    .returning(CycleEvent.seq)
                    .execution_options(synchronize_session=False)
                ).all()
            )
    return removed


def _stride(events: int, wanted: int) -> int:
    """Of so many events each how-manieth to take, for at most so many.

    A power of two, so that what is left of a cycle after one thinning is left after the next, too.
    """
    return 1 << max(0, -(-events // wanted) - 1).bit_length()


def _told(row: Row[*tuple[Any, ...]]) -> Json:
    return {
        "state": row.state,
        "progress": row.progress,
        "stage": row.stage,
        **(row.detail or {}),
        "message": row.message,
        "error": row.error,
        "attempts": row.attempts,
        "worker": row.worker_id,
        "cancel_requested": row.cancel_requested,
    }
