"""The annotation of an image over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from server.access import RoleRoute, requires
from server.deps import CallerDep, ReadSessionDep, SessionDep
from server.schemas import AnnotationIn, AnnotationOut, EntityId
from server.schemas.common import MAX_INTEGER, Author, ClaimToken, errors
from server.services import annotations as service

router = APIRouter(
    prefix="/images/{image_id}/annotations", tags=["annotations"], route_class=RoleRoute
)


@router.get("", responses=errors(404))
@requires("viewer")
def get_annotation(image_id: EntityId, session: ReadSessionDep) -> AnnotationOut:
    """Read the current boxes of an image and their version."""
    view = service.current(session, image_id)
    return AnnotationOut.model_validate(view, from_attributes=True)


@router.put("", responses=errors(404, 409))
@requires("annotator")
def put_annotation(
    image_id: EntityId, body: AnnotationIn, session: SessionDep, caller: CallerDep
) -> AnnotationOut:
    """Save the full set of boxes of an image; an empty list is a valid negative.

    `version` is the one that the boxes are based on, so that nobody's work is overwritten unseen:
    the answer has the next one. The same body again is a 200 that changes nothing. The image's
    waiting query becomes labeled. With a key, its name is the author.

    409 `version_conflict` carries the stored annotation as `current`; 409 `claimed`: somebody else
    holds the image. 422 names the box that cannot be, and why.
    """
    revision = service.Revision(
        version=body.version,
        boxes=[box.model_dump(by_alias=True) for box in body.boxes],
        author=caller.author(body.author),
        source=body.source,
        claim_token=body.claim_token,
        holder=caller.holder,
        seconds=body.seconds,
    )
    view = service.save(session, image_id, revision)
    return AnnotationOut.model_validate(view, from_attributes=True)


@router.delete("", responses=errors(404, 409))
@requires("annotator")
def delete_annotation(
    image_id: EntityId,
    session: SessionDep,
    caller: CallerDep,
    version: Annotated[
        int | None,
        Query(ge=0, le=MAX_INTEGER, description="Only if this is the current version."),
    ] = None,
    author: Annotated[Author, Query()] = "anonymous",
    claim_token: Annotated[ClaimToken | None, Query()] = None,
) -> AnnotationOut:
    """Make an image unlabeled again, as a new revision; its history stays.

    The image is back in its split's unlabeled part, where a coming cycle may select it.
    """
    view = service.clear(
        session,
        image_id,
        version=version,
        author=caller.author(author),
        claim_token=claim_token,
        holder=caller.holder,
    )
    return AnnotationOut.model_validate(view, from_attributes=True)
