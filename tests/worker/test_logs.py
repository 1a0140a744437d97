"""What a worker logs about a cycle, from both of its processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from server.store.models import Cycle
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]


def test_every_line_of_a_cycle_carries_cycle_and_fence_in_both_processes(
    settings: WorkerSettings,
    queued_cycle: str,
    read_cycle: Callable[[str], Cycle],
    tmp_path: Path,
) -> None:
    with (tmp_path / "log").open("w+") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "worker"],
            cwd=ROOT,
            env={**os.environ, **settings.as_environment(), "MIAOD_POLL_SECONDS": "0.05"},
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + 120
            while read_cycle(queued_cycle).state != "succeeded":
                assert worker.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0
        finally:
            worker.kill()
            worker.wait()
        log.seek(0)
        said = [json.loads(line) for line in log]
    actions = [line.get("action") for line in said]
    first, last = actions.index("cycle_claimed"), actions.index("cycle_done")
    assert last > first
    about = said[first : last + 1]
    assert {(line["cycle"], line["fence"]) for line in about} == {(queued_cycle, 1)}
    # The child speaks too.
    assert "cycle_started" in [line["action"] for line in about]
    for line in (said[0], said[-1]):
        assert "cycle" not in line
