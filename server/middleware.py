"""What happens to every request before any route sees it: its id and its key.

Plain ASGI, because FastAPI reads a whole body before dependencies run: a stranger's upload must be
refused before it is read.
"""

from __future__ import annotations

import hmac
import re
import time
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.handlers import error_response, request_id_of

log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WITHOUT_KEY = {"/healthz", "/readyz"}


class RequestContextMiddleware:
    """Gives each request an id (or keeps the caller's), logs it, turns a crash into a 500.

    The id is in the header `X-Request-ID` of the answer, in the body of an error, and in every log
    line that is written on the way.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wraps an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                # What users sent is never guessed to be something else than it is served as.
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            log.exception("request crashed", action="request_crashed", **_said(scope))
            if status:  # too late for another answer: the connection is cut
                raise
            answer = error_response(
                500, "the server made a mistake; its log says more", "internal_error", request_id
            )
            await answer(scope, receive, send_with_id)
        finally:
            milliseconds = round((time.perf_counter() - started) * 1000, 1)
            log.debug(
                "request answered",
                action="request",
                status=status,
                milliseconds=milliseconds,
                **_said(scope),
            )


class AdminKeyMiddleware:
    """Refuses requests without the admin key before anything of their body is read."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        """Wraps an application; `key` is the only one that opens it."""
        self.app = app
        self.key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection."""
        if scope["type"] != "http" or scope["path"] in _WITHOUT_KEY or self._is_known(scope):
            await self.app(scope, receive, send)
            return
        answer = error_response(
            401,
            "send the key as `Authorization: Bearer KEY`",
            "unauthorized",
            request_id_of(scope),
            headers={"WWW-Authenticate": "Bearer"},
        )
        await answer(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        kind, _, presented = Headers(scope=scope).get("authorization", "").partition(" ")
        if kind.lower() not in ("bearer", "token"):
            return False
        return hmac.compare_digest(presented.strip().encode("latin-1"), self.key)


def _said(scope: Scope) -> dict[str, str]:
    return {"method": scope["method"], "path": scope["path"]}
