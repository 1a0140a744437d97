"""Projects: creating, reading, changing and deleting them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from server.errors import Conflict, NotFound
from server.services import audit, training
from server.services.paging import PageOf, PageRequest, SortKey, paginate
from server.store import queue
from server.store.models import Cycle, Image, Import, Json, Project, ProjectClass, utc_now

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProjectView:
    """A project with its class names in the order of their ids."""

    project: Project
    class_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProjectCounts:
    """How many images a project has, by split and state; deleted ones do not count."""

    images: int
    labeled: int
    unlabeled: int
    skipped: int
    val: int
    val_labeled: int
    test: int
    test_labeled: int
    boxes: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What a PATCH asks for; None leaves a field as it is."""

    name: str | None = None
    classes: Sequence[str] | None = None
    instructions: str | None = None
    validation_images: int | None = None
    cycle_defaults: Json | None = None


def get(session: Session, project_id: str, *, for_update: bool = False) -> Project:
    """A project that is not deleted; NotFound otherwise.

    With `for_update` its row is held until the commit, and nobody else changes it meanwhile.
    """
    statement = select(Project).where(Project.id == project_id, Project.deleted_at.is_(None))
    if for_update:
        # Rows may still come to refer to it (key_share); only changes of the row itself wait.
        statement = statement.with_for_update(key_share=True)
    project = session.scalar(statement)
    if project is None:
        raise NotFound(f"no project {project_id}")
    return project


def class_names(session: Session, project_id: str) -> tuple[str, ...]:
    """The class names of a project, in the order of their ids."""
    return tuple(
        session.scalars(
            select(ProjectClass.name)
            .where(ProjectClass.project_id == project_id)
            .order_by(ProjectClass.class_id)
        )
    )


def view(session: Session, project: Project) -> ProjectView:
    """The project with its classes."""
    return ProjectView(project, class_names(session, project.id))


def page(session: Session, request: PageRequest, name: str | None = None) -> PageOf[ProjectView]:
    """Projects, oldest first; with `name` the one that has it, if there is one."""
    statement = select(Project).where(Project.deleted_at.is_(None))
    if name is not None:
        statement = statement.where(Project.name == name)
    found = paginate(
        session, statement, [SortKey(Project.id.expression, str)], request, order_name="projects"
    )
    rows = session.execute(
        select(ProjectClass.project_id, ProjectClass.name)
        .where(ProjectClass.project_id.in_([project.id for project in found.items]))
        .order_by(ProjectClass.project_id, ProjectClass.class_id)
    )
    names: dict[str, list[str]] = {}
    for project_id, class_name in rows:
        names.setdefault(project_id, []).append(class_name)
    return found.map(lambda project: ProjectView(project, tuple(names.get(project.id, ()))))


def counts(session: Session, project_id: str) -> ProjectCounts:
    """Count a project's images by split and state."""
    rows = session.execute(
        select(
            Image.split,
            Image.state,
            func.count(),
            func.count(Image.skipped_at),
            func.coalesce(func.sum(Image.num_boxes), 0),
        )
        .where(Image.project_id == project_id, Image.deleted_at.is_(None))
        .group_by(Image.split, Image.state)
    ).all()
    number: dict[tuple[str, str], int] = {(row[0], row[1]): row[2] for row in rows}
    skipped = sum(row[3] for row in rows if (row[0], row[1]) == ("pool", "unlabeled"))

    def both(split: str) -> int:
        return number.get((split, "labeled"), 0) + number.get((split, "unlabeled"), 0)

    return ProjectCounts(
        images=sum(number.values()),
        labeled=number.get(("pool", "labeled"), 0),
        unlabeled=number.get(("pool", "unlabeled"), 0),
        skipped=skipped,
        val=both("val"),
        val_labeled=number.get(("val", "labeled"), 0),
        test=both("test"),
        test_labeled=number.get(("test", "labeled"), 0),
        boxes=sum(int(row[4]) for row in rows),
    )


def create(
    session: Session,
    *,
    name: str,
    classes: Sequence[str],
    instructions: str,
    validation_images: int,
    cycle_defaults: Json,
    default_preset: str,
) -> ProjectView:
    """A new project.

    Raises:
        Conflict: the name is taken.
        Unprocessable: the training defaults cannot be.
    """
    _check_defaults(cycle_defaults, default_preset)
    project = Project(
        name=name,
        instructions=instructions,
        validation_images=validation_images,
        cycle_defaults=cycle_defaults,
    )
    session.add(project)
    _flush_name(session, name)
    _append_classes(session, project.id, 0, classes)
    audit.record(session, "project_created", project=project.id, subject=project.id, name=name)
    log.info("project created", action="project_created", project=project.id, name=name)
    return view(session, project)


def change(
    session: Session, project_id: str, changes: Changes, *, default_preset: str
) -> ProjectView:
    """Change a project.

    Raises:
        NotFound: there is no such project.
        Conflict: the name is taken, or the classes do not begin with the present ones.
        Unprocessable: the training defaults cannot be.
    """
    project = get(session, project_id, for_update=True)
    if changes.classes is not None:
        present = class_names(session, project_id)
        if tuple(changes.classes[: len(present)]) != present:
            raise Conflict(
                "classes can only be added at the end, so that class ids stay what they were: "
                f"the list must begin with {', '.join(present)}",
                code="classes_append_only",
            )
        _append_classes(session, project_id, len(present), changes.classes[len(present) :])
    if changes.cycle_defaults is not None:
        _check_defaults(changes.cycle_defaults, default_preset)
        project.cycle_defaults = changes.cycle_defaults
    if changes.instructions is not None:
        project.instructions = changes.instructions
    if changes.validation_images is not None:
        project.validation_images = changes.validation_images
    if changes.name is not None:
        project.name = changes.name
    _flush_name(session, project.name)
    changed = sorted(field for field, value in asdict(changes).items() if value is not None)
    audit.record(session, "project_changed", project=project.id, subject=project.id, fields=changed)
    return view(session, project)


def delete(session: Session, project_id: str) -> None:
    """Hide a project at once and cancel what runs for it; a sweeper purges the rest."""
    project = get(session, project_id, for_update=True)
    project.deleted_at = utc_now()
    session.flush()
    for table in (Cycle, Import):
        jobs: list[str] = list(
            session.scalars(
                select(table.id).where(
                    table.project_id == project_id, table.state.in_(queue.ACTIVE)
                )
            )
        )
        for job_id in jobs:
            queue.request_cancel(session, table, job_id)
    audit.record(
        session, "project_deleted", project=project_id, subject=project_id, name=project.name
    )
    log.info("project deleted", action="project_deleted", project=project_id)


def _append_classes(session: Session, project_id: str, start: int, names: Sequence[str]) -> None:
    session.add_all(
        ProjectClass(project_id=project_id, class_id=class_id, name=name)
        for class_id, name in enumerate(names, start)
    )
    session.flush()


def _check_defaults(defaults: dict[str, Any], default_preset: str) -> None:
    if defaults.get("training") is not None:
        training.resolve(defaults["training"], default_preset)


def _flush_name(session: Session, name: str) -> None:
    try:
        session.flush()
    except IntegrityError:
        raise Conflict(f"there is already a project named {name!r}", code="name_taken") from None
