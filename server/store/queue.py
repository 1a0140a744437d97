"""Tables that are queues: claim a job, hold it under a lease, end it. Used for cycles and imports.

A claim gives a `Lease` with a fence, a number that rises at every claim of the job. Every later
write names the fence and counts the rows it met, so a worker that was frozen, cut off or believed
dead and comes back writes nothing and gets `LeaseLost`. A lease that is not renewed in time lapses;
the next `claim` then hands the job to whoever asks. All times are the database's (`now_seconds`).

    queued ── claim ──► running ── finish / fail / cancelled ──► succeeded / failed / cancelled
       ▲                  │
       └── release, lose, or a claim after the lease lapsed

Whatever people should hear of a cycle is written as an event (`events.py`) in the same transaction;
imports have none. The functions take a writing session and leave the commit to the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, case, func, or_, select, update
from sqlalchemy.orm import Session

from server.store import counters, events
from server.store.database import now_seconds, now_utc
from server.store.events import EventKind
from server.store.models import Cycle, Import, Json

JobTable = type[Cycle] | type[Import]

# States of a job that has not ended.
ACTIVE = ("queued", "running")

# So many claims may be lost, without a newer checkpoint between them, before a job is given up.
MAX_ATTEMPTS = 3

LAPSED = "the worker was lost: its lease lapsed without a word"


class LeaseLost(Exception):
    """The job is no longer this worker's: nothing was written, and it should stop at once."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write about one job, until it lapses and somebody else claims the job."""

    table: JobTable
    job_id: str
    worker_id: str
    fence: int

    @property
    def is_held(self) -> ColumnElement[bool]:
        """What is true of the job's row as long as this lease stands."""
        return and_(
            self.table.id == self.job_id,
            # Both: a database that came back as it was before a claim gives the same fence again.
            self.table.fence == self.fence,
            self.table.worker_id == self.worker_id,
            self.table.state == "running",
        )


def claim(
    session: Session,
    table: JobTable,
    worker_id: str,
    lease_seconds: float,
    *filters: ColumnElement[bool],
) -> Lease | None:
    """Takes the oldest job that waits or whose lease has lapsed; None if there is none.

    Begin a session for it: on SQLite the transaction's first statement takes the write lock, and
    on Postgres the rows that others are just claiming are stepped over.

    A lapsed job that was to be cancelled becomes cancelled instead, and one that lost its worker
    for the MAX_ATTEMPTS-th time becomes failed.

    Args:
        session: writes.
        table: `Cycle` or `Import`.
        worker_id: who claims.
        lease_seconds: for how long, unless renewed by `heartbeat`.
        *filters: further conditions that the job must meet.
    """
    settle_lapsed(session, table)
    oldest = session.execute(
        select(table.id, table.state)
        .where(or_(table.state == "queued", _has_lapsed(table)), *filters)
        .order_by(table.created_at, table.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if oldest is None:
        return None
    was_lost = oldest.state == "running"
    if was_lost:
        counters.add(session, f"{table.__tablename__}_lost", "lapsed")
    [claimed] = _change(
        session,
        table,
        table.id == oldest.id,
        tell="state",
        state="running",
        worker_id=worker_id,
        fence=table.fence + 1,
        attempts=table.attempts + int(was_lost),
        message=LAPSED if was_lost else table.message,
        lease_until=now_seconds() + lease_seconds,
        started_at=func.coalesce(table.started_at, now_utc()),
    )
    return Lease(table, claimed.id, worker_id, claimed.fence)


def heartbeat(
    session: Session,
    lease: Lease,
    lease_seconds: float,
    *,
    progress: float | None = None,
    stage: str | None = None,
    message: str | None = None,
    detail: Json | None = None,
) -> bool:
    """Renews a lease and tells where the job is; says whether the job is to be cancelled.

    A lease that lapsed is renewed too, as long as nobody else has claimed the job since: a short
    outage of the database costs nothing.

    Args:
        session: writes.
        lease: from `claim`.
        lease_seconds: the lease lasts so long from now on.
        progress: 0 to 1; less than an earlier attempt had reached, or None, leaves it.
        stage: what the job is doing, one word (cycles only); None leaves it, as for the next two.
        message: what the job is doing, a sentence.
        detail: where the stage is (cycles only, see `Cycle.detail`).

    Raises:
        LeaseLost: another claim, a cancellation or an end has come before.
    """
    told: dict[str, Any] = {"stage": stage, "message": message, "detail": detail}
    if progress is not None:
        reached = lease.table.progress
        told["progress"] = case((reached > progress, reached), else_=progress)
    news = {name: value for name, value in told.items() if value is not None}
    return _write(
        session,
        lease,
        tell="progress" if news else None,
        lease_until=now_seconds() + lease_seconds,
        **news,
    )


def record(session: Session, lease: Lease, **values: Any) -> None:
    """Sets other columns of the job; called without any it only checks and locks.

    Until the transaction ends nobody else can claim the job, so whatever the same transaction
    writes besides is written under the lease.

    Raises:
        LeaseLost: the job is no longer this worker's.
    """
    # An UPDATE of a column to itself locks the row on both databases.
    _write(session, lease, **(values or {"fence": lease.fence}))


def finish(session: Session, lease: Lease, **values: Any) -> None:
    """Ends the job as succeeded, setting other columns on the way. Raises: LeaseLost."""
    _end(session, lease, "succeeded", progress=1.0, error=None, **values)


def fail(session: Session, lease: Lease, error: str) -> None:
    """Ends the job as failed, for a reason that another try would meet again. Raises: LeaseLost."""
    _end(session, lease, "failed", error=error)


def cancelled(session: Session, lease: Lease) -> None:
    """Ends the job as cancelled: its worker has stopped working on it. Raises: LeaseLost."""
    _end(session, lease, "cancelled")


def release(session: Session, lease: Lease) -> None:
    """Gives the job back to the queue without counting an attempt. Raises: LeaseLost.

    A job that is to be cancelled becomes cancelled instead.
    """
    _write(session, lease, tell="state", **_back_in_the_queue(lease.table))


def lose(session: Session, lease: Lease, reason: str) -> None:
    """Gives the job back because this try was lost (a child killed or hung). Raises: LeaseLost.

    Counts an attempt; the MAX_ATTEMPTS-th ends the job as failed with this reason.
    """
    table = lease.table
    given_up = and_(table.attempts + 1 >= MAX_ATTEMPTS, ~table.cancel_requested)
    values = _back_in_the_queue(table)
    values["state"] = case((given_up, "failed"), else_=values["state"])
    values["finished_at"] = case((given_up, now_utc()), else_=values["finished_at"])
    _write(
        session,
        lease,
        tell="state",
        attempts=table.attempts + 1,
        message=reason,
        error=case((given_up, _given_up(reason)), else_=None),
        **values,
    )
    counters.add(session, f"{table.__tablename__}_lost", "crashed")


def request_cancel(session: Session, table: JobTable, job_id: str) -> str | None:
    """Asks for a job to be cancelled; gives its state now, None if it had ended or is unknown.

    A job that waits, or whose lease has lapsed, is `cancelled` at once; a `running` one is flagged,
    and its worker, told by its next heartbeat, stops and ends it. Objects of the job that the
    session holds do not notice: refresh them.
    """
    is_active = and_(table.id == job_id, table.state.in_(ACTIVE))
    at_once = or_(table.state == "queued", _has_lapsed(table))
    changed = _change(
        session,
        table,
        and_(is_active, or_(at_once, ~table.cancel_requested)),
        tell="state",
        cancel_requested=True,
        state=case((at_once, "cancelled"), else_=table.state),
        finished_at=case((at_once, now_utc()), else_=None),
        lease_until=case((at_once, None), else_=table.lease_until),
    )
    if changed:
        return str(changed[0].state)
    return session.scalar(select(table.state).where(is_active))


def resume(session: Session, table: JobTable, job_id: str) -> bool:
    """Puts a failed or cancelled job back into the queue; False if it is neither.

    It keeps what it had reached, and gets its attempts anew.
    """
    changed = _change(
        session,
        table,
        and_(table.id == job_id, table.state.in_(("failed", "cancelled"))),
        tell="state",
        state="queued",
        cancel_requested=False,
        attempts=0,
        error=None,
        worker_id=None,
        lease_until=None,
        finished_at=None,
    )
    return bool(changed)


def requeue_all(session: Session, table: JobTable) -> None:
    """Gives back every running job, without counting an attempt: whoever ran them is gone.

    For a database that comes from a backup. Those that are to be cancelled become cancelled.
    """
    _change(session, table, table.state == "running", tell="state", **_back_in_the_queue(table))


def settle_lapsed(session: Session, table: JobTable) -> None:
    """Ends the lapsed jobs that must not be claimed again; for when nobody is there to claim."""
    doomed = or_(table.cancel_requested, table.attempts + 1 >= MAX_ATTEMPTS)
    lapsed = select(table.id).where(_has_lapsed(table), doomed).with_for_update(skip_locked=True)
    ended = _change(
        session,
        table,
        table.id.in_(lapsed),
        tell="state",
        state=case((table.cancel_requested, "cancelled"), else_="failed"),
        attempts=table.attempts + 1,
        error=case((table.cancel_requested, None), else_=_given_up(LAPSED)),
        lease_until=None,
        finished_at=now_utc(),
    )
    for _ in ended:
        counters.add(session, f"{table.__tablename__}_lost", "lapsed")


def _has_lapsed(table: JobTable) -> ColumnElement[bool]:
    return and_(table.state == "running", table.lease_until < now_seconds())


def _given_up(reason: str) -> str:
    return f"given up after {MAX_ATTEMPTS} lost attempts; the last: {reason}"


def _back_in_the_queue(table: JobTable) -> dict[str, Any]:
    return {
        "state": case((table.cancel_requested, "cancelled"), else_="queued"),
        "finished_at": case((table.cancel_requested, now_utc()), else_=None),
        "worker_id": None,
        "lease_until": None,
    }


def _end(session: Session, lease: Lease, state: str, **values: Any) -> None:
    _write(
        session,
        lease,
        tell="state",
        state=state,
        lease_until=None,
        finished_at=now_utc(),
        **values,
    )


def _write(session: Session, lease: Lease, *, tell: EventKind | None = None, **values: Any) -> bool:
    """A change under the fence; says whether the job is to be cancelled."""
    changed = _change(session, lease.table, lease.is_held, tell=tell, **values)
    if not changed:
        raise LeaseLost(
            f"{lease.table.__tablename__} {lease.job_id}: worker {lease.worker_id} no longer holds"
            f" it (fence {lease.fence})"
        )
    return bool(changed[0].cancel_requested)


def _change(
    session: Session,
    table: JobTable,
    which: ColumnElement[bool],
    *,
    tell: EventKind | None,
    **values: Any,
) -> Sequence[Row[*tuple[Any, ...]]]:
    """One UPDATE, with an event about each cycle that it meets; gives the rows as they are now."""
    # The rows are changed in the database only: no session keeps jobs as objects for long.
    statement = update(table).where(which).execution_options(synchronize_session=False)
    if table is not Cycle or tell is None:
        columns = (table.id, table.state, table.fence, table.cancel_requested)
        rows = session.execute(statement.values(**values).returning(*columns)).all()
    else:
        values["event_seq"] = Cycle.event_seq + 1
        if tell == "state":
            # It told of a stage that is not, or not for long, running any more.
            values["detail"] = None
        rows = session.execute(
            statement.values(**values).returning(*events.TOLD, Cycle.fence)
        ).all()
        events.write(session, tell, rows)
    for row in rows:
        # Nothing changes once it has ended, but to be queued anew.
        if row.state not in ACTIVE:
            counters.add(session, f"{table.__tablename__}_ended", row.state)
    return rows
