"""Workers, as they last reported themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.services.paging import PageOf, PageRequest, SortKey, paginate
from server.store.database import now_seconds
from server.store.models import Cycle, Worker

# A worker reports itself every few seconds, also when it has nothing to do.
LIVE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker, and whether it was seen lately on the database's clock; its cycle, if visible."""

    worker: Worker
    cycle_id: str | None
    last_seen: datetime
    seconds_since_seen: float
    live: bool


@dataclass(frozen=True, slots=True)
class Staff:
    """The workers as a whole, for the question why a cycle waits.

    Attributes:
        now: the database's clock, Unix seconds.
        live: workers seen lately.
        idle: those of them without a cycle.
        last_seen: Unix seconds of the newest sign of life; None if no worker ever reported.
    """

    now: float
    live: int
    idle: int
    last_seen: float | None

    def why_waiting(self, since: datetime) -> str | None:
        """Why a cycle that waits since then has not been taken up; None if it soon will be."""
        if self.live == 0:
            silent_from = since.timestamp() if self.last_seen is None else self.last_seen
            return f"no worker seen for {max(0, round(self.now - silent_from))} s"
        if self.idle == 0:
            which = "the worker is" if self.live == 1 else f"all {self.live} workers are"
            return f"{which} busy with another cycle"
        return None


def page(session: Session, request: PageRequest) -> PageOf[WorkerView]:
    """All workers that ever reported, in the order in which they first did."""
    found = paginate(
        session,
        # Joined, so that a cycle of a project that the caller does not see is none.
        select(Worker, Cycle.id, now_seconds()).outerjoin(Cycle, Cycle.id == Worker.cycle_id),
        [SortKey(Worker.id.expression, str)],
        request,
        order_name="workers",
    )
    return found.map(lambda row: _view(row[0], row[1], row[2]))


def staff(session: Session) -> Staff:
    """Who is there to work."""
    rows: Sequence[tuple[float, str | None, float]] = [
        (row[0], row[1], row[2])
        for row in session.execute(select(Worker.last_seen, Worker.cycle_id, now_seconds()))
    ]
    if not rows:
        now = session.scalar(select(now_seconds()))
        assert now is not None
        return Staff(now, 0, 0, None)
    now = rows[0][2]
    live = [cycle_id for seen, cycle_id, _ in rows if now - seen <= LIVE_SECONDS]
    return Staff(now, len(live), live.count(None), max(seen for seen, _, _ in rows))


def _view(worker: Worker, cycle_id: str | None, now: float) -> WorkerView:
    silent = max(0.0, now - worker.last_seen)
    return WorkerView(
        worker,
        cycle_id,
        datetime.fromtimestamp(worker.last_seen, UTC),
        silent,
        silent <= LIVE_SECONDS,
    )
