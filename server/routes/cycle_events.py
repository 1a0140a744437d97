"""The events of a cycle as they happen: the one route that is asynchronous, for it waits long."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from server.access import RoleRoute, requires
from server.deps import ContextDep
from server.schemas import CycleEventOut, EntityId
from server.schemas.common import MAX_INTEGER, errors
from server.services import cycles
from server.services.cycles import History
from server.services.feed import Feed
from server.store.events import ENDED
from server.store.models import CycleEvent

# Proxies commonly cut connections that are silent for a minute.
KEEPALIVE_SECONDS = 15.0
# After which a browser comes back when its connection broke.
RETRY_MILLISECONDS = 2000
FOREVER = float("inf")

router = APIRouter(prefix="/cycles", tags=["cycles"], route_class=RoleRoute)


def get_history(
    cycle_id: EntityId,
    context: ContextDep,
    last_event_id: Annotated[
        int | None,
        Header(ge=0, le=MAX_INTEGER, description="`id` of the last event that was received."),
    ] = None,
) -> History:
    """What the reader of a cycle has missed. Not asynchronous: it asks the database."""
    # In one call, where a session that is asked for would take three turns of a thread.
    with context.reading() as session:
        return cycles.history(session, cycle_id, last_event_id or 0)


@router.get(
    "/{cycle_id}/events",
    response_class=Response,
    responses={
        **errors(404),
        200: {
            "description": "Server-sent events; `data` is a JSON object in one line.",
            "content": {
                "text/event-stream": {
                    "itemSchema": {
                        "type": "object",
                        "required": ["event", "id", "data"],
                        "properties": {
                            "event": {"enum": ["state", "progress"]},
                            "id": {"type": "string", "description": "`seq` of the event."},
                            "data": {
                                "type": "string",
                                "contentMediaType": "application/json",
                                "contentSchema": CycleEventOut.model_json_schema(),
                            },
                        },
                    }
                }
            },
        },
        204: {"description": "The cycle has ended, and the reader has seen all of it."},
    },
)
@requires("viewer")
async def watch_cycle(
    cycle_id: EntityId,
    context: ContextDep,
    history: Annotated[History, Depends(get_history)],
    seconds: Annotated[
        float | None,
        Query(gt=0, le=86_400, description="End the stream after so long, ended or not."),
    ] = None,
) -> Response:
    """Watch a cycle: server-sent events, first what has happened so far, then all as it happens.

    Events named `state` tell of its state, events named `progress`, every few seconds while it
    runs, how far it is. Come back with the header `Last-Event-ID`, as browsers do by themselves,
    and the stream goes on where it broke off, on any process of the server. No event of kind
    `state` is ever left out; of those of kind `progress` long cycles keep some, as do readers that
    read slowly. The stream ends with the cycle: who comes back then gets a 204, after which a
    browser stays away. It also ends when the server stops or the cycle is deleted.
    """
    if history.has_ended and not history.events:
        return Response(status_code=204)
    stream = _stream(context.feed, cycle_id, history, FOREVER if seconds is None else seconds)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return EventSourceResponse(stream, headers=headers)


async def _stream(
    feed: Feed, cycle_id: str, history: History, seconds: float
) -> AsyncIterator[bytes]:
    until = time.monotonic() + seconds
    # At once, so that the reader sees that the connection stands.
    yield format_sse_event(retry=RETRY_MILLISECONDS)
    for event in history.events:
        yield _on_the_wire(event)
    if history.has_ended:
        return
    with feed.watch(cycle_id, history.last) as watcher:
        while not watcher.is_closed and (left := until - time.monotonic()) > 0:
            news = await watcher.take(min(left, KEEPALIVE_SECONDS))
            for event in news:
                yield _on_the_wire(event)
            if news and news[-1].data["state"] in ENDED:
                return
            if not news and not watcher.is_closed:
                yield KEEPALIVE_COMMENT


def _on_the_wire(event: CycleEvent) -> bytes:
    # ASCII, since some readers take other characters for the end of a line.
    data = json.dumps(CycleEventOut.of(event).model_dump(mode="json"), separators=(",", ":"))
    return format_sse_event(data_str=data, event=event.kind, id=str(event.seq))
