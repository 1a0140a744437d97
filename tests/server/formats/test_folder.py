from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from server.formats.folder import FileRefused, list_files, open_regular


def test_a_regular_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    with open_regular(tmp_path / "a") as file:
        assert file.read() == b"content"


def test_what_has_become_a_link_since_it_was_listed_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "a").write_bytes(b"secret")
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "a").write_bytes(b"1")
    (root / "inner" / "a").write_bytes(b"2")
    files = list_files(root).files
    (root / "a").unlink()
    (root / "a").symlink_to(secret / "a")
    (root / "inner").rename(root / "moved")
    (root / "inner").symlink_to(secret)
    for path in files.values():
        with pytest.raises(FileRefused):
            open_regular(path)


def test_a_link_inside_the_folder_is_read_through(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").symlink_to("a")
    with open_regular(list_files(tmp_path).files["b"]) as file:
        assert file.read() == b"1"


def test_a_pipe_a_socket_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "socket", Path("/dev/zero"), tmp_path):
            with pytest.raises(FileRefused, match="no regular file"):
                open_regular(path)


def test_a_file_that_is_gone_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match="not there any more"):
        open_regular(tmp_path / "missing")
    with pytest.raises(FileRefused, match="not there any more"):
        open_regular(tmp_path / "no folder" / "a")
