"""Server processes for tests that one application in this process would not do for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def running_server(data_dir: Path, database_url: str, **environment: str) -> Iterator[str]:
    """`python -m server` on a free port for the time of the block; gives its URL.

    Its log goes to `server.log` in the data folder.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MIAOD_")}
    with (data_dir / "server.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "server"],
            cwd=ROOT,
            env={
                **kept,
                "MIAOD_DATA_DIR": str(data_dir),
                "MIAOD_DATABASE_URL": database_url,
                "MIAOD_PORT": "0",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert found, (said, (data_dir / "server.log").read_text()[-2000:])
            yield found[0]
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
            process.communicate()
