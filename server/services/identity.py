"""Who asks: keys and the sessions of browsers, and what either of them opens.

A key is `miaod_` and 256 random bits. What is stored is its SHA-256, by which it is found: nobody
can make a key that hashes to a given value, so the look-up tells a guesser nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.orm import Session

from server.store.models import ApiKey, ApiKeyProject, WebSession, utc_now

Role = Literal["viewer", "annotator", "engineer", "admin"]
# Each may do what those before it may.
ROLES: tuple[Role, ...] = ("viewer", "annotator", "engineer", "admin")

KEY_PREFIX = "miaod_"
SETTING_NAME = "MIAOD_ADMIN_KEY"
LOCAL_NAME = "local user"
# Authors that are no keys of the table, so no key may be called so.
RESERVED_NAMES = frozenset({SETTING_NAME, LOCAL_NAME})

SESSION_DAYS = 7
SESSION_IDLE_HOURS = 12
_TOUCH_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may do.

    Attributes:
        key_id: the key in the table; None for the key of the settings and for the local user.
        name: what is recorded as author of what they do.
        role: what they may do.
        projects: ids of the projects that exist for them; None: all.
        local: the user of a server that has no keys yet. They give their name with what they do.
        csrf_token: what a browser's changes must carry; None where no cookie was used.
    """

    key_id: str | None
    name: str
    role: Role
    projects: frozenset[str] | None
    local: bool = False
    csrf_token: str | None = None

    def may(self, role: Role) -> bool:
        """Whether this role, or a higher one, is theirs."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def author(self, given: str) -> str:
        """Who stands beside their work: with keys, always the key's own name."""
        return given if self.local else self.name

    @property
    def holder(self) -> str | None:
        """Whose claims they can use; None: whoever has the token, for names are not proven."""
        return None if self.local else self.name


LOCAL_USER = Caller(None, LOCAL_NAME, "admin", None, local=True)
SETTING_ADMIN = Caller(None, SETTING_NAME, "admin", None)


@dataclass(frozen=True, slots=True)
class Found:
    """A caller, and when their key or session was last used."""

    caller: Caller
    last_used_at: datetime | None
    session_sha256: str | None = None

    @property
    def is_stale(self) -> bool:
        """Whether the last use is to be written anew."""
        before = utc_now() - timedelta(seconds=_TOUCH_SECONDS)
        return self.last_used_at is None or self.last_used_at < before


def new_secret() -> str:
    """256 random bits as text that a header, a cookie and a shell take."""
    return secrets.token_urlsafe(32)


def hashed(secret: bytes) -> str:
    """What is stored of a key."""
    return hashlib.sha256(secret).hexdigest()


def has_keys(session: Session) -> bool:
    """Whether there ever was a key. A server that had one is not opened by its end."""
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def of_key(session: Session, key: bytes) -> Found | None:
    """Whose key this is, if it is one that lives."""
    found = session.scalar(select(ApiKey).where(ApiKey.sha256 == hashed(key), is_live()))
    if found is None:
        return None
    return Found(_caller(session, found), found.last_used_at)


def of_cookie(session: Session, token: str, admin_key: str | None) -> Found | None:
    """Who signed in with this token, if the session lives and so does its key."""
    now = utc_now()
    mine, admins = _session_hashes(token, admin_key)
    found = session.execute(
        select(WebSession, ApiKey)
        .outerjoin(ApiKey, ApiKey.id == WebSession.key_id)
        .where(
            or_(WebSession.sha256 == mine, WebSession.sha256 == admins),
            WebSession.expires_at > now,
            WebSession.last_used_at > now - timedelta(hours=SESSION_IDLE_HOURS),
            or_(is_live(), WebSession.key_id.is_(None)),
        )
    ).one_or_none()
    if found is None:
        return None
    signed_in, key = found
    caller = SETTING_ADMIN if key is None else _caller(session, key)
    return Found(with_csrf(caller, token), signed_in.last_used_at, signed_in.sha256)


def touch(session: Session, found: Found) -> None:
    """Note that a key, or a browser's session with its key, was used now."""
    now = utc_now()
    if found.caller.key_id is not None:
        session.execute(
            update(ApiKey).where(ApiKey.id == found.caller.key_id).values(last_used_at=now)
        )
    if found.session_sha256 is not None:
        session.execute(
            update(WebSession)
            .where(WebSession.sha256 == found.session_sha256)
            .values(last_used_at=now)
        )


def begin_session(session: Session, caller: Caller, admin_key: str | None) -> tuple[str, Caller]:
    """Sign a browser in; gives the cookie's token, and the caller with what changes must carry."""
    now = utc_now()
    session.execute(
        delete(WebSession).where(
            or_(
                WebSession.expires_at < now,
                WebSession.last_used_at < now - timedelta(hours=SESSION_IDLE_HOURS),
            )
        )
    )
    token = new_secret()
    mine, admins = _session_hashes(token, admin_key)
    session.add(
        WebSession(
            sha256=mine if caller.key_id is not None else admins,
            key_id=caller.key_id,
            expires_at=now + timedelta(days=SESSION_DAYS),
        )
    )
    session.flush()
    return token, with_csrf(caller, token)


def end_session(session: Session, token: str, admin_key: str | None) -> bool:
    """Sign a browser out; False if it was not signed in."""
    ended = session.scalars(
        delete(WebSession)
        .where(WebSession.sha256.in_(_session_hashes(token, admin_key)))
        .returning(WebSession.sha256)
    ).all()
    return bool(ended)


def with_csrf(caller: Caller, token: str) -> Caller:
    """The caller as known by a cookie. What its pages must send follows from the token."""
    csrf = hmac.digest(token.encode(), b"csrf", "sha256").hex()
    return replace(caller, csrf_token=csrf)


def is_live() -> ColumnElement[bool]:
    """SQL: the key is neither revoked nor expired."""
    return and_(
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > utc_now()),
    )


def _caller(session: Session, key: ApiKey) -> Caller:
    projects = None
    if not key.all_projects:
        projects = frozenset(
            session.scalars(select(ApiKeyProject.project_id).where(ApiKeyProject.key_id == key.id))
        )
    return Caller(key.id, key.name, role_of(key), projects)


def role_of(key: ApiKey) -> Role:
    """The role of a key."""
    return next(role for role in ROLES if role == key.role)


def _session_hashes(token: str, admin_key: str | None) -> tuple[str, str]:
    """How a token is stored for keys of the table, and for the key of the settings."""
    # Without an admin key nothing can have been stored under the second.
    keyed = hmac.digest((admin_key or new_secret()).encode(), token.encode(), "sha256").hex()
    return hashed(token.encode()), keyed
