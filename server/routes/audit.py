"""The audit log over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from server.access import RoleRoute, requires
from server.deps import PageDep, ReadSessionDep
from server.schemas import AuditEntryOut, EntityId, Page
from server.schemas.common import Name
from server.services import audit

router = APIRouter(prefix="/audit", tags=["audit"], route_class=RoleRoute)


@router.get("")
@requires("admin")
def list_audit(
    session: ReadSessionDep,
    page: PageDep,
    project: Annotated[EntityId | None, Query(description="Only what was done in it.")] = None,
    actor: Annotated[Name | None, Query(description="Only what this one did.")] = None,
    action: Annotated[Name | None, Query(description="Only this, as `project_created`.")] = None,
) -> Page[AuditEntryOut]:
    """List who did what, newest first.

    Changes of projects, images, imports, cycles, models and keys; sign-ins; what was taken out.
    Annotations are not here: their revisions carry their authors.
    """
    wanted = audit.AuditFilter(project, actor, action)
    found = audit.page(session, wanted, page).map(AuditEntryOut.of)
    return Page[AuditEntryOut].model_validate(found, from_attributes=True)
