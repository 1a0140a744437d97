"""What routes ask for: sessions, blobs, settings, pages. One request is one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from server.metrics import ProcessFigures
from server.services.feed import Feed
from server.services.figures import Figures
from server.services.health import Health
from server.services.paging import PageRequest
from server.settings import Settings
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


# Async, so that it takes no thread: health and metrics answer when all threads are busy.
async def get_context(request: Request) -> Context:
    """The application's context."""
    context: Context = request.app.state.context
    return context


ContextDep = Annotated[Context, Depends(get_context)]


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
