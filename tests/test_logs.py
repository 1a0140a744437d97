"""What server and worker log: one form, ids in every line, and no secret."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
Line = dict[str, Any]


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MIAOD_")}
    return {**kept, **more}


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def lines_of(text: str) -> list[Line]:
    return [json.loads(line) for line in text.splitlines()]


SPEAKING = """
import logging, threading, warnings
import structlog
from server import logs

logs.configure()
structlog.contextvars.bind_contextvars(request_id="r1")
structlog.get_logger("ours").info("a project came", action="project_created")
logging.getLogger("uvicorn.error").error("Exception in %s", "ASGI application")
warnings.warn("that is old", DeprecationWarning, stacklevel=1)
try:
    raise OSError("no answer from postgresql+psycopg://ann:pass@word@db:5432/miaod just now")
except OSError:
    structlog.get_logger("ours").exception("no database")
thread = threading.Thread(target=lambda: 1 / 0, name="sweep")
thread.start()
thread.join()
raise RuntimeError("two\\nlines")
"""


def test_libraries_warnings_and_crashes_speak_in_the_same_form() -> None:
    ended = run("-W", "always", "-c", SPEAKING)
    said = lines_of(ended.stderr)
    assert ended.returncode == 1
    assert [line["logger"] for line in said] == [
        "ours", "uvicorn.error", "py.warnings", "ours", "uncaught", "uncaught",
    ]  # fmt: skip
    for line in said:
        assert {"event", "level", "timestamp", "logger"} <= set(line)
    assert [line.get("request_id") for line in said] == ["r1", "r1", "r1", "r1", None, "r1"]
    assert "ZeroDivisionError" in said[4]["exception"]
    assert (said[4]["thread"], said[5]["level"]) == ("sweep", "critical")
    assert "RuntimeError: two\nlines" in said[5]["exception"]


def test_no_password_of_a_url_is_logged_whoever_writes_it() -> None:
    ended = run("-c", SPEAKING)
    assert "postgresql+psycopg://ann:***@db:5432/miaod just now" in ended.stderr
    assert "pass@word" not in ended.stderr
    assert "word@" not in ended.stderr


def test_a_database_that_cannot_be_reached_is_named_without_its_password() -> None:
    nobody = "postgresql+psycopg://ann:s3cr3t@127.0.0.1:1/miaod"
    for command in (["-m", "server"], ["-m", "server", "migrate"], ["-m", "worker", "check"]):
        ended = run(*command, MIAOD_DATABASE_URL=nobody)
        assert ended.returncode == 1
        assert "s3cr3t" not in ended.stderr + ended.stdout
        assert "127.0.0.1" in lines_of(ended.stderr)[-1]["event"] + ended.stderr


def test_a_database_url_that_is_none_is_refused_without_being_shown() -> None:
    for command in (["-m", "server"], ["-m", "worker"], ["-m", "worker", "check"]):
        ended = run(*command, MIAOD_DATABASE_URL="postgres//ann:s3cr3t@host")
        assert ended.returncode == 1
        assert "s3cr3t" not in ended.stderr + ended.stdout
        assert len(lines_of(ended.stderr)) == 1


@pytest.mark.parametrize(
    ("program", "settings"),
    [
        ("server.__main__", "server.settings:Settings"),
        ("worker.__main__", "worker.settings:WorkerSettings"),
    ],
)
def test_a_secret_file_that_cannot_be_read_is_refused_in_a_sentence(
    program: str, settings: str, tmp_path: Path
) -> None:
    (tmp_path / "miaod_database_url").write_bytes(b"\xff")  # rights would not stop root
    module, name = settings.split(":")
    start = (
        f"from {module} import {name} as Settings\n"
        f"from {program} import main\n"
        f"Settings.model_config['secrets_dir'] = {str(tmp_path)!r}\n"
        "raise SystemExit(main())"
    )
    refused = run("-c", start)
    assert refused.returncode == 1
    [line] = lines_of(refused.stderr)
    assert line["level"] == "error"
    assert 'a setting cannot be read: error getting value for field "database_url"' in line["event"]
    assert "can't decode byte 0xff" in line["event"]


def test_every_line_of_a_request_carries_its_id_and_none_the_key(tmp_path: Path) -> None:
    surroundings = {
        "MIAOD_DATA_DIR": str(tmp_path),
        "MIAOD_PORT": "0",
        "MIAOD_ADMIN_KEY": "k3y-of-the-house",
    }
    assert run("-m", "server", "migrate", **surroundings).returncode == 0
    server = subprocess.Popen(
        [sys.executable, "-m", "server"],
        cwd=ROOT,
        env=environment(**surroundings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
        assert found
        asked = urllib.request.Request(
            f"{found[0]}/projects",
            json.dumps({"name": "road", "classes": ["car"]}).encode(),
            {
                "Content-Type": "application/json",
                "Authorization": "Bearer k3y-of-the-house",
                "X-Request-ID": "from-the-test",
            },
        )
        urllib.request.urlopen(asked, timeout=30).close()
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=60)
    finally:
        server.kill()
        server.communicate()
    said = lines_of(errors)
    [created] = [line for line in said if line.get("action") == "project_created"]
    assert created["request_id"] == "from-the-test"
    assert any(line["logger"].startswith("uvicorn") for line in said)
    assert "k3y-of-the-house" not in errors
