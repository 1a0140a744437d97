"""`python -m server keys …`: keys without a key, for whoever may open the database."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import Engine, or_, select
from sqlalchemy.orm import Session, sessionmaker

from server.errors import NotFound
from server.services import audit, keys
from server.services.identity import ROLES, Caller
from server.services.paging import PageRequest
from server.settings import Settings
from server.store import scope
from server.store.database import check_revision, session_factory
from server.store.models import ApiKey, Project, utc_now

# Whoever may write the database may do everything.
OPERATOR = Caller(None, keys.COMMAND_LINE, "admin", None)


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `keys` and what it can do to the command line."""
    group = commands.add_parser("keys", help="make, list and revoke keys, on the database itself")
    verbs = group.add_subparsers(dest="verb", required=True)
    create = verbs.add_parser("create", help="make a key; prints it, this once")
    create.add_argument("--name", required=True, help="of the person or program that gets it")
    create.add_argument("--role", required=True, choices=ROLES)
    which = create.add_mutually_exclusive_group()
    which.add_argument(
        "--project", action="append", metavar="ID_OR_NAME", help="a project that it is for"
    )
    which.add_argument("--all-projects", action="store_true", help="it is for all of them")
    create.add_argument("--days", type=float, help="it ends after so many days; default never")
    verbs.add_parser("list", help="all keys, newest first")
    revoke = verbs.add_parser("revoke", help="end a key at once")
    revoke.add_argument("key", metavar="ID_OR_NAME")


def run(
    chosen: argparse.Namespace, settings: Settings, engine: Engine, say: Callable[[str], None]
) -> None:
    """Do what was asked.

    Raises:
        ServiceError: it cannot be.
        ValueError: the arguments make no sense.
        WrongRevision: the database has no tables for keys yet.
    """
    check_revision(engine)
    sessions = scope.bound(session_factory(engine), **{audit.CALLER: OPERATOR})
    if chosen.verb == "list":
        _list(sessions, say)
        return
    admin_without = settings.admin_key is not None
    with sessions.begin() as session:
        if chosen.verb == "revoke":
            keys.revoke(session, _key_id(session, chosen.key), admin_without=admin_without)
            return
        if chosen.role != "admin" and not chosen.all_projects and not chosen.project:
            raise ValueError("say which projects the key is for: --project, or --all-projects")
        projects = None
        if chosen.project:
            projects = [_project_id(session, each) for each in chosen.project]
        expires = None if chosen.days is None else utc_now() + timedelta(days=chosen.days)
        asked = keys.KeyRequest(chosen.name, chosen.role, projects, expires)
        _, secret = keys.create(
            session, asked, created_by=OPERATOR.name, admin_without=admin_without
        )
    # After the commit: what is shown is kept.
    say(secret)


def _list(sessions: sessionmaker[Session], say: Callable[[str], None]) -> None:
    request = PageRequest(limit=1000)
    while True:
        with sessions() as session:
            page = keys.page(session, request)
        for view in page.items:
            key = view.key
            given = "all projects" if view.projects is None else ", ".join(view.projects) or "none"
            used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"
            state = "revoked" if key.revoked_at else "expired" if _has_expired(key) else "live"
            say(f"{key.id}  {key.prefix}…  {key.role}  {state}  used {used}  {key.name}  ({given})")
        if page.next_cursor is None:
            return
        request = PageRequest(limit=1000, cursor=page.next_cursor)


def _has_expired(key: ApiKey) -> bool:
    return key.expires_at is not None and key.expires_at <= utc_now()


def _key_id(session: Session, named: str) -> str:
    found = session.scalar(
        select(ApiKey.id).where(
            or_(ApiKey.id == named, ApiKey.name == named), ApiKey.revoked_at.is_(None)
        )
    )
    if found is None:
        raise NotFound(f"no live key {named!r}: `python -m server keys list` shows all")
    return found


def _project_id(session: Session, named: str) -> str:
    found = session.scalar(
        select(Project.id).where(
            or_(Project.id == named, Project.name == named), Project.deleted_at.is_(None)
        )
    )
    if found is None:
        raise NotFound(f"no project {named!r}")
    return found
