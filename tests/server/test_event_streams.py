"""Event streams of real server processes: two of them, hundreds of readers, stops and breaks."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from miaod_client import Client, RetryPolicy
from sqlalchemy.orm import Session, sessionmaker

from server.store import queue
from server.store.queue import Lease

ROOT = Path(__file__).parents[2]

StartServer = Callable[..., "RunningServer"]


@dataclass
class RunningServer:
    """`python -m server` on a port of its own."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def stop(self) -> None:
        """SIGTERM; it must end by itself, and without cutting anyone off."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=60) == 0
        assert "graceful shutdown exceeded" not in self.log.read_text()

    def threads(self) -> int:
        """How many threads it has."""
        return len(os.listdir(f"/proc/{self.process.pid}/task"))


@pytest.fixture
def start_server(database_url: str, data_dir: Path, tmp_path: Path) -> Iterator[StartServer]:
    started: list[RunningServer] = []
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MIAOD_")}

    def start(port: str = "0") -> RunningServer:
        log = tmp_path / f"server-{len(started)}.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "server"],
                cwd=ROOT,
                env={
                    **kept,
                    "MIAOD_DATA_DIR": str(data_dir),
                    "MIAOD_DATABASE_URL": database_url,
                    "MIAOD_PORT": port,
                },
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found, log.read_text()
        started.append(RunningServer(process, found[0], log))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.communicate()


def beat(sessions: sessionmaker[Session], lease: Lease, step: int) -> None:
    with sessions.begin() as session:
        queue.heartbeat(session, lease, 600, detail={"step": step})


@dataclass
class Reader:
    """Reads a stream in a thread, up to its end."""

    server: RunningServer
    cycle_id: str
    last_event_id: int = 0
    found: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._news = threading.Condition()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        headers = {"Last-Event-ID": str(self.last_event_id)}
        url = f"{self.server.url}/cycles/{self.cycle_id}/events"
        with httpx2.stream("GET", url, headers=headers, timeout=60) as response:
            for event in httpx2.EventSource(response):
                if event.data:
                    with self._news:
                        self.found.append(json.loads(event.data))
                        self._news.notify_all()

    def wait_for(self, seq: int) -> None:
        with self._news:
            reached = self._news.wait_for(
                lambda: bool(self.found) and self.found[-1]["seq"] >= seq, timeout=60
            )
        assert reached, f"event {seq} did not come: {self.found}"

    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.found]


def test_readers_at_two_servers_see_the_same_and_change_over_when_one_stops(
    start_server: StartServer, sessions: sessionmaker[Session], lease: Lease
) -> None:
    servers = [start_server(), start_server()]
    readers = [Reader(server, lease.job_id) for server in servers]
    for reader in readers:
        reader.wait_for(1)
    for step in (1, 2):
        beat(sessions, lease, step)
    for reader in readers:
        reader.wait_for(3)
    servers[0].stop()
    readers[0].thread.join(timeout=60)
    assert not readers[0].thread.is_alive()
    beat(sessions, lease, 3)
    changed_over = Reader(servers[1], lease.job_id, last_event_id=3)
    changed_over.wait_for(4)
    with sessions.begin() as session:
        queue.finish(session, lease)
    for reader in (readers[1], changed_over):
        reader.thread.join(timeout=60)
        assert not reader.thread.is_alive()
    assert readers[0].seqs() == [1, 2, 3]
    assert readers[1].seqs() == [1, 2, 3, 4, 5]
    assert changed_over.seqs() == [4, 5]
    assert changed_over.found[-1]["state"] == "succeeded"
    assert readers[0].found == readers[1].found[:3]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_sdk_goes_on_when_the_server_has_been_started_again(
    start_server: StartServer, sessions: sessionmaker[Session], lease: Lease
) -> None:
    server = start_server()
    with Client(url=server.url, retry=RetryPolicy(first_seconds=0.05)) as client:
        events = client.cycles.events(lease.job_id)
        found = [next(events)]
        server.stop()
        # Nobody is told of this one while it happens.
        beat(sessions, lease, 1)
        start_server(server.url.rpartition(":")[2])
        found.append(next(events))
        with sessions.begin() as session:
            queue.finish(session, lease)
        found += events
    assert [event.seq for event in found] == [1, 2, 3]
    assert (found[1].step, found[2].state) == (1, "succeeded")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_three_hundred_readers_cost_no_threads_and_those_who_go_or_sleep_disturb_nobody(
    start_server: StartServer, sessions: sessionmaker[Session], lease: Lease
) -> None:
    server = start_server()
    host, _, port = server.url.removeprefix("http://").partition(":")
    request = f"GET /cycles/{lease.job_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        return reader, writer

    async def read_on(reader: asyncio.StreamReader, words: bytes) -> None:
        async with asyncio.timeout(60):
            await reader.readuntil(words)

    async def work() -> None:
        connections = [await connect() for _ in range(300)]
        await asyncio.gather(*(read_on(reader, b"id: 1\n\n") for reader, _ in connections))
        # Those that looked at the cycle, 40 at most, the feed's, and a few of the service.
        assert server.threads() < 60
        gone, asleep, awake = connections[:50], connections[50:60], connections[60:]
        for _, writer in gone:
            writer.transport.abort()
        for _, writer in asleep:
            cast(asyncio.Transport, writer.transport).pause_reading()
        await asyncio.to_thread(beat, sessions, lease, 1)
        await asyncio.gather(*(read_on(reader, b"id: 2\n\n") for reader, _ in awake))
        assert server.threads() < 60
        # The last chunk of a body ends the stream.
        await asyncio.to_thread(finish)
        await asyncio.gather(*(read_on(reader, b"id: 3\n\n") for reader, _ in awake))
        await asyncio.gather(*(read_on(reader, b"0\r\n\r\n") for reader, _ in awake))
        for _, writer in connections:
            writer.close()

    def finish() -> None:
        with sessions.begin() as session:
            queue.finish(session, lease)

    asyncio.run(work())
    server.stop()
    assert "request_crashed" not in server.log.read_text()
