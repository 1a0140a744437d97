"""A zip file that is sent while it is made: nothing of it is held but the member at hand."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

CHUNK_BYTES = 1 << 18
# The same content gives the same bytes, whenever it is packed.
_DATE = (1980, 1, 1, 0, 0, 0)
_MODE = 0o644 << 16


class ZipStream:
    """Members are added one after the other; each call gives the bytes that are ready to be sent.

    ```
    yield from stream.add_bytes("a.xml", xml)
    yield from stream.add_file("a.jpg", path)
    yield from stream.finish()
    ```
    """

    def __init__(self) -> None:
        """An empty archive."""
        self._sink = _Sink()
        self._zip = zipfile.ZipFile(self._sink, "w")  # type: ignore[call-overload]  # a mere writer

    def add_bytes(self, name: str, data: bytes) -> Iterator[bytes]:
        """A member of text, compressed."""
        info = _info(name, zipfile.ZIP_DEFLATED)
        self._zip.writestr(info, data)
        yield from self._sink.drain()

    def add_file(self, name: str, path: Path) -> Iterator[bytes]:
        """A member that is compressed already (a picture), as it is."""
        info = _info(name, zipfile.ZIP_STORED)
        info.file_size = path.stat().st_size
        with path.open("rb") as source, self._zip.open(info, "w") as target:
            while chunk := source.read(CHUNK_BYTES):
                target.write(chunk)
                yield from self._sink.drain()
        yield from self._sink.drain()

    def add_text(self, name: str, pieces: Iterator[str]) -> Iterator[bytes]:
        """A member of any length, compressed, from pieces of text."""
        info = _info(name, zipfile.ZIP_DEFLATED)
        with self._zip.open(info, "w", force_zip64=True) as target:
            for piece in pieces:
                target.write(piece.encode())
                yield from self._sink.drain()
        yield from self._sink.drain()

    def finish(self) -> Iterator[bytes]:
        """The table of contents; nothing can be added after it."""
        self._zip.close()
        yield from self._sink.drain()


class _Sink:
    """What `zipfile` writes to; it cannot seek, so sizes follow after each member."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._chunks.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def drain(self) -> Iterator[bytes]:
        data = b"".join(self._chunks)
        self._chunks.clear()
        if data:
            yield data


def _info(name: str, compression: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.compress_type = compression
    info.external_attr = _MODE
    return info
