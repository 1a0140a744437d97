"""A real `python -m worker` that can be killed, frozen and told to stop, and its child with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker.settings import WorkerSettings

# Nothing waits for as long as this on a machine that does anything at all.
PATIENCE_SECONDS = 120.0


class WorkerProcess:
    """A supervisor and the training process that it holds."""

    def __init__(self, settings: WorkerSettings, log_path: Path) -> None:
        """Start the worker; its log, and its child's, goes to a file."""
        self._log_path = log_path
        environment = {
            **os.environ,
            **settings.as_environment(),
            "MIAOD_POLL_SECONDS": str(settings.poll_seconds),
        }
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker"], env=environment, stderr=log, stdout=log
            )

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self.process.pid

    def child_pid(self) -> int | None:
        """Of the training process, if there is one."""
        try:
            pids = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except FileNotFoundError:
            return None
        return int(pids[0]) if pids else None

    def signal_both(self, number: signal.Signals) -> None:
        """Signal the supervisor, then its child."""
        child = self.child_pid()
        self.process.send_signal(number)
        if child is not None:
            send(child, number)

    def logged(self) -> list[dict[str, Any]]:
        """The log so far, without what is no JSON and without a line that is just being written."""
        lines = []
        for line in self._log_path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return lines

    def actions(self) -> list[str]:
        """What the worker and its child did, in the log's words."""
        return [str(line["action"]) for line in self.logged() if "action" in line]

    def end(self) -> None:
        """End it, whatever state it is in; its child goes with it."""
        child = self.child_pid()
        self.process.kill()
        self.process.wait()
        if child is not None:
            eventually(lambda: not is_alive(child))


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process that may just have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def eventually(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s"
        time.sleep(0.01)
