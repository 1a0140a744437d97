"""A look at something that may hang: a database behind a dead network, a file server that is gone.

Every look is made in a thread of its own, one at a time. Whoever asks waits for a bounded time and
takes no thread of those that answer requests, so that health and metrics answer when nothing else
does; and what was found serves all who ask within the next second.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")

FRESH_SECONDS = 1.0


class Watched(Generic[T]):
    """One thing to look at, by any number of askers."""

    def __init__(self, look: Callable[[], T], name: str) -> None:
        """Prepare; nothing is looked at before `ask`.

        Args:
            look: makes the look; may raise, and may hang.
            name: of its thread.
        """
        self._look = look
        self._name = name
        self._lock = threading.Lock()
        self._latest: Future[T] | None = None
        self._started_at = 0.0
        self._ended_at = 0.0

    async def ask(self, seconds: float) -> T:
        """What is there to see, at most a second old.

        Args:
            seconds: how long the look may take, counted from its start.

        Raises:
            TimeoutError: it takes longer. It goes on, and nobody starts another one meanwhile.
            Exception: whatever the look raised.
        """
        with self._lock:
            future = self._current()
            left = self._started_at + seconds - time.monotonic()
        if left <= 0 and not future.done():
            raise TimeoutError(f"{self._name} has not answered for {seconds:g} s")
        return await asyncio.wait_for(asyncio.wrap_future(future), max(left, 0.1))

    def _current(self) -> Future[T]:
        latest = self._latest
        if latest is not None and not (
            latest.done() and time.monotonic() - self._ended_at > FRESH_SECONDS
        ):
            return latest
        self._latest = future = Future[T]()
        self._started_at = time.monotonic()
        # From now on nobody who gives up waiting can cancel it for the others.
        future.set_running_or_notify_cancel()
        threading.Thread(target=self._run, args=[future], name=self._name, daemon=True).start()
        return future

    def _run(self, future: Future[T]) -> None:
        try:
            found = self._look()
        except BaseException as error:  # noqa: BLE001 (whatever it is, those who asked get it)
            self._ended_at = time.monotonic()
            future.set_exception(error)
        else:
            self._ended_at = time.monotonic()
            future.set_result(found)
