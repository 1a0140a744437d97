"""The process that decodes pictures for the server: `python -m server.services.decoder`.

A decoder is a hundred thousand lines of C that read what strangers send. Here it can hurt nobody:
the process holds no keys and no database, writes no file, and gets for each picture only so much
memory as its size in pixels needs, and only so much time.

One request is one line of JSON on stdin: `{"task": "probe" | "display" | "thumbnail", "path": …,
"max_pixels": …, "max_side": …, "cpu_seconds": …}`. The answers, lines of JSON on stdout:

1. `{"pixels": n}` once the header was read, after which a line on stdin must allow the decoding;
2. `{"picture": {…}}`, or `{"num_bytes": n, "media_type": …}` followed by n bytes;

or, in the place of either, `{"refused": sentence}` or `{"errno": n, "strerror": …}`.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from server.formats.pictures import PictureRefused, display_rendition, probe, thumbnail

# What the decoder itself, its buffers and the metadata of a file may take.
BASE_BYTES = 128 << 20
# Decoded samples (4), and the copies on the way to upright sRGB: transparency, colour profile.
BYTES_PER_PIXEL = 28
_STATM = Path("/proc/self/statm")


def main() -> None:
    """Answer requests until stdin ends, which it does when the server does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends stdin
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    own_bytes = _own_bytes()
    while line := incoming.readline():
        _answer(json.loads(line), own_bytes, incoming, outgoing)


def _answer(request: Any, own_bytes: int | None, incoming: BinaryIO, outgoing: BinaryIO) -> None:
    def say(**message: object) -> None:
        outgoing.write(json.dumps(message).encode() + b"\n")
        outgoing.flush()

    path = Path(request["path"])

    def wait_for_leave(pixels: int) -> None:
        _limit_memory(own_bytes, path, pixels)
        say(pixels=pixels)
        if not incoming.readline():
            sys.exit(0)

    content = b""
    try:
        _limit_time(request["cpu_seconds"])
        # A WebP file has its canvas allocated, though not written, while its header is read.
        _limit_memory(own_bytes, path, request["max_pixels"])
        answer, content = _decoded(request, path, wait_for_leave)
    except PictureRefused as refusal:
        answer = {"refused": str(refusal)}
    except MemoryError:
        answer = {
            "refused": "decoding the picture takes more memory than its size in pixels warrants; "
            "save it anew with an ordinary program"
        }
    except OSError as error:
        answer = {"errno": error.errno, "strerror": error.strerror}
    _limit_memory(None, path, 0)
    say(**answer)
    outgoing.write(content)
    outgoing.flush()


def _decoded(
    request: Any, path: Path, on_header: Callable[[int], None]
) -> tuple[dict[str, object], bytes]:
    if request["task"] == "probe":
        picture = probe(path, request["max_pixels"], on_header)
        return {"picture": asdict(picture)}, b""
    if request["task"] == "thumbnail":
        made = thumbnail(path, on_header)
    else:
        made = display_rendition(path, request["max_side"], on_header=on_header)
    return {"num_bytes": len(made.data), "media_type": made.media_type}, made.data


def _own_bytes() -> int | None:
    """The address space of this process; None where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return None


def _limit_memory(own_bytes: int | None, path: Path, pixels: int) -> None:
    """Allow what a picture of so many pixels needs; without `own_bytes`, anything."""
    limit = resource.RLIM_INFINITY
    if own_bytes is not None:
        limit = own_bytes + BASE_BYTES + BYTES_PER_PIXEL * pixels + path.stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _limit_time(cpu_seconds: float) -> None:
    """From now on; the system ends the process when they are used up."""
    times = os.times()
    limit = math.ceil(times.user + times.system + cpu_seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
