"""What happens to every request before any route sees it: its id, and the form of its errors.

Plain ASGI, because FastAPI reads a whole body before dependencies run.
"""

from __future__ import annotations

import logging
import re
import time
from http import HTTPStatus
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.handlers import code_of, error_response, request_id_of

log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# An answer that begins later than this is worth a line in the log.
SLOW_SECONDS = 5.0
# On every answer; what serves pages or blobs may set a tighter policy of its own.
_SECURITY_HEADERS = {
    # What users sent is never guessed to be something else than it is served as.
    "X-Content-Type-Options": "nosniff",
    # Addresses name projects and images.
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "frame-ancestors 'none'",
    # No other site shows our images in its pages, whoever looks at them.
    "Cross-Origin-Resource-Policy": "same-origin",
}


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
        seconds = 0.0
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status = message["status"]
                # Up to here, because a download or an event stream goes on for as long as it likes.
                seconds = time.perf_counter() - started
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in _SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
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
            log.log(
                _log_level(status, seconds),
                "request answered",
                action="request",
                status=status,
                milliseconds=round(seconds * 1000, 1),
                **_said(scope),
            )


class ErrorFormMiddleware:
    """Puts errors that a library answers by itself, as plain text, into the common form.

    So does Starlette with ranges of a file that cannot be.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wraps an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refused: Message | None = None
        text = b""

        async def send_in_form(message: Message) -> None:
            nonlocal refused, text
            if message["type"] == "http.response.start" and _is_plain_error(message):
                refused = message
                return
            if refused is None:
                await send(message)
                return
            text += message.get("body", b"")
            if not message.get("more_body", False):
                await _in_form(refused, text, request_id_of(scope))(scope, receive, send)

        await self.app(scope, receive, send_in_form)


def _is_plain_error(start: Message) -> bool:
    kind = Headers(raw=start["headers"]).get("content-type", "text/plain")
    return start["status"] >= 400 and kind.startswith("text/plain")


def _in_form(start: Message, text: bytes, request_id: str) -> Response:
    status = start["status"]
    headers = {
        name: value
        for name, value in Headers(raw=start["headers"]).items()
        if name not in ("content-type", "content-length")
    }
    said = text.decode("utf-8", "replace") or HTTPStatus(status).phrase
    return error_response(status, said, code_of(status), request_id, headers=headers)


def _log_level(status: int, seconds: float) -> int:
    """Changes of state have lines of their own; of requests only the troubled ones need another."""
    if status >= 500:
        return logging.WARNING
    return logging.INFO if seconds > SLOW_SECONDS else logging.DEBUG


def _said(scope: Scope) -> dict[str, str]:
    return {"method": scope["method"], "path": scope["path"]}
