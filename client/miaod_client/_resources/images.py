"""Images: upload, lists, contents."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from miaod_client._downloads import DownloadProgress, download
from miaod_client._paging import DEFAULT_PAGE_SIZE, Pager
from miaod_client._resources.base import Resource, path_to, without_none
from miaod_client._transport import FileParts, parse
from miaod_client._types import (
    Image,
    ImagePredictions,
    ImageState,
    Rendition,
    Split,
    UploadedFile,
    UploadReport,
)
from miaod_client._uploads import Source, Upload, UploadProgress, collect_files

# Small enough that an answer comes within seconds and a broken line costs little.
BATCH_FILES = 32
BATCH_BYTES = 64_000_000

ImageSort = Literal["ordinal", "uncertainty"]


class Images(Resource):
    """The pictures of the projects: `client.images`."""

    def upload(
        self,
        *,
        project: str,
        paths: Source | Iterable[Source],
        split: Split = "pool",
        on_progress: Callable[[UploadProgress], None] | None = None,
        batch_files: int = BATCH_FILES,
        batch_bytes: int = BATCH_BYTES,
    ) -> UploadReport:
        """Upload files and folders, in batches, streamed from disk.

        A batch whose answer was lost is sent again, and answered as it was the first time.
        A file that cannot be read here is reported as `rejected` like one that the server refuses.

        Args:
            project: the project's id.
            paths: a file, a folder (every image below it, named by its relative path), an
                `ImageFile` with a name of its own, or many of these.
            split: `pool`, `val` or `test`.
            on_progress: called as bytes leave and as files are answered.
            batch_files: most files in one request.
            batch_bytes: most bytes in one request; a larger file goes alone.

        Returns:
            What became of each file, in the order of `paths`.

        Raises:
            FileNotFoundError: a path does not exist.
            ValueError: there is nothing to upload.
            ApiError: the server refused a whole request; earlier batches are kept.
        """
        form = {"project": project, "split": split}

        def post(parts: FileParts) -> list[UploadedFile]:
            response = self._transport.request(
                "POST",
                "/images",
                form=form,
                files=parts,
                keyed=True,
            )
            return parse(UploadReport, response).items

        upload = Upload(collect_files(paths), post=post, on_progress=on_progress)
        return upload.run(batch_files=batch_files, batch_bytes=batch_bytes)

    def list(
        self,
        *,
        project: str,
        split: Split | None = None,
        state: ImageState | None = None,
        class_name: str | None = None,
        name: str | None = None,
        skipped: bool | None = None,
        sort: ImageSort | None = None,
        limit: int | None = None,
        page_size: int = DEFAULT_PAGE_SIZE,
    ) -> Pager[Image]:
        """Images of a project.

        Args:
            project: the project's id.
            split: only this split.
            state: only `labeled` or only `unlabeled` ones.
            class_name: only those with a box of this class.
            name: only the image of this name.
            skipped: only those that were skipped, or with `False` those that were not.
            sort: `ordinal` (the order they came in, the default) or `uncertainty`, highest first.
            limit: at most so many.
            page_size: images per request.
        """
        params = {
            "project": project,
            "split": split,
            "state": state,
            "class": class_name,
            "name": name,
            "skipped": skipped,
            "sort": sort,
        }
        return Pager(
            self._transport, Image, "/images", params=params, limit=limit, page_size=page_size
        )

    def get(self, image_id: str) -> Image:
        """One image."""
        return self._transport.get(Image, path_to("images", image_id))

    def update(
        self, image_id: str, *, split: Split | None = None, skipped: Literal[False] | None = None
    ) -> Image:
        """Move an image to another split, or with `skipped=False` let it be selected again.

        Raises:
            ConflictError: an annotator holds it.
        """
        body = without_none(split=split, skipped=skipped)
        return parse(
            Image, self._transport.request("PATCH", path_to("images", image_id), json=body)
        )

    def delete(self, image_id: str) -> None:
        """Delete an image with its annotations."""
        self._transport.request("DELETE", path_to("images", image_id))

    def content(self, image_id: str, *, rendition: Rendition = "original") -> bytes:
        """The picture's bytes: as uploaded, or as a browser shows it (`display`)."""
        response = self._transport.request(
            "GET", path_to("images", image_id, "content"), params={"rendition": rendition}
        )
        return response.content

    def download(
        self,
        image_id: str,
        *,
        to: str | os.PathLike[str],
        rendition: Rendition = "original",
        on_progress: DownloadProgress | None = None,
    ) -> Path:
        """Write the picture into a file, or into a folder under its own name."""
        return download(
            self._transport,
            path_to("images", image_id, "content"),
            params={"rendition": rendition},
            to=to,
            default_name=image_id,
            on_progress=on_progress,
        )

    def thumbnail(self, image_id: str) -> bytes:
        """A small rendition for galleries."""
        return self._transport.request("GET", path_to("images", image_id, "thumbnail")).content

    def predictions(self, image_id: str) -> ImagePredictions:
        """What the project's newest model sees on it; kept for selected and labeled images."""
        return self._transport.get(ImagePredictions, path_to("images", image_id, "predictions"))
