"""The one form in which every error leaves the server: `{"detail", "code", "request_id"}`."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from server.errors import (
    ServiceError,
    StorageFull,
    TooManyFailures,
    Unavailable,
    VersionConflict,
)
from server.services.idempotency import Replayed
from server.store.outage import AWAY, FULL, is_database_full, is_outage

log = structlog.get_logger(__name__)

_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media",
    416: "range_not_satisfiable",
    422: "unprocessable",
    429: "too_many_failures",
    503: "unavailable",
    507: "storage_full",
}
# What FastAPI says of a body that makes the parser fail in another way than by its syntax.
_UNREADABLE = "There was an error parsing the body"
_AWAY = {*AWAY, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE}
# What is wrong with the other ten thousand boxes is the same.
_MAX_PROBLEMS = 100
_SAID_CHARACTERS = 500
_RETRY_AFTER = {"Retry-After": "5"}


def request_id_of(request_scope: Mapping[str, Any]) -> str:
    """The id that `RequestContextMiddleware` gave this request."""
    return str(request_scope.get("state", {}).get("request_id", ""))


def code_of(status: int) -> str:
    """The word for a status that comes without one of its own."""
    return _CODES.get(status, "error")


def error_response(
    status: int,
    detail: str | Sequence[Mapping[str, Any]],
    code: str,
    request_id: str,
    *,
    headers: Mapping[str, str] | None = None,
    current: Mapping[str, Any] | None = None,
) -> Response:
    """An error in the common form."""
    body: dict[str, Any] = {"detail": detail, "code": code, "request_id": request_id}
    if current is not None:
        body["current"] = current
    # Plain ASCII: text that echoes a request may hold what UTF-8 cannot encode.
    content = json.dumps(body, ensure_ascii=True, allow_nan=False).encode("ascii")
    return Response(content, status, headers=dict(headers or {}), media_type="application/json")


def install(app: FastAPI) -> None:
    """Answer every expected kind of error in the common form; the rest is a 500, and a bug."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(OSError, _os_error)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_exception_handler(Replayed, _replayed)
    for kind in (DBAPIError, PoolTimeout):
        app.add_exception_handler(kind, _database_error)


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    headers = {}
    if error.status == 401:
        headers = {"WWW-Authenticate": "Bearer"}
    elif isinstance(error, TooManyFailures):
        headers = {"Retry-After": str(error.retry_after)}
    elif error.status == 503:
        headers = _RETRY_AFTER
    return error_response(
        error.status,
        error.detail,
        error.code,
        request_id_of(request.scope),
        headers=headers,
        current=error.current if isinstance(error, VersionConflict) else None,
    )


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    request_id = request_id_of(request.scope)
    problems = [
        {
            "loc": [_shortened(part) for part in problem["loc"]],
            "msg": _shortened(problem["msg"].removeprefix("Value error, ")),
            "type": problem["type"],
        }
        for problem in error.errors()[:_MAX_PROBLEMS]
    ]
    if any(problem["type"] == "json_invalid" for problem in problems):
        reason = error.errors()[0].get("ctx", {}).get("error", "")
        return error_response(
            400, f"the body is no JSON that can be read: {reason}", "bad_request", request_id
        )
    content_type = request.headers.get("content-type", "")
    if any(problem["loc"] == ["body"] for problem in problems) and "json" not in content_type:
        sent = content_type or "no content type"
        return error_response(
            415, f"send the body as application/json, not {sent}", "unsupported_media", request_id
        )
    return error_response(422, problems, "invalid_request", request_id)


def _shortened(said: str | int) -> str | int:
    """What a request said may be as long as its body."""
    return (
        said
        if isinstance(said, int) or len(said) <= _SAID_CHARACTERS
        else f"{said[:_SAID_CHARACTERS]}…"
    )


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    headers = dict(error.headers or {})
    path = request.url.path[:200]
    if error.status_code == 404:
        detail = f"there is nothing at {path}"
    elif error.status_code == 405:
        # What is below no route is a file of our own.
        headers["Allow"] = allowed = ", ".join(_allowed_methods(request) or ("GET", "HEAD"))
        detail = f"{request.method} is not possible at {path}, only {allowed}"
    elif detail == _UNREADABLE:
        detail = "the body is no JSON that can be read: too deep, a number too long, or no text"
    return error_response(
        error.status_code,
        detail,
        code_of(error.status_code),
        request_id_of(request.scope),
        headers=headers,
    )


def _allowed_methods(request: Request) -> list[str]:
    """All methods of the path; Starlette names only those of the first route that has it."""
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


async def _replayed(request: Request, replayed: Exception) -> Response:
    assert isinstance(replayed, Replayed)
    answer = replayed.answer
    headers = {"Idempotency-Replayed": "true"}
    if answer.location is not None:
        headers["Location"] = answer.location
    return Response(answer.body, answer.status, headers, media_type="application/json")


async def _os_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    if error.errno in FULL:
        log.error("the storage is full", action="storage_full")
        return await _service_error(
            request, StorageFull("the server's storage is full; nothing of this was kept")
        )
    if error.errno in _AWAY:
        log.error("the storage cannot be used", action="storage_away", error=str(error))
        return await _service_error(
            request, Unavailable(f"the server's storage cannot be used: {error.strerror}")
        )
    raise error


async def _database_error(request: Request, error: Exception) -> Response:
    if isinstance(error, DBAPIError) and not is_outage(error):
        raise error
    log.error("the database failed", action="database_failed", error=str(error))
    if isinstance(error, DBAPIError) and is_database_full(error):
        return await _service_error(
            request, StorageFull("the server's storage is full; nothing of this was kept")
        )
    return await _service_error(
        request, Unavailable("the database does not answer just now; try again in some seconds")
    )


async def _client_gone(request: Request, error: Exception) -> Response:
    # Nobody reads it; an answer must be given all the same.
    return error_response(
        400, "the connection ended before the body", "bad_request", request_id_of(request.scope)
    )
