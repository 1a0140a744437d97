"""Exports: labels out, with images where asked."""

import os
from pathlib import Path

from miaod_client._downloads import DownloadProgress, download
from miaod_client._resources.base import Resource
from miaod_client._types import ExportFormat


class Exports(Resource):
    """The labels of a project in other programs' formats: `client.exports`."""

    def download(
        self,
        *,
        project: str,
        to: str | os.PathLike[str],
        format: ExportFormat = "coco",
        images: bool = False,
        on_progress: DownloadProgress | None = None,
    ) -> Path:
        """Write an export into a file, or into a folder under the name the server gives.

        Args:
            project: the project's id.
            to: file, replaced if it exists, or existing folder.
            format: `coco` (JSON; with images a ZIP) or `voc` (a ZIP).
            images: put the pictures in.
            on_progress: called with the bytes so far and, where known, in all.
        """
        return download(
            self._transport,
            "/exports",
            params={"project": project, "format": format, "images": images},
            to=to,
            default_name=f"{format}.json" if format == "coco" and not images else f"{format}.zip",
            on_progress=on_progress,
        )
