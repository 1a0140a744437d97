"""Telling what is away from what is wrong, and waiting for it."""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg.errors
import pytest
from sqlalchemy.exc import IntegrityError, InternalError, OperationalError

from server.store import outage
from server.store.outage import Patience, StillAway, StorageAway, cause

DATA = Path("/srv/miaod")


def os_error(number: int, path: str | None = None) -> OSError:
    return OSError(number, "words of the system", path)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (os_error(errno.ENOSPC), "the disk is full"),
        (os_error(errno.EDQUOT), "the disk quota is used up"),
        (os_error(errno.EROFS), "the disk is read-only"),
        (os_error(errno.EIO), "the disk fails to read or write"),
        (os_error(errno.ESTALE), "the network folder is gone"),
        (os_error(errno.ENODEV), "the data folder is not there"),
        (
            os_error(errno.EACCES, "/srv/miaod/tmp/x"),
            "/srv/miaod/tmp/x may not be used (words of the system)",
        ),
        (StorageAway("the disk is read-only"), "the disk is read-only"),
        (
            # As a loader process hands it on.
            StorageAway(
                "Caught StorageAway in worker 0.\nTraceback:\n  StorageAway: the disk is x"
            ),
            "the disk is x",
        ),
        (
            OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full")),
            "the disk of the database is full",
        ),
        (
            OperationalError("INSERT", {}, psycopg.errors.DiskFull("No space left on device")),
            "the disk of the database is full",
        ),
        (OperationalError("BEGIN", {}, Exception("refused")), "the database does not answer"),
        (
            # A standby that is not the primary yet.
            InternalError("UPDATE", {}, psycopg.errors.ReadOnlySqlTransaction("read-only")),
            "the database does not answer",
        ),
    ],
)
def test_what_is_away_has_a_name(error: Exception, words: str) -> None:
    assert cause(error, DATA) == words


@pytest.mark.parametrize(
    "error",
    [
        os_error(errno.ENOENT, "/srv/miaod/blobs/x"),
        os_error(errno.EACCES, "/srv/import/x"),
        os_error(errno.EMFILE),
        IntegrityError("INSERT", {}, Exception("UNIQUE constraint failed")),
        InternalError("UPDATE", {}, Exception("a cache is corrupt")),
        ValueError("disk is full"),
        MemoryError(),
    ],
)
def test_what_would_come_again_is_no_outage(error: Exception) -> None:
    assert cause(error, DATA) is None


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(outage, "FIRST_PAUSE_SECONDS", 0.01)
    return []


def nobody_stops() -> None:
    pass


def failing(times: int, error: Exception) -> Callable[[], str]:
    """Work that meets the error so many times and then goes well."""
    left = [error] * times

    def work() -> str:
        if left:
            raise left.pop()
        return "done"

    return work


def test_work_is_done_again_until_there_is_room_and_the_waiting_is_told(
    tmp_path: Path, said: list[str]
) -> None:
    patiently = Patience(tmp_path, check=nobody_stops, say=said.append)
    assert patiently(failing(3, os_error(errno.ENOSPC))) == "done"
    assert said[0].startswith(f"waiting: the disk is full ({tmp_path}: ")
    assert said[0].endswith(" MB free); goes on by itself once there is room")
    assert said[-1] == ""
    assert len(said) == 4


def test_work_that_goes_well_says_nothing(tmp_path: Path, said: list[str]) -> None:
    assert Patience(tmp_path, check=nobody_stops, say=said.append)(lambda: 7) == 7
    assert said == []


def test_what_is_no_outage_passes_at_once(tmp_path: Path, said: list[str]) -> None:
    patiently = Patience(tmp_path, check=nobody_stops, say=said.append)
    with pytest.raises(ValueError, match="wrong"):
        patiently(failing(1, ValueError("wrong")))
    assert said == []


def test_waiting_ends_with_its_limit_and_the_reason(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "LIMIT_SECONDS", 0.05)
    patiently = Patience(tmp_path, check=nobody_stops, say=said.append)
    with pytest.raises(StillAway, match=r"^the disk is read-only \(.*\), and was still so after"):
        patiently(failing(100_000, os_error(errno.EROFS)))


def test_who_got_on_between_two_outages_may_wait_as_long_again(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "LIMIT_SECONDS", 0.001)
    patiently = Patience(tmp_path, check=nobody_stops, say=said.append)
    with pytest.raises(StillAway):
        patiently(failing(3, os_error(errno.EIO)))
    monkeypatch.setattr(outage, "GOT_ON_SECONDS", 0.0)
    assert patiently(failing(3, os_error(errno.EIO))) == "done"


def test_who_waits_can_be_stopped(tmp_path: Path, said: list[str]) -> None:
    class Stopped(Exception):
        pass

    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise Stopped

    def say(words: str) -> None:
        said.append(words)
        stop.set()

    with pytest.raises(Stopped):
        Patience(tmp_path, check=check, say=say)(failing(100_000, os_error(errno.ENOSPC)))
    assert len(said) == 1
