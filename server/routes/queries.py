"""Queries and claims over HTTP."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.convertors import StringConvertor, register_url_convertor

from server.access import requires
from server.deps import CallerDep, ContextDep, PageDep, ReadSessionDep
from server.errors import Unprocessable
from server.routes.content import blob_response
from server.routes.idempotent import IdempotentRoute, IdempotentSessionDep
from server.schemas import (
    ClaimIn,
    ClaimOut,
    EntityId,
    HeartbeatIn,
    HeartbeatOut,
    Page,
    QueryOut,
    QueryState,
    ReleaseIn,
    SkipIn,
)
from server.schemas.common import errors, stored
from server.services import queries

router = APIRouter(prefix="/queries", tags=["queries"], route_class=IdempotentRoute)


class _QueryConvertor(StringConvertor):
    """`claim` is no query: `GET /queries/claim` is a 405 and not a query with a malformed id."""

    regex = "(?!claim$)[^/]+"


register_url_convertor("query", _QueryConvertor())


@router.get("", responses=errors(404))
@requires("viewer")
def list_queries(
    session: ReadSessionDep,
    page: PageDep,
    project: Annotated[
        EntityId | None, Query(description="Whose newest selection; needed without `cycle`.")
    ] = None,
    cycle: Annotated[EntityId | None, Query(description="The selection of this cycle.")] = None,
    state: Annotated[
        QueryState | Literal["all"],
        Query(description="Only those in this state now; `all` lists every one."),
    ] = "open",
) -> Page[QueryOut]:
    """List the images that a cycle asks to have labeled, best first.

    Without `cycle`: those of the project's newest selection. A claim that has lapsed counts as
    open again.
    """
    if project is None and cycle is None:
        raise Unprocessable("say which queries: give project or cycle")
    found = queries.page(
        session,
        page,
        project_id=project,
        cycle_id=cycle,
        state=None if state == "all" else state,
    ).map(QueryOut.of)
    return Page[QueryOut].model_validate(found, from_attributes=True)


@router.post("/claim", responses=errors(404))
@requires("annotator")
def claim_queries(body: ClaimIn, session: IdempotentSessionDep, caller: CallerDep) -> ClaimOut:
    """Take the next images to label; nobody else gets them while the claim holds.

    Save each with the token (`PUT /images/{id}/annotations`), or release or skip it; send a
    heartbeat when it takes longer. `items` is empty when nothing is left. With a key, its name is
    the author, and only that key can use the token.
    """
    claim = queries.claim(
        session,
        project_id=body.project,
        limit=body.limit,
        seconds=body.seconds,
        author=caller.author(body.author),
    )
    return ClaimOut.of(claim)


@router.get("/{query_id:query}", responses=errors(404))
@requires("viewer")
def get_query(query_id: EntityId, session: ReadSessionDep) -> QueryOut:
    """Read one query."""
    return QueryOut.of(queries.get(session, query_id))


@router.post("/{query_id}/heartbeat", responses=errors(404, 409))
@requires("annotator")
def heartbeat_query(
    query_id: EntityId, body: HeartbeatIn, session: IdempotentSessionDep, caller: CallerDep
) -> HeartbeatOut:
    """Prolong a claim: this query and every other that is still held under the token.

    409 `stale_claim`: it has lapsed or ended; the image may be somebody else's by now.
    """
    expires = queries.heartbeat(
        session, query_id, body.claim_token, body.seconds, holder=caller.holder
    )
    return HeartbeatOut(expires_at=expires)


@router.post("/{query_id}/release", responses=errors(404, 409))
@requires("annotator")
def release_query(
    query_id: EntityId, body: ReleaseIn, session: IdempotentSessionDep, caller: CallerDep
) -> QueryOut:
    """Give a query back, so that somebody else can take it."""
    return QueryOut.of(queries.release(session, query_id, body.claim_token, holder=caller.holder))


@router.post("/{query_id}/skip", responses=errors(404, 409))
@requires("annotator")
def skip_query(
    query_id: EntityId, body: SkipIn, session: IdempotentSessionDep, caller: CallerDep
) -> QueryOut:
    """Say that the image cannot be labeled. No cycle selects it again until it is un-skipped
    (`PATCH /images/{id}` with `skipped: false`) or labeled after all.
    """
    view = queries.skip(session, query_id, body.claim_token, body.reason, holder=caller.holder)
    return QueryOut.of(view)


@router.get(
    "/{query_id}/heatmap",
    response_class=Response,
    responses=stored("image/png"),
)
@requires("viewer")
def get_query_heatmap(query_id: EntityId, context: ContextDep, request: Request) -> Response:
    """Where the model is uncertain, as a picture to lay over the image.

    404 `no_heatmap` for an image that was selected at random, without a model.
    """
    with context.reading() as session:
        sha256 = queries.heatmap(session, query_id)
    name = f"heatmap-{query_id}.png"
    return blob_response(request, context.blobs, sha256, "image/png", name, download=False)
