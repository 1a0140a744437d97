"""What routes ask for: caller, sessions, blobs, settings, pages. One request is one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Query, Request
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from server.handlers import request_id_of
from server.metrics import ProcessFigures
from server.services import audit
from server.services.feed import Feed
from server.services.figures import Figures
from server.services.health import Health
from server.services.identity import Caller
from server.services.paging import PageRequest
from server.settings import Settings
from server.store import scope
from server.store.blobs import BlobStore


@dataclass(frozen=True, slots=True)
class Context:
    """What the application was started with."""

    settings: Settings
    engine: Engine
    sessions: sessionmaker[Session]
    reading: sessionmaker[Session]
    blobs: BlobStore
    feed: Feed
    health: Health
    figures: Figures
    own_figures: ProcessFigures

    def for_caller(self, caller: Caller | None, request_id: str) -> Context:
        """The same, with sessions that see the caller's projects only and know who asks."""
        info: dict[str, object] = {audit.CALLER: caller, audit.REQUEST_ID: request_id}
        if caller is not None:
            info[scope.PROJECTS] = caller.projects
        return replace(
            self,
            sessions=scope.bound(self.sessions, **info),
            reading=scope.bound(self.reading, **info),
        )


# Async, so that it takes no thread: health and metrics answer when all threads are busy.
async def get_context(request: Request) -> Context:
    """The application's context; all of its sessions are limited to what the caller may see."""
    context: Context = request.app.state.context
    return context.for_caller(request.state.caller, request_id_of(request.scope))


ContextDep = Annotated[Context, Depends(get_context)]


def get_caller(request: Request) -> Caller:
    """Who asks; only for routes that need a role."""
    caller: Caller | None = request.state.caller
    assert caller is not None, f"{request.url.path} asks who its caller is, and is open to anyone"
    return caller


CallerDep = Annotated[Caller, Depends(get_caller)]


def get_session(context: ContextDep) -> Iterator[Session]:
    """A session that writes; it commits when the route returns, and rolls back when it raises."""
    with context.sessions() as session, session.begin():
        yield session


def get_read_session(context: ContextDep) -> Iterator[Session]:
    """A session that only reads: it waits for no writer and delays none."""
    with context.reading() as session, session.begin():
        yield session


# `function`: the commit comes before the answer is sent. By default it would come after, and a
# commit that fails would already have been answered with a 201.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]
ReadSessionDep = Annotated[Session, Depends(get_read_session, scope="function")]


def get_settings(context: ContextDep) -> Settings:
    """The settings."""
    return context.settings


SettingsDep = Annotated[Settings, Depends(get_settings)]


def get_page_request(
    limit: Annotated[int, Query(ge=1, le=1000, description="Items on a page.")] = 100,
    cursor: Annotated[
        str | None, Query(max_length=1000, description="`next_cursor` of the page before.")
    ] = None,
    count: Annotated[bool, Query(description="Adds `total`; costs a count.")] = False,
) -> PageRequest:
    """Which page of a list is asked for."""
    return PageRequest(limit, cursor, count)


PageDep = Annotated[PageRequest, Depends(get_page_request)]
