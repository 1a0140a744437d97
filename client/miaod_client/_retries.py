"""When a request is sent again, and after how long."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

# The server, or a proxy before it, did not work on the request for now.
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
# Of these, the ones that say that nothing was done, so that even a POST may be sent again.
NOT_DONE_STATUSES = frozenset({429, 503})
# Errors before the first byte of the request left this machine.
NOT_SENT_ERRORS = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how patiently a request is sent again.

    Args:
        max_retries: further attempts after the first; 0 switches retries off.
        first_seconds: wait before the first retry; it doubles with each further one.
        max_seconds: no wait is longer. A `Retry-After` above it ends the retries: coming back
            sooner than asked would only be refused again.
    """

    max_retries: int = 4
    first_seconds: float = 0.5
    max_seconds: float = 30.0

    def backoff_seconds(self, attempt: int, uniform: Callable[[float, float], float]) -> float:
        """Wait before retry number `attempt` (from 0): doubled each time, then jittered.

        The jitter takes between half and all of it, so that many clients that were refused at
        once do not come back at once.
        """
        seconds = min(self.first_seconds * 2.0**attempt, self.max_seconds)
        return uniform(seconds / 2, seconds)

    def seconds_after_response(self, response: httpx2.Response, attempt: int) -> float | None:
        """Wait before the request is sent again; `None`: the server asks for too long a wait."""
        asked = retry_after_seconds(response.headers.get("retry-after"), datetime.now(UTC))
        backoff = self.backoff_seconds(attempt, random.uniform)
        if asked is None:
            return backoff
        return max(asked, backoff) if asked <= self.max_seconds else None

    def seconds_after_error(self, attempt: int) -> float:
        """Wait before the request is sent again over a new connection."""
        return self.backoff_seconds(attempt, random.uniform)


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """Seconds that a `Retry-After` header (number or HTTP date) asks for; `None` if unclear."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
