"""Queries: the images that a cycle asks to have labeled, and claims, which keep annotators apart.

A claim is a lease on the database's clock. Nothing runs when it lapses: every reader treats a
lapsed claim as what it became, open again in the project's newest cycle, withdrawn in an older one.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Select, and_, or_, select, true, update
from sqlalchemy.orm import Session

from server.errors import Conflict, NotFound
from server.services import audit, projects
from server.services.paging import PageOf, PageRequest, SortKey, paginate
from server.store.database import now_seconds
from server.store.models import Cycle, Image, Json, Prediction, Project, Query, utc_now

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class QueryView:
    """A query as it is now: `state` takes lapsed claims into account."""

    query: Query
    image: Image
    state: str
    claimed_by: str | None
    claim_expires_at: datetime | None
    predictions: list[Json]


@dataclass(frozen=True, slots=True)
class Claim:
    """A batch of queries held under one token."""

    token: str
    expires_at: datetime
    items: list[QueryView]


def named_predictions(boxes: Sequence[Json], class_names: Sequence[str]) -> list[Json]:
    """Stored detections with class names for ids, best first."""
    ordered = sorted(boxes, key=lambda box: -box["score"])
    return [
        {
            "class": class_names[box["class_id"]],
            **{key: box[key] for key in ("score", "x1", "y1", "x2", "y2")},
        }
        for box in ordered
    ]


def is_held() -> ColumnElement[bool]:
    """SQL: the query is under a claim that has not lapsed."""
    return and_(Query.state == "claimed", Query.claimed_until > now_seconds())


def holder(session: Session, image_id: str) -> Query | None:
    """The query through which an annotator holds the image just now."""
    return session.scalar(select(Query).where(Query.image_id == image_id, is_held()).limit(1))


def page(
    session: Session,
    request: PageRequest,
    *,
    project_id: str | None,
    cycle_id: str | None,
    state: str | None,
) -> PageOf[QueryView]:
    """The queries of one cycle, best first.

    Args:
        session: where to look.
        request: which page.
        project_id: whose newest selection to list, when no cycle is named.
        cycle_id: the cycle to list; a lapsed claim of a superseded one is withdrawn.
        state: only queries that are in this state now; None lists all.

    Raises:
        NotFound: there is no such project or cycle.
    """
    cycle, newest = _wanted_cycle(session, project_id, cycle_id)
    if cycle is None:
        return PageOf([], None, 0 if request.count else None)
    statement = _with_images().where(Query.cycle_id == cycle.id)
    if state is not None:
        statement = statement.where(_in_state(state, newest))
    keys = [SortKey(Query.rank.expression, int)]
    found = paginate(session, statement, keys, request, order_name="queries")
    views = _views(session, [(row[0], row[1]) for row in found.items])
    return PageOf(views, found.next_cursor, found.total)


def get(session: Session, query_id: str) -> QueryView:
    """One query; NotFound if there is none, or its image or project is gone."""
    query, image = _row(session, query_id)
    return _views(session, [(query, image)])[0]


def heatmap(session: Session, query_id: str) -> str:
    """The blob of a query's heat map; NotFound where its cycle drew none."""
    query, _ = _row(session, query_id)
    if query.heatmap_sha256 is None:
        raise NotFound(
            f"query {query_id} has no heat map: its cycle selected at random, without a model",
            code="no_heatmap",
        )
    return query.heatmap_sha256


def claim(session: Session, *, project_id: str, limit: int, seconds: float, author: str) -> Claim:
    """Take the best queries that nobody holds; two annotators never get the same one.

    Lapsed claims count as free. Images labeled, skipped or deleted meanwhile are passed over.

    Raises:
        NotFound: there is no such project.
    """
    project = projects.get(session, project_id)
    free = or_(
        Query.state == "open",
        and_(Query.state == "claimed", Query.claimed_until <= now_seconds()),
    )
    ids = session.scalars(
        select(Query.id)
        .join(Image, Image.id == Query.image_id)
        .where(
            Query.cycle_id == project.scored_cycle_id,
            free,
            Image.state == "unlabeled",
            Image.skipped_at.is_(None),
            Image.deleted_at.is_(None),
        )
        .order_by(Query.rank)
        .limit(limit)
        # Postgres: rows that another claim is taking right now are passed over, not waited for.
        # SQLite has no such clause; there this transaction is the only writer from its start.
        .with_for_update(of=Query, skip_locked=True)
    ).all()
    token = secrets.token_urlsafe(24)
    session.execute(
        update(Query)
        .where(Query.id.in_(ids))
        .values(
            state="claimed",
            claim_token=token,
            claimed_by=author,
            claimed_until=now_seconds() + seconds,
        )
        .execution_options(synchronize_session=False)
    )
    rows = session.execute(_with_images().where(Query.id.in_(ids)).order_by(Query.rank)).all()
    log.info(
        "queries claimed",
        action="queries_claimed",
        project=project_id,
        author=author,
        queries=len(ids),
    )
    expires = _database_time(session, seconds)
    return Claim(token, expires, _views(session, [(row[0], row[1]) for row in rows]))


def heartbeat(
    session: Session, query_id: str, token: str, seconds: float, *, holder: str | None = None
) -> datetime:
    """Prolong a claim: every query that is still held under the token. Returns its new end.

    With `holder` only that one's claim can be: a token alone is not enough.

    Raises:
        NotFound: there is no such query.
        Conflict: the claim has lapsed, ended, or never held this query.
    """
    query, _ = _row(session, query_id)
    held = session.scalars(
        select(Query.id)
        .where(
            Query.project_id == query.project_id,
            Query.claim_token == token,
            is_held(),
            true() if holder is None else Query.claimed_by == holder,
        )
        # In one order, so that two heartbeats of one batch cannot wait for each other.
        .order_by(Query.id)
        .with_for_update(of=Query)
    ).all()
    if query_id not in held:
        raise _stale(query_id)
    session.execute(
        update(Query)
        .where(Query.id.in_(held))
        .values(claimed_until=now_seconds() + seconds)
        .execution_options(synchronize_session=False)
    )
    return _database_time(session, seconds)


def release(session: Session, query_id: str, token: str, *, holder: str | None = None) -> QueryView:
    """Give a query back. It is open again, or withdrawn if a newer cycle has selected since.

    With `holder` only that one's claim can be given back.

    Raises:
        NotFound: there is no such query.
        Conflict: the claim has lapsed, ended, or never held this query.
    """
    query, image = _held_row(session, query_id, token, holder)
    newest = session.scalar(select(Project.scored_cycle_id).where(Project.id == query.project_id))
    query.claim_token = query.claimed_by = query.claimed_until = None
    if query.cycle_id == newest:
        query.state = "open"
    else:
        query.state, query.closed_at = "withdrawn", utc_now()
    session.flush()
    return _views(session, [(query, image)])[0]


def skip(
    session: Session,
    query_id: str,
    token: str | None,
    reason: str,
    *,
    holder: str | None = None,
) -> QueryView:
    """Say that the image cannot be labeled; no cycle selects it until it is un-skipped.

    The same call again changes nothing. With `holder` only that one's claim can be used.

    Raises:
        NotFound: there is no such query.
        Conflict: somebody else holds it, the claim has lapsed, or it is no longer open.
    """
    query, image = _row(session, query_id, for_update=True)
    if query.state == "skipped" and query.claim_token == token:
        return _views(session, [(query, image)])[0]
    if token is not None:
        _check_held(session, query, token, holder)
    elif _views(session, [(query, image)])[0].state != "open":
        raise Conflict(
            f"query {query_id} is {query.state}: only an open one can be skipped without a claim",
            code="not_open",
        )
    query.state, query.closed_at = "skipped", utc_now()
    query.claim_token = token  # so that a repeated call is recognised
    query.claimed_until = None
    image.skipped_at, image.skip_reason = utc_now(), reason
    session.flush()
    audit.record(session, "image_skipped", project=query.project_id, subject=image.id)
    log.info("image skipped", action="image_skipped", project=query.project_id, image=image.id)
    return _views(session, [(query, image)])[0]


def _with_images() -> Select[*tuple[Any, ...]]:
    return (
        select(Query, Image)
        .join(Image, Image.id == Query.image_id)
        .where(Image.deleted_at.is_(None))
        .execution_options(populate_existing=True)
    )


def _row(session: Session, query_id: str, *, for_update: bool = False) -> tuple[Query, Image]:
    statement = (
        _with_images()
        .join(Project, Project.id == Query.project_id)
        .where(Query.id == query_id, Project.deleted_at.is_(None))
    )
    if for_update:
        # The image before the query, as when an annotation is saved: one order, no deadlock.
        session.execute(
            select(Image.id)
            .join(Query, Query.image_id == Image.id)
            .where(Query.id == query_id)
            .with_for_update(of=Image, key_share=True)
        )
        statement = statement.with_for_update(of=Query)
    row = session.execute(statement).one_or_none()
    if row is None:
        raise NotFound(f"no query {query_id}")
    return row[0], row[1]


def _held_row(
    session: Session, query_id: str, token: str, holder: str | None
) -> tuple[Query, Image]:
    query, image = _row(session, query_id, for_update=True)
    _check_held(session, query, token, holder)
    return query, image


def _check_held(session: Session, query: Query, token: str, holder: str | None) -> None:
    now = _now(session)
    held = query.state == "claimed" and (query.claimed_until or 0.0) > now
    theirs = holder is None or query.claimed_by == holder
    if not held or not theirs or not secrets.compare_digest(query.claim_token or "", token):
        raise _stale(query.id)


def _stale(query_id: str) -> Conflict:
    return Conflict(
        f"the claim on query {query_id} is no longer yours: it was saved, released, withdrawn, or "
        "has lapsed; claim again",
        code="stale_claim",
    )


def _in_state(state: str, newest: bool) -> ColumnElement[bool]:
    """SQL: the query is in this state, a lapsed claim being what it became."""
    lapsed = and_(Query.state == "claimed", Query.claimed_until <= now_seconds())
    if state == "claimed":
        return is_held()
    if state == ("open" if newest else "withdrawn"):
        return or_(Query.state == state, lapsed)
    return Query.state == state


def _wanted_cycle(
    session: Session, project_id: str | None, cycle_id: str | None
) -> tuple[Cycle | None, bool]:
    """The cycle to list, and whether it is its project's newest selection."""
    if cycle_id is None:
        assert project_id is not None
        project = projects.get(session, project_id)
        if project.scored_cycle_id is None:
            return None, True
        return session.get(Cycle, project.scored_cycle_id), True
    cycle = session.get(Cycle, cycle_id)
    if cycle is None or (project_id is not None and cycle.project_id != project_id):
        raise NotFound(f"no cycle {cycle_id}" + (f" in project {project_id}" if project_id else ""))
    project = projects.get(session, cycle.project_id)
    return cycle, project.scored_cycle_id == cycle.id


def _views(session: Session, rows: Sequence[tuple[Query, Image]]) -> list[QueryView]:
    """Queries of one project with their predictions and present states."""
    if not rows:
        return []
    now = _now(session)
    project_id = rows[0][0].project_id
    names = projects.class_names(session, project_id)
    newest = session.scalar(select(Project.scored_cycle_id).where(Project.id == project_id))
    found = session.execute(
        select(Prediction.cycle_id, Prediction.image_id, Prediction.boxes)
        .join(Cycle, and_(Cycle.id == Prediction.cycle_id, Cycle.fence == Prediction.fence))
        .where(
            Prediction.cycle_id.in_({query.cycle_id for query, _ in rows}),
            Prediction.image_id.in_([image.id for _, image in rows]),
        )
    )
    boxes = {(row.cycle_id, row.image_id): row.boxes for row in found}
    views = []
    for query, image in rows:
        held = query.state == "claimed" and (query.claimed_until or 0.0) > now
        state = query.state
        if state == "claimed" and not held:
            state = "open" if query.cycle_id == newest else "withdrawn"
        until = query.claimed_until if held else None
        views.append(
            QueryView(
                query,
                image,
                state,
                query.claimed_by if held else None,
                datetime.fromtimestamp(until, UTC) if until is not None else None,
                named_predictions(boxes.get((query.cycle_id, query.image_id), ()), names),
            )
        )
    return views


def _now(session: Session) -> float:
    now: float | None = session.scalar(select(now_seconds()))
    assert now is not None
    return now


def _database_time(session: Session, seconds: float) -> datetime:
    return datetime.fromtimestamp(_now(session) + seconds, UTC)
