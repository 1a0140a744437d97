"""Many image files to the server: found, put into batches, streamed from disk, reported by name."""

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from miaod_client._errors import TooLargeError, UnexpectedResponseError
from miaod_client._transport import FileParts
from miaod_client._types import UploadedFile, UploadReport

# What a folder is searched for; files that are named one by one are sent whatever their suffix.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True)
class ImageFile:
    """A file to upload.

    Attributes:
        path: where it lies.
        name: what the image is called in the project, with `/` between folders.
    """

    path: Path
    name: str


# A file, a folder, or a file under a name of its own.
Source = str | os.PathLike[str] | ImageFile


@dataclass(frozen=True)
class UploadProgress:
    """How far an upload is.

    Attributes:
        files_done: files that the server has answered.
        files_total: files in all.
        bytes_sent: bytes read and sent so far; falls back when a batch is sent again.
        bytes_total: bytes in all.
    """

    files_done: int
    files_total: int
    bytes_sent: int
    bytes_total: int


class CountedFile(io.BufferedReader):
    """A file open for reading that tells how much of it was read since its start."""

    def __init__(self, path: Path, on_read: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "rb"))
        self._on_read = on_read
        self._count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes and report their number."""
        data = super().read(size)
        self._count += len(data)
        self._on_read(len(data))
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move; going back to the start takes back what was reported, as it is read again."""
        if offset == 0 and whence == io.SEEK_SET and self._count:
            self._on_read(-self._count)
            self._count = 0
        return super().seek(offset, whence)


class Upload:
    """One upload: sends batch after batch, keeps the results and tells the progress.

    Args:
        files: what to send.
        post: sends one request with these parts and returns one result for each.
        on_progress: called as bytes leave and as files are answered.
    """

    def __init__(
        self,
        files: Sequence[ImageFile],
        *,
        post: Callable[[FileParts], list[UploadedFile]],
        on_progress: Callable[[UploadProgress], None] | None,
    ) -> None:
        self._files = files
        self._sizes = [size_of(file.path) for file in files]
        self._post = post
        self._on_progress = on_progress
        self._bytes_total = sum(self._sizes)
        self._bytes_sent = 0
        self._results: list[UploadedFile] = []

    def run(self, *, batch_files: int, batch_bytes: int) -> UploadReport:
        """Send everything.

        Raises:
            ApiError: the server refused a whole request.
            ValueError: `batch_files` is below 1.
        """
        if batch_files < 1:
            raise ValueError(f"batch_files is {batch_files}: give at least 1")
        for batch in batches(self._sizes, max_files=batch_files, max_bytes=batch_bytes):
            self._send(batch)
        return UploadReport(items=self._results)

    def _send(self, batch: range) -> None:
        sent_before = self._bytes_sent
        try:
            results = self._post_batch(batch)
        except TooLargeError as error:
            self._bytes_sent = sent_before
            if len(batch) > 1:
                # Together they are too large; one by one each gets its own answer.
                for index in batch:
                    self._send(range(index, index + 1))
                return
            results = [rejected_here(self._files[batch.start], str(error.detail))]
        self._results.extend(results)
        self._report()

    def _post_batch(self, batch: range) -> list[UploadedFile]:
        results: dict[int, UploadedFile] = {}
        sent: list[int] = []
        with ExitStack() as opened:
            parts = []
            for index in batch:
                file = self._files[index]
                try:
                    handle = opened.enter_context(CountedFile(file.path, self._add_bytes))
                except OSError as error:
                    reason = f"cannot be read: {error.strerror or error}"
                    results[index] = rejected_here(file, reason)
                    continue
                # The server judges the bytes, whatever type is claimed.
                parts.append(("files", (file.name, handle, "application/octet-stream")))
                sent.append(index)
            if parts:
                answered = self._post(parts)
                if len(answered) != len(sent):
                    raise UnexpectedResponseError(
                        f"the server answered for {len(answered)} of {len(sent)} files"
                    )
                results.update(zip(sent, answered, strict=True))
        return [results[index] for index in batch]

    def _add_bytes(self, count: int) -> None:
        self._bytes_sent += count
        self._report()

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(
                UploadProgress(
                    files_done=len(self._results),
                    files_total=len(self._files),
                    bytes_sent=self._bytes_sent,
                    bytes_total=self._bytes_total,
                )
            )


def rejected_here(file: ImageFile, reason: str) -> UploadedFile:
    """The result of a file that never became an image."""
    return UploadedFile(name=file.name, status="rejected", reason=reason)


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where that cannot be told: opening it will then say why."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def collect_files(sources: Source | Iterable[Source]) -> list[ImageFile]:
    """The files that `sources` stand for, folders searched in name order.

    A folder gives every image file below it, hidden ones apart, named relative to the folder; a
    file is named by its last part.

    Raises:
        FileNotFoundError: a source does not exist.
        ValueError: a folder has no image file, or there is nothing at all.
    """
    if isinstance(sources, (str, os.PathLike, ImageFile)):
        sources = [sources]
    files: list[ImageFile] = []
    for source in sources:
        if isinstance(source, ImageFile):
            files.append(source)
            continue
        path = Path(source)
        if path.is_dir():
            files.extend(_files_of_folder(path))
        elif path.exists():
            files.append(ImageFile(path=path, name=path.name))
        else:
            raise FileNotFoundError(f"{path} does not exist")
    if not files:
        raise ValueError("nothing to upload: give at least one file or folder")
    return files


def _files_of_folder(folder: Path) -> list[ImageFile]:
    files = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if not hidden and path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            files.append(ImageFile(path=path, name=relative.as_posix()))
    if not files:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise ValueError(f"folder {folder} has no image files ({suffixes})")
    return files


def batches(sizes: Sequence[int], *, max_files: int, max_bytes: int) -> Iterator[range]:
    """Cut files of these sizes into runs of at most `max_files` and `max_bytes`, one at least."""
    start = 0
    batch_bytes = 0
    for index, size in enumerate(sizes):
        full = index - start >= max_files or batch_bytes + size > max_bytes
        if full and index > start:
            yield range(start, index)
            start, batch_bytes = index, 0
        batch_bytes += size
    if start < len(sizes):
        yield range(start, len(sizes))
