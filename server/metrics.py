"""What this process itself has to tell Prometheus: its requests, its sweeps, its memory.

Each application has a registry of its own, so that several in one process (as in tests) do not mix.
"""

from __future__ import annotations

import os
import socket
import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Twice as many series for a date that nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ProcessFigures:
    """The figures of this process; each names it, for servers that are scraped through a proxy."""

    def __init__(self) -> None:
        """All figures at zero."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        process = f"{socket.gethostname()}:{os.getpid()}"
        self._request_seconds = Histogram(
            "miaod_http_request_seconds",
            "From the arrival of a request until its answer begins.",
            ["process", "method", "route", "status"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._process = process
        self.in_flight = Gauge(
            "miaod_http_requests_in_flight",
            "Requests whose answer has not ended.",
            ["process"],
            registry=self.registry,
        ).labels(process)
        sweeps = Counter(
            "miaod_sweeps",
            "Hourly sweeps of what nobody needs any more.",
            ["process", "outcome"],
            registry=self.registry,
        )
        self.sweeps_done = sweeps.labels(process, "done")
        self.sweeps_failed = sweeps.labels(process, "failed")

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """An answer has begun.

        Args:
            method: of the request.
            route: the template of its path, never the path itself: there must be few of them.
            status: of the answer.
            seconds: since the request came.
        """
        known = method if method in _METHODS else "other"
        self._request_seconds.labels(self._process, known, route, f"{status // 100}xx").observe(
            seconds
        )


class RequestMetricsMiddleware:
    """Counts every request, the refused and the crashed ones too."""

    def __init__(self, app: ASGIApp, figures: ProcessFigures) -> None:
        """Wraps an application."""
        self.app = app
        self.figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()

        async def send_noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                seconds = time.perf_counter() - started
                self.figures.answered(scope["method"], _template(scope), message["status"], seconds)
            await send(message)

        with self.figures.in_flight.track_inprogress():
            await self.app(scope, receive, send_noting)


def _template(scope: Scope) -> str:
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "none"
