"""What operators ask: who works, and is the server well."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from server import __version__
from server.access import RoleRoute, requires
from server.deps import ContextDep, PageDep, ReadSessionDep
from server.schemas import CheckOut, HealthOut, Page, ReadinessOut, WorkerOut
from server.services import workers

router = APIRouter(tags=["operations"], route_class=RoleRoute)

_FIGURES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": 'miaod_database_up 1.0\nmiaod_jobs{queue="cycles",state="queued"} 2.0\n',
            }
        },
        "description": "Figures in Prometheus' text format.",
    }
}


@router.get("/workers")
@requires("engineer")
def list_workers(session: ReadSessionDep, page: PageDep) -> Page[WorkerOut]:
    """List the workers that ever reported, with when they were last seen."""
    found = workers.page(session, page).map(WorkerOut.of)
    return Page[WorkerOut].model_validate(found, from_attributes=True)


@router.get("/healthz")
@requires("anyone")
async def get_liveness() -> HealthOut:
    """Say that the process answers; needs no key."""
    return HealthOut(version=__version__)


@router.get(
    "/readyz",
    responses={503: {"model": ReadinessOut, "description": "Something is amiss: see `checks`."}},
)
@requires("anyone")
async def get_readiness(context: ContextDep, response: Response) -> ReadinessOut:
    """Say whether database, schema, storage and free space are in order; needs no key.

    Answers within a few seconds, also when one of them hangs. What was found serves for a second.
    """
    checks = await context.health.readiness()
    ready = all(check.ok for check in checks.values())
    if not ready:
        response.status_code = 503
    return ReadinessOut(
        ready=ready, checks={name: CheckOut.of(check) for name, check in checks.items()}
    )


@router.get("/metrics", response_class=Response, responses=_FIGURES)
@requires("viewer", all_projects=True)
async def get_metrics(context: ContextDep) -> Response:
    """Tell Prometheus how the service does.

    Figures of cycles, imports, workers and queries are those of the whole service, whichever server
    is asked; those with a label `process`, and `process_*`, are this process's own. While the
    database does not answer, `miaod_database_up` is 0 and only the latter are there.
    """
    return Response(await context.figures.exposition(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
