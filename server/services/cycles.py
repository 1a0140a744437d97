"""Cycles: starting, watching and cancelling them. The worker takes them from the same table."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from server.errors import Conflict, NotFound, Unprocessable
from server.services import audit, projects, queries, training, workers
from server.services.paging import PageOf, PageRequest, SortKey, paginate
from server.store import events, queue
from server.store.models import (
    Artifact,
    Cycle,
    CycleEvent,
    Image,
    Json,
    Model,
    Project,
    Query,
    Score,
)
from server.store.pool import count_trainable, is_selectable

log = structlog.get_logger(__name__)

DEFAULT_STRATEGY: Json = {"name": "mi-aod"}


@dataclass(frozen=True, slots=True)
class CycleRequest:
    """What a client asks for; None takes the project's default, else the server's."""

    project_id: str
    budget: int | None = None
    strategy: Json | None = None
    training: Json | None = None
    seed: int | None = None
    min_labeled: int | None = None


@dataclass(frozen=True, slots=True)
class CycleView:
    """A cycle with what is not in its row: why it waits, and the model that it trained."""

    cycle: Cycle
    message: str
    model_id: str | None


@dataclass(frozen=True, slots=True)
class ScoreView:
    """What a cycle thinks of an unlabeled image."""

    rank: int
    uncertainty: float | None
    image_id: str
    image_name: str
    ordinal: int


def create(session: Session, asked: CycleRequest, *, default_preset: str) -> CycleView:
    """Queue a cycle. Whether it trains is decided here, by what is labeled now.

    Raises:
        NotFound: there is no such project.
        Conflict: a cycle is active, an initial selection waits, or there is neither an image to
            select nor one to train on.
        Unprocessable: no budget, or the training configuration cannot be, or not with the strategy.
    """
    project = projects.get(session, asked.project_id, for_update=True)
    defaults = project.cycle_defaults
    budget = asked.budget or defaults.get("budget")
    if budget is None:
        raise Unprocessable(
            "budget is missing: say how many images to select, or give the project a default "
            "(cycle_defaults.budget)",
            code="budget_missing",
        )
    configuration = training.resolve(
        {**(defaults.get("training") or {}), **(asked.training or {})}, default_preset
    )
    strategy = asked.strategy or defaults.get("strategy") or DEFAULT_STRATEGY
    if strategy["name"] == "mi-aod" and configuration["method"] == "plain":
        raise Unprocessable(
            "strategy mi-aod ranks by what two classifiers disagree on, and training method plain "
            "trains one: take strategy entropy, core-set or random, or method mi-aod",
            code="bad_strategy",
        )
    min_labeled = asked.min_labeled or defaults.get("min_labeled") or 1
    _check_none_active(session, project)
    trainable = count_trainable(session, project.id)
    kind = "trained" if trainable >= min_labeled else "initial"
    if kind == "initial":
        _check_no_initial_selection_waits(session, project)
    pool = _count_selectable(session, project)
    if kind == "initial" and pool == 0:
        raise _empty_pool(session, project)
    cycle = Cycle(
        project_id=project.id,
        number=project.next_cycle_number,
        kind=kind,
        budget=budget,
        strategy=strategy,
        training=configuration,
        seed=secrets.randbelow(2**31) if asked.seed is None else asked.seed,
        min_labeled=min_labeled,
        message=_forecast(session, project, kind, budget, pool, trainable, min_labeled),
    )
    project.next_cycle_number += 1
    session.add(cycle)
    try:
        session.flush()
    except IntegrityError:
        raise Conflict(
            "another cycle of the project was started just now", code="cycle_active"
        ) from None
    events.write_first(session, cycle)
    audit.record(session, "cycle_created", project=project.id, subject=cycle.id, budget=budget)
    log.info("cycle queued", action="cycle_queued", project=project.id, cycle=cycle.id, kind=kind)
    return _views(session, [cycle])[0]


def get(session: Session, cycle_id: str) -> CycleView:
    """One cycle; NotFound if there is none or its project was deleted."""
    return _views(session, [_row(session, cycle_id)])[0]


@dataclass(frozen=True, slots=True)
class History:
    """What there is to tell of a cycle before anything new happens.

    Attributes:
        events: in order, those that the reader has not seen; progress thinned out.
        last: number of the cycle's latest event.
        has_ended: whether nothing will follow, unless somebody resumes the cycle.
    """

    events: Sequence[CycleEvent]
    last: int
    has_ended: bool


def history(session: Session, cycle_id: str, after: int) -> History:
    """The cycle's events after one of them; 0 for all. NotFound if there is no such cycle.

    A number that the cycle has not reached is that of another database, and counts as 0.
    """
    cycle = _row(session, cycle_id)
    if after > cycle.event_seq:
        after = 0
    found = events.replay(session, cycle_id, after, cycle.event_seq)
    return History(found, cycle.event_seq, cycle.state not in queue.ACTIVE)


def page(
    session: Session,
    request: PageRequest,
    *,
    project_id: str | None = None,
    state: str | None = None,
) -> PageOf[CycleView]:
    """Cycles, newest first; NotFound if the project does not exist."""
    statement = (
        select(Cycle)
        .join(Project, Project.id == Cycle.project_id)
        .where(Project.deleted_at.is_(None))
    )
    if project_id is not None:
        projects.get(session, project_id)
        statement = statement.where(Cycle.project_id == project_id)
    if state is not None:
        statement = statement.where(Cycle.state == state)
    keys = [SortKey(Cycle.id.expression, str, descending=True)]
    found = paginate(session, statement, keys, request, order_name="cycles")
    return PageOf(_views(session, found.items), found.next_cursor, found.total)


def cancel(session: Session, cycle_id: str) -> CycleView:
    """Cancel a cycle: a waiting one at once, a running one within seconds by its worker.

    A cancelled one stays cancelled.

    Raises:
        NotFound: there is no such cycle.
        Conflict: it has succeeded or failed already.
    """
    cycle = _row(session, cycle_id)
    if queue.request_cancel(session, Cycle, cycle_id) is None and cycle.state != "cancelled":
        raise Conflict(
            f"cycle {cycle.number} has {cycle.state} already: there is nothing to cancel",
            code="cycle_ended",
        )
    session.refresh(cycle)
    audit.record(session, "cycle_cancelled", project=cycle.project_id, subject=cycle.id)
    log.info("cycle cancel asked", action="cycle_cancel", cycle=cycle.id, state=cycle.state)
    return _views(session, [cycle])[0]


def resume(session: Session, cycle_id: str) -> CycleView:
    """Put a failed or cancelled cycle back into the queue; it goes on at its last checkpoint.

    It sees the project as it was when the cycle first ran. An active one stays as it is, so that
    the request can be repeated.

    Raises:
        NotFound: there is no such cycle.
        Conflict: it has succeeded, or a newer cycle of the project has begun.
    """
    project = projects.get(session, _row(session, cycle_id).project_id, for_update=True)
    cycle = _row(session, cycle_id)
    session.refresh(cycle)
    if cycle.state in queue.ACTIVE and not cycle.cancel_requested:
        return _views(session, [cycle])[0]
    if cycle.state in queue.ACTIVE:
        # Its worker may be gone by now, and nobody there to find that out.
        queue.request_cancel(session, Cycle, cycle_id)
        session.refresh(cycle)
    if cycle.state in queue.ACTIVE:
        raise Conflict(
            f"cycle {cycle.number} is being cancelled: resume it when it is cancelled",
            code="cycle_active",
        )
    if cycle.state == "succeeded":
        raise Conflict(
            f"cycle {cycle.number} has succeeded: start a new one instead", code="cycle_ended"
        )
    if cycle.number != project.next_cycle_number - 1:
        raise Conflict(
            f"cycle {cycle.number} is not the newest of its project, which is cycle "
            f"{project.next_cycle_number - 1}: only that one can be resumed",
            code="not_the_newest",
        )
    queue.resume(session, Cycle, cycle_id)
    session.refresh(cycle)
    audit.record(session, "cycle_resumed", project=project.id, subject=cycle.id)
    log.info("cycle resumed", action="cycle_resumed", project=project.id, cycle=cycle.id)
    return _views(session, [cycle])[0]


def scores(session: Session, cycle_id: str, request: PageRequest) -> PageOf[ScoreView]:
    """The cycle's ranking of the unlabeled pool, best first.

    Raises:
        NotFound: there is no such cycle, or a newer one has replaced its scores.
        Conflict: it has not succeeded.
    """
    cycle = _row(session, cycle_id)
    if cycle.state != "succeeded":
        raise Conflict(
            f"cycle {cycle.number} is {cycle.state}: scores appear when it has succeeded",
            code="not_succeeded",
        )
    newest = session.scalar(select(Project.scored_cycle_id).where(Project.id == cycle.project_id))
    if newest != cycle.id:
        raise NotFound(
            f"the scores of cycle {cycle.number} were replaced by those of a newer one: they are "
            "in its artifact scores.npz",
            code="scores_superseded",
        )
    statement = (
        select(Score.rank, Score.uncertainty, Image.id, Image.name, Image.ordinal)
        .join(Image, Image.id == Score.image_id)
        .where(Score.cycle_id == cycle.id, Score.fence == cycle.fence, Image.deleted_at.is_(None))
    )
    keys = [SortKey(Score.rank.expression, int)]
    found = paginate(session, statement, keys, request, order_name="scores")
    return found.map(lambda row: ScoreView(*row))


def artifacts(session: Session, cycle_id: str) -> list[Artifact]:
    """The files that the cycle left behind, by name."""
    cycle = _row(session, cycle_id)
    return list(
        session.scalars(
            select(Artifact).where(Artifact.cycle_id == cycle.id).order_by(Artifact.name)
        )
    )


def artifact(session: Session, cycle_id: str, name: str) -> Artifact:
    """One of the cycle's files; NotFound if it has none of that name."""
    cycle = _row(session, cycle_id)
    found = session.get(Artifact, (cycle.id, name))
    if found is None:
        names = ", ".join(each.name for each in artifacts(session, cycle_id)) or "none yet"
        raise NotFound(f"cycle {cycle.number} has no artifact {name!r}; it has {names}")
    return found


def _row(session: Session, cycle_id: str) -> Cycle:
    cycle = session.scalar(
        select(Cycle)
        .join(Project, Project.id == Cycle.project_id)
        .where(Cycle.id == cycle_id, Project.deleted_at.is_(None))
    )
    if cycle is None:
        raise NotFound(f"no cycle {cycle_id}")
    return cycle


def _check_none_active(session: Session, project: Project) -> None:
    active = session.scalar(
        select(Cycle).where(Cycle.project_id == project.id, Cycle.state.in_(queue.ACTIVE))
    )
    if active is not None:
        raise Conflict(
            f"cycle {active.number} of the project ({active.id}) is {active.state}: "
            "wait for it, or cancel it",
            code="cycle_active",
        )


def _check_no_initial_selection_waits(session: Session, project: Project) -> None:
    """A second initial selection would only throw the first away, unlabeled."""
    labeled = session.scalar(
        select(Image.id)
        .where(
            Image.project_id == project.id,
            Image.split == "pool",
            Image.state == "labeled",
            Image.deleted_at.is_(None),
        )
        .limit(1)
    )
    waiting = session.scalar(
        select(func.count())
        .select_from(Query)
        .join(Image, Image.id == Query.image_id)
        .where(
            Query.cycle_id == project.scored_cycle_id,
            or_(Query.state == "open", Query.state == "claimed"),
            Image.deleted_at.is_(None),
        )
    )
    if labeled is None and waiting:
        images = "1 image waits" if waiting == 1 else f"{waiting} images wait"
        raise Conflict(
            f"the initial selection is not labeled yet: {images} (GET /queries). Label some of "
            "them, then start the next cycle",
            code="initial_selection_waits",
        )


def _count_selectable(session: Session, project: Project) -> int:
    return (
        session.scalar(
            select(func.count())
            .select_from(Image)
            .where(Image.project_id == project.id, is_selectable())
        )
        or 0
    )


def _empty_pool(session: Session, project: Project) -> Conflict:
    counts = projects.counts(session, project.id)
    held = session.scalar(
        select(func.count())
        .select_from(Query)
        .where(Query.project_id == project.id, queries.is_held())
    )
    return Conflict(
        "the pool has no image to select: "
        f"{counts.labeled} are labeled, {counts.skipped} skipped, {held or 0} claimed by "
        f"annotators, {counts.val + counts.test} in val or test; add images to the pool first",
        code="empty_pool",
    )


def _forecast(
    session: Session,
    project: Project,
    kind: str,
    budget: int,
    pool: int,
    trainable: int,
    min_labeled: int,
) -> str:
    """What a reader of the new cycle should know about it."""
    said = []
    if kind == "initial":
        said.append(
            f"initial selection at random: {trainable} pool images have a box, "
            f"training starts from {min_labeled}"
        )
    wanted = project.validation_images if _will_draw_validation(session, project) else 0
    drawn = min(wanted, max(0, pool - 1))
    if drawn:
        said.append(f"{drawn} images are drawn for validation besides")
    if pool == 0:
        said.append("no image is left to select: the cycle trains and evaluates only")
    elif budget > pool - drawn:
        said.append(
            f"the budget of {budget} exceeds the pool: all {pool - drawn} images are selected"
        )
    return "; ".join(said)


def _will_draw_validation(session: Session, project: Project) -> bool:
    if project.scored_cycle_id is not None:
        return False
    counts = projects.counts(session, project.id)
    return counts.val == 0


def _views(session: Session, cycles: Sequence[Cycle]) -> list[CycleView]:
    models = session.execute(
        select(Model.cycle_id, Model.id).where(
            Model.cycle_id.in_([cycle.id for cycle in cycles]), Model.deleted_at.is_(None)
        )
    )
    model_of = {row.cycle_id: row.id for row in models}
    staff = None
    if any(cycle.state == "queued" for cycle in cycles):
        staff = workers.staff(session)
    views = []
    for cycle in cycles:
        message = cycle.message
        if cycle.state == "queued" and staff is not None:
            why = staff.why_waiting(cycle.created_at)
            message = "; ".join(part for part in (why, message) if part)
        views.append(CycleView(cycle, message, model_of.get(cycle.id)))
    return views
