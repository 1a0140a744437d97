"""A server and a worker as child processes: what `make run` and the demo start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LocalService:
    """Starts `python -m server` and `python -m worker`; stops both when the `with` block ends.

    Args:
        data_dir: their `MIAOD_DATA_DIR`; the database must be migrated there already.
        port: where the server listens on 127.0.0.1.
        log_dir: folder for `server.log` and `worker.log`; `None` leaves both on the terminal.
    """

    def __init__(self, *, data_dir: Path, port: int, log_dir: Path | None = None) -> None:
        """Note what to start; `with` starts it."""
        self.url = f"http://127.0.0.1:{port}"
        self._log_dir = log_dir
        self._environment = {
            **os.environ,
            "MIAOD_DATA_DIR": str(data_dir),
            "MIAOD_HOST": "127.0.0.1",
            "MIAOD_PORT": str(port),
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> LocalService:
        """Start both and wait until the server answers.

        Raises:
            RuntimeError: one of them ended while starting, or the server did not answer in time.
        """
        for name in ("server", "worker"):
            self._start(name)
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop both, the worker having given its cycle back."""
        self._stop()

    def ended(self) -> str | None:
        """The name of a process that has ended by itself, or `None` while both run."""
        return next((n for n, p in self._processes.items() if p.poll() is not None), None)

    def _start(self, name: str) -> None:
        command = [sys.executable, "-m", name]
        if self._log_dir is None:
            self._processes[name] = subprocess.Popen(command, env=self._environment)
            return
        with (self._log_dir / f"{name}.log").open("ab") as log:
            # A session of its own: Ctrl-C reaches this process alone, which then stops its children
            # in order.
            self._processes[name] = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def _wait_until_ready(self, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while True:
            if (name := self.ended()) is not None:
                where = "above" if self._log_dir is None else f"in {self._log_dir}/{name}.log"
                raise RuntimeError(f"the {name} ended while starting: the reason stands {where}")
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                    return
            except (urllib.error.URLError, TimeoutError):
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"the server did not answer {self.url}/readyz within {seconds:.0f} s"
                    ) from None
                time.sleep(0.2)

    def _stop(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
