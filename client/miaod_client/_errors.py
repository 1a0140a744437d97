"""Everything this package raises on purpose, as one tree under `MiaodError`.

MiaodError
├── ConnectionFailedError       the server could not be reached, or the line broke
│   ├── ResponseTimeoutError    it was reached, and did not answer in time
│   └── IncompleteDownloadError a download broke off in the middle, each time it was tried
├── UnexpectedResponseError     something answered, but not in the words of this API
├── WaitTimeoutError            `wait()` ran out of time; the work itself goes on
├── JobFailedError              a cycle or an import ended otherwise than `succeeded`
│   ├── CycleFailedError
│   ├── CycleCancelledError
│   ├── ImportFailedError
│   └── ImportCancelledError
└── ApiError                    the server refused; one class per status
    ├── BadRequestError 400, AuthenticationError 401, PermissionDeniedError 403, NotFoundError 404,
    │   MethodNotAllowedError 405, ConflictError 409, TooLargeError 413, UnsupportedMediaError 415,
    │   UnprocessableError 422, RateLimitedError 429
    └── ServerError             5xx
        ├── InternalServerError 500, BadGatewayError 502, UnavailableError 503,
        └── GatewayTimeoutError 504, StorageFullError 507
"""

from typing import Any, ClassVar

import httpx2


class MiaodError(Exception):
    """Base of every error of this package."""


class ConnectionFailedError(MiaodError):
    """The server could not be reached, or the connection broke before the answer was complete."""


class ResponseTimeoutError(ConnectionFailedError):
    """The server was reached but did not answer in time; the request may have had its effect."""


class IncompleteDownloadError(ConnectionFailedError):
    """The connection broke in the middle of a body; nothing was left on disk."""


class UnexpectedResponseError(MiaodError):
    """The answer is not one of this API: a proxy's page, another program, a newer server."""


class WaitTimeoutError(MiaodError):
    """`wait()` ran out of time. The cycle or import goes on; `job` is how it last looked.

    Attributes:
        job: the `Cycle` or `Import` as last seen.
    """

    def __init__(self, message: str, job: Any) -> None:
        super().__init__(message)
        self.job = job


class JobFailedError(MiaodError):
    """A cycle or import ended without success.

    Attributes:
        job: the `Cycle` or `Import` in its final state.
    """

    def __init__(self, message: str, job: Any) -> None:
        super().__init__(message)
        self.job = job


class CycleFailedError(JobFailedError):
    """The cycle failed; its `error` says why."""


class CycleCancelledError(JobFailedError):
    """The cycle was cancelled before it finished."""


class ImportFailedError(JobFailedError):
    """The import failed; its `error` says why."""


class ImportCancelledError(JobFailedError):
    """The import was cancelled before it finished."""


class ApiError(MiaodError):
    """The server refused the request.

    Attributes:
        status: the HTTP status.
        code: the server's stable word for the refusal, for programs.
        detail: the sentence for people, or for malformed bodies the list of field errors.
        request_id: names the request in the server's log; `None` if it did not say.
        current: what is stored now, where that is why the request was refused.
        body: the whole JSON answer, which may carry more.
    """

    status: int = 0
    registry: ClassVar[dict[int, type["ApiError"]]] = {}

    def __init__(
        self,
        *,
        status: int,
        code: str,
        detail: Any,
        request_id: str | None,
        body: dict[str, Any],
    ) -> None:
        super().__init__(f"{describe_detail(detail)} ({status} {code})")
        self.current: dict[str, Any] | None = body.get("current")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id
        self.body = body

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register each class under the status it stands for."""
        super().__init_subclass__(**kwargs)
        if "status" in cls.__dict__:
            ApiError.registry[cls.status] = cls


class BadRequestError(ApiError):
    """400: the body could not be read at all."""

    status = 400


class AuthenticationError(ApiError):
    """401: no API key, or one that the server does not know."""

    status = 401


class PermissionDeniedError(ApiError):
    """403: the key is known, but may not do this."""

    status = 403


class NotFoundError(ApiError):
    """404: there is no such thing, or none that this key may see."""

    status = 404


class MethodNotAllowedError(ApiError):
    """405: the server is of another version, or the URL is not its root."""

    status = 405


class ConflictError(ApiError):
    """409: the state does not allow it now (a running cycle, a stale version, another's claim)."""

    status = 409


class TooLargeError(ApiError):
    """413: the body or a file is over the server's limit."""

    status = 413


class UnsupportedMediaError(ApiError):
    """415: not a type of file that the server takes."""

    status = 415


class UnprocessableError(ApiError):
    """422: a field is missing, of the wrong type, or out of range; `detail` says which."""

    status = 422


class RateLimitedError(ApiError):
    """429: too many requests, also after waiting as the server asked."""

    status = 429


class ServerError(ApiError):
    """5xx: the server's fault."""


class InternalServerError(ServerError):
    """500: a bug in the server; report it with the `request_id`."""

    status = 500


class BadGatewayError(ServerError):
    """502: a proxy got no proper answer from the server."""

    status = 502


class UnavailableError(ServerError):
    """503: the server, or the database behind it, is away for now."""

    status = 503


class GatewayTimeoutError(ServerError):
    """504: a proxy waited too long for the server."""

    status = 504


class StorageFullError(ServerError):
    """507: the server has no room left; nothing was stored."""

    status = 507


def describe_detail(detail: Any) -> str:
    """One line for people from an error's `detail`: a sentence, or a list of field errors."""
    if not isinstance(detail, list):
        return str(detail)
    lines = []
    for item in detail:
        if isinstance(item, dict) and "msg" in item:
            place = ".".join(str(part) for part in item.get("loc", ()))
            lines.append(f"{place}: {item['msg']}" if place else str(item["msg"]))
        else:
            lines.append(str(item))
    return "; ".join(lines)


def error_from_response(response: httpx2.Response) -> MiaodError:
    """The exception that a refusal (status 400 and up) stands for; the body must be read."""
    status = response.status_code
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {}
    kind = ApiError.registry.get(status, ServerError if status >= 500 else ApiError)
    return kind(
        status=status,
        code=str(body.get("code", "unknown")),
        detail=body.get("detail") or f"{response.reason_phrase or 'error'} from {response.url}",
        request_id=body.get("request_id") or response.headers.get("x-request-id"),
        body=body,
    )
