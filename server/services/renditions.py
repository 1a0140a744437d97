"""Pictures made for browsers: bounded, upright, sRGB."""

from __future__ import annotations

from typing import Literal

from server.errors import NotFound
from server.formats.pictures import PictureRefused, Rendition
from server.services.decoding import rendition
from server.store.blobs import BlobStore

DISPLAY_SIDE = 2048


def render(
    blobs: BlobStore, sha256: str, kind: Literal["display", "thumbnail"], max_pixels: int
) -> Rendition:
    """Make a rendition of a stored picture; `max_pixels` is what pictures may have at most.

    Raises:
        NotFound: its bytes are not on the disk, or are damaged there.
    """
    path = blobs.path(sha256)
    try:
        return rendition(path, kind, max_pixels, DISPLAY_SIDE)
    except FileNotFoundError:
        raise NotFound(
            "the bytes of the image are not in the storage", code="blob_missing"
        ) from None
    except PictureRefused as refusal:
        raise NotFound(
            f"the bytes of the image are damaged in the storage: {refusal}", code="blob_damaged"
        ) from None
