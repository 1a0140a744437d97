"""Models over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from server.access import RoleRoute, requires
from server.deps import ContextDep, PageDep, ReadSessionDep, SessionDep
from server.routes.content import blob_response
from server.schemas import EntityId, ModelOut, ModelPatch, Page
from server.schemas.common import errors, stored
from server.services import audit, models

router = APIRouter(prefix="/models", tags=["models"], route_class=RoleRoute)


@router.get("", responses=errors(404))
@requires("viewer")
def list_models(
    session: ReadSessionDep,
    page: PageDep,
    project: Annotated[EntityId | None, Query(description="Only this project's.")] = None,
) -> Page[ModelOut]:
    """List models, newest first: one for each succeeded trained cycle."""
    found = models.page(session, page, project_id=project).map(ModelOut.of)
    return Page[ModelOut].model_validate(found, from_attributes=True)


@router.get("/{model_id}", responses=errors(404))
@requires("viewer")
def get_model(model_id: EntityId, session: ReadSessionDep) -> ModelOut:
    """Read a model and its metrics."""
    return ModelOut.of(models.get(session, model_id))


@router.patch("/{model_id}", responses=errors(404))
@requires("engineer")
def update_model(model_id: EntityId, body: ModelPatch, session: SessionDep) -> ModelOut:
    """Pin a model, so that its weights are never swept, or write a note on it."""
    return ModelOut.of(models.change(session, model_id, pinned=body.pinned, note=body.note))


@router.delete("/{model_id}", status_code=204, responses=errors(404))
@requires("engineer")
def delete_model(model_id: EntityId, session: SessionDep) -> None:
    """Delete a model and its weights; its cycle and the cycle's other files stay."""
    models.delete(session, model_id)


@router.get(
    "/{model_id}/checkpoint",
    response_class=Response,
    responses=stored("application/octet-stream"),
)
@requires("engineer")
def get_model_checkpoint(model_id: EntityId, context: ContextDep, request: Request) -> Response:
    """Download the weights in the safetensors format.

    404 `weights_swept` once they were removed to save space.
    """
    with context.sessions.begin() as session:
        view, sha256 = models.weights(session, model_id)
        audit.record(
            session, "checkpoint_downloaded", project=view.model.project_id, subject=model_id
        )
    name = f"cycle-{view.cycle_number}.safetensors"
    return blob_response(request, context.blobs, sha256, "application/octet-stream", name)
