"""Signing a browser in and out with a key, and who one is."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from server.access import RoleRoute, requires
from server.deps import CallerDep, ContextDep
from server.doorkeeper import COOKIE, Doorkeeper
from server.schemas import SessionOut, SignInIn
from server.schemas.common import errors
from server.services import audit, identity

router = APIRouter(prefix="/session", tags=["session"], route_class=RoleRoute)


@router.post("", responses=errors(401, 403, 429))
@requires("anyone")
def create_session(
    body: SignInIn, context: ContextDep, request: Request, response: Response
) -> SessionOut:
    """Sign a browser in: a key for the cookie `miaod_session`.

    It ends after a week, after twelve hours without use, with its key, or by `DELETE /session`.
    Scripts cannot read it, other sites cannot send it, and changes made with it need
    `X-CSRF-Token`. Programs need no session: they send the key itself.
    """
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    doorkeeper.refuse_other_pages(request)
    # Never an encoding error: what is no text is no key either.
    caller = doorkeeper.key_holder(request, body.key.encode("utf-8", "surrogatepass"))
    with context.sessions.begin() as session:
        before = request.cookies.get(COOKIE)
        if before is not None:
            identity.end_session(session, before, doorkeeper.admin_key)
        token, caller = identity.begin_session(session, caller, doorkeeper.admin_key)
        audit.record(session, "session_created", subject=caller.key_id, caller=caller)
    response.set_cookie(
        COOKIE,
        token,
        max_age=identity.SESSION_DAYS * 86_400,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    response.headers["Cache-Control"] = "no-store"
    return SessionOut.of(caller)


@router.get("")
@requires("viewer")
def get_session(caller: CallerDep, response: Response) -> SessionOut:
    """Say who asks, by cookie or by key."""
    response.headers["Cache-Control"] = "no-store"
    return SessionOut.of(caller)


@router.delete("", status_code=204)
@requires("viewer")
def delete_session(
    caller: CallerDep, context: ContextDep, request: Request, response: Response
) -> None:
    """Sign the browser out; nothing happens without a cookie."""
    token = request.cookies.get(COOKIE)
    if token is None:
        return
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    with context.sessions.begin() as session:
        if identity.end_session(session, token, doorkeeper.admin_key):
            audit.record(session, "session_ended", subject=caller.key_id)
    response.delete_cookie(
        COOKIE,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
