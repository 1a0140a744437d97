"""Uploading images: a multipart form with many files."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import TypeAdapter, ValidationError

from server.access import requires
from server.deps import Context, ContextDep
from server.errors import StorageFull, Unprocessable
from server.multipart import Form, ReceivedFile, receive_form
from server.routes.idempotent import (
    IdempotentRoute,
    IdempotentSessionDep,
    carries_key,
    note_body_sha256,
)
from server.schemas import EntityId, Split, UploadedFile, UploadOut
from server.schemas.common import errors
from server.services import audit, intake, projects
from server.services.intake import Added, Candidate, Refused
from server.store.outage import FULL

router = APIRouter(prefix="/images", tags=["images"], route_class=IdempotentRoute)

NO_ROOM = "the server's storage is full: send this file again once there is room"

_PROJECT: TypeAdapter[str] = TypeAdapter(EntityId)
_SPLIT: TypeAdapter[Split] = TypeAdapter(Split)

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["project", "files"],
                    "properties": {
                        "project": {
                            "type": "string",
                            "format": "uuid",
                            "description": "Id of the project that takes them.",
                        },
                        "split": {
                            "type": "string",
                            "enum": ["pool", "val", "test"],
                            "default": "pool",
                            "description": (
                                "`pool`: to be labeled and trained on. `val`: metrics are measured "
                                "on it. `test`: kept aside."
                            ),
                        },
                        "files": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "string",
                                "contentMediaType": "application/octet-stream",
                            },
                            "description": (
                                "JPEG, PNG, WebP, BMP or TIFF. The file name, a relative path, "
                                "becomes the image's name."
                            ),
                        },
                    },
                }
            }
        },
    }
}


async def receive_images(request: Request, context: ContextDep) -> AsyncIterator[Form]:
    """The form of an upload, its files on the disk until the request has been handled."""
    settings = context.settings
    async with receive_form(
        request,
        context.blobs,
        max_files=settings.max_upload_files,
        max_file_bytes=settings.max_upload_bytes,
        hashed=carries_key(request),
    ) as form:
        note_body_sha256(request, form.sha256)
        yield form


@router.post("", openapi_extra=_FORM, responses=errors(400, 404, 413, 415, 507))
@requires("engineer")
def upload_images(
    context: ContextDep,
    form: Annotated[Form, Depends(receive_images, scope="function")],
    session: IdempotentSessionDep,
) -> UploadOut:
    """Upload images into one split of a project.

    Each file is answered on its own, in the order sent: `created`; `duplicate` if the project has
    the same bytes (the id is that image's); `rejected` with the reason if it is no picture, too
    large, its name is taken by other bytes, or the storage has no room for it. The rest of the
    batch is kept. Where there was room for none, or for no row in the database, it is a 507.
    """
    project_id, split = _target(form)
    with context.reading() as reading:
        projects.get(reading, project_id)
    # No transaction is open while pictures are decoded and stored.
    prepared = [_prepare(file, context) for file in form.files]
    if all(isinstance(each, Added) and each.reason == NO_ROOM for each in prepared):
        raise StorageFull("the server's storage is full; nothing of this was kept")
    candidates = [each for each in prepared if isinstance(each, Candidate)]
    limit = context.settings.max_project_images
    added = iter(intake.add(session, project_id, split, candidates, max_images=limit))
    answers = [next(added) if isinstance(each, Candidate) else each for each in prepared]
    counts: Counter[str] = Counter(answer.status for answer in answers)
    audit.record(session, "images_uploaded", project=project_id, split=split, counts=dict(counts))
    return UploadOut(
        items=[UploadedFile.of(answer) for answer in answers],
        created=counts["created"],
        duplicate=counts["duplicate"],
        rejected=counts["rejected"],
    )


def _target(form: Form) -> tuple[str, Split]:
    try:
        project_id = _PROJECT.validate_python(form.fields.get("project"))
    except ValidationError:
        raise Unprocessable("the form has no field `project` with the id of a project") from None
    try:
        split = _SPLIT.validate_python(form.fields.get("split", "pool"))
    except ValidationError:
        raise Unprocessable("the form's field `split` must be pool, val or test") from None
    unknown = set(form.fields) - {"project", "split"}
    if unknown:
        raise Unprocessable(f"the form has unknown fields: {', '.join(sorted(unknown))}")
    if not form.files:
        raise Unprocessable("the form has no file: send pictures as fields named `files`")
    return project_id, split


def _prepare(file: ReceivedFile, context: Context) -> Candidate | Added:
    settings = context.settings
    if file.too_large:
        reason = (
            f"the file has more than {settings.max_upload_bytes:,} bytes, which is the most that "
            "is allowed here"
        )
        return Added(file.file_name, "rejected", None, reason)
    if file.no_room:
        return Added(file.file_name, "rejected", None, NO_ROOM)
    try:
        return intake.prepare(
            context.blobs,
            file.path,
            file.file_name,
            max_pixels=settings.max_image_pixels,
            move=True,
        )
    except OSError as error:
        if error.errno not in FULL:
            raise
        return Added(file.file_name, "rejected", None, NO_ROOM)
    except Refused as refusal:
        return Added(file.file_name, "rejected", None, str(refusal))
