"""Imports: a folder of the server, or an archive, read into a project."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from miaod_client._errors import ImportCancelledError, ImportFailedError
from miaod_client._paging import DEFAULT_PAGE_SIZE
from miaod_client._resources.base import Resource, path_to, without_none
from miaod_client._transport import parse
from miaod_client._types import Import, ImportFormat, ImportRefusal, ImportSplit, Split
from miaod_client._uploads import CountedFile
from miaod_client._waiting import poll_until_final


class Imports(Resource):
    """Data sets read in one go, with or without labels: `client.imports`."""

    def create(
        self,
        *,
        project: str,
        path: str | None = None,
        archive: str | os.PathLike[str] | None = None,
        format: ImportFormat | None = None,
        split: ImportSplit | None = None,
        splits: Mapping[str, Split] | None = None,
        corners: Literal["voc", "zero-based"] | None = None,
        empty: Literal["unlabeled", "negative"] | None = None,
        labels: bool | None = None,
        add_classes: bool | None = None,
        author: str | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Import:
        """Start an import; it runs on the server, see `wait`.

        Args:
            project: the project's id.
            path: a folder (or archive) that the server can read, below its MIAOD_IMPORT_ROOTS, or
            archive: a ZIP or TAR file here, which is uploaded.
            format: `auto` (the default) looks at what is there.
            split: the split of every image, default `pool`; `auto` lets the data set's own lists
                decide.
            splits: which list means which split, such as `{"trainval": "pool", "test": "val"}`.
            corners: VOC corners are `voc` (1-based and inclusive, the default) or `zero-based`.
            empty: a COCO image without annotations is `unlabeled` (the default) or `negative`.
            labels: `False` takes the pictures only.
            add_classes: append classes that the project lacks, instead of refusing their labels.
            author: who labeled them, default `import`.
            on_progress: called with bytes sent and bytes in all while an archive is uploaded.

        Raises:
            ValueError: not exactly one of `path` and `archive` is given.
            OSError: the archive cannot be read.
            UnprocessableError: the path is not below an import root.
        """
        if (path is None) == (archive is None):
            raise ValueError("give either path (a folder of the server) or archive (a file here)")
        options = without_none(
            project=project,
            format=format,
            split=split,
            splits=splits,
            corners=corners,
            empty=empty,
            labels=labels,
            add_classes=add_classes,
            author=author,
        )
        if archive is None:
            return self._transport.post(
                Import, "/imports", json={**options, "path": path}, keyed=True
            )
        return self._upload(Path(archive), options, on_progress)

    def get(self, import_id: str) -> Import:
        """How far it is, with the first of the refused items."""
        return self._transport.get(Import, path_to("imports", import_id))

    def refused(
        self, import_id: str, *, page_size: int = DEFAULT_PAGE_SIZE
    ) -> Iterator[ImportRefusal]:
        """Every refused item, by name, with the reason."""
        cursor: str | None = None
        while True:
            page = self._transport.get(
                Import,
                path_to("imports", import_id),
                params={"limit": page_size, "cursor": cursor},
            )
            yield from page.refused
            cursor = page.next_cursor
            if cursor is None:
                return

    def wait(
        self,
        import_id: str,
        *,
        timeout: float | None = None,
        poll_seconds: float = 2.0,
        on_progress: Callable[[Import], None] | None = None,
    ) -> Import:
        """Wait until the import has ended.

        Args:
            import_id: the import.
            timeout: seconds; `None` waits without end.
            poll_seconds: longest pause between two looks.
            on_progress: called with the import after each look.

        Returns:
            The import, `succeeded`; items may have been refused (`num_refused`).

        Raises:
            ImportFailedError, ImportCancelledError: it ended otherwise.
            WaitTimeoutError: the time is over; it goes on.
        """
        ended = poll_until_final(
            lambda: self.get(import_id),
            timeout=timeout,
            poll_seconds=poll_seconds,
            on_progress=on_progress,
        )
        if ended.state == "failed":
            raise ImportFailedError(f"import {ended.id} failed: {ended.error}", ended)
        if ended.state == "cancelled":
            raise ImportCancelledError(f"import {ended.id} was cancelled", ended)
        return ended

    def _upload(
        self,
        archive: Path,
        options: dict[str, Any],
        on_progress: Callable[[int, int], None] | None,
    ) -> Import:
        total = archive.stat().st_size
        sent = 0

        def add(count: int) -> None:
            nonlocal sent
            sent += count
            if on_progress is not None:
                on_progress(sent, total)

        with CountedFile(archive, add) as file:
            response = self._transport.request(
                "POST",
                "/imports",
                form={name: as_field(value) for name, value in options.items()},
                files=[("archive", (archive.name, file, "application/octet-stream"))],
                keyed=True,
            )
        return parse(Import, response)


def as_field(value: object) -> str:
    """A value as the text of a form's field: JSON, but for text itself."""
    return value if isinstance(value, str) else json.dumps(value)
