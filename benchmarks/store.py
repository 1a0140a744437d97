"""What the database costs as the pool grows: a page of images, the scores of a cycle, its end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.rows import Row, median_seconds
from server.store import queue, writeback
from server.store.database import make_engine, session_factory, upgrade
from server.store.ids import new_id
from server.store.models import Cycle, Image, Project

SMALL, LARGE = 1_000, 100_000
PAGE = 100


def run() -> Iterator[Row]:
    """Each figure with 100,000 images against the same with 1,000, on SQLite."""
    small, large = _measure(SMALL), _measure(LARGE)
    for what, seconds in large.items():
        yield Row(f"{what}, {LARGE:,} images", seconds, f"{SMALL:,} images", small[what])


def _measure(num_images: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        engine = make_engine(f"sqlite:///{Path(folder) / 'bench.db'}")
        upgrade(engine)
        sessions = session_factory(engine)
        project_id, image_ids = _fill(sessions, num_images)
        lease = _claimed_cycle(sessions, project_id)
        rows = [(image_id, rank, 1 / rank) for rank, image_id in enumerate(image_ids, start=1)]

        def publish() -> None:
            with sessions.begin() as session:
                writeback.publish(
                    session, lease, heatmaps={}, artifacts=[], model=None, metrics=None, message=""
                )

        figures = {
            f"page of {PAGE} from the middle": median_seconds(
                lambda: _page(sessions, project_id, num_images // 2), runs=5
            ),
            "writing the scores": median_seconds(
                lambda: writeback.write_scores(sessions, lease, rows), runs=1, warm_up=0
            ),
            "publishing the cycle": median_seconds(publish, runs=1, warm_up=0),
        }
        engine.dispose()
        return figures


def _fill(sessions: sessionmaker[Session], num_images: int) -> tuple[str, list[str]]:
    with sessions.begin() as session:
        project = Project(name="bench", next_ordinal=num_images)
        session.add(project)
        session.flush()
        images = [
            {
                "id": new_id(),
                "project_id": project.id,
                "ordinal": ordinal,
                "name": f"{ordinal}.jpg",
                "sha256": f"{ordinal:064x}",
                "num_bytes": 1,
                "media_type": "image/jpeg",
                "width": 640,
                "height": 480,
            }
            for ordinal in range(num_images)
        ]
        session.execute(insert(Image), images)
        return project.id, [str(image["id"]) for image in images]


def _claimed_cycle(sessions: sessionmaker[Session], project_id: str) -> queue.Lease:
    with sessions.begin() as session:
        session.add(
            Cycle(
                project_id=project_id,
                number=1,
                kind="trained",
                budget=50,
                strategy={"name": "mi-aod"},
                training={},
                seed=0,
            )
        )
        session.execute(update(Project).values(next_cycle_number=2))
    with sessions.begin() as session:
        lease = queue.claim(session, Cycle, new_id(), 600.0)
    assert lease is not None
    return lease


def _page(sessions: sessionmaker[Session], project_id: str, after: int) -> int:
    with sessions() as session:
        query = (
            select(Image)
            .where(
                Image.project_id == project_id, Image.ordinal > after, Image.deleted_at.is_(None)
            )
            .order_by(Image.ordinal)
            .limit(PAGE)
        )
        return len(session.scalars(query).all())
