"""What a service may refuse, and how.

```
ServiceError            status, code (a stable word), detail (a sentence)
├── BadRequest          400 bad_request           the body cannot be read
├── Unauthorized        401 unauthorized          no key, or a wrong one
├── Forbidden           403 forbidden             the key may not do this
├── NotFound            404 not_found             no such thing, or no longer
├── Conflict            409 conflict              the state of things forbids it now
│   └── VersionConflict 409 version_conflict      somebody else saved first; carries what is stored
├── TooLarge            413 too_large             more bytes, pixels or files than allowed
├── UnsupportedMedia    415 unsupported_media     not a kind of file that is read here
├── Unprocessable       422 unprocessable         well-formed, but it makes no sense
├── TooManyFailures     429 too_many_failures     wrong keys from this address; wait
├── Unavailable         503 unavailable           the database or the storage is away
└── StorageFull         507 storage_full          no room left for what was sent
```

Anything else that reaches the client is a 500, and a bug.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ServiceError(Exception):
    """A refusal. `code` may be a more telling word than the class's own."""

    status: ClassVar[int] = 500
    default_code: ClassVar[str] = "error"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        """Keep the sentence and the word."""
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code


class BadRequest(ServiceError):
    """The body cannot be read."""

    status = 400
    default_code = "bad_request"


class Unauthorized(ServiceError):
    """No key, or a wrong one."""

    status = 401
    default_code = "unauthorized"


class Forbidden(ServiceError):
    """The key may not do this."""

    status = 403
    default_code = "forbidden"


class NotFound(ServiceError):
    """There is no such thing, or no longer."""

    status = 404
    default_code = "not_found"


class Conflict(ServiceError):
    """The state of things forbids it now."""

    status = 409
    default_code = "conflict"


class VersionConflict(Conflict):
    """Somebody else saved first; `current` is what is stored, in the form of the answer."""

    default_code = "version_conflict"

    def __init__(self, detail: str, current: dict[str, Any]) -> None:
        """Keep the sentence and what is stored."""
        super().__init__(detail)
        self.current = current


class TooLarge(ServiceError):
    """More bytes, pixels or files than allowed."""

    status = 413
    default_code = "too_large"


class UnsupportedMedia(ServiceError):
    """Not a kind of file or body that is read here."""

    status = 415
    default_code = "unsupported_media"


class Unprocessable(ServiceError):
    """Well-formed, but it makes no sense."""

    status = 422
    default_code = "unprocessable"


class TooManyFailures(ServiceError):
    """Too many wrong keys came from the caller's address; `retry_after` seconds may help."""

    status = 429
    default_code = "too_many_failures"

    def __init__(self, detail: str, retry_after: int) -> None:
        """Keep the sentence and the seconds."""
        super().__init__(detail)
        self.retry_after = retry_after


class Unavailable(ServiceError):
    """The database or the storage is away; trying again later may help."""

    status = 503
    default_code = "unavailable"


class StorageFull(ServiceError):
    """No room left for what was sent."""

    status = 507
    default_code = "storage_full"
