"""Multipart forms, read as they arrive: file parts go to files below the data folder, never whole
into memory and never into the system's temporary folder (which may be memory too).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from server.errors import BadRequest, TooLarge, UnsupportedMedia
from server.store.blobs import BlobStore
from server.store.outage import FULL

MAX_FIELDS = 64
MAX_FIELD_BYTES = 64_000
MAX_NAME_BYTES = 4096


@dataclass(slots=True)
class ReceivedFile:
    """A file part. When `too_large` or `no_room`, it was not kept and is of no use."""

    field_name: str
    file_name: str
    path: Path
    num_bytes: int = 0
    too_large: bool = False
    no_room: bool = False


@dataclass(slots=True)
class Form:
    """What a form held; the files are gone when the request has been handled."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[ReceivedFile] = field(default_factory=list)
    # Of all names, file names and contents, in their order; the boundary does not count, because
    # each sending has its own. None if it was not asked for.
    sha256: str | None = None


@asynccontextmanager
async def receive_form(
    request: Request,
    blobs: BlobStore,
    *,
    max_files: int,
    max_file_bytes: int,
    hashed: bool = False,
) -> AsyncIterator[Form]:
    """Read a multipart body; its files stay on the disk as long as the context is open.

    Args:
        request: whose body nobody has read yet.
        blobs: where files are spooled.
        max_files: with more of them the whole request is refused.
        max_file_bytes: a larger file is marked `too_large`; the others are kept. So it is with
            `no_room` and one that the disk has no room for.
        hashed: also give the form's `sha256`.

    Raises:
        UnsupportedMedia: the body is no multipart form.
        BadRequest: it is one, but malformed.
        TooLarge: too many files or fields, or a field that is too long.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise UnsupportedMedia("send a multipart/form-data body")
    boundary = options.get(b"boundary")
    if not boundary:
        raise BadRequest("the content type names no boundary of the multipart body")
    with ExitStack() as spooled:
        try:
            reader = _Reader(boundary, blobs, spooled, max_files, max_file_bytes, hashed)
        except FormParserError as error:
            raise BadRequest(f"the multipart body is malformed: {error}") from None
        async for chunk in request.stream():
            # In a thread: parsing is quick, but the disk may make us wait.
            await run_in_threadpool(reader.feed, chunk)
        await run_in_threadpool(reader.finish)
        yield reader.form


class _Reader:
    """Turns the parser's callbacks into a form."""

    def __init__(
        self,
        boundary: bytes,
        blobs: BlobStore,
        spooled: ExitStack,
        max_files: int,
        max_file_bytes: int,
        hashed: bool,
    ) -> None:
        self.form = Form()
        self._hashed = hashed
        # Of each part: its name, its file name, the hash of its content.
        self._parts: list[tuple[str, str | None, str]] = []
        self._part_hash = hashlib.sha256()
        self._blobs = blobs
        self._spooled = spooled
        self._max_files = max_files
        self._max_file_bytes = max_file_bytes
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._field_name = ""
        self._num_fields = 0
        self._value = bytearray()
        self._file: ReceivedFile | None = None
        self._sink: BinaryIO | None = None
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise BadRequest(f"the multipart body is malformed: {error}") from None

    def finish(self) -> None:
        """The body is over: it must have been whole."""
        try:
            self._parser.finalize()
        except FormParserError as error:
            raise BadRequest(f"the multipart body is malformed: {error}") from None
        if not self._ended:
            raise BadRequest("the multipart body ends before its closing boundary")
        if self._hashed:
            self.form.sha256 = hashlib.sha256(json.dumps(self._parts).encode()).hexdigest()

    def _on_part_begin(self) -> None:
        self._disposition = b""
        self._value = bytearray()
        self._file = self._sink = None
        self._part_hash = hashlib.sha256()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise BadRequest("a part of the multipart body has no name")
        if any(len(options.get(key, b"")) > MAX_NAME_BYTES for key in (b"name", b"filename")):
            raise TooLarge(f"a name in the multipart body has more than {MAX_NAME_BYTES} bytes")
        self._field_name = options[b"name"].decode("utf-8", "replace")
        if b"filename" not in options:
            self._num_fields += 1  # the same one again and again counts as well
            if self._num_fields > MAX_FIELDS:
                raise TooLarge(f"more than {MAX_FIELDS} fields came; at most that many may")
            return
        if len(self.form.files) >= self._max_files:
            raise TooLarge(
                f"more than {self._max_files} files came; send at most that many at a time",
                code="too_many_files",
            )
        # One file is open at a time, however many come: its predecessor is closed at its end.
        sink = self._spooled.enter_context(self._blobs.spool())
        name = options[b"filename"].decode("utf-8", "replace")
        self._file = ReceivedFile(self._field_name, name, Path(sink.name))
        self._sink = sink
        self.form.files.append(self._file)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._hashed:
            self._part_hash.update(memoryview(data)[start:end])
        if self._file is None or self._sink is None:
            if len(self._value) + end - start > MAX_FIELD_BYTES:
                raise TooLarge(f"field {self._field_name} has more than {MAX_FIELD_BYTES} bytes")
            self._value += data[start:end]
            return
        self._file.num_bytes += end - start
        if self._file.num_bytes > self._max_file_bytes:
            self._file.too_large = True
        elif not self._file.no_room:
            with self._noting_a_full_disk():
                self._sink.write(data[start:end])

    def _on_part_end(self) -> None:
        if self._hashed:
            file_name = None if self._file is None else self._file.file_name
            self._parts.append((self._field_name, file_name, self._part_hash.hexdigest()))
        if self._sink is not None:
            with self._noting_a_full_disk():
                self._sink.close()
        else:
            self.form.fields[self._field_name] = self._value.decode("utf-8", "replace")

    @contextmanager
    def _noting_a_full_disk(self) -> Iterator[None]:
        """Where the disk is full, give up this file alone; a smaller one may still find room."""
        assert self._file is not None
        assert self._sink is not None
        try:
            yield
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._file.no_room = True
            with suppress(OSError):  # once more, for what its buffer still holds
                self._sink.close()
            os.truncate(self._file.path, 0)

    def _on_end(self) -> None:
        self._ended = True
