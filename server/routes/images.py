"""Images over HTTP: listing, reading, their pictures, moving, deleting."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from server.access import RoleRoute, requires
from server.deps import ContextDep, PageDep, ReadSessionDep, SessionDep
from server.routes.content import blob_response, made_response, rendition_response
from server.schemas import (
    EntityId,
    ImageOut,
    ImagePatch,
    ImagePredictionsOut,
    ImageState,
    Page,
    PredictionOut,
    Split,
)
from server.schemas.common import Name, errors, stored
from server.services import images, renditions
from server.store.models import Image

router = APIRouter(prefix="/images", tags=["images"], route_class=RoleRoute)


@router.get("", responses=errors(404))
@requires("viewer")
def list_images(
    session: ReadSessionDep,
    page: PageDep,
    project: Annotated[EntityId, Query(description="Whose images to list.")],
    split: Split | None = None,
    state: ImageState | None = None,
    class_name: Annotated[
        Name | None, Query(alias="class", description="Only images with a box of this class.")
    ] = None,
    name: Annotated[
        str | None,
        Query(max_length=500, pattern=r"^[^\x00]*$", description="Only the image of this name."),
    ] = None,
    skipped: Annotated[
        bool | None, Query(description="Only skipped ones, or none of them.")
    ] = None,
    sort: Annotated[
        Literal["ordinal", "uncertainty"],
        Query(description="Import order, or most uncertain first (those without a score last)."),
    ] = "ordinal",
) -> Page[ImageOut]:
    """List the images of a project."""
    wanted = images.ImageFilter(project, split, state, class_name, name, skipped)
    found = images.page(session, wanted, page, sort=sort).map(ImageOut.of)
    return Page[ImageOut].model_validate(found, from_attributes=True)


@router.get("/{image_id}", responses=errors(404))
@requires("viewer")
def get_image(image_id: EntityId, session: ReadSessionDep) -> ImageOut:
    """Read what is known of an image."""
    return ImageOut.of(images.view(session, images.get(session, image_id)))


@router.patch("/{image_id}", responses=errors(404, 409))
@requires("engineer")
def update_image(image_id: EntityId, body: ImagePatch, session: SessionDep) -> ImageOut:
    """Move an image to another split, or un-skip it.

    An image that leaves the pool takes its open query with it; 409 `claimed` while an annotator
    holds it. A running cycle goes on with what it saw at its start, but does not select the image.
    """
    view = images.change(session, image_id, split=body.split, unskip=body.skipped is False)
    return ImageOut.of(view)


@router.delete("/{image_id}", status_code=204, responses=errors(404))
@requires("engineer")
def delete_image(image_id: EntityId, session: SessionDep) -> None:
    """Delete an image. It is gone at once, and so are its queries; its bytes are purged later."""
    images.delete(session, image_id)


@router.get("/{image_id}/content", response_class=Response, responses=stored("image/*"))
@requires("viewer")
def get_image_content(
    image_id: EntityId,
    context: ContextDep,
    request: Request,
    rendition: Annotated[
        Literal["original", "display"],
        Query(
            description=(
                "`original`: the bytes as they came. `display`: an upright 8-bit sRGB JPEG whose "
                "longer side has at most 2048 pixels, for browsers; boxes stay in original pixels."
            )
        ),
    ] = "original",
) -> Response:
    """The picture itself."""
    image = _image(context, image_id)
    if rendition == "display":
        return _rendition(request, context, image, "display")
    return blob_response(
        request, context.blobs, image.sha256, image.media_type, image.name, download=False
    )


@router.get("/{image_id}/thumbnail", response_class=Response, responses=stored("image/*"))
@requires("viewer")
def get_image_thumbnail(image_id: EntityId, context: ContextDep, request: Request) -> Response:
    """The upright picture as a JPEG with at most 256 pixels on its longer side."""
    return _rendition(request, context, _image(context, image_id), "thumbnail")


@router.get("/{image_id}/predictions", responses=errors(404))
@requires("viewer")
def get_image_predictions(image_id: EntityId, session: ReadSessionDep) -> ImagePredictionsOut:
    """What the project's newest model sees on the image.

    Predictions are kept for selected and for labeled images.
    """
    found = images.predictions(session, image_id)
    return ImagePredictionsOut(
        image=image_id,
        cycle=found.cycle_id,
        predictions=None
        if found.boxes is None
        else [PredictionOut.model_validate(box) for box in found.boxes],
    )


def _image(context: ContextDep, image_id: str) -> Image:
    # Closed before the first byte is read: a slow client must not keep a connection.
    with context.reading() as session:
        return images.get(session, image_id)


def _rendition(
    request: Request, context: ContextDep, image: Image, kind: Literal["display", "thumbnail"]
) -> Response:
    etag = f"{image.sha256}-{kind}"
    unchanged = rendition_response(request, etag)
    if unchanged is not None:
        return unchanged
    limit = context.settings.max_image_pixels
    made = renditions.render(context.blobs, image.sha256, kind, limit)
    stem = image.name.rpartition(".")[0] or image.name
    return made_response(made.data, made.media_type, etag, f"{stem}.jpg")
