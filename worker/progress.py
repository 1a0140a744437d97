"""What the training process tells its supervisor: one JSON object per line through a pipe.

The keys of a line:

- `device`: what it computes on, for `GET /workers`;
- `progress` (0..1), `stage`, `message`: how far it is, in words for people;
- `detail`: `step`, `steps`, `losses`, `seconds_left` of the stage, where there are any (see
  `pace.py`); comes with each `progress`;
- `failed`: it gives up for a reason that trying again would not change; the cycle fails with it;
- `crashed`: it stops for a reason nobody foresaw; this costs an attempt and another one follows.

A pipe of its own, and not stdout, because libraries print to stdout as they please.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

# Lines that only report progress come no faster, whatever the speed of a training step.
MIN_SECONDS_BETWEEN_REPORTS = 0.25


class ProgressPipe:
    """The writing end, in the training process."""

    def __init__(self, fd: int) -> None:
        """Take over a file descriptor that the supervisor passed on."""
        os.set_inheritable(fd, False)
        self._fd = fd
        self._last_report = -1.0
        self._last_stage = ""
        self._last_message = ""

    def device(self, name: str) -> None:
        """Say what the cycle is computed on."""
        self._write({"device": name})

    def report(
        self, progress: float, stage: str, message: str, detail: dict[str, Any] | None = None
    ) -> None:
        """Say how far the cycle is; too frequent reports within one stage are dropped."""
        now = time.monotonic()
        too_soon = now - self._last_report < MIN_SECONDS_BETWEEN_REPORTS
        if too_soon and stage == self._last_stage:
            return
        self._last_report, self._last_stage, self._last_message = now, stage, message
        self._write(
            {
                "progress": round(progress, 4),
                "stage": stage,
                "message": message,
                "detail": detail or {},
            }
        )

    def waiting(self, message: str) -> None:
        """Say what the cycle waits for; "" when it goes on, which shows the last report again."""
        self._write({"message": message or self._last_message})

    def failed(self, sentence: str) -> None:
        """Give up: the cycle fails with this sentence."""
        self._write({"failed": sentence})

    def crashed(self, sentence: str) -> None:
        """Stop unforeseen: the attempt is lost for this reason."""
        self._write({"crashed": sentence})

    def _write(self, line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        while data:
            data = data[os.write(self._fd, data) :]


class ProgressLines:
    """The reading end, in the supervisor: bytes in, parsed lines out."""

    def __init__(self) -> None:
        """Begin with nothing read."""
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The lines that `data` completes. What is no JSON object is passed over."""
        *complete, self._rest = (self._rest + data).split(b"\n")
        lines = []
        for raw in complete:
            try:
                line = json.loads(raw)
            except ValueError:
                continue
            if isinstance(line, dict):
                lines.append({key: _storable(value) for key, value in line.items()})
        return lines


def _storable(value: Any) -> Any:
    """Texts without what databases refuse and messages of libraries may hold."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "replace").decode().replace("\0", "?")
