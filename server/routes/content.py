"""How stored bytes are served: with a fixed type, a name to save them under, and an ETag.

And inert: a picture may be a page or an archive as well, for whoever takes it for one. No browser
does: the type is the one that we found, and should somebody open the address as a page, it may
neither run nor load anything, nor be embedded by another site.
"""

from __future__ import annotations

from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import FileResponse

from server.errors import NotFound
from server.store.blobs import BlobStore

# Content under a hash never changes; whether one may see it is asked each time.
_CACHE = "private, no-cache"
INERT = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def blob_response(
    request: Request,
    blobs: BlobStore,
    sha256: str,
    media_type: str,
    file_name: str,
    *,
    download: bool = True,
) -> Response:
    """A blob, in ranges where asked for; 304 if the client has it already.

    Raises:
        NotFound: it is not on the disk (just swept, or lost).
    """
    etag = f'"{sha256}"'
    if _has(request, etag):
        return Response(status_code=304, headers={**INERT, "ETag": etag, "Cache-Control": _CACHE})
    if not blobs.exists(sha256):
        raise NotFound(f"the bytes of {file_name} are not in the storage", code="blob_missing")
    return FileResponse(
        blobs.path(sha256),
        media_type=media_type,
        headers={
            **INERT,
            "ETag": etag,
            "Cache-Control": _CACHE,
            "Content-Disposition": disposition(file_name, download=download),
        },
    )


def rendition_response(request: Request, etag_name: str) -> Response | None:
    """A 304 if the client has this rendition already; None if it must be made."""
    etag = f'"{etag_name}"'
    if _has(request, etag):
        return Response(status_code=304, headers={**INERT, "ETag": etag, "Cache-Control": _CACHE})
    return None


def made_response(data: bytes, media_type: str, etag_name: str, file_name: str) -> Response:
    """Bytes that were made for this request, to be shown in place."""
    return Response(
        data,
        media_type=media_type,
        headers={
            **INERT,
            "ETag": f'"{etag_name}"',
            "Cache-Control": _CACHE,
            "Content-Disposition": disposition(file_name, download=False),
        },
    )


def disposition(file_name: str, *, download: bool) -> str:
    """A Content-Disposition header for a name of any characters (RFC 6266)."""
    kind = "attachment" if download else "inline"
    base = file_name.rpartition("/")[2]
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in base)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(base, safe='')}"


def _has(request: Request, etag: str) -> bool:
    known = request.headers.get("if-none-match", "")
    return etag in [each.strip().removeprefix("W/") for each in known.split(",")]
