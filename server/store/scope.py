"""Which projects a session can see: the one place where the projects of a key are held apart.

A session whose `info` has `PROJECTS` finds rows of those projects and no others, whatever asks it:
`select`, `get`, counts, joins, `update` and `delete` alike. To the code above, another project's
image does not exist. Sessions without it (workers, imports, the sweep) see everything.

A table belongs to a project by its column `project_id`, or through the cycle, image or import that
it names. A new table with such a column is held apart without being named here; one that merely
mentions a project stands in `NOT_OWNED`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, event, exists, select
from sqlalchemy.orm import (
    DeclarativeBase,
    ORMExecuteState,
    Session,
    aliased,
    sessionmaker,
    with_loader_criteria,
)
from sqlalchemy.orm.interfaces import ORMOption

from server.store.models import (
    ApiKeyProject,
    AuditEntry,
    Base,
    Cycle,
    Image,
    Import,
    Project,
    Worker,
)

PROJECTS = "projects"

# A worker says which cycle it runs and belongs to all projects; keys and the audit log are read by
# administrators alone, who see everything.
NOT_OWNED: frozenset[type[DeclarativeBase]] = frozenset({Worker, ApiKeyProject, AuditEntry})


def bound(sessions: sessionmaker[Session], **info: Any) -> sessionmaker[Session]:
    """The same sessions, with this in the `info` of each."""
    return sessionmaker(class_=sessions.class_, **{**sessions.kw, "info": info})


@event.listens_for(Session, "do_orm_execute")
def _hold_apart(executed: ORMExecuteState) -> None:
    projects: frozenset[str] | None = executed.session.info.get(PROJECTS)
    # What is loaded for an object that the session has already was let in before.
    if projects is not None and not executed.is_column_load:
        executed.statement = executed.statement.options(*_criteria(projects))


@lru_cache(maxsize=256)
def _criteria(projects: frozenset[str]) -> tuple[ORMOption, ...]:
    return tuple(
        with_loader_criteria(table, _is_visible(table, sorted(projects)), include_aliases=True)
        for table in sorted(owned_tables(), key=lambda table: table.__name__)
    )


def owned_tables() -> set[type[Any]]:
    """Every table whose rows belong to a project."""
    columns = {"project_id", "cycle_id", "image_id", "import_id"}
    owned = {
        mapper.class_
        for mapper in Base.registry.mappers
        if columns & set(mapper.columns.keys()) and mapper.class_ not in NOT_OWNED
    }
    return owned | {Project}


def _is_visible(table: type[Any], projects: list[str]) -> ColumnElement[bool]:
    if table is Project:
        return Project.id.in_(projects)
    if hasattr(table, "project_id"):
        return table.project_id.in_(projects)  # type: ignore[no-any-return]
    # Aliases, so that a statement that has the parent itself is not taken for the one meant here.
    if hasattr(table, "cycle_id"):
        # A project has few cycles, and a cycle a million scores.
        cycle = aliased(Cycle)
        return table.cycle_id.in_(  # type: ignore[no-any-return]
            select(cycle.id).where(cycle.project_id.in_(projects))
        )
    if hasattr(table, "image_id"):
        image = aliased(Image)
        return exists().where(image.id == table.image_id, image.project_id.in_(projects))
    job = aliased(Import)
    return exists().where(job.id == table.import_id, job.project_id.in_(projects))
