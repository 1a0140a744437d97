"""Bytes from the server into a file, whole or not at all."""

import os
import secrets
import time
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import BinaryIO

import httpx2

from miaod_client._errors import IncompleteDownloadError
from miaod_client._transport import Params, Transport

# Bytes so far, and bytes in all where the server says.
DownloadProgress = Callable[[int, int | None], None]

MAX_ATTEMPTS = 3


def download(
    transport: Transport,
    path: str,
    *,
    to: str | os.PathLike[str],
    default_name: str,
    params: Params | None = None,
    on_progress: DownloadProgress | None = None,
) -> Path:
    """Stream a body into a file that appears under its name only when it is complete.

    A line that breaks in the middle is tried again from the start, three times in all.

    Args:
        transport: sends the request.
        path: what to fetch.
        to: the file, replaced if it exists, or an existing folder to put it into.
        default_name: name within a folder, where the server proposes none.
        params: query.
        on_progress: called with the bytes so far and, where known, in all.

    Returns:
        The file's path.

    Raises:
        ApiError: the server refused; nothing was written.
        FileNotFoundError: the folder that the file should be in does not exist.
        ConnectionFailedError: the server could not be reached.
        IncompleteDownloadError: the line broke each time; nothing was left behind.
        OSError: the file cannot be written.
    """
    folder = Path(to).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} does not exist: make it, then download again")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            return _download_once(transport, path, Path(to), default_name, params, on_progress)
        except IncompleteDownloadError:
            if attempt == MAX_ATTEMPTS:
                raise
            time.sleep(transport.retry.seconds_after_error(attempt - 1))
    raise AssertionError("the loop returns or raises")


def _download_once(
    transport: Transport,
    path: str,
    to: Path,
    default_name: str,
    params: Params | None,
    on_progress: DownloadProgress | None,
) -> Path:
    with transport.stream(path, params=params) as response:
        target = to / (name_in_header(response) or default_name) if to.is_dir() else to
        # Beside the target, because a rename is atomic only within one file system.
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            with part.open("xb") as file:
                write_body(response, file, on_progress)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    return target


def write_body(
    response: httpx2.Response, file: BinaryIO, on_progress: DownloadProgress | None
) -> None:
    """Write a streamed body.

    Raises:
        IncompleteDownloadError: it is shorter than the header says.
    """
    length = response.headers.get("content-length")
    # The header counts bytes on the line: those of a compressed body are not ours.
    total = int(length) if length and "content-encoding" not in response.headers else None
    done = 0
    for chunk in response.iter_bytes():
        file.write(chunk)
        done += len(chunk)
        if on_progress is not None:
            on_progress(done, total)
    if total is not None and done != total:
        raise IncompleteDownloadError(f"{response.url} ended after {done} of {total} bytes")


def name_in_header(response: httpx2.Response) -> str | None:
    """The file name that the server proposes, if it is one that can lead nowhere else."""
    message = Message()
    message["content-disposition"] = response.headers.get("content-disposition", "")
    name = (message.get_filename() or "").replace("\\", "/").rpartition("/")[2]
    return name if name.isprintable() and name.strip(". ") else None
