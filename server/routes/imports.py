"""Imports over HTTP: a folder of the server (JSON) or an uploaded archive (multipart form)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from server.access import requires
from server.deps import CallerDep, Context, ContextDep, PageDep, ReadSessionDep
from server.errors import BadRequest, Forbidden, StorageFull, TooLarge, Unprocessable
from server.multipart import Form, receive_form
from server.routes.idempotent import (
    IdempotentRoute,
    IdempotentSessionDep,
    carries_key,
    note_body_sha256,
)
from server.schemas import EntityId, ImportIn, ImportOut
from server.schemas.common import errors
from server.schemas.imports import ImportOptions
from server.services import imports, projects
from server.services.paging import PageRequest

router = APIRouter(prefix="/imports", tags=["imports"], route_class=IdempotentRoute)

Options = TypeVar("Options", bound=ImportOptions)

MAX_JSON_BYTES = 1_000_000
_BOOLEANS = {"true": True, "false": False}


def _body_schema() -> dict[str, Any]:
    """Both forms of the body for the OpenAPI document."""
    by_path = ImportIn.model_json_schema()
    form = ImportOptions.model_json_schema()
    archive = {"type": "string", "contentMediaType": "application/octet-stream"}
    form["properties"]["archive"] = {**archive, "description": "A zip, tar or tar.gz file."}
    form["required"] = [*form["required"], "archive"]
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": by_path},
                "multipart/form-data": {"schema": form},
            },
        }
    }


async def receive_import(request: Request, context: ContextDep) -> AsyncIterator[ImportIn | Form]:
    """The body: a folder to read, or a form whose archive lies on the disk until the answer."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        async with receive_form(
            request,
            context.blobs,
            max_files=1,
            max_file_bytes=context.settings.max_archive_bytes,
            hashed=carries_key(request),
        ) as form:
            note_body_sha256(request, form.sha256)
            yield form
        return
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise TooLarge(f"the JSON body has more than {MAX_JSON_BYTES:,} bytes")
    note_body_sha256(request, hashlib.sha256(body).hexdigest())
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON: {error}") from None
    yield _validated(ImportIn, data)


@router.post(
    "",
    status_code=202,
    openapi_extra=_body_schema(),
    responses=errors(400, 404, 413, 415, 507),
)
@requires("engineer")
async def create_import(
    context: ContextDep,
    body: Annotated[ImportIn | Form, Depends(receive_import, scope="function")],
    session: IdempotentSessionDep,
    caller: CallerDep,
    response: Response,
) -> ImportOut:
    """Import a data set: a folder below one of the server's import roots (JSON, `path`), or an
    uploaded zip, tar or tar.gz (multipart form, `archive`).

    It runs in the background; `GET /imports/{id}` tells how far it is and names every item that
    was refused. Pictures that the project has already are duplicates, so importing again after
    mending the refused items takes only those. Labels go onto images that have none: annotations
    that are there are never overwritten. Import roots are shared by all projects: only a key for
    all of them reads folders there.
    """
    if not isinstance(body, Form) and caller.projects is not None:
        raise Forbidden(
            f"{caller.name!r} is for some projects, and the server's folders belong to all: "
            "upload an archive"
        )
    view = await run_in_threadpool(_create, context, session, body)
    response.headers["Location"] = f"/imports/{view.id}"
    return view


@router.get("/{import_id}", responses=errors(404))
@requires("engineer")
def get_import(import_id: EntityId, session: ReadSessionDep, page: PageDep) -> ImportOut:
    """Read how far an import is, with a page of the items it refused."""
    return ImportOut.of(imports.view(session, import_id, page))


def _create(context: Context, session: Session, body: ImportIn | Form) -> ImportOut:
    options = _options_of(body) if isinstance(body, Form) else body
    with context.reading() as reading:
        projects.get(reading, options.project)
    path = archive = None
    if isinstance(body, Form):
        archive = _stored_archive(context, body)
    else:
        path = body.path
    # The same keys for both kinds of body.
    asked = options.model_dump(exclude={"project", "path"})
    job = imports.create(
        session, options.project, asked, context.settings, path=path, archive_sha256=archive
    )
    return ImportOut.of(imports.view(session, job.id, PageRequest()))


def _options_of(form: Form) -> ImportOptions:
    """The fields of a form, which are all text, as the JSON body would hold them."""
    data: dict[str, Any] = dict(form.fields)
    for name in ("labels", "add_classes"):
        if name in data:
            data[name] = _BOOLEANS.get(data[name], data[name])
    if "splits" in data:
        try:
            data["splits"] = json.loads(data["splits"])
        except (ValueError, RecursionError):
            raise Unprocessable(
                'the field `splits` must be JSON such as {"trainval": "pool", "test": "val"}'
            ) from None
    return _validated(ImportOptions, data)


def _stored_archive(context: Context, form: Form) -> str:
    files = [file for file in form.files if file.field_name == "archive"]
    if len(files) != 1 or len(form.files) != 1:
        raise Unprocessable("the form must hold one file, as its field `archive`")
    if files[0].no_room:
        raise StorageFull("the server's storage is full; nothing of the archive was kept")
    if files[0].too_large:
        raise TooLarge(
            f"the archive has more than {context.settings.max_archive_bytes:,} bytes; split it, or "
            "put it below an import root"
        )
    return context.blobs.put_file(files[0].path, move=True).sha256


def _validated(model: type[Options], data: Any) -> Options:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        raise RequestValidationError(
            [{**problem, "loc": ("body", *problem["loc"])} for problem in problems]
        ) from None
