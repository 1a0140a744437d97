"""Real servers and workers, and training processes that a test holds at a chosen place."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from server.store.models import Json

ROOT = Path(__file__).parents[2]


def eventually(condition: Callable[[], Any], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


class Running:
    """A process whose log can be read; it is killed at the end at the latest."""

    def __init__(
        self, arguments: Sequence[str], environment: dict[str, str], folder: Path, name: str
    ) -> None:
        self._log = folder / f"{name}.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                arguments, env=environment, cwd=ROOT, stdout=log, stderr=log
            )

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def has_logged(self, words: str) -> bool:
        assert self.process.poll() is None, self.log()
        return words in self.log()

    def stop(self) -> None:
        """SIGTERM, and wait for a good end."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=40) == 0, self.log()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


# The training process, which waits for a file at a chosen place: `PLACE-N` for the Nth time.
GATED_CYCLE = """
import os, sys, time
from pathlib import Path
from worker import cycle, records
folder, place = Path({folder!r}), {place!r}
real = getattr(records.CycleRecords, place)
times = 0
def wait(self, *args, **more):
    global times
    times += 1
    (folder / f"reached-{{times}}").touch()
    while not any((folder / name).exists() for name in (f"go-{{times}}", "go")):
        time.sleep(0.02)
    return real(self, *args, **more)
setattr(records.CycleRecords, place, wait)
sys.exit(cycle.main())
"""


@dataclass
class Gate:
    """A place in the code of a cycle that a test holds shut."""

    folder: Path
    place: str

    @property
    def command(self) -> list[str]:
        source = GATED_CYCLE.format(folder=str(self.folder), place=self.place)
        return [sys.executable, "-c", source]

    def is_reached(self, times: int = 1) -> bool:
        return (self.folder / f"reached-{times}").exists()

    def open(self, times: int | None = None) -> None:
        (self.folder / ("go" if times is None else f"go-{times}")).touch()


@dataclass
class Server:
    """A server process and a client of it."""

    running: Running
    http: httpx2.Client

    def post(self, path: str, body: Json) -> Json:
        answer = self.http.post(path, json=body)
        assert answer.is_success, answer.text
        found: Json = answer.json()
        return found


def log_lines(text: str) -> list[Json]:
    """The lines of a log that are JSON objects."""
    lines = []
    for line in text.splitlines():
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                lines.append(found)
    return lines


StartServer = Callable[..., Server]
StartWorker = Callable[..., Running]
