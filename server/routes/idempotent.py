"""POSTs that may be sent again: the header `Idempotency-Key`, and a session that honours it.

A router whose POSTs take an `IdempotentSessionDep` is made with `route_class=IdempotentRoute`. A
route that reads its body by itself, such as a form, notes the body's hash (`note_body_sha256`) in a
dependency that stands before the session.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from weakref import WeakValueDictionary

from fastapi import Depends, Header, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from server.access import RoleRoute
from server.deps import Context, ContextDep
from server.errors import Unavailable
from server.services import idempotency
from server.services.idempotency import Answer, Attempt
from server.services.identity import Caller

# As long as a writer waits for SQLite's lock.
WAIT_SECONDS = 30.0

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]{1,255}$",
        description=(
            "Makes retries safe: repetitions of a request under one key, such as a new UUID, have "
            "one effect and get one answer, for a day; repeated ones carry "
            "`Idempotency-Replayed: true`. 422 `idempotency_key_reused` for another request under "
            "the same key. A request that was refused keeps nothing: its retry is tried anew."
        ),
    ),
]


class IdempotentRoute(RoleRoute):
    """Lets the session see the answer before it commits, to keep both together."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of a request."""
        handle = super().get_route_handler()

        async def handle_and_show(request: Request) -> Response:
            response = await handle(request)
            request.state.answer = response
            return response

        return handle_and_show


def note_body_sha256(request: Request, body_sha256: str | None) -> None:
    """Note what the body of a request holds, where the route reads it by itself."""
    request.state.body_sha256 = body_sha256


def carries_key(request: Request) -> bool:
    """Whether the hash of the body will be asked for."""
    return "idempotency-key" in request.headers


def principal_of(request: Request) -> str:
    """Who sends a request: the keys of two callers never meet."""
    caller: Caller = request.state.caller
    return caller.key_id or caller.name


async def get_attempt(
    request: Request, context: ContextDep, key: IdempotencyKey = None
) -> AsyncIterator[Attempt | None]:
    """The request as one of perhaps several under its key; answered at once if it was before."""
    if key is None:
        yield None
        return
    body_sha256 = getattr(request.state, "body_sha256", None)
    if body_sha256 is None:
        body_sha256 = hashlib.sha256(await request.body()).hexdigest()
    target = f"{request.url.path}?{request.url.query}"
    attempt = Attempt(
        principal_of(request),
        key,
        idempotency.request_sha256(request.method, target, body_sha256),
    )
    async with _turn(attempt):
        await run_in_threadpool(_replay_if_answered, context, attempt)
        yield attempt


def get_idempotent_session(
    request: Request,
    context: ContextDep,
    attempt: Annotated[Attempt | None, Depends(get_attempt, scope="function")],
) -> Iterator[Session]:
    """A session that writes, as `server.deps.get_session`; it keeps the answer if there is a key.

    Raises:
        Replayed: at its first statement, if the request was answered meanwhile by another server.
    """
    with context.sessions() as session, session.begin():
        if attempt is not None:
            idempotency.reserve_at_begin(session, attempt)
        yield session
        if attempt is not None:
            response: Response = request.state.answer
            answer = Answer(
                response.status_code,
                bytes(response.body).decode(),
                response.headers.get("location"),
            )
            idempotency.keep(session, attempt, answer)


IdempotentSessionDep = Annotated[Session, Depends(get_idempotent_session, scope="function")]


_turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()


@asynccontextmanager
async def _turn(attempt: Attempt) -> AsyncIterator[None]:
    """One request of a key at a time. The database would order them as well, but there each one
    that waits holds a thread and a connection, which a storm of retries would take from all others.
    """
    lock = _turns.setdefault((attempt.principal, attempt.key), asyncio.Lock())
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await lock.acquire()
    except TimeoutError:
        raise Unavailable(
            "another request with this Idempotency-Key is being worked on; try again in some "
            "seconds",
            code="idempotency_key_in_use",
        ) from None
    try:
        yield
    finally:
        lock.release()


def _replay_if_answered(context: Context, attempt: Attempt) -> None:
    with context.reading() as session:
        idempotency.replay_if_answered(session, attempt)
