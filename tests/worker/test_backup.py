"""The whole story of a disaster: back up while everything goes on, lose it all, go on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, sessionmaker

from server.store import queue
from server.store.blobs import BlobStore
from server.store.models import Annotation, Base, Image
from tests.worker.small_pools import Pool
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
MakePool = Callable[..., Pool]


def server(settings: WorkerSettings, *arguments: str) -> str:
    """Runs an operator's command; gives what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env={**os.environ, **settings.as_environment()},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def a_worker(settings: WorkerSettings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that saves its cycle's state at every step; killed at the end."""
    environment = {**settings.as_environment(), "MIAOD_CHECKPOINT_SECONDS": "0.001"}
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=file,
            stderr=file,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def an_annotator(pool: Pool, image_id: str) -> Iterator[None]:
    """Somebody who saves the same image over and over."""
    done = threading.Event()

    def save() -> None:
        while not done.wait(0.02):
            pool.annotate(image_id, [])

    thread = threading.Thread(target=save)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def ended(pool: Pool, cycle_id: str) -> bool:
    return pool.row(cycle_id).state not in queue.ACTIVE


def wait_for(condition: Callable[[], object], seconds: float = 150.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_backup_made_while_people_annotate_and_a_cycle_trains_brings_it_all_back(
    make_pool: MakePool,
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    blobs: BlobStore,
    data_dir: Path,
    tmp_path: Path,
) -> None:
    pool = make_pool()
    [busy, *_] = [image_id for image_id, _ in pool.unlabeled_images()]
    cycle_id = pool.order_cycle("trained", label_min_steps=5000, label_max_steps=5000)
    folder = str(tmp_path / "backups")
    with a_worker(settings, tmp_path / "log"), an_annotator(pool, busy):
        wait_for(lambda: pool.row(cycle_id).checkpoint_sha256 or ended(pool, cycle_id))
        assert not ended(pool, cycle_id)
        for _ in range(2):  # the second while the worker drops one state after the other
            server(settings, "backup", folder, "--keep", "1")
        assert pool.row(cycle_id).state == "running"
    with sessions.begin() as session:
        saved_later = session.scalar(select(func.max(Annotation.version)))

    with sessions.begin() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(delete(table))
    shutil.rmtree(data_dir / "blobs")

    assert "restored" in server(settings, "restore", folder)
    assert " 0 missing or damaged" in server(settings, "verify")
    row = pool.row(cycle_id)
    assert (row.state, row.attempts) == ("queued", 0)
    assert row.checkpoint_sha256 is not None
    with sessions.begin() as session:
        image = session.get_one(Image, busy)
        versions = session.scalars(select(Annotation.version).where(Annotation.image_id == busy))
        # One state of the database: the image and its revisions agree.
        assert sorted(versions) == list(range(1, image.annotation_version + 1))
        assert 0 < image.annotation_version < (saved_later or 0)

    log = tmp_path / "second log"
    with a_worker(settings, log):
        wait_for(lambda: "checkpoint_loaded" in log.read_text() if log.exists() else False)
        wait_for(lambda: pool.row(cycle_id).checkpoint_sha256 != row.checkpoint_sha256)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert not [line for line in lines if line["level"] in ("error", "critical")]


def test_an_operator_is_told_what_is_missing(
    make_pool: MakePool, settings: WorkerSettings, blobs: BlobStore, tmp_path: Path
) -> None:
    pool = make_pool(labeled=1, unlabeled=1, validation=0)
    with pool.sessions.begin() as session:
        sha256 = session.scalars(select(Image.sha256)).first()
    assert sha256 is not None
    blobs.path(sha256).unlink()
    with pytest.raises(AssertionError, match=f"the blob {sha256} is missing"):
        server(settings, "verify")
    with pytest.raises(AssertionError, match="there is no backup in"):
        server(settings, "restore", str(tmp_path / "none"))
