"""Retries of one POST have one effect and one answer, by the caller's `Idempotency-Key`.

The answer is kept in the transaction that does the work, so that a crash leaves both or neither. A
request that fails keeps nothing: its retry does the work. Two at the same time are put in order by
the database: on Postgres the second waits at the primary key until the first has ended, on SQLite
for the write lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, event, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, SessionTransaction

from server.errors import Unprocessable
from server.store.models import IdempotencyKey, utc_now

_INSERT: dict[str, Callable[..., Any]] = {
    "postgresql": postgresql.insert,
    "sqlite": sqlite.insert,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered."""

    status: int
    body: str
    location: str | None


class Replayed(Exception):  # noqa: N818 (not an error: the answer is known already)
    """The request was answered before; `answer` is what it was answered then."""

    def __init__(self, answer: Answer) -> None:
        """Keep the answer."""
        super().__init__("this request was answered before")
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that carries a key: the first one, or a retry."""

    principal: str
    key: str
    request_sha256: str


def request_sha256(method: str, target: str, body_sha256: str) -> str:
    """What tells one request from another.

    Args:
        method: the HTTP method.
        target: path and query.
        body_sha256: of the body, or of what a form's parts hold.
    """
    # None of the three holds a space.
    return hashlib.sha256(f"{method} {target} {body_sha256}".encode()).hexdigest()


def replay_if_answered(session: Session, attempt: Attempt) -> None:
    """Returns if no request with this key has been answered.

    Raises:
        Replayed: this one has been.
        Unprocessable: another one has been.
    """
    kept = session.get(IdempotencyKey, (attempt.principal, attempt.key))
    if kept is None:
        return
    if kept.request_sha256 != attempt.request_sha256:
        raise Unprocessable(
            f"the Idempotency-Key {attempt.key!r} came before with another request: a retry "
            "repeats method, address and body; a new request takes a new key",
            code="idempotency_key_reused",
        )
    raise Replayed(Answer(kept.status, kept.body, kept.location))


def reserve_at_begin(session: Session, attempt: Attempt) -> None:
    """Take the key with the first statement of the session's transaction, whenever that comes.

    Not at once, because the work may begin with minutes of reading and storing files, during which
    no lock may be held. That first statement then raises what `replay_if_answered` raises.
    """

    def reserve(_: Session, __: SessionTransaction, connection: Connection) -> None:
        values = {
            "principal": attempt.principal,
            "key": attempt.key,
            "request_sha256": attempt.request_sha256,
            "status": 0,
            "body": "",
            "created_at": utc_now(),
        }
        insert = _INSERT[connection.dialect.name](IdempotencyKey).values(values)
        taken = insert.on_conflict_do_nothing().returning(IdempotencyKey.key)
        if connection.execute(taken).first() is None:
            with Session(connection) as answered:
                replay_if_answered(answered, attempt)

    event.listen(session, "after_begin", reserve, once=True)


def keep(session: Session, attempt: Attempt, answer: Answer) -> None:
    """Keep the answer, to be committed with the work."""
    session.execute(
        update(IdempotencyKey)
        .where(IdempotencyKey.principal == attempt.principal, IdempotencyKey.key == attempt.key)
        .values(status=answer.status, body=answer.body, location=answer.location)
        .execution_options(synchronize_session=False)
    )
