"""What happens to every request before any route sees it: its id, its key, its size.

Plain ASGI, because FastAPI reads a whole body before dependencies run: a stranger's upload must be
refused before it is read.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Mapping
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.handlers import error_response, request_id_of

log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WITHOUT_KEY = {"/healthz", "/readyz", "/", "/app"}
# Shells of pages and their files, which tell nothing of what the server holds.
_WITHOUT_KEY_BELOW = ("/app/", "/static/")


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
        if scope["type"] != "http" or _is_public(scope["path"]) or self._is_known(scope):
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


class BodyLimitMiddleware:
    """Refuses bodies that are too large: by their declared length at once, else on the way."""

    def __init__(self, app: ASGIApp, default_bytes: int, bytes_by_path: Mapping[str, int]) -> None:
        """Wraps an application.

        Args:
            app: the application.
            default_bytes: the most that a body may have.
            bytes_by_path: other limits, for paths that take uploads.
        """
        self.app = app
        self.default_bytes = default_bytes
        self.bytes_by_path = bytes_by_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # Only creating uploads, never the many small requests below the same path.
        limit = self.default_bytes
        if scope["method"] == "POST":
            limit = self.bytes_by_path.get(scope["path"], limit)
        sentence = f"the body is larger than the {limit:,} bytes that are allowed here"
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
            answer = error_response(413, sentence, "too_large", request_id_of(scope))
            await answer(scope, receive, send)
            return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # Of this class because FastAPI lets only it pass while it reads a body.
                raise HTTPException(413, sentence)
            return message

        await self.app(scope, receive_limited, send)


def _is_public(path: str) -> bool:
    return path in _WITHOUT_KEY or path.startswith(_WITHOUT_KEY_BELOW)


def _said(scope: Scope) -> dict[str, str]:
    return {"method": scope["method"], "path": scope["path"]}
