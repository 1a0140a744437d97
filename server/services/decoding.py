"""Decoding pictures, in processes of their own.

The server itself never runs a decoder: a bomb, or a bug in a decoder, costs a small process that is
replaced, and the picture is refused. As many decode at a time as there are cores, and all that
decode together have no more pixels than the largest picture that is allowed, so that the memory
that many large pictures take does not grow with their number.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from server.formats.pictures import Picture, PictureRefused, Rendition

# A picture of a hundred megapixels takes a few.
CPU_SECONDS = 30
# Where a decoder waits rather than computes, so much time by the clock ends it.
WAITED_PER_CPU_SECOND = 10
# More than any rendition has; a decoder that says otherwise is not believed.
MAX_RENDITION_BYTES = 64 << 20

_ROOT = Path(__file__).parents[2]
# What a decoder needs of the environment; passwords and keys are not among it.
_PASSED_ON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "PYTHONDONTWRITEBYTECODE")


def probe(path: Path, max_pixels: int, cpu_seconds: int = CPU_SECONDS) -> Picture:
    """Decode a file completely and say what picture it is.

    Args:
        path: the file.
        max_pixels: the most pixels allowed.
        cpu_seconds: the most time that decoding may take.

    Raises:
        PictureRefused: no acceptable picture, or one that takes too much time or memory.
        OSError: the file cannot be read.
    """
    answer, _ = _POOL.ask("probe", path, max_pixels, 0, cpu_seconds)
    try:
        return Picture(**answer["picture"])
    except (KeyError, TypeError):
        raise PictureRefused(_CRASHED) from None


def rendition(
    path: Path,
    kind: Literal["display", "thumbnail"],
    max_pixels: int,
    max_side: int,
    cpu_seconds: int = CPU_SECONDS,
) -> Rendition:
    """Make a rendition of a picture; `max_side` is that of `display`.

    Raises:
        PictureRefused: it cannot be decoded.
        OSError: the file cannot be read.
    """
    answer, content = _POOL.ask(kind, path, max_pixels, max_side, cpu_seconds)
    return Rendition(content, str(answer.get("media_type")))


_CRASHED = "decoding the picture crashed its decoder; save it anew with an ordinary program"
_TOO_SLOW = "decoding the picture takes longer than {} s; save it anew with an ordinary program"


class _Decoder:
    """One process."""

    def __init__(self) -> None:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "server.services.decoder"],
            cwd=_ROOT,
            env={**environment, "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what the libraries have to say about damaged files
        )

    def ask(self, budget: _Budget, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """One request and its answer."""
        self._say(request)
        answer = self._heard(request)
        if "pixels" not in answer:
            return answer, b""
        with budget.taken(int(answer["pixels"]), request["max_pixels"]):
            self._say({})
            answer = self._heard(request)
            num_bytes = answer.get("num_bytes", 0)
            if not 0 <= num_bytes <= MAX_RENDITION_BYTES:
                raise PictureRefused(_CRASHED)
            content = self._read(num_bytes) if num_bytes else b""
            return answer, content

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _say(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # it was ended from outside; reading says the rest
            return

    def _heard(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdout is not None
        seconds = request["cpu_seconds"]
        impatience = threading.Timer(seconds * WAITED_PER_CPU_SECOND, self._process.kill)
        impatience.daemon = True
        impatience.start()
        try:
            line = self._process.stdout.readline(1 << 20)
        finally:
            impatience.cancel()
        try:
            heard = json.loads(line)
        except ValueError:
            waited = self._process.wait() if not line else None
            if waited in (-signal.SIGXCPU, -signal.SIGKILL):
                raise PictureRefused(_TOO_SLOW.format(seconds)) from None
            raise PictureRefused(_CRASHED) from None
        if not isinstance(heard, dict):
            raise PictureRefused(_CRASHED)
        return heard

    def _read(self, num_bytes: int) -> bytes:
        assert self._process.stdout is not None
        content = self._process.stdout.read(num_bytes)
        if len(content) != num_bytes:
            raise PictureRefused(_CRASHED)
        return content


class _Budget:
    """Lets pictures decode together as long as all of them have no more pixels than one may."""

    def __init__(self) -> None:
        self._turn = threading.Lock()  # so that small ones do not slip past a large one for ever
        self._changed = threading.Condition()
        self._taken = 0.0

    @contextmanager
    def taken(self, pixels: int, max_pixels: int) -> Iterator[None]:
        share = min(1.0, pixels / max_pixels)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._taken + share <= 1.0 + 1e-6)
            self._taken += share
        try:
            yield
        finally:
            with self._changed:
                self._taken = max(0.0, self._taken - share)
                self._changed.notify_all()


class _Pool:
    """The decoders of this process: started when they are needed, and kept."""

    def __init__(self, number: int) -> None:
        self._free = threading.BoundedSemaphore(number)
        self._budget = _Budget()
        self._idle: list[_Decoder] = []
        atexit.register(self.close)

    def ask(
        self, task: str, path: Path, max_pixels: int, max_side: int, cpu_seconds: int
    ) -> tuple[dict[str, Any], bytes]:
        request = {
            "task": task,
            "path": os.fspath(path.absolute()),
            "max_pixels": max_pixels,
            "max_side": max_side,
            "cpu_seconds": cpu_seconds,
        }
        with self._borrowed() as decoder:
            answer, content = decoder.ask(self._budget, request)
        if "refused" in answer:
            raise PictureRefused(str(answer["refused"]))
        if "errno" in answer:
            raise OSError(answer["errno"], answer["strerror"], os.fspath(path))
        return answer, content

    @contextmanager
    def _borrowed(self) -> Iterator[_Decoder]:
        with self._free:
            try:
                decoder = self._idle.pop()
            except IndexError:
                decoder = _Decoder()
            try:
                yield decoder
            except BaseException:
                decoder.close()
                raise
            self._idle.append(decoder)

    def close(self) -> None:
        """End the idle ones."""
        while self._idle:
            self._idle.pop().close()


_POOL = _Pool(os.cpu_count() or 1)
