"""Exports over HTTP: labels out, with the pictures where asked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from server.access import RoleRoute, requires
from server.deps import ContextDep
from server.routes.content import INERT, disposition
from server.schemas import EntityId
from server.schemas.common import errors
from server.services import audit, exports

router = APIRouter(prefix="/exports", tags=["exports"], route_class=RoleRoute)

_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/json": {}, "application/zip": {}},
        "description": "The file, streamed.",
    }
}


@router.get("", response_class=StreamingResponse, responses={**errors(404), **_FILE})
@requires("engineer")
def export_labels(
    context: ContextDep,
    project: Annotated[EntityId, Query(description="Whose labels.")],
    format: Annotated[
        Literal["coco", "voc"],
        Query(description="`coco`: one JSON file (a zip with images). `voc`: a zip."),
    ] = "coco",
    images: Annotated[bool, Query(description="Put the pictures in as well.")] = False,
) -> StreamingResponse:
    """Download the labels of a project, in the order of import.

    Labeled images of every split, negatives included; unlabeled images are left out, because both
    formats would make negatives of them. VOC corners are 1-based and inclusive, fractions are kept,
    and an import of the same file gives the same boxes. COCO category ids are the class ids plus 1.
    """
    made = exports.export(context.reading, context.blobs, project, format, with_images=images)
    with context.sessions.begin() as session:
        audit.record(session, "labels_exported", project=project, format=format, with_images=images)
    return StreamingResponse(
        made.chunks,
        media_type=made.media_type,
        headers={
            **INERT,
            "Cache-Control": "private, no-store",
            "Content-Disposition": disposition(made.file_name, download=True),
        },
    )
