"""Slows down whoever tries keys: so many wrong ones from an address in a minute, then none.

Counts are kept in the memory of the process, so several server processes allow as many times more.
Keys of the table have 256 random bits and cannot be found by trying; what this protects is the key
of the settings, which an operator may have chosen, and the log.
"""

from __future__ import annotations

import ipaddress
import math
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

FAILURES_PER_MINUTE = 10


class FailureThrottle:
    """Counts wrong keys by the address that sent them."""

    def __init__(self) -> None:
        """Start with nobody counted."""
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._limit = RateLimitItemPerMinute(FAILURES_PER_MINUTE)

    def seconds_left(self, address: str) -> int | None:
        """How long the address must wait; None if it may try."""
        network = _network(address)
        if self._limiter.test(self._limit, network):
            return None
        reset = self._limiter.get_window_stats(self._limit, network).reset_time
        return max(1, math.ceil(reset - time.time()))

    def count(self, address: str) -> bool:
        """Count a wrong key; True if it was the last that is allowed in this minute."""
        network = _network(address)
        self._limiter.hit(self._limit, network)
        return self._limiter.get_window_stats(self._limit, network).remaining == 0


def _network(address: str) -> str:
    """What belongs to one client: an IPv4 address, or the /64 that IPv6 gives to each."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
