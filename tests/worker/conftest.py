from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from server.store import queue
from server.store.blobs import BlobStore
from server.store.models import Cycle, Project, ProjectClass
from tests.worker.small_pools import CLASSES, Pool
from worker import cycle as cycle_module
from worker.progress import ProgressLines, ProgressPipe
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _children_find_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _no_rest_after_lost_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.loop.RETRY_SECONDS", (0.0,))


@pytest.fixture
def settings(database_url: str, data_dir: Path) -> WorkerSettings:
    return WorkerSettings.model_validate(
        {
            "data_dir": data_dir,
            "database_url": database_url,
            "device": "cpu",
            "poll_seconds": 0.05,
            "lease_seconds": 30,
        }
    )


@pytest.fixture
def queued_cycle(sessions: sessionmaker[Session]) -> str:
    """The id of a cycle that waits, in a project without images."""
    with sessions.begin() as session:
        project = Project(name="road")
        session.add(project)
        session.flush()
        session.add(ProjectClass(project_id=project.id, class_id=0, name="car"))
        cycle = Cycle(
            project_id=project.id,
            number=1,
            kind="initial",
            budget=2,
            strategy={"name": "random"},
            training={},
            seed=7,
        )
        session.add(cycle)
        session.flush()
        return cycle.id


@pytest.fixture
def read_cycle(sessions: sessionmaker[Session]) -> Callable[[str], Cycle]:
    """Reads a cycle's row as it is now."""

    def read(cycle_id: str) -> Cycle:
        with sessions() as session:
            cycle = session.get_one(Cycle, cycle_id)
            session.expunge(cycle)
            return cycle

    return read


@pytest.fixture
def make_pool(sessions: sessionmaker[Session], blobs: BlobStore) -> Callable[..., Pool]:
    def make(
        *, labeled: int = 4, unlabeled: int = 8, validation: int = 3, validation_images: int = 0
    ) -> Pool:
        with sessions.begin() as session:
            number = session.scalar(select(func.count()).select_from(Project))
            project = Project(name=f"road {number}", validation_images=validation_images)
            session.add(project)
            session.flush()
            for class_id, name in enumerate(CLASSES):
                session.add(ProjectClass(project_id=project.id, class_id=class_id, name=name))
            pool = Pool(sessions, blobs, project.id)
        for _ in range(labeled):
            pool.add_image(labeled=True)
        for _ in range(unlabeled):
            pool.add_image()
        for _ in range(validation):
            pool.add_image(split="val", labeled=True)
        return pool

    return make


@pytest.fixture
def run_here(
    sessions: sessionmaker[Session], settings: WorkerSettings
) -> Callable[[], list[dict[str, Any]]]:
    """Claims the next cycle and runs it in this process; gives what it reported."""

    def run() -> list[dict[str, Any]]:
        with sessions.begin() as session:
            lease = queue.claim(session, Cycle, "here", 600)
        assert lease is not None
        read_fd, write_fd = os.pipe()
        try:
            cycle_module.run(lease, settings, ProgressPipe(write_fd))
        finally:
            os.close(write_fd)
            with os.fdopen(read_fd, "rb") as reader:
                said = ProgressLines().feed(reader.read())
        return said

    return run
