"""UUIDv7 identifiers: unique without coordination, and sorted by creation time."""

from __future__ import annotations

import os
import time
import uuid


def new_id() -> str:
    """A fresh UUIDv7 (RFC 9562) in its canonical 36-character form.

    The first 48 bits are Unix milliseconds, so ids made later sort later (to the millisecond)
    and keyset pages over ids follow creation order.
    """
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76  # version 7
    value = value & ~(0x3 << 62) | 0x2 << 62  # RFC variant
    return str(uuid.UUID(int=value))
