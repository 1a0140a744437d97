from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from server.store.models import Cycle, Project, ProjectClass
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _children_find_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


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
