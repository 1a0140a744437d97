"""What an experiment found, one JSON line per finished cycle, and what it was run with on top.

A line is on the disk before the next cycle starts, so that an interruption costs the cycle it
strikes and nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.simulation.cycle import Line

FORMAT = 1


class JournalRefused(ValueError):
    """The file belongs to another experiment, or is none of ours."""


class Journal:
    """The lines of one experiment; more arms and seeds may join it later."""

    def __init__(self, path: Path, experiment: Mapping[str, Any]) -> None:
        """Open the file and read what is there.

        Args:
            path: created if need be, its folder too.
            experiment: what every line was found with: data and protocol.

        Raises:
            JournalRefused: the file was started with something else.
        """
        self._path = path
        self.lines: list[Line] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        header = {"format": FORMAT, "experiment": json.loads(json.dumps(experiment))}
        if path.exists() and (text := _whole_lines(path)):
            first, *rest = (json.loads(line) for line in text.splitlines())
            _require_same(first, header, path)
            self.lines = rest
        else:
            self._append(header)

    def add(self, line: Line) -> None:
        """Note a finished cycle."""
        self._append(line)
        self.lines.append(line)

    def _append(self, value: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _whole_lines(path: Path) -> str:
    """The file's text; a line that an interruption cut off is taken away from the file."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return whole.decode()


def _require_same(found: Any, expected: dict[str, Any], path: Path) -> None:
    if not isinstance(found, dict) or found.get("format") != expected["format"]:
        raise JournalRefused(f"{path} is no journal of format {FORMAT}: choose another folder")
    before, now = found["experiment"], expected["experiment"]
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            raise JournalRefused(
                f"{path} was started with another {key}; choose another folder for this "
                f"experiment.\n  there: {before.get(key)}\n  here:  {now.get(key)}"
            )
