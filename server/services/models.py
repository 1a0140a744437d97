"""Models: what succeeded trained cycles trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Select, select
from sqlalchemy import delete as sql_delete
from sqlalchemy.orm import Session

from server.errors import NotFound
from server.services import audit, projects
from server.services.paging import PageOf, PageRequest, SortKey, paginate
from server.store.models import Artifact, Cycle, Model, Project, utc_now
from server.store.sweep import WEIGHTS

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model with the number of its cycle."""

    model: Model
    cycle_number: int


def page(session: Session, request: PageRequest, *, project_id: str | None) -> PageOf[ModelView]:
    """Models, newest first; NotFound if the project does not exist."""
    statement = _live()
    if project_id is not None:
        projects.get(session, project_id)
        statement = statement.where(Model.project_id == project_id)
    keys = [SortKey(Model.id.expression, str, descending=True)]
    found = paginate(session, statement, keys, request, order_name="models")
    return found.map(lambda row: ModelView(row[0], row[1]))


def get(session: Session, model_id: str) -> ModelView:
    """One model; NotFound if there is none, or it or its project was deleted."""
    row = session.execute(_live().where(Model.id == model_id)).one_or_none()
    if row is None:
        raise NotFound(f"no model {model_id}")
    return ModelView(row[0], row[1])


def change(
    session: Session, model_id: str, *, pinned: bool | None = None, note: str | None = None
) -> ModelView:
    """Pin a model, or write a note on it. Pinned ones keep their weights."""
    view = get(session, model_id)
    if pinned is not None:
        view.model.pinned = pinned
    if note is not None:
        view.model.note = note
    session.flush()
    audit.record(
        session,
        "model_changed",
        project=view.model.project_id,
        subject=view.model.id,
        pinned=view.model.pinned,
    )
    return view


def delete(session: Session, model_id: str) -> None:
    """Remove a model and its weights; the rest of its cycle stays."""
    model = get(session, model_id).model
    model.deleted_at = utc_now()
    model.sha256 = None
    session.execute(
        sql_delete(Artifact).where(Artifact.cycle_id == model.cycle_id, Artifact.name == WEIGHTS)
    )
    session.flush()
    audit.record(session, "model_deleted", project=model.project_id, subject=model.id)
    log.info("model deleted", action="model_deleted", project=model.project_id, model=model.id)


def weights(session: Session, model_id: str) -> tuple[ModelView, str]:
    """A model and the blob of its weights.

    Raises:
        NotFound: there is no such model, or its weights were swept.
    """
    view = get(session, model_id)
    if view.model.sha256 is None:
        raise NotFound(
            f"the weights of model {model_id} were removed to save space (see keep_models); "
            "pin a model to keep its weights",
            code="weights_swept",
        )
    return view, view.model.sha256


def _live() -> Select[*tuple[Any, ...]]:
    return (
        select(Model, Cycle.number)
        .join(Cycle, Cycle.id == Model.cycle_id)
        .join(Project, Project.id == Model.project_id)
        .where(Model.deleted_at.is_(None), Project.deleted_at.is_(None))
    )
