"""New events of cycles for those who watch them: one reader of the database for all of a process.

A watcher costs neither a thread nor a connection: it waits for an asyncio event. One task asks the
database now and then, in one thread, what is new about all watched cycles, and hands it out. The
processes of a service need not know of each other: each reads what any of them, or a worker, wrote.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog
from sqlalchemy.orm import Session, sessionmaker

from server.store import events
from server.store.models import CycleEvent

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.5
# While the database is away it is asked less often.
OUTAGE_POLL_SECONDS = 2.0
# A reader that takes nothing holds at most about so many events; it then misses old progress.
MAX_WAITING = 100


class Watcher:
    """One reader's place in the events of a cycle. Belongs to the event loop's thread."""

    def __init__(self, cycle_id: str, after: int) -> None:
        """Knows the cycle's events up to the number `after`."""
        self.cycle_id = cycle_id
        self.seen = after
        self.is_closed = False
        self._waiting: list[CycleEvent] = []
        self._news = asyncio.Event()

    async def take(self, timeout_seconds: float) -> list[CycleEvent]:
        """What has come, in order; nothing after the time-out, or when the watch `is_closed`."""
        if not self.is_closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await self._news.wait()
        taken, self._waiting = self._waiting, []
        if not self.is_closed:
            self._news.clear()
        return taken

    def give(self, event: CycleEvent) -> None:
        """Hand over the next event, or one that was known already."""
        if event.seq <= self.seen:
            return
        self.seen = event.seq
        is_full = len(self._waiting) >= MAX_WAITING
        if is_full and event.kind == self._waiting[-1].kind == "progress":
            self._waiting[-1] = event
        else:
            self._waiting.append(event)
        self._news.set()

    def close(self) -> None:
        """Nothing will come any more: the cycle was deleted, or the server stops."""
        self.is_closed = True
        self._news.set()


class Feed:
    """Watches cycles for all readers of this process."""

    def __init__(self, reading: sessionmaker[Session]) -> None:
        """Prepare; nothing is read before somebody watches.

        Args:
            reading: makes sessions that only read.
        """
        self._reading = reading
        self._watchers: set[Watcher] = set()
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False

    @contextmanager
    def watch(self, cycle_id: str, after: int) -> Iterator[Watcher]:
        """Watch a cycle during the block, within a running event loop.

        Args:
            cycle_id: it exists.
            after: number of the last event that the reader knows.
        """
        watcher = Watcher(cycle_id, after)
        if self._is_stopped:
            watcher.close()
        self._watchers.add(watcher)
        if self._task is None and not self._is_stopped:
            self._task = asyncio.create_task(self._run())
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def stop(self) -> None:
        """End all watches, now and later; the server is about to stop."""
        self._is_stopped = True
        if self._task is not None:
            self._task.cancel()
        for watcher in self._watchers:
            watcher.close()

    async def _run(self) -> None:
        """Hand out what is new, until nobody watches any more."""
        is_away = False
        try:
            while self._watchers and not self._is_stopped:
                try:
                    await self._hand_out()
                except Exception as error:  # noqa: BLE001 (the next look may succeed)
                    if not is_away:
                        log.warning("events not read", action="events_failed", error=str(error))
                    is_away = True
                else:
                    is_away = False
                await asyncio.sleep(OUTAGE_POLL_SECONDS if is_away else POLL_SECONDS)
        finally:
            self._task = None

    async def _hand_out(self) -> None:
        seen: dict[str, int] = {}
        for watcher in self._watchers:
            known = seen.get(watcher.cycle_id, watcher.seen)
            seen[watcher.cycle_id] = min(known, watcher.seen)
        latest, new = await asyncio.to_thread(self._read, seen)
        by_cycle: dict[str, list[CycleEvent]] = {}
        for event in new:
            by_cycle.setdefault(event.cycle_id, []).append(event)
        for watcher in self._watchers:
            # One that began to watch meanwhile may know less than was asked for: the next look.
            if watcher.cycle_id not in seen or watcher.seen < seen[watcher.cycle_id]:
                continue
            for event in by_cycle.get(watcher.cycle_id, ()):
                watcher.give(event)
            if watcher.cycle_id not in latest:
                watcher.close()

    def _read(self, seen: dict[str, int]) -> tuple[dict[str, int], list[CycleEvent]]:
        """The number of each cycle's latest event, and what is new."""
        with self._reading() as session:
            latest = events.latest(session, list(seen))
            behind = {id: seq for id, seq in seen.items() if latest.get(id, 0) > seq}
            return latest, events.read_after(session, behind)
