"""A small world in the database for the store's tests: projects, images, cycles, in few words."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from server.store import queue
from server.store.database import now_seconds
from server.store.ids import new_id
from server.store.models import (
    Annotation,
    Base,
    Cycle,
    Image,
    Import,
    Json,
    Project,
    ProjectClass,
    Query,
    utc_now,
)
from server.store.queue import Lease

BOX: Json = {"class_id": 0, "x1": 1.0, "y1": 2.0, "x2": 30.0, "y2": 40.0, "difficult": False}


class World:
    """Makes rows as the services would, each call in a transaction of its own."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self.sessions = sessions

    def add(self, *rows: Base) -> None:
        with self.sessions.begin() as session:
            session.add_all(rows)

    def get(self, table: type[Any], *key: Any) -> Any:
        with self.sessions() as session:
            return session.get_one(table, key[0] if len(key) == 1 else key)

    def all(self, table: type[Any], *order: Any) -> list[Any]:
        with self.sessions() as session:
            return list(session.scalars(select(table).order_by(*order)))

    def change(self, table: type[Any], key: str, **values: Any) -> None:
        with self.sessions.begin() as session:
            session.execute(update(table).where(table.id == key).values(**values))

    def project(self, *class_names: str, **values: Any) -> str:
        project_id = new_id()
        self.add(Project(id=project_id, **{"name": project_id, **values}))
        for class_id, name in enumerate(class_names):
            self.add(ProjectClass(project_id=project_id, class_id=class_id, name=name))
        return project_id

    def images(self, project_id: str, number: int, **values: Any) -> list[str]:
        """Unlabeled pool images, unless told otherwise, in order of their ordinals."""
        with self.sessions() as session:
            first = len(
                session.scalars(select(Image.id).where(Image.project_id == project_id)).all()
            )
        made = [
            Image(
                project_id=project_id,
                ordinal=ordinal,
                **{
                    "name": f"street/{ordinal:04}.jpg",
                    "sha256": sha256_of(f"{project_id} {ordinal}"),
                    "num_bytes": 1000,
                    "media_type": "image/jpeg",
                    "width": 64,
                    "height": 48,
                    **values,
                },
            )
            for ordinal in range(first, first + number)
        ]
        self.add(*made)
        return [image.id for image in made]

    def label(self, image_id: str, boxes: list[Json] | None, num_classes: int = 1) -> None:
        version = self.get(Image, image_id).annotation_version + 1
        self.add(
            Annotation(
                image_id=image_id,
                version=version,
                boxes=boxes,
                num_classes=num_classes,
                author="ada",
                source="human",
            )
        )
        self.change(
            Image,
            image_id,
            annotation_version=version,
            state="unlabeled" if boxes is None else "labeled",
            num_boxes=len(boxes or []),
        )

    def cycle(self, project_id: str, **values: Any) -> str:
        with self.sessions() as session:
            earlier = session.scalars(select(Cycle.id).where(Cycle.project_id == project_id)).all()
        cycle = Cycle(
            project_id=project_id,
            **{
                "number": len(earlier) + 1,
                "kind": "trained",
                "budget": 2,
                "strategy": {"name": "mi-aod"},
                "training": {"preset": "cpu"},
                "seed": 7,
                **values,
            },
        )
        self.add(cycle)
        return cycle.id

    def import_job(self, project_id: str, **values: Any) -> str:
        job = Import(project_id=project_id, options={}, **values)
        self.add(job)
        return job.id

    def claim(
        self,
        table: queue.JobTable = Cycle,
        worker_id: str = "worker-1",
        lease_seconds: float = 60.0,
    ) -> Lease:
        with self.sessions.begin() as session:
            lease = queue.claim(session, table, worker_id, lease_seconds)
        assert lease is not None
        return lease

    def lapsing_claim(self, table: queue.JobTable = Cycle, worker_id: str = "worker-1") -> Lease:
        """A claim whose lease has lapsed as soon as it is made."""
        return self.claim(table, worker_id, lease_seconds=-1.0)

    def claim_query(self, image_id: str, seconds: float) -> None:
        """An annotator takes the open query of an image."""
        with self.sessions.begin() as session:
            session.execute(
                update(Query)
                .where(Query.image_id == image_id, Query.state == "open")
                .values(
                    state="claimed",
                    claim_token="token",
                    claimed_by="ada",
                    claimed_until=now_seconds() + seconds,
                )
            )

    def delete(self, table: type[Any], key: str) -> None:
        self.change(table, key, deleted_at=utc_now())


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def world(sessions: sessionmaker[Session]) -> World:
    return World(sessions)


@pytest.fixture
def box() -> Json:
    """A box as annotations store it."""
    return dict(BOX)
