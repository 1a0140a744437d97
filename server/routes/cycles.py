"""Cycles over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from server.access import requires
from server.deps import ContextDep, PageDep, ReadSessionDep, SettingsDep
from server.routes.content import blob_response
from server.routes.idempotent import IdempotentRoute, IdempotentSessionDep
from server.schemas import (
    ArtifactOut,
    CycleIn,
    CycleMetricsOut,
    CycleOut,
    CycleState,
    EntityId,
    HistogramOut,
    Page,
    ScoreOut,
)
from server.schemas.common import errors, stored
from server.services import audit, cycles, histogram

router = APIRouter(prefix="/cycles", tags=["cycles"], route_class=IdempotentRoute)


@router.post("", status_code=202, responses=errors(404, 409))
@requires("engineer")
def create_cycle(
    body: CycleIn, session: IdempotentSessionDep, settings: SettingsDep, response: Response
) -> CycleOut:
    """Start a cycle: it is queued for the next free worker.

    It is `trained` when at least `min_labeled` pool images have a box; otherwise it is `initial`
    and selects at random. In a project that asks for `validation_images` the first cycle also draws
    those. A budget larger than the pool selects all of it; when all of it is labeled, a `trained`
    cycle trains and evaluates only.

    409 `cycle_active`: the project has one already; `initial_selection_waits`: the last selection
    has to be labeled first; `empty_pool`: there is nothing to select from, and nothing to train on.
    """
    asked = cycles.CycleRequest(
        project_id=body.project,
        budget=body.budget,
        strategy=None if body.strategy is None else body.strategy.model_dump(exclude_none=True),
        training=body.training,
        seed=body.seed,
        min_labeled=body.min_labeled,
    )
    view = cycles.create(session, asked, default_preset=settings.default_preset)
    response.headers["Location"] = f"/cycles/{view.cycle.id}"
    return CycleOut.of(view)


@router.get("", responses=errors(404))
@requires("viewer")
def list_cycles(
    session: ReadSessionDep,
    page: PageDep,
    project: Annotated[EntityId | None, Query(description="Only this project's.")] = None,
    state: CycleState | None = None,
) -> Page[CycleOut]:
    """List cycles, newest first."""
    found = cycles.page(session, page, project_id=project, state=state).map(CycleOut.of)
    return Page[CycleOut].model_validate(found, from_attributes=True)


@router.get("/{cycle_id}", responses=errors(404))
@requires("viewer")
def get_cycle(cycle_id: EntityId, session: ReadSessionDep) -> CycleOut:
    """Read a cycle: where it is, or why it waits."""
    return CycleOut.of(cycles.get(session, cycle_id))


@router.post("/{cycle_id}/cancel", responses=errors(404, 409))
@requires("engineer")
def cancel_cycle(cycle_id: EntityId, session: IdempotentSessionDep) -> CycleOut:
    """Cancel a cycle: at once while it waits, within seconds while it runs.

    A cancelled one stays as it is; 409 `cycle_ended` if it has succeeded or failed.
    """
    return CycleOut.of(cycles.cancel(session, cycle_id))


@router.post("/{cycle_id}/resume", status_code=202, responses=errors(404, 409))
@requires("engineer")
def resume_cycle(cycle_id: EntityId, session: IdempotentSessionDep) -> CycleOut:
    """Take up a failed or cancelled cycle at its last checkpoint.

    It trains and scores what the project held when the cycle first ran; labels that came since
    count in the next one. An active cycle stays as it is. 409 `cycle_ended` if it has succeeded,
    `not_the_newest` if the project has a newer cycle, `cycle_active` while a cancellation is under
    way.
    """
    return CycleOut.of(cycles.resume(session, cycle_id))


@router.get("/{cycle_id}/metrics", responses=errors(404))
@requires("viewer")
def get_cycle_metrics(cycle_id: EntityId, session: ReadSessionDep) -> CycleMetricsOut:
    """Read how good the cycle's model is on the validation set, or why that is not known."""
    view = CycleOut.of(cycles.get(session, cycle_id))
    return CycleMetricsOut(
        cycle=view.id, state=view.state, metrics=view.metrics, message=view.message
    )


@router.get("/{cycle_id}/scores", responses=errors(404, 409))
@requires("viewer")
def list_cycle_scores(cycle_id: EntityId, session: ReadSessionDep, page: PageDep) -> Page[ScoreOut]:
    """List what the cycle thought of every unlabeled image of the pool, best first.

    409 `not_succeeded` until it has succeeded; 404 `scores_superseded` once a newer cycle has
    scored the pool: the artifact `scores.npz` keeps them.
    """
    found = cycles.scores(session, cycle_id, page).map(ScoreOut.of)
    return Page[ScoreOut].model_validate(found, from_attributes=True)


@router.get("/{cycle_id}/histogram", responses=errors(404, 409))
@requires("viewer")
def get_cycle_histogram(
    cycle_id: EntityId,
    context: ContextDep,
    bins: Annotated[int, Query(ge=1, le=500, description="How many bins.")] = 40,
) -> HistogramOut:
    """Read how the uncertainties of the pool are distributed, and where the selection lies in them.

    Of any succeeded cycle, superseded or not. 409 `not_succeeded` until it has succeeded.
    """
    # Closed before the scores are read from the storage.
    with context.reading() as session:
        found = histogram.find(session, cycle_id)
    return HistogramOut.of(cycle_id, histogram.count(context.blobs, found, bins))


@router.get("/{cycle_id}/artifacts", responses=errors(404))
@requires("viewer")
def list_cycle_artifacts(cycle_id: EntityId, session: ReadSessionDep) -> Page[ArtifactOut]:
    """List the files that the cycle left behind, by name: a dozen at most, on one page."""
    found = [ArtifactOut.of(artifact) for artifact in cycles.artifacts(session, cycle_id)]
    return Page[ArtifactOut](items=found, next_cursor=None)


@router.get(
    "/{cycle_id}/artifacts/{name}",
    response_class=Response,
    responses=stored(
        "application/json", "application/octet-stream", "application/x-ndjson", "text/plain"
    ),
)
@requires("engineer")
def get_cycle_artifact(
    cycle_id: EntityId,
    name: Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,64}$", examples=["scores.npz"])],
    context: ContextDep,
    request: Request,
) -> Response:
    """Download one of the cycle's files."""
    with context.sessions.begin() as session:
        artifact = cycles.artifact(session, cycle_id, name)
        project = cycles.get(session, cycle_id).cycle.project_id
        audit.record(session, "artifact_downloaded", project=project, subject=cycle_id, name=name)
    return blob_response(request, context.blobs, artifact.sha256, artifact.media_type, name)
