"""A session that is limited to some projects finds nothing of the others, however it is asked."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session, aliased, sessionmaker

from server.store import scope
from server.store.models import (
    Annotation,
    ApiKey,
    Artifact,
    Base,
    Counter,
    Cycle,
    IdempotencyKey,
    Image,
    ImageClass,
    Import,
    ImportRefusal,
    Model,
    Prediction,
    Project,
    ProjectClass,
    Query,
    Score,
    WebSession,
    Worker,
)

OWNED = {
    Annotation,
    Artifact,
    Cycle,
    Image,
    ImageClass,
    Import,
    ImportRefusal,
    Model,
    Prediction,
    Project,
    ProjectClass,
    Query,
    Score,
}


def test_every_table_belongs_to_a_project_or_was_looked_at() -> None:
    tables = {mapper.class_ for mapper in Base.registry.mappers}
    assert scope.owned_tables() >= OWNED
    assert tables - scope.owned_tables() == scope.NOT_OWNED | {
        ApiKey,
        Counter,
        IdempotencyKey,
        WebSession,
    }


@pytest.fixture
def two(sessions: sessionmaker[Session]) -> dict[str, str]:
    """A row of each table in projects `a` and `b`; gives their ids."""
    ids: dict[str, str] = {}
    with sessions.begin() as session:
        for name in ("a", "b"):
            project = Project(name=name)
            session.add(project)
            session.flush()
            image = Image(
                project_id=project.id,
                ordinal=0,
                name="0.jpg",
                sha256="0" * 64,
                num_bytes=1,
                media_type="image/jpeg",
                width=9,
                height=9,
            )
            cycle = Cycle(
                project_id=project.id,
                number=1,
                kind="trained",
                budget=1,
                strategy={},
                training={},
                seed=0,
            )
            job = Import(project_id=project.id, options={})
            session.add_all([image, cycle, job])
            session.flush()
            session.add_all(
                [
                    ProjectClass(project_id=project.id, class_id=0, name="car"),
                    Annotation(
                        image_id=image.id,
                        version=1,
                        boxes=[],
                        num_classes=1,
                        author="x",
                        source="human",
                    ),
                    ImageClass(image_id=image.id, class_id=0, project_id=project.id, num_boxes=1),
                    Query(
                        cycle_id=cycle.id,
                        project_id=project.id,
                        image_id=image.id,
                        rank=1,
                        reason="random",
                    ),
                    Score(cycle_id=cycle.id, fence=0, image_id=image.id, rank=1),
                    Prediction(cycle_id=cycle.id, fence=0, image_id=image.id, boxes=[]),
                    Model(project_id=project.id, cycle_id=cycle.id, metrics={}, num_bytes=1),
                    Artifact(
                        cycle_id=cycle.id,
                        name="a",
                        sha256="0" * 64,
                        num_bytes=1,
                        media_type="text/plain",
                    ),
                    ImportRefusal(import_id=job.id, seq=0, name="n", reason="r"),
                    Worker(id=f"w{name}", name="w", device="cpu", version="1", last_seen=0),
                ]
            )
            session.flush()
            session.get_one(Worker, f"w{name}").cycle_id = cycle.id
            ids |= {
                f"project {name}": project.id,
                f"image {name}": image.id,
                f"cycle {name}": cycle.id,
            }
    return ids


@pytest.fixture
def limited(sessions: sessionmaker[Session], two: dict[str, str]) -> sessionmaker[Session]:
    """Sessions that see project `a`."""
    return scope.bound(sessions, projects=frozenset({two["project a"]}))


@pytest.mark.parametrize("table", sorted(OWNED, key=str))
def test_of_each_table_only_the_visible_row_is_found_counted_changed_and_deleted(
    limited: sessionmaker[Session], sessions: sessionmaker[Session], table: type[Any]
) -> None:
    with sessions() as session:
        everything = session.scalars(select(table)).all()
        assert len(everything) == 2
    with limited.begin() as session:
        found = session.scalars(select(table)).all()
        assert len(found) == 1
        assert session.scalar(select(func.count()).select_from(table)) == 1
        assert session.scalar(select(func.count()).select_from(select(table).subquery())) == 1
        assert len(session.execute(select(aliased(table))).all()) == 1
        key = table.__mapper__.primary_key
        by_key = [
            session.get(table, tuple(getattr(row, column.name) for column in key))
            for row in everything
        ]
        assert [row is not None for row in by_key].count(True) == 1
        column = table.__mapper__.columns[key[0].name]
        changed = session.execute(
            update(table).values({column: column}).execution_options(synchronize_session=False)
        )
        assert changed.rowcount == 1  # type: ignore[attr-defined]
    with limited.begin() as session:
        session.execute(delete(table).execution_options(synchronize_session=False))
    with sessions() as session:
        assert len(session.scalars(select(table)).all()) == 1


def test_an_empty_list_of_projects_shows_nothing(
    sessions: sessionmaker[Session], two: dict[str, str]
) -> None:
    with scope.bound(sessions, projects=frozenset())() as session:
        for table in OWNED:
            assert session.scalars(select(table)).all() == []


def test_joins_subqueries_and_conditions_see_no_more(
    limited: sessionmaker[Session], two: dict[str, str]
) -> None:
    with limited() as session:
        workers = session.execute(
            select(Worker.id, Cycle.id)
            .outerjoin(Cycle, Cycle.id == Worker.cycle_id)
            .order_by(Worker.id)
        ).all()
        assert [tuple(row) for row in workers] == [("wa", two["cycle a"]), ("wb", None)]
        joined = session.execute(
            select(Image.id, Score.rank, Annotation.version)
            .join(Annotation, Annotation.image_id == Image.id)
            .join(Score, Score.image_id == Image.id)
            .join(Cycle, Cycle.id == Score.cycle_id)
        ).all()
        assert [row[0] for row in joined] == [two["image a"]]
        refusals = session.execute(select(ImportRefusal, Import).join(Import)).all()
        assert len(refusals) == 1
        other = select(Image.id).where(Image.id == two["image b"])
        assert session.scalar(select(other.scalar_subquery())) is None
        seen = session.scalars(
            select(Worker.id).where(exists().where(Cycle.id == Worker.cycle_id))
        ).all()
        assert seen == ["wa"]
        assert session.scalars(select(Image.id).union(select(Image.id))).all() == [two["image a"]]
        locked = select(Image.id).with_for_update(of=Image, key_share=True)
        assert session.scalars(locked).all() == [two["image a"]]


def test_what_a_limited_session_writes_comes_back_to_it(
    limited: sessionmaker[Session], two: dict[str, str]
) -> None:
    with limited.begin() as session:
        project = session.get_one(Project, two["project a"])
        project.instructions = "changed"
        session.flush()
        session.refresh(project)
        assert project.instructions == "changed"
        returned = session.scalar(
            update(Project)
            .where(Project.id == two["project b"])
            .values(next_ordinal=Project.next_ordinal + 1)
            .returning(Project.next_ordinal)
        )
        assert returned is None
