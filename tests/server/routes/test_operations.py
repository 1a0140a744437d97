from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from starlette.testclient import TestClient

import server
from server.deps import Context
from server.main import create_app
from server.settings import Settings
from server.store import database

ROOT = Path(__file__).parents[3]
Scribe = Any


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A database that takes connections and never says a word; closed, it cuts them off."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener


def served_by(database: socket.socket, data_dir: Path) -> Settings:
    url = f"postgresql+psycopg://miaod@127.0.0.1:{database.getsockname()[1]}/miaod"
    return Settings(data_dir=data_dir, database_url=url, admin_key=None)


def test_the_process_says_that_it_lives_and_which_version_it_is(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok", "version": server.__version__}


def test_a_healthy_server_is_ready(client: TestClient) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["ready"] is True
    assert set(body["checks"]) == {"database", "schema", "storage", "free_space"}
    assert all(check["ok"] for check in body["checks"].values())


def test_a_database_of_another_revision_is_not_ready(client: TestClient, context: Context) -> None:
    with context.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    answer = client.get("/readyz")
    assert answer.status_code == 503
    checks = answer.json()["checks"]
    assert checks["database"]["ok"]
    assert not checks["schema"]["ok"]
    assert "9999" in checks["schema"]["detail"]
    assert "://" not in checks["schema"]["detail"]  # where it is and as whom it is opened


def test_a_data_folder_that_cannot_be_written_is_not_ready(
    client: TestClient, data_dir: Path
) -> None:
    shutil.rmtree(data_dir / "tmp")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert not answer.json()["checks"]["storage"]["ok"]
    assert client.get("/healthz").status_code == 200


def test_too_little_free_space_is_not_ready(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.services.health.MIN_FREE_BYTES", 2**80)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "should be" in answer.json()["checks"]["free_space"]["detail"]


def test_too_few_free_files_are_not_ready(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.services.health.MIN_FREE_FILES", 2**62)
    if "more files" not in client.get("/readyz").json()["checks"]["free_space"]["detail"]:
        pytest.skip("the file system here has no limit of files")
    assert client.get("/readyz").status_code == 503


def test_a_database_that_hangs_is_not_ready_and_keeps_no_probe_waiting(
    silent: socket.socket, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.services.health.ANSWER_SECONDS", 0.3)
    with TestClient(create_app(served_by(silent, data_dir))) as client:
        for _ in range(3):
            answer = client.get("/readyz")
            assert answer.status_code == 503
            checks = answer.json()["checks"]
            assert "has not answered within 0.3 s" in checks["database"]["detail"]
            assert checks["storage"]["ok"]
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("the database's check") == 1
        silent.close()


def test_health_and_metrics_answer_when_every_thread_waits_for_the_database(
    silent: socket.socket, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.services.health.ANSWER_SECONDS", 0.3)
    monkeypatch.setattr("server.services.figures.ANSWER_SECONDS", 0.3)
    # So that nobody who waits is done before the assertions are.
    monkeypatch.setitem(database._POSTGRES_PATIENCE, "connect_timeout", 120)
    settings = served_by(silent, data_dir).model_copy(update={"admin_key": SecretStr("sesame")})
    with TestClient(create_app(settings), headers={"Authorization": "Bearer sesame"}) as client:
        waiting = [threading.Thread(target=client.get, args=["/projects"]) for _ in range(45)]
        for thread in waiting:
            thread.start()
        deadline = time.monotonic() + 60
        text = ""
        while not re.search(r"^miaod_http_requests_in_flight\{.*\} 46", text, re.MULTILINE):
            assert time.monotonic() < deadline, text
            text = client.get("/metrics").text
        assert "miaod_database_up 0.0" in text
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        silent.close()
        for thread in waiting:
            thread.join()


FULL = """
import asyncio, sys
from pathlib import Path
from server.services import health
from server.store.blobs import BlobStore
from server.store.database import make_engine
health.MIN_FREE_BYTES = 0
data = Path(sys.argv[1])
engine = make_engine(f"sqlite:///{sys.argv[2]}/x.db")
blobs = BlobStore(data)
if sys.argv[3] == "full":
    with open(data / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
else:
    import subprocess
    subprocess.run(["mount", "-o", "remount,ro", str(data)], check=True)
print(asyncio.run(health.Health(engine, blobs).readiness())["storage"])
"""


@pytest.mark.parametrize(
    ("state", "said"), [("full", "No space left on device"), ("read-only", "Read-only file system")]
)
def test_a_disk_that_is_full_or_read_only_is_not_ready(
    tmp_path: Path, state: str, said: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # A disk of its own, in a namespace of its own: no privilege is needed where that is allowed.
    mount = f"mount -t tmpfs -o size=1m none {disk} &&"
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*alone, f"{mount} true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no disk can be mounted here, not even in a user namespace")
    command = f'{mount} exec "$0" -c "$1" {disk} {tmp_path} {state}'
    shown = subprocess.run(
        [*alone, command, sys.executable, FULL],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Check(ok=False" in shown.stdout
    assert said in shown.stdout


def test_workers_are_listed_with_when_they_were_seen(client: TestClient, scribe: Scribe) -> None:
    assert client.get("/workers").json()["items"] == []
    scribe.report(seconds_ago=40, name="w")
    scribe.report(name="other")
    workers = {worker["name"]: worker for worker in client.get("/workers").json()["items"]}
    assert (workers["w"]["live"], workers["other"]["live"]) == (False, True)
    assert 39 < workers["w"]["seconds_since_seen"] < 60
    assert workers["w"]["last_seen"].endswith("Z")
