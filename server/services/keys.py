"""Keys: making, listing, changing and revoking them, and the first one of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from server.errors import Conflict, NotFound, Unprocessable
from server.services import audit
from server.services.identity import (
    KEY_PREFIX,
    RESERVED_NAMES,
    Role,
    hashed,
    is_live,
    new_secret,
)
from server.services.paging import PageOf, PageRequest, SortKey, paginate
from server.store.ids import new_id
from server.store.models import (
    ApiKey,
    ApiKeyProject,
    IdempotencyKey,
    Project,
    WebSession,
    utc_now,
)

log = structlog.get_logger(__name__)

FIRST_ADMIN = "first admin"
COMMAND_LINE = "command line"
# Of Postgres' advisory locks, as for migrations: any number that nothing else takes.
_KEYS_LOCK = 4_916_202_712
_SHOWN_CHARACTERS = len(KEY_PREFIX) + 6


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """What a new key is to be. Without `projects` it is for all of them."""

    name: str
    role: Role
    projects: Sequence[str] | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key with the projects that it is given; None: all."""

    key: ApiKey
    projects: tuple[str, ...] | None


def create(
    session: Session, asked: KeyRequest, *, created_by: str, admin_without: bool
) -> tuple[KeyView, str]:
    """A new key; the second value is the key itself, which nobody can tell again.

    Args:
        session: writes.
        asked: what it is to be.
        created_by: who makes it.
        admin_without: somebody is administrator without a key of the table (by the settings).

    Raises:
        Conflict: a live key has the name; or there is no administrator, and would be none.
        Unprocessable: the name is reserved, a project does not exist, an administrator would see
            some projects only, or the key would have expired already.
    """
    _one_at_a_time(session)
    if asked.name in RESERVED_NAMES:
        raise Unprocessable(
            f"no key may be named {asked.name!r}: it stands for somebody without a key",
            code="name_reserved",
        )
    if asked.role == "admin" and asked.projects is not None:
        raise Unprocessable("an admin key is for all projects: leave `projects` out")
    if asked.expires_at is not None and asked.expires_at <= utc_now():
        raise Unprocessable("expires_at lies in the past: the key would never open anything")
    if asked.role != "admin" and not admin_without and not _live_admins(session):
        raise Conflict(
            "the first key must be an admin key: as soon as there is a key, only keys open the "
            "server, and nobody could make another",
            code="first_key_not_admin",
        )
    secret = KEY_PREFIX + new_secret()
    key = ApiKey(
        name=asked.name,
        role=asked.role,
        prefix=secret[:_SHOWN_CHARACTERS],
        sha256=hashed(secret.encode()),
        all_projects=asked.projects is None,
        created_by=created_by,
        expires_at=asked.expires_at,
    )
    session.add(key)
    _flush_name(session, key.name)
    projects = _give(session, key, asked.projects)
    audit.record(
        session, "key_created", subject=key.id, name=key.name, role=key.role, projects=projects
    )
    log.info("key created", action="key_created", key=key.id, name=key.name, role=key.role)
    return KeyView(key, projects), secret


def page(session: Session, request: PageRequest) -> PageOf[KeyView]:
    """All keys, revoked ones as well, newest first."""
    keys = [SortKey(ApiKey.id.expression, str, descending=True)]
    found = paginate(session, select(ApiKey), keys, request, order_name="keys")
    given: dict[str, list[str]] = {}
    for key_id, project_id in session.execute(
        select(ApiKeyProject.key_id, ApiKeyProject.project_id)
        .where(ApiKeyProject.key_id.in_([key.id for key in found.items]))
        .order_by(ApiKeyProject.project_id)
    ):
        given.setdefault(key_id, []).append(project_id)
    return found.map(
        lambda key: KeyView(key, None if key.all_projects else tuple(given.get(key.id, ())))
    )


def get(session: Session, key_id: str) -> KeyView:
    """One key; NotFound if there is none."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFound(f"no key {key_id}")
    if key.all_projects:
        return KeyView(key, None)
    given = session.scalars(
        select(ApiKeyProject.project_id)
        .where(ApiKeyProject.key_id == key_id)
        .order_by(ApiKeyProject.project_id)
    )
    return KeyView(key, tuple(given))


def change(
    session: Session,
    key_id: str,
    *,
    name: str | None = None,
    projects: Sequence[str] | None = None,
    all_projects: bool = False,
) -> KeyView:
    """Rename a key, or give it other projects; from its next request on they are what it sees.

    Raises:
        NotFound: there is no such key.
        Conflict: it is revoked, or a live key has the name.
        Unprocessable: as for a new key.
    """
    _one_at_a_time(session)
    key = get(session, key_id).key
    if key.revoked_at is not None:
        raise Conflict(f"key {key.name!r} is revoked: make a new one", code="key_revoked")
    if name is not None:
        if name in RESERVED_NAMES:
            raise Unprocessable(f"no key may be named {name!r}", code="name_reserved")
        key.name = name
        _flush_name(session, name)
    if projects is not None and key.role == "admin":
        raise Unprocessable("an admin key is for all projects")
    if projects is not None or all_projects:
        key.all_projects = all_projects
        session.execute(delete(ApiKeyProject).where(ApiKeyProject.key_id == key.id))
        # What it was answered tells of the projects that it had.
        session.execute(delete(IdempotencyKey).where(IdempotencyKey.principal == key.id))
        _give(session, key, None if all_projects else projects)
    view = get(session, key_id)
    audit.record(
        session, "key_changed", subject=key.id, name=key.name, role=key.role, projects=view.projects
    )
    return view


def revoke(session: Session, key_id: str, *, admin_without: bool) -> None:
    """End a key and its sessions at once; a revoked one stays as it is.

    Raises:
        NotFound: there is no such key.
        Conflict: it is the last that administers, and nobody else could.
    """
    _one_at_a_time(session)
    key = get(session, key_id).key
    if key.revoked_at is not None:
        return
    if not admin_without and _live_admins(session) == {key.id}:
        raise Conflict(
            f"{key.name!r} is the last admin key: make another one before you revoke it",
            code="last_admin",
        )
    key.revoked_at = utc_now()
    session.execute(delete(WebSession).where(WebSession.key_id == key.id))
    audit.record(session, "key_revoked", subject=key.id, name=key.name, role=key.role)
    log.info("key revoked", action="key_revoked", key=key.id, name=key.name)


def ensure_admin(session: Session) -> str | None:
    """Make the first admin key unless one lives; of several servers that start, one makes it.

    Returns:
        The key, to be shown once; None where there was one.
    """
    _one_at_a_time(session)
    if _live_admins(session):
        return None
    taken = session.scalar(
        select(ApiKey.id).where(ApiKey.name == FIRST_ADMIN, ApiKey.revoked_at.is_(None))
    )
    # A first admin key that has expired keeps its name.
    name = FIRST_ADMIN if taken is None else f"{FIRST_ADMIN} {new_id()}"
    _, secret = create(
        session, KeyRequest(name, "admin"), created_by=audit.SERVER, admin_without=False
    )
    return secret


def _live_admins(session: Session) -> set[str]:
    return set(session.scalars(select(ApiKey.id).where(ApiKey.role == "admin", is_live())))


def _give(session: Session, key: ApiKey, projects: Sequence[str] | None) -> tuple[str, ...] | None:
    if projects is None:
        return None
    wanted = tuple(sorted(set(projects)))
    there = set(
        session.scalars(
            select(Project.id).where(Project.id.in_(wanted), Project.deleted_at.is_(None))
        )
    )
    missing = [project for project in wanted if project not in there]
    if missing:
        raise Unprocessable(f"no project {', '.join(missing)}", code="unknown_project")
    session.add_all(ApiKeyProject(key_id=key.id, project_id=project) for project in wanted)
    session.flush()
    return wanted


def _flush_name(session: Session, name: str) -> None:
    try:
        session.flush()
    except IntegrityError:
        raise Conflict(
            f"there is already a key named {name!r}: names stand beside what is done with a key",
            code="name_taken",
        ) from None


def _one_at_a_time(session: Session) -> None:
    """Hold all changes of keys until the commit, so that what is counted stays true."""
    # SQLite's writing transaction already lets only one in.
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_KEYS_LOCK)))
