"""The first start: what it opens, which key it makes, and what it says."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from server import key_commands
from server.errors import Conflict, NotFound
from server.settings import Settings
from server.store.database import make_engine
from server.store.models import ApiKey, AuditEntry, Project

ROOT = Path(__file__).parents[2]
KEY = re.compile(r"miaod_[A-Za-z0-9_-]{43}")


def environment(database_url: str, data_dir: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MIAOD_")}
    return {
        **kept,
        "MIAOD_DATA_DIR": str(data_dir),
        "MIAOD_DATABASE_URL": database_url,
        "MIAOD_PORT": "0",
        **more,
    }


@contextmanager
def serving(settings: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "server"],
        cwd=ROOT,
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said_until_up(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it said until it served, and its URL on this machine."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        found = re.search(r"MI-AOD service on http://\S+:(\d+) ", line)
        if found:
            return "".join(lines), f"http://127.0.0.1:{found[1]}"
    raise AssertionError(f"it ended: {''.join(lines)}")


def status(url: str, key: str | None = None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=60
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def run_keys(database_url: str, data_dir: Path, *arguments: str) -> list[str]:
    """What `python -m server keys …` does and says, in this process."""
    parser = argparse.ArgumentParser()
    key_commands.add_to(parser.add_subparsers())
    settings = Settings(data_dir=data_dir, database_url=database_url, admin_key=None)
    engine = make_engine(database_url)
    said: list[str] = []
    try:
        chosen = parser.parse_args(["keys", *arguments])
        key_commands.run(chosen, settings, engine, said.append)
    finally:
        engine.dispose()
    return said


def test_of_servers_that_start_at_once_exactly_one_makes_the_first_admin_key(
    database_url: str, data_dir: Path, sessions: sessionmaker[Session]
) -> None:
    settings = environment(database_url, data_dir, MIAOD_HOST="0.0.0.0")
    with serving(settings) as one, serving(settings) as two:
        said = [said_until_up(process) for process in (one, two)]
        found = [key for text, _ in said for key in KEY.findall(text)]
        assert len(found) == 1
        for text, url in said:
            assert ("The first admin key, shown this once" in text) == (found[0] in text)
            assert status(f"{url}/projects") == 401
            assert status(f"{url}/projects", found[0]) == 200
            assert status(f"{url}/readyz") == 200
        for process in (one, two):
            process.terminate()
        logs = [process.communicate(timeout=60)[1] for process in (one, two)]
    assert not any(found[0] in text for text in logs)
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(ApiKey)) == 1


def test_on_loopback_it_says_that_it_is_open_until_the_operator_makes_a_key(
    data_dir: Path, sqlite_template: Path
) -> None:
    shutil.copyfile(sqlite_template, data_dir / "miaod.db")
    url_of_database = f"sqlite:///{data_dir / 'miaod.db'}"
    with serving(environment(url_of_database, data_dir)) as process:
        said, url = said_until_up(process)
        assert not KEY.search(said)
        assert process.stdout is not None
        assert "open to the user of this machine" in process.stdout.readline()
        assert status(f"{url}/projects") == 200
        made = ["create", "--name", "ada", "--role", "admin"]
        (key,) = run_keys(url_of_database, data_dir, *made)
        assert status(f"{url}/projects") == 401
        assert status(f"{url}/projects", key) == 200


def test_with_a_key_in_the_settings_no_other_is_made(data_dir: Path, sqlite_template: Path) -> None:
    shutil.copyfile(sqlite_template, data_dir / "miaod.db")
    settings = environment(
        f"sqlite:///{data_dir / 'miaod.db'}",
        data_dir,
        MIAOD_HOST="0.0.0.0",
        MIAOD_ADMIN_KEY="open sesame, please",
    )
    with serving(settings) as process:
        said, url = said_until_up(process)
        assert not KEY.search(said)
        assert status(f"{url}/projects") == 401
        assert status(f"{url}/projects", "open sesame, please") == 200


def test_the_operator_makes_lists_and_revokes_keys_without_one(
    database_url: str, data_dir: Path, sessions: sessionmaker[Session]
) -> None:
    def run(*arguments: str) -> list[str]:
        return run_keys(database_url, data_dir, *arguments)

    with pytest.raises(Conflict, match="the first key must be an admin key"):
        run("create", "--name", "ana", "--role", "viewer", "--all-projects")
    (ada,) = run("create", "--name", "ada", "--role", "admin")
    assert KEY.fullmatch(ada)
    with sessions.begin() as session:
        session.add(Project(name="street"))
    with pytest.raises(ValueError, match="--all-projects"):
        run("create", "--name", "ana", "--role", "viewer")
    with pytest.raises(NotFound, match="no project 'road'"):
        run("create", "--name", "ana", "--role", "viewer", "--project", "road")
    (ana,) = run(
        "create", "--name", "ana", "--role", "viewer", "--project", "street", "--days", "1"
    )
    listed = run("list")
    assert [re.split(r"  +", line)[2:4] for line in listed] == [
        ["viewer", "live"],
        ["admin", "live"],
    ]
    assert not any(key in line for line in listed for key in (ada, ana))
    run("revoke", "ana")
    assert "revoked" in run("list")[0]
    with pytest.raises(NotFound, match="no live key 'ana'"):
        run("revoke", "ana")
    with pytest.raises(Conflict, match="last admin key"):
        run("revoke", "ada")
    with sessions() as session:
        entries = session.execute(select(AuditEntry.actor, AuditEntry.action)).all()
    assert [tuple(entry) for entry in entries] == [
        ("command line", "key_created"),
        ("command line", "key_created"),
        ("command line", "key_revoked"),
    ]
