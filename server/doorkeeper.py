"""Who stands at the door: from the headers of a request to its caller, or to a refusal.

Three ways in, in this order: a server on loopback that never had a key is open to the user of its
machine; a key in `Authorization`; the cookie of a browser that signed in with one. The last, and
the open server, are also within reach of other pages in the user's browser, which are kept out.
"""

from __future__ import annotations

import hmac

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request

from server import origins
from server.deps import Context
from server.errors import Forbidden, TooManyFailures, Unauthorized
from server.services import audit, identity
from server.services.identity import LOCAL_USER, SETTING_ADMIN, Caller, Found
from server.throttle import FAILURES_PER_MINUTE, FailureThrottle

log = structlog.get_logger(__name__)

COOKIE = "miaod_session"
CSRF_HEADER = "x-csrf-token"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# A key of the settings as long as this is let in from throttled addresses as well: 128 bits, where
# it was drawn at random as 32 hexadecimal digits.
UNGUESSABLE_CHARACTERS = 32


class Doorkeeper:
    """Knows the callers of one application. Its methods use the database: not for an event loop."""

    def __init__(self, context: Context) -> None:
        """Look up keys in the context's database."""
        self._context = context
        self._throttle = FailureThrottle()
        settings = context.settings
        given = settings.admin_key
        self._admin_key = None if given is None else given.get_secret_value()
        self._is_guessable = len(self._admin_key or "") < UNGUESSABLE_CHARACTERS
        self._cors_origins = frozenset(settings.cors_origins)
        # Never on another address, whatever a request says of itself.
        self._may_be_open = given is None and origins.is_loopback(settings.host)

    @property
    def admin_key(self) -> str | None:
        """The key of the settings."""
        return self._admin_key

    def is_open(self) -> bool:
        """Whether the server needs no key now."""
        if not self._may_be_open:
            return False
        with self._context.reading() as session:
            return not identity.has_keys(session)

    def caller(self, request: Request) -> Caller:
        """Who sent this request.

        Raises:
            Unauthorized: nobody that is known.
            Forbidden: another page sent it through the user's browser.
            TooManyFailures: too many wrong keys came from the address.
        """
        if self.is_open():
            self._keep_strangers_out(request)
            return LOCAL_USER
        presented = _presented_key(request)
        if presented is not None:
            return self.key_holder(request, presented)
        token = request.cookies.get(COOKIE)
        if token is None:
            raise Unauthorized(
                "send a key as `Authorization: Bearer KEY`, or sign in with one (POST /session)"
            )
        return self._signed_in(request, token)

    def known_at_once(self, request: Request) -> Caller | None:
        """Whoever sends the settings' key; no database is asked, so this cannot hang."""
        presented = _presented_key(request)
        if presented is None or not self._is_admin_key(presented):
            return None
        # Too many wrong keys came from there: it may have been found by trying.
        if self._is_guessable and self._throttle.seconds_left(_address(request)) is not None:
            return None
        return SETTING_ADMIN

    def key_holder(self, request: Request, presented: bytes) -> Caller:
        """Whose key this is.

        Raises:
            Unauthorized: nobody's.
            TooManyFailures: nobody's, or it may have been found by trying: too many wrong keys came
                from the address.
        """
        if presented.startswith(identity.KEY_PREFIX.encode()):
            with self._context.reading() as session:
                found = identity.of_key(session, presented)
            if found is not None:
                self._touch(found)
                return found.caller
        if not self._is_guessable and self._is_admin_key(presented):
            return SETTING_ADMIN
        address = _address(request)
        wait = self._throttle.seconds_left(address)
        if wait is not None:
            raise TooManyFailures(
                f"{FAILURES_PER_MINUTE} wrong keys came from your address within a minute: "
                f"try again in {wait} s",
                wait,
            )
        if self._is_admin_key(presented):
            return SETTING_ADMIN
        self._count_failure(address)
        raise Unauthorized("the key is not known here: it is wrong, revoked or has expired")

    def refuse_other_pages(self, request: Request) -> None:
        """Refuse what another page sends through its visitor's browser.

        Raises:
            Forbidden: another page sent it.
        """
        if origins.sender(request.headers) == "another page":
            raise Forbidden("another page sent this request, not one of this server", code="csrf")

    def _is_admin_key(self, presented: bytes) -> bool:
        key = self._admin_key
        return key is not None and hmac.compare_digest(presented, key.encode())

    def _signed_in(self, request: Request, token: str) -> Caller:
        with self._context.reading() as session:
            found = identity.of_cookie(session, token, self._admin_key)
        if found is None:
            raise Unauthorized("the session has ended: sign in again (POST /session)")
        caller = found.caller
        sender = origins.sender(request.headers)
        if request.method not in _SAFE_METHODS:
            sent = request.headers.get(CSRF_HEADER, "")
            expected = caller.csrf_token or ""
            if sender != "own page" or not hmac.compare_digest(sent.encode(), expected.encode()):
                raise Forbidden(
                    "with the cookie, a change must come from a page of this server and carry the "
                    "session's token as X-CSRF-Token (GET /session tells it)",
                    code="csrf",
                )
        elif sender == "another page" and not origins.is_navigation(
            request.method, request.headers
        ):
            raise Forbidden("another page sent this request, not one of this server", code="csrf")
        self._touch(found)
        return caller

    def _keep_strangers_out(self, request: Request) -> None:
        headers = request.headers
        if not origins.is_sent_to_loopback(headers):
            raise Forbidden(
                f"this server is open to the user of its machine only, as localhost or 127.0.0.1, "
                f"not as {headers.get('host', 'nothing')!r}; `python -m server keys create` makes "
                "a key for everybody else",
                code="not_local",
            )
        if origins.is_forwarded(headers, request.scope["http_version"]):
            raise Forbidden(
                "this server is open to the user of its machine only, and a proxy passed this "
                "request on; `python -m server keys create` makes a key for everybody else",
                code="not_local",
            )
        if origins.sender(headers, self._cors_origins) == "another page" and (
            not origins.is_navigation(request.method, headers)
        ):
            raise Forbidden("another page sent this request, not one of this server", code="csrf")

    def _count_failure(self, address: str) -> None:
        log.warning("wrong key", action="authentication_failed", address=address)
        if not self._throttle.count(address):
            return
        with self._context.sessions.begin() as session:
            audit.record(
                session,
                "authentication_throttled",
                address=address,
                wrong_keys=FAILURES_PER_MINUTE,
            )

    def _touch(self, found: Found) -> None:
        if not found.is_stale:
            return
        try:
            with self._context.sessions.begin() as session:
                identity.touch(session, found)
        except SQLAlchemyError:
            # When a key was last used is good to know; a full disk must not keep readers out.
            log.warning("use of a key not noted", action="key_use_not_noted", exc_info=True)


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _presented_key(request: Request) -> bytes | None:
    kind, _, presented = request.headers.get("authorization", "").partition(" ")
    if kind.lower() not in ("bearer", "token"):
        return None
    return presented.strip().encode("latin-1")
