"""The audit log: who did what, written in the transaction that did it, and never changed.

Entries name things and say how many; they hold no content and no secret. Annotations are not here:
each of their revisions carries its author.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.services.identity import Caller
from server.services.paging import PageOf, PageRequest, SortKey, paginate
from server.store.models import AuditEntry

# What a session's `info` holds for the one who asked and for their request.
CALLER = "caller"
REQUEST_ID = "request_id"
# Actor of what nobody asked for just now, such as classes that an import adds.
SERVER = "server"


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries to list; None does not filter."""

    project_id: str | None = None
    actor: str | None = None
    action: str | None = None


def record(
    session: Session,
    action: str,
    *,
    project: str | None = None,
    subject: str | None = None,
    caller: Caller | None = None,
    **detail: Any,
) -> None:
    """Add an entry to the transaction.

    Args:
        session: writes; its `info` says who asked.
        action: a stable word, as `project_created`.
        project: id of the project that it is about, if it is about one.
        subject: id of what was changed or read.
        caller: who did it, where the session does not know yet.
        detail: small facts: counts, names of fields. JSON.
    """
    caller = caller or session.info.get(CALLER)
    session.add(
        AuditEntry(
            key_id=caller.key_id if caller else None,
            actor=caller.name if caller else SERVER,
            action=action,
            project_id=project,
            object_id=subject,
            request_id=session.info.get(REQUEST_ID),
            detail=detail,
        )
    )
    session.flush()


def page(session: Session, wanted: AuditFilter, request: PageRequest) -> PageOf[AuditEntry]:
    """Entries, newest first."""
    statement = select(AuditEntry)
    if wanted.project_id is not None:
        statement = statement.where(AuditEntry.project_id == wanted.project_id)
    if wanted.actor is not None:
        statement = statement.where(AuditEntry.actor == wanted.actor)
    if wanted.action is not None:
        statement = statement.where(AuditEntry.action == wanted.action)
    keys = [SortKey(AuditEntry.id.expression, str, descending=True)]
    return paginate(session, statement, keys, request, order_name="audit")
