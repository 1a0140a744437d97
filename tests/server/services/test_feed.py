"""One reader of the database hands new events out to all who watch."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from server.services import feed as feed_module
from server.services.feed import MAX_WAITING, Feed, Watcher
from server.store import queue
from server.store.database import session_factory
from server.store.models import Cycle, CycleEvent
from server.store.queue import Lease

SECONDS = 60.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(feed_module, "OUTAGE_POLL_SECONDS", 0.01)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, sqlite_template: Any, tmp_path: Any) -> str:
    """SQLite only: what the store reads on each database is the business of its own tests."""
    path = tmp_path / "feed.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture
def feed(engine: Any) -> Feed:
    return Feed(session_factory(engine, read_only=True))


def beat(sessions: sessionmaker[Session], lease: Lease, message: str) -> None:
    with sessions.begin() as session:
        queue.heartbeat(session, lease, 600, message=message)


async def take(watcher: Watcher, count: int) -> list[int]:
    """The numbers of the next so many events, or all until the watch is closed."""
    seqs: list[int] = []
    while len(seqs) < count and not watcher.is_closed:
        seqs += [event.seq for event in await watcher.take(SECONDS)]
    return seqs


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, SECONDS))


def test_all_watchers_of_a_cycle_get_its_events_each_from_its_own_place(
    feed: Feed, lease: Lease, sessions: sessionmaker[Session]
) -> None:
    async def work() -> None:
        with feed.watch(lease.job_id, 0) as early:
            assert await take(early, 1) == [1]
            beat(sessions, lease, "a")
            assert await take(early, 1) == [2]
            # It begins behind what the feed has handed out to the other already.
            with feed.watch(lease.job_id, 1) as late, feed.watch(lease.job_id, 0) as later:
                beat(sessions, lease, "b")
                assert await take(late, 2) == [2, 3]
                assert await take(later, 3) == [1, 2, 3]
                assert await take(early, 1) == [3]

    run(work())


def test_nobody_reads_the_database_while_nobody_watches(
    feed: Feed, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    read = Feed._read

    def count(self: Feed, seen: dict[str, int]) -> Any:
        nonlocal looks
        looks += 1
        return read(self, seen)

    monkeypatch.setattr(Feed, "_read", count)

    async def work() -> None:
        for _ in range(2):
            with feed.watch(lease.job_id, 0) as watcher:
                assert await take(watcher, 1) == [1]
            while feed._task is not None:
                await asyncio.sleep(0.01)
            before = looks
            await asyncio.sleep(0.1)
            assert looks == before

    run(work())


def test_a_hundred_watchers_cost_one_look_at_a_time(
    feed: Feed, lease: Lease, sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, int]] = []
    read = Feed._read

    def remember(self: Feed, seen: dict[str, int]) -> Any:
        asked.append(seen)
        return read(self, seen)

    monkeypatch.setattr(Feed, "_read", remember)

    async def watch() -> list[int]:
        with feed.watch(lease.job_id, 1) as watcher:
            return await take(watcher, 1)

    async def work() -> None:
        watchers = [asyncio.create_task(watch()) for _ in range(100)]
        while not asked:
            await asyncio.sleep(0.01)
        beat(sessions, lease, "a")
        assert await asyncio.gather(*watchers) == [[2]] * 100

    run(work())
    assert all(seen == {lease.job_id: 1} for seen in asked)


def test_a_reader_that_takes_nothing_holds_little_and_misses_old_progress_only() -> None:
    def event(seq: int, kind: str) -> CycleEvent:
        return CycleEvent(cycle_id="c", seq=seq, kind=kind, data={}, created_at=datetime.now(UTC))

    async def work() -> None:
        watcher = Watcher("c", 0)
        for seq in range(1, 5001):
            watcher.give(event(seq, "progress" if seq % 1000 else "state"))
        taken = [event.seq for event in await watcher.take(1)]
        assert len(taken) <= MAX_WAITING + 10
        assert taken == sorted(taken)
        assert {1000, 2000, 3000, 4000, 5000} <= set(taken)
        assert {999, 1999, 4999} <= set(taken)

    run(work())


def test_while_the_database_is_away_watchers_wait_and_then_go_on(
    feed: Feed, lease: Lease, sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Feed._read
    failures = 0

    def fail(self: Feed, seen: dict[str, int]) -> Any:
        nonlocal failures
        failures += 1
        raise OperationalError("SELECT", {}, Exception("the server is gone"))

    async def work() -> None:
        with feed.watch(lease.job_id, 0) as watcher:
            assert await take(watcher, 1) == [1]
            monkeypatch.setattr(Feed, "_read", fail)
            beat(sessions, lease, "a")
            while failures < 3:
                assert await watcher.take(0.01) == []
            assert not watcher.is_closed
            monkeypatch.setattr(Feed, "_read", read)
            assert await take(watcher, 1) == [2]

    with structlog.testing.capture_logs() as logs:
        run(work())
    assert [entry["action"] for entry in logs] == ["events_failed"]


def test_watches_end_when_the_server_stops_and_when_the_cycle_is_no_more(
    feed: Feed, lease: Lease, sessions: sessionmaker[Session]
) -> None:
    async def work() -> None:
        with feed.watch(lease.job_id, 1) as watcher:
            with sessions.begin() as session:
                session.delete(session.get_one(Cycle, lease.job_id))
            assert await watcher.take(SECONDS) == []
            assert watcher.is_closed
        with feed.watch("another", 1) as watcher:
            feed.stop()
            assert await watcher.take(SECONDS) == []
            assert watcher.is_closed
        with feed.watch("another", 1) as watcher:
            assert await watcher.take(SECONDS) == []
            assert watcher.is_closed

    run(work())


def test_a_watch_that_is_cancelled_is_forgotten(feed: Feed, lease: Lease) -> None:
    async def watch() -> None:
        with feed.watch(lease.job_id, 1) as watcher:
            await watcher.take(SECONDS)

    async def work() -> None:
        watching = asyncio.create_task(watch())
        while not feed._watchers:
            await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.wait([watching])
        assert not feed._watchers

    run(work())
