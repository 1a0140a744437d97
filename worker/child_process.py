"""The training process as its supervisor holds it: start, listen, stop, and say how it ended.

Training runs in a process of its own so that whatever happens there (a crash in a driver, the
kernel's out-of-memory killer, a hang) costs an attempt and never the worker.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from worker.progress import ProgressLines

_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


def tie_to_parent(parent_pid: int) -> None:
    """Make this process die with its parent; the first thing a training process does.

    A supervisor that was killed cannot stop its child, and a child that outlives it would hold the
    GPU against the next one. The kernel is asked to kill us when the parent ends; whoever was
    orphaned before it could ask sees it by another parent's id, and leaves at once.
    """
    # Elsewhere than on Linux it ends at its next report, which finds the pipe broken.
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        os._exit(1)


class ChildProcess:
    """A running training process and the pipe it reports through.

    The command is given `--parent PID` and `--progress-fd FD` on top of `argv`. It runs in a
    session of its own: Ctrl-C reaches the supervisor alone, which then stops the whole group.
    """

    def __init__(self, argv: Sequence[str], extra_env: Mapping[str, str]) -> None:
        """Start the process; its output goes where the supervisor's log goes.

        Raises:
            OSError: it could not be started.
        """
        self._lines = ProgressLines()
        self._read_fd, write_fd = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*argv, "--parent", str(os.getpid()), "--progress-fd", str(write_fd)],
                env={**os.environ, **extra_env},
                pass_fds=(write_fd,),
                stdin=subprocess.DEVNULL,
                stdout=2,
                start_new_session=True,
            )
        except OSError:
            os.close(self._read_fd)
            raise
        finally:
            os.close(write_fd)
        os.set_blocking(self._read_fd, False)

    @property
    def pid(self) -> int:
        """The process id, which is its group's id too."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def read(self, timeout_seconds: float) -> list[dict[str, Any]]:
        """The lines reported since the last call, waiting so long for the first of them."""
        lines: list[dict[str, Any]] = []
        wait = timeout_seconds
        while select.select([self._read_fd], [], [], wait)[0]:
            data = os.read(self._read_fd, 65536)
            if not data:
                # Closed at the other end while the process goes on ending: wait for that instead.
                self._wait(wait)
                break
            lines += self._lines.feed(data)
            wait = 0.0
        return lines

    def stop(self, grace_seconds: float) -> None:
        """End the process and all it started: SIGTERM, and SIGKILL after the grace.

        Only the process itself gets SIGTERM: what it started reads pictures for it, which it may
        just be waiting for, and cannot save its state before it has them. One that has ended
        already may have left processes behind, which are killed.
        """
        if self.is_running():
            self._process.terminate()
            self._wait(grace_seconds)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self._read_fd)

    def how_it_ended(self) -> str:
        """The end of the process in words, for the reason of a lost attempt."""
        code = self._process.poll()
        assert code is not None, "asked how a running process ended"
        if code >= 0:
            return f"the training process ended with exit code {code}"
        # Not all real-time signals have a name.
        names = {number.value: number.name for number in signal.Signals}
        name = names.get(-code, f"signal {-code}")
        hint = " (the system kills so when memory runs out)" if -code == signal.SIGKILL else ""
        return f"the training process was ended by {name}{hint}"

    @property
    def exit_code(self) -> int | None:
        """0 for a good end, negative for a signal, None while it runs."""
        return self._process.poll()

    def _wait(self, seconds: float) -> None:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
