"""A small file system of its own for the data folder, and real processes that work on it.

Mounting needs root. Without it `test_without_root.py` runs all of this again in a namespace of its
own, where the user is root.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx2
import pytest
from sqlalchemy.orm import Session, sessionmaker

from server.store import queue
from server.store.blobs import BlobStore
from server.store.database import make_engine, session_factory
from server.store.models import Cycle, Json, Project, ProjectClass
from tests.outages.processes import (
    ROOT,
    Gate,
    Running,
    Server,
    StartServer,
    StartWorker,
    eventually,
)
from tests.outages.small_disk import DISK_BYTES, SmallDisk, mount
from tests.worker.small_pools import CLASSES, Pool
from worker import cycle as cycle_module
from worker.progress import ProgressPipe
from worker.settings import WorkerSettings


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "data"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting needs root; test_without_root.py runs this in a namespace")
    try:
        mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield SmallDisk(path)
    # Lazily: a process of the test may still be ending.
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def data_dir(disk: SmallDisk) -> Path:
    return disk.path


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, disk: SmallDisk) -> str:
    """SQLite on the small disk; Postgres elsewhere."""
    if request.param == "sqlite":
        path = disk.path / "miaod.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("fresh_postgres")()
    return url


@pytest.fixture
def is_sqlite(database_url: str) -> bool:
    return database_url.startswith("sqlite")


@pytest.fixture
def environment(database_url: str, data_dir: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MIAOD_")}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "MIAOD_DATA_DIR": str(data_dir),
        "MIAOD_DATABASE_URL": database_url,
        "MIAOD_DEVICE": "cpu",
        "MIAOD_POLL_SECONDS": "0.1",
        "MIAOD_CHECKPOINT_SECONDS": "0.001",
        "MIAOD_PORT": "0",
    }


@pytest.fixture
def make_gate(tmp_path: Path) -> Callable[[str], Gate]:
    def make(place: str) -> Gate:
        folder = tmp_path / f"gate-{place}"
        folder.mkdir()
        return Gate(folder, place)

    return make


@pytest.fixture
def start_worker(environment: dict[str, str], tmp_path: Path) -> Iterator[StartWorker]:
    """Starts a worker process, with another command for its cycles if one is given."""
    started: list[Running] = []

    def start(command: Sequence[str] | None = None, **settings: str) -> Running:
        arguments = [sys.executable, "-m", "worker"]
        if command is not None:
            source = f"import sys; from worker.__main__ import main; sys.exit(main({command!r}))"
            arguments = [sys.executable, "-c", source]
        name = f"worker-{len(started)}"
        started.append(Running(arguments, {**environment, **settings}, tmp_path, name))
        return started[-1]

    yield start
    for running in started:
        running.kill()


@pytest.fixture
def start_server(environment: dict[str, str], tmp_path: Path) -> Iterator[StartServer]:
    started: list[Server] = []

    def start(**settings: str) -> Server:
        running = Running(
            [sys.executable, "-m", "server"],
            {**environment, **settings},
            tmp_path,
            f"server-{len(started)}",
        )
        eventually(lambda: running.has_logged("http://127.0.0.1:"))
        found = re.search(r"http://127\.0\.0\.1:\d+", running.log())
        assert found
        started.append(Server(running, httpx2.Client(base_url=found[0], timeout=60)))
        return started[-1]

    yield start
    for server in started:
        server.http.close()
        server.running.kill()


def small_project(sessions: sessionmaker[Session], blobs: BlobStore) -> Pool:
    """A project of four labeled, eight unlabeled and three validation images."""
    with sessions.begin() as session:
        project = Project(name=os.urandom(4).hex())
        session.add(project)
        session.flush()
        for class_id, name in enumerate(CLASSES):
            session.add(ProjectClass(project_id=project.id, class_id=class_id, name=name))
        pool = Pool(sessions, blobs, project.id)
    for number in range(15):
        pool.add_image(split="val" if number >= 12 else "pool", labeled=number < 4 or number >= 12)
    return pool


@pytest.fixture
def make_pool(sessions: sessionmaker[Session], data_dir: Path) -> Callable[[], Pool]:
    return lambda: small_project(sessions, BlobStore(data_dir))


@pytest.fixture(scope="session")
def undisturbed(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Json:
    """What a trained cycle of such a project finds when nothing gets in its way."""
    data_dir = tmp_path_factory.mktemp("undisturbed")
    url = f"sqlite:///{data_dir / 'miaod.db'}"
    shutil.copyfile(sqlite_template, data_dir / "miaod.db")
    engine = make_engine(url)
    sessions = session_factory(engine)
    pool = small_project(sessions, BlobStore(data_dir))
    cycle_id = pool.order_cycle("trained")
    with sessions.begin() as session:
        lease = queue.claim(session, Cycle, "here", 600)
    assert lease is not None
    settings = WorkerSettings.model_validate(
        {"data_dir": data_dir, "database_url": url, "device": "cpu"}
    )
    with open(os.devnull, "wb") as sink:
        cycle_module.run(lease, settings, ProgressPipe(os.dup(sink.fileno())))
    found = pool.everything_about(cycle_id)
    engine.dispose()
    return found
