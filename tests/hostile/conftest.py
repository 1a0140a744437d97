"""A server process as operators run it, on SQLite, watched from outside."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest

from server.store.blobs import BlobStore
from server.store.database import make_engine, session_factory
from server.store.sweep import sweep

ROOT = Path(__file__).parents[2]
KEY = "the-key-of-these-tests"
# What the server may take, with whatever it was sent; idle it takes a third of it.
MAX_MEGABYTES = 300


@dataclass
class Service:
    """The process, and what it leaves behind."""

    process: subprocess.Popen[str]
    client: httpx2.Client
    data_dir: Path
    import_root: Path
    peaks: list[float] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Where it listens."""
        return cast(int, self.client.base_url.port)

    def new_project(self) -> str:
        """A project without images."""
        answer = self.client.post(
            "/projects", json={"name": secrets.token_hex(8), "classes": ["car"]}
        )
        assert answer.status_code == 201, answer.text
        return cast(str, answer.json()["id"])

    def upload(self, project: str, files: dict[str, bytes]) -> list[dict[str, Any]]:
        """What became of each file."""
        parts = [("files", (name, content)) for name, content in files.items()]
        answer = self.client.post("/images", data={"project": project}, files=parts)
        assert answer.status_code == 200, answer.text
        return cast(list[dict[str, Any]], answer.json()["items"])

    def import_archives(self, archives: Iterable[bytes]) -> list[dict[str, Any]]:
        """Imports into projects of their own, all asked for at once, after their ends."""
        answers = [
            self.client.post(
                "/imports",
                data={"project": self.new_project()},
                files={"archive": ("archive", archive)},
            )
            for archive in archives
        ]
        return [self._ended(answer) for answer in answers]

    def import_folder(self, path: Path) -> dict[str, Any]:
        """An import after its end."""
        body = {"project": self.new_project(), "path": str(path)}
        return self._ended(self.client.post("/imports", json=body))

    def _ended(self, answer: httpx2.Response) -> dict[str, Any]:
        assert answer.status_code == 202, answer.text
        url = f"{answer.headers['location']}?limit=1000"
        deadline = time.monotonic() + 250
        while time.monotonic() < deadline:
            found = cast(dict[str, Any], self.client.get(url).json())
            if found["state"] not in ("queued", "running"):
                return found
            time.sleep(0.05)
        raise AssertionError(f"the import does not end: {found}")

    def peak_megabytes(self) -> float:
        """The most memory that the server has had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1000

    def check(self) -> None:
        """It still answers, has stayed small, and no temporary file lies about."""
        assert self.client.get("/readyz").status_code == 200
        peak = self.peak_megabytes()
        self.peaks.append(peak)
        assert peak < MAX_MEGABYTES
        assert list((self.data_dir / "tmp").iterdir()) == []

    def stored(self) -> set[str]:
        """The blobs that are left once nothing runs and the sweep was there."""
        engine = make_engine(f"sqlite:///{self.data_dir / 'miaod.db'}")
        blobs = BlobStore(self.data_dir)
        sweep(session_factory(engine), blobs, older_than_seconds=-3600)
        engine.dispose()
        return {sha256 for sha256, _ in blobs.iter_all()}


@pytest.fixture(scope="session")
def running_service(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path
) -> Iterator[Service]:
    """One for all tests of a process, so that its memory shows what all of them did to it."""
    data_dir = tmp_path_factory.mktemp("hostile")
    import_root = tmp_path_factory.mktemp("import-root")
    shutil.copyfile(sqlite_template, data_dir / "miaod.db")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MIAOD_")}
    settings = {
        "MIAOD_DATA_DIR": str(data_dir),
        "MIAOD_PORT": "0",
        "MIAOD_ADMIN_KEY": KEY,
        "MIAOD_IMPORT_ROOTS": str(import_root),
    }
    log = (data_dir / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "server"],
        cwd=ROOT,
        env={**kept, **settings, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found, (data_dir / "log").read_text()
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx2.Client(base_url=found[0], headers=headers, timeout=250) as client:
            yield Service(process, client, data_dir, import_root)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
        log.close()
    said = (data_dir / "log").read_text()
    assert "crashed" not in said
    assert KEY not in said


@pytest.fixture
def service(running_service: Service) -> Iterator[Service]:
    """The server, looked at once more after the test."""
    # So that a test answers for itself: the peak starts anew.
    Path(f"/proc/{running_service.process.pid}/clear_refs").write_text("5")
    yield running_service
    running_service.check()
