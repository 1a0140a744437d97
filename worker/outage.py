"""Waiting for a database that is away for a while, as the supervisor does it: without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import stamina
from sqlalchemy.orm import Session, sessionmaker

from server.store.outage import is_outage

T = TypeVar("T")


def patiently(
    work: Callable[[], T],
    *,
    timeout_seconds: float | None = None,
    give_up: Callable[[], bool] = lambda: False,
) -> T:
    """Do `work` over and over as long as the database is away.

    Args:
        work: one or more whole transactions; done again, too, after a commit whose answer was lost.
        timeout_seconds: stop trying after so long; None never stops.
        give_up: asked after each failure; True ends the tries at once.

    Raises:
        DBAPIError: the database was still away at the last try.
    """

    def worth_waiting(error: Exception) -> bool:
        return is_outage(error) and not give_up()

    for attempt in stamina.retry_context(
        on=worth_waiting, attempts=None, timeout=timeout_seconds, wait_max=5.0
    ):
        with attempt:
            return work()
    raise AssertionError("stamina ended without a result and without an error")


def transaction(sessions: sessionmaker[Session], work: Callable[[Session], T]) -> T:
    """Do `work` in one transaction."""
    with sessions.begin() as session:
        return work(session)
