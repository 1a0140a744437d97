from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from server.store.blobs import BlobStore
from server.store.database import session_factory
from tests.worker.small_pools import Pool
from tests.worker.torture.world import World
from worker.settings import WorkerSettings

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these in one process of pytest-xdist, one after the other: each needs a core."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("torture"))


@pytest.fixture
def settings(database_url: str, data_dir: Path) -> WorkerSettings:
    return WorkerSettings.model_validate(
        {
            "data_dir": data_dir,
            "database_url": database_url,
            "device": "cpu",
            "poll_seconds": 0.1,
            "lease_seconds": 2,
            "checkpoint_seconds": 0.5,
        }
    )


@pytest.fixture
def world(
    settings: WorkerSettings,
    engine: Engine,
    sessions: sessionmaker[Session],
    blobs: BlobStore,
    make_pool: Callable[..., Pool],
    tmp_path: Path,
) -> Iterator[World]:
    readers = session_factory(engine, read_only=True)
    world = World(settings, sessions, readers, blobs, make_pool, tmp_path)
    yield world
    world.end()
