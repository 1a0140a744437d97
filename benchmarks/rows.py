"""A measured figure beside the one it is compared with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table; the reference is a figure of the same run."""

    what: str
    seconds: float
    reference: str = ""
    reference_seconds: float | None = None


def median_seconds(action: Callable[[], object], *, runs: int, warm_up: int = 1) -> float:
    """Median wall time of some runs after a warm-up."""
    for _ in range(warm_up):
        action()
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
