"""Backups: whole, from one moment, and on either database."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker

from server.store import counters, queue
from server.store.backup import BackupRefused, back_up, restore, verify
from server.store.blobs import BlobStore
from server.store.database import make_engine, session_factory, upgrade
from server.store.models import Base, Cycle, CycleEvent, Image, Project
from server.store.references import NAMING
from server.store.sweep import sweep


@pytest.fixture
def other(empty_database_url: str) -> Iterator[Engine]:
    engine = make_engine(empty_database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def filled(world: Any, blobs: BlobStore, box: dict[str, Any]) -> str:
    """A project with labels, a cycle that runs, and blobs."""
    project_id: str = world.project("car", instructions='naïve 鍵 "quoted"\n')
    for number in range(3):
        blob = blobs.put_bytes(b"picture %d" % number)
        [image_id] = world.images(project_id, 1, sha256=blob.sha256)
        world.label(image_id, [box] if number else None)
    checkpoint = blobs.put_bytes(b"state")
    world.cycle(project_id, checkpoint_sha256=checkpoint.sha256)
    with world.sessions.begin() as session:
        counters.add(session, "stage_seconds", "train", 0.1)
    return project_id


def everything(engine: Engine) -> dict[str, list[Any]]:
    with session_factory(engine, read_only=True)() as session:
        return {
            table.name: sorted(map(repr, session.execute(select(table)).all()))
            for table in Base.metadata.sorted_tables
        }


def test_every_row_and_every_named_blob_comes_back_on_either_database(
    engine: Engine, other: Engine, filled: str, blobs: BlobStore, folder: Path, tmp_path: Path
) -> None:
    blobs.put_bytes(b"nobody names it")
    done = back_up(engine, blobs, folder)
    assert (done.blobs, done.copied, done.problems) == (4, 4, [])
    new = BlobStore(tmp_path / "new")
    back = restore(other, new, folder)
    assert (back.rows, back.copied, back.problems) == (done.rows, 4, [])
    assert everything(other) == everything(engine)
    assert len(list(new.iter_all())) == 4
    assert verify(other, new).problems == []


def test_jobs_that_ran_are_queued_again_and_have_lost_no_attempt(
    engine: Engine, world: Any, filled: str, blobs: BlobStore, folder: Path, tmp_path: Path
) -> None:
    fence = world.claim().fence
    back_up(engine, blobs, folder)
    url = f"sqlite:///{tmp_path / 'new' / 'miaod.db'}"
    other = make_engine(url)
    restore(other, BlobStore(tmp_path / "new"), folder)
    with session_factory(other).begin() as session:
        [cycle] = session.scalars(select(Cycle))
        assert (cycle.state, cycle.attempts, cycle.worker_id) == ("queued", 0, None)
        told = session.scalars(select(CycleEvent).order_by(CycleEvent.seq)).all()
        assert [event.data["state"] for event in told] == ["running", "queued"]
        assert told[-1].seq == cycle.event_seq
        lease = queue.claim(session, Cycle, "w", 60.0)
        assert lease is not None
        assert lease.fence == fence + 1
    other.dispose()


def test_a_job_that_was_to_be_cancelled_when_the_backup_was_made_is_cancelled(
    world: Any, filled: str, engine: Engine, blobs: BlobStore, folder: Path, tmp_path: Path
) -> None:
    world.claim()
    with world.sessions.begin() as session:
        [cycle_id] = session.scalars(select(Cycle.id))
        assert queue.request_cancel(session, Cycle, cycle_id) == "running"
    back_up(engine, blobs, folder)
    other = make_engine(f"sqlite:///{tmp_path / 'new' / 'miaod.db'}")
    restore(other, BlobStore(tmp_path / "new"), folder)
    with session_factory(other).begin() as session:
        assert session.get_one(Cycle, cycle_id).state == "cancelled"
    other.dispose()


def test_a_second_backup_copies_only_what_is_new_and_old_ones_are_pruned(
    engine: Engine,
    world: Any,
    filled: str,
    blobs: BlobStore,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = iter(["20260101T000000Z", "20260102T000000Z", "20260103T000000Z"])
    monkeypatch.setattr("server.store.backup._new_name", lambda: next(names))
    back_up(engine, blobs, folder)
    new = blobs.put_bytes(b"new")
    world.images(filled, 1, sha256=new.sha256)
    gone = blobs.put_bytes(b"state").sha256
    [cycle] = world.all(Cycle)
    world.change(Cycle, cycle.id, checkpoint_sha256=None)
    assert back_up(engine, blobs, folder, keep=2).copied == 1
    assert BlobStore(folder).exists(gone)
    (folder / "20251231T000000Z.partial").mkdir()
    assert back_up(engine, blobs, folder, keep=2).copied == 0
    assert sorted(path.name for path in folder.glob("2*")) == [
        "20260102T000000Z",
        "20260103T000000Z",
    ]
    assert not BlobStore(folder).exists(gone)
    assert BlobStore(folder).exists(new.sha256)


def test_nothing_is_removed_while_a_backup_is_made(
    sessions: sessionmaker[Session], blobs: BlobStore, data_dir: Path
) -> None:
    orphan = blobs.put_bytes(b"nobody names it").sha256
    with BlobStore(data_dir).keeping_all():
        assert not blobs.delete(orphan)
        assert sweep(sessions, blobs, older_than_seconds=-10.0).blobs == 0
        assert blobs.put_bytes(b"others may store").num_bytes == 16
    assert sweep(sessions, blobs, older_than_seconds=-10.0).blobs == 2


def test_missing_and_damaged_blobs_are_named_and_the_rest_is_kept(
    engine: Engine, world: Any, filled: str, blobs: BlobStore, folder: Path, tmp_path: Path
) -> None:
    first, second, _ = world.all(Image, Image.ordinal)
    blobs.path(first.sha256).unlink()
    blobs.path(second.sha256).write_bytes(b"rotten")
    for report in (verify(engine, blobs), back_up(engine, blobs, folder)):
        assert sorted(report.problems)[0].startswith(f"image {first.id}: the blob {first.sha256}")
        assert len(report.problems) == 2
        assert any("is damaged" in problem for problem in report.problems)
    assert len(list(BlobStore(folder).iter_all())) == 2


def test_a_damaged_backup_is_noticed_and_a_damaged_data_folder_mended(
    engine: Engine, other: Engine, world: Any, filled: str, blobs: BlobStore, folder: Path
) -> None:
    back_up(engine, blobs, folder)
    first, second, _ = world.all(Image, Image.ordinal)
    blobs.path(first.sha256).write_bytes(b"rotten")
    blobs.path(second.sha256).unlink()
    BlobStore(folder).path(second.sha256).write_bytes(b"rotten")
    back = restore(other, blobs, folder)
    [problem] = back.problems
    assert f"image {second.id}" in problem
    assert blobs.read_bytes(first.sha256) == b"picture 0"


def test_what_cannot_be_restored_is_refused_with_a_sentence(
    engine: Engine, other: Engine, filled: str, blobs: BlobStore, folder: Path
) -> None:
    with pytest.raises(BackupRefused, match="there is no backup in"):
        restore(other, blobs, folder)
    name = back_up(engine, blobs, folder).name
    with pytest.raises(BackupRefused, match=f"there is no backup 2020 in .*, only {name}"):
        restore(other, blobs, folder, "2020")
    with pytest.raises(BackupRefused, match="has rows already"):
        restore(engine, blobs, folder)
    manifest = folder / name / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "rows": 5}))
    upgrade(other)
    with pytest.raises(BackupRefused, match="its manifest says 5"):
        restore(other, blobs, folder)
    with session_factory(other)() as session:
        assert session.scalar(select(Project.id)) is None
    manifest.write_text(json.dumps({**content, "revision": "0001"}))
    with pytest.raises(BackupRefused, match="is of revision 0001"):
        restore(other, blobs, folder)


def test_two_backups_at_once_in_one_folder_are_refused(
    engine: Engine, blobs: BlobStore, folder: Path
) -> None:
    folder.mkdir()
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BackupRefused, match="another backup is being made"):
            back_up(engine, blobs, folder)


def test_every_column_that_names_a_blob_is_known_to_sweep_and_backup() -> None:
    columns = {
        column
        for table in Base.metadata.tables.values()
        for column in table.columns
        # Of keys and sessions it is the hash of a secret, of a request that of its body.
        if column.name.endswith("sha256")
        and table.name not in ("api_keys", "sessions", "idempotency_keys")
    }
    assert columns == {column.expression for _, column, _ in NAMING}
