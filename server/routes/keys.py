"""Keys over HTTP."""

from __future__ import annotations

from fastapi import APIRouter, Response

from server.access import RoleRoute, requires
from server.deps import CallerDep, PageDep, ReadSessionDep, SessionDep, SettingsDep
from server.schemas import EntityId, KeyCreatedOut, KeyIn, KeyOut, KeyPatch, Page
from server.schemas.common import errors
from server.services import keys

router = APIRouter(prefix="/keys", tags=["keys"], route_class=RoleRoute)


@router.post("", status_code=201, responses=errors(409))
@requires("admin")
def create_key(
    body: KeyIn, session: SessionDep, settings: SettingsDep, caller: CallerDep, response: Response
) -> KeyCreatedOut:
    """Make a key. This answer is the only one that holds it.

    As soon as there is one, a server on loopback is open no longer. 409 `name_taken`: a live key
    has the name; `first_key_not_admin`: nobody could make another.
    """
    asked = keys.KeyRequest(body.name, body.role, body.projects, body.expires_at)
    view, secret = keys.create(
        session,
        asked,
        created_by=caller.name,
        admin_without=settings.admin_key is not None,
    )
    response.headers["Location"] = f"/keys/{view.key.id}"
    response.headers["Cache-Control"] = "no-store"
    return KeyCreatedOut.with_secret(view, secret)


@router.get("")
@requires("admin")
def list_keys(session: ReadSessionDep, page: PageDep) -> Page[KeyOut]:
    """List keys, revoked ones as well, newest first."""
    found = keys.page(session, page).map(KeyOut.of)
    return Page[KeyOut].model_validate(found, from_attributes=True)


@router.get("/{key_id}", responses=errors(404))
@requires("admin")
def get_key(key_id: EntityId, session: ReadSessionDep) -> KeyOut:
    """Read what is known of a key, which is not the key."""
    return KeyOut.of(keys.get(session, key_id))


@router.patch("/{key_id}", responses=errors(404, 409))
@requires("admin")
def update_key(key_id: EntityId, body: KeyPatch, session: SessionDep) -> KeyOut:
    """Rename a key, or give it other projects, from its next request on.

    409 `name_taken`, `key_revoked`.
    """
    view = keys.change(
        session,
        key_id,
        name=body.name,
        projects=body.projects,
        all_projects=body.all_projects is True,
    )
    return KeyOut.of(view)


@router.delete("/{key_id}", status_code=204, responses=errors(404, 409))
@requires("admin")
def revoke_key(key_id: EntityId, session: SessionDep, settings: SettingsDep) -> None:
    """Revoke a key: from now on it opens nothing, and who signed in with it is signed out.

    409 `last_admin`: nobody could make keys any more.
    """
    keys.revoke(session, key_id, admin_without=settings.admin_key is not None)
