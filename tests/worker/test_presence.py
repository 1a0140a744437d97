"""The worker's row, and the health check that reads it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from server.store.database import now_seconds
from server.store.models import Worker
from worker.presence import Presence, is_seen


def run_check(database_url: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "MIAOD_DATABASE_URL": database_url,
        "MIAOD_DATA_DIR": str(data_dir),
    }
    return subprocess.run(
        [sys.executable, "-m", "worker", "check"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_check_succeeds_while_a_worker_of_this_host_shows_itself(
    sessions: sessionmaker[Session], database_url: str, tmp_path: Path
) -> None:
    before = run_check(database_url, tmp_path)
    assert before.returncode == 1
    assert "no worker on this host was seen in the last minute" in before.stderr
    with sessions.begin() as session:
        Presence("cpu").show(session)
    assert run_check(database_url, tmp_path).returncode == 0


@pytest.mark.parametrize(("host", "age"), [("another-host", 0), (socket.gethostname(), 100)])
def test_neither_another_host_nor_an_old_row_is_healthy(
    sessions: sessionmaker[Session], host: str, age: int
) -> None:
    with sessions.begin() as session:
        row = Worker(id="w", name=host, device="cpu", version="1", last_seen=now_seconds() - age)
        session.add(row)
    with sessions() as session:
        assert not is_seen(session)


def test_a_check_without_a_database_fails_with_a_sentence(tmp_path: Path) -> None:
    done = run_check(f"sqlite:///{tmp_path}/nowhere/miaod.db", tmp_path)
    assert done.returncode == 1
    assert "the database cannot be asked" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_check_of_a_database_that_hangs_fails_with_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        done = run_check(f"postgresql+psycopg://miaod@127.0.0.1:{port}/miaod", tmp_path)
    assert done.returncode == 1
    assert "the database does not answer" in done.stderr
