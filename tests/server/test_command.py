from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from server.store.database import default_database_url
from tests.server.processes import running_server

ROOT = Path(__file__).parents[2]


def run(data_dir: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env=clean_environment(data_dir, **environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def clean_environment(data_dir: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MIAOD_")}
    return {**kept, "MIAOD_DATA_DIR": str(data_dir), "MIAOD_PORT": "0", **more}


def test_without_tables_the_server_exits_with_a_sentence(data_dir: Path) -> None:
    ended = run(data_dir)
    assert ended.returncode == 1
    assert "python -m server migrate" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_setting_that_cannot_be_is_named(data_dir: Path) -> None:
    ended = run(data_dir, MIAOD_PORT="many")
    assert ended.returncode == 1
    assert "MIAOD_PORT" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_preset_that_there_is_not_is_refused_before_any_cycle_asks_for_it(
    data_dir: Path,
) -> None:
    ended = run(data_dir, MIAOD_DEFAULT_PRESET="gpu")
    assert ended.returncode == 1
    assert "MIAOD_DEFAULT_PRESET: there is no preset 'gpu', only paper-voc, " in ended.stderr


def test_a_database_of_an_unknown_kind_is_refused_with_a_sentence(data_dir: Path) -> None:
    ended = run(data_dir, MIAOD_DATABASE_URL="mysql://localhost/x")
    assert ended.returncode == 1
    assert "mysql" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_migrated_and_started_it_prints_its_url_answers_and_stops_on_sigterm(
    data_dir: Path,
) -> None:
    assert run(data_dir, "migrate").returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "server"],
        cwd=ROOT,
        env=clean_environment(data_dir),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found
        with urllib.request.urlopen(f"{found[0]}/readyz", timeout=30) as answer:
            assert json.load(answer)["ready"] is True
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    for line in errors.splitlines():
        assert "event" in json.loads(line)


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"POST /projects HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /projects HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /projects/\xe9 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["no request", "no host", "two lengths", "broken chunk", "bytes in the address"],
)
def test_what_is_no_http_is_refused_in_the_common_form(
    address: tuple[str, int], sent: bytes
) -> None:
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(sent)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head.lower()
    refusal = json.loads(body)
    assert set(refusal) == {"detail", "code", "request_id"}
    assert refusal["code"] == "bad_request"
    assert refusal["request_id"].encode() in head


@pytest.fixture(scope="module")
def address(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int]]:
    """Where a server listens, for all tests of this file that harm it not."""
    data_dir = tmp_path_factory.mktemp("data")
    shutil.copyfile(sqlite_template, data_dir / "miaod.db")
    with running_server(data_dir, default_database_url(data_dir)) as url:
        place = urlsplit(url)
        yield str(place.hostname), int(place.port or 0)


def test_the_server_loads_neither_torch_nor_the_worker() -> None:
    code = "import sys, server.main; print({'torch', 'worker'} & set(sys.modules))"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout == "set()\n"
