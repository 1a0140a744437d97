"""Projects over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from server.access import requires
from server.deps import CallerDep, PageDep, ReadSessionDep, SessionDep, SettingsDep
from server.errors import Forbidden
from server.routes.idempotent import IdempotentRoute, IdempotentSessionDep
from server.schemas import (
    DoubtOut,
    EntityId,
    Page,
    ProjectDetailOut,
    ProjectIn,
    ProjectOut,
    ProjectPatch,
    ReviewOut,
    StatisticsOut,
)
from server.schemas.common import Name, errors
from server.services import projects, review, statistics

router = APIRouter(prefix="/projects", tags=["projects"], route_class=IdempotentRoute)


@router.post("", status_code=201, responses=errors(409))
@requires("engineer", all_projects=True)
def create_project(
    body: ProjectIn, session: IdempotentSessionDep, settings: SettingsDep, response: Response
) -> ProjectOut:
    """Create a project.

    409 `name_taken`: there is one of this name already.
    """
    view = projects.create(
        session,
        name=body.name,
        classes=body.classes,
        instructions=body.instructions,
        validation_images=body.validation_images,
        cycle_defaults=body.cycle_defaults.model_dump(exclude_none=True),
        default_preset=settings.default_preset,
    )
    response.headers["Location"] = f"/projects/{view.project.id}"
    return ProjectOut.of(view)


@router.get("")
@requires("viewer")
def list_projects(
    session: ReadSessionDep,
    page: PageDep,
    name: Annotated[Name | None, Query(description="Only the project of this name.")] = None,
) -> Page[ProjectOut]:
    """List projects, oldest first."""
    found = projects.page(session, page, name).map(ProjectOut.of)
    return Page[ProjectOut].model_validate(found, from_attributes=True)


@router.get("/{project_id}", responses=errors(404))
@requires("viewer")
def get_project(project_id: EntityId, session: ReadSessionDep) -> ProjectDetailOut:
    """Read a project and count its images."""
    project = projects.get(session, project_id)
    return ProjectDetailOut.detail(
        projects.view(session, project), projects.counts(session, project_id)
    )


@router.get("/{project_id}/statistics", responses=errors(404))
@requires("viewer")
def get_project_statistics(project_id: EntityId, session: ReadSessionDep) -> StatisticsOut:
    """Count a project's labels: boxes per class, and who annotated how much and how fast."""
    return StatisticsOut.of(statistics.of_project(session, project_id))


@router.patch("/{project_id}", responses=errors(404, 409))
@requires("engineer")
def update_project(
    project_id: EntityId,
    body: ProjectPatch,
    session: SessionDep,
    settings: SettingsDep,
    caller: CallerDep,
) -> ProjectOut:
    """Change a project; what is absent stays.

    Classes can only be added, at the end of the list: ids stay what they were. A class added later
    counts as unknown, not as absent, on images labeled before.

    Names are shared by all projects: only a key for all of them can change one. 409
    `classes_append_only`, `name_taken`.
    """
    # Else a name that is taken would tell of a project that does not exist for the key.
    if body.name is not None and caller.projects is not None:
        raise Forbidden(f"{caller.name!r} is for some projects: it cannot rename them")
    defaults = body.cycle_defaults
    changes = projects.Changes(
        name=body.name,
        classes=body.classes,
        instructions=body.instructions,
        validation_images=body.validation_images,
        cycle_defaults=None if defaults is None else defaults.model_dump(exclude_none=True),
    )
    view = projects.change(session, project_id, changes, default_preset=settings.default_preset)
    return ProjectOut.of(view)


@router.delete("/{project_id}", status_code=204, responses=errors(404))
@requires("engineer")
def delete_project(project_id: EntityId, session: SessionDep) -> None:
    """Delete a project. It is gone at once, its cycle is cancelled, its bytes are purged later."""
    projects.delete(session, project_id)


@router.get("/{project_id}/review", responses=errors(404))
@requires("viewer")
def review_labels(
    project_id: EntityId,
    session: ReadSessionDep,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many images.")] = 100,
) -> ReviewOut:
    """List the labeled images where label and newest model disagree most: wrong labels, often.

    Images without a prediction of that model are left out. For those of which the model was least
    certain, list images with `state=labeled` and `sort=uncertainty`.
    """
    return ReviewOut(
        items=[DoubtOut.of(each) for each in review.doubts(session, project_id, limit)]
    )
