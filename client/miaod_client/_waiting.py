"""Waiting for a cycle or an import to end, by asking for it now and then."""

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from miaod_client._errors import ConnectionFailedError, UnavailableError, WaitTimeoutError

FIRST_POLL_SECONDS = 0.1
POLL_GROWTH = 1.5
# A server that restarts, or a laptop that slept, must not end hours of waiting.
OUTAGE_SECONDS = 300.0

FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})


class Job(Protocol):
    """What cycles and imports have in common."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def state(self) -> str:
        """One of `queued running succeeded failed cancelled`."""


JobT = TypeVar("JobT", bound=Job)


def poll_until_final(
    fetch: Callable[[], JobT],
    *,
    timeout: float | None,
    poll_seconds: float,
    on_progress: Callable[[JobT], None] | None,
) -> JobT:
    """Fetch a job until it is in a final state, first often, then every `poll_seconds`.

    An unreachable server is borne for `OUTAGE_SECONDS` once the job was seen.

    Args:
        fetch: gets the job as it is now.
        timeout: seconds to wait in all; `None` means without end.
        poll_seconds: longest pause between two looks.
        on_progress: called with the job after each look, the last included.

    Raises:
        WaitTimeoutError: the time is over; the job goes on.
        ConnectionFailedError, UnavailableError: the server stayed away.
        ValueError: `poll_seconds` is not above 0.
    """
    if poll_seconds <= 0:
        raise ValueError(f"poll_seconds is {poll_seconds}: give more than 0")
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = min(FIRST_POLL_SECONDS, poll_seconds)
    seen: JobT | None = None
    seen_at = time.monotonic()
    while True:
        try:
            seen = fetch()
        except (ConnectionFailedError, UnavailableError):
            if seen is None or time.monotonic() - seen_at > OUTAGE_SECONDS:
                raise
        else:
            seen_at = time.monotonic()
            if on_progress is not None:
                on_progress(seen)
            if seen.state in FINAL_STATES:
                return seen
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeoutError(
                    f"{seen.id} is still {seen.state} after {timeout:g} s; it goes on", seen
                )
            pause = min(pause, left)
        time.sleep(pause)
        pause = min(pause * POLL_GROWTH, poll_seconds)
