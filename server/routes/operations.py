"""What operators ask: who works, and is the server well."""

from __future__ import annotations

from fastapi import APIRouter, Response

from server import __version__
from server.deps import ContextDep, PageDep, ReadSessionDep
from server.schemas import CheckOut, HealthOut, Page, ReadinessOut, WorkerOut
from server.services import health, workers

router = APIRouter(tags=["operations"])
# What needs no key.
open_router = APIRouter(tags=["operations"])


@router.get("/workers")
def list_workers(session: ReadSessionDep, page: PageDep) -> Page[WorkerOut]:
    """List the workers that ever reported, with when they were last seen."""
    found = workers.page(session, page).map(WorkerOut.of)
    return Page[WorkerOut].model_validate(found, from_attributes=True)


@open_router.get("/healthz")
def get_liveness() -> HealthOut:
    """Say that the process answers; needs no key."""
    return HealthOut(version=__version__)


@open_router.get(
    "/readyz",
    responses={503: {"model": ReadinessOut, "description": "Something is amiss: see `checks`."}},
)
def get_readiness(context: ContextDep, response: Response) -> ReadinessOut:
    """Say whether database, schema, storage and free space are in order; needs no key."""
    checks = health.readiness(context.engine, context.blobs)
    ready = all(check.ok for check in checks.values())
    if not ready:
        response.status_code = 503
    return ReadinessOut(
        ready=ready, checks={name: CheckOut.of(check) for name, check in checks.items()}
    )
