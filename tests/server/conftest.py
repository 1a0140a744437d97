"""A running application on each database, pictures to upload, and a worker that only writes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image as Pillow
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from server.deps import Context
from server.main import create_app
from server.settings import Settings
from server.store import queue, writeback
from server.store.blobs import BlobStore
from server.store.models import Cycle, Json, Project, Worker
from server.store.pool import take_snapshot
from server.store.queue import Lease
from server.store.writeback import ArtifactRecord, ModelRecord

CLASSES = ["car", "person"]
# A server without keys answers to local names alone.
LOCAL = "http://127.0.0.1"


@pytest.fixture
def settings(database_url: str, data_dir: Path) -> Settings:
    return Settings(data_dir=data_dir, database_url=database_url, admin_key=None)


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def context(app: FastAPI) -> Context:
    return cast(Context, app.state.context)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=LOCAL) as client:
        yield client


def picture_bytes(number: int, width: int = 40, height: int = 30, format: str = "PNG") -> bytes:
    """A picture whose bytes differ with the number."""
    picture = Pillow.new("RGB", (width, height), (number % 256, number // 256 % 256, 77))
    buffer = io.BytesIO()
    picture.save(buffer, format)
    return buffer.getvalue()


@pytest.fixture
def picture() -> Callable[..., bytes]:
    return picture_bytes


@dataclass
class Pool:
    """A project with some images, through the API."""

    client: TestClient
    project: str

    def upload(self, number: int, *, split: str = "pool", start: int = 0) -> list[str]:
        """Adds pictures named 0000.png and so on; gives their ids."""
        files = [
            ("files", (f"{i:04}.png", picture_bytes(i), "image/png"))
            for i in range(start, start + number)
        ]
        answer = self.client.post(
            "/images", data={"project": self.project, "split": split}, files=files
        )
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    def label(self, image_id: str, boxes: list[Json] | None = None, **more: Any) -> Json:
        """Saves boxes (one car unless given) on top of the current version."""
        version = self.client.get(f"/images/{image_id}/annotations").json()["version"]
        if boxes is None:
            boxes = [{"class": "car", "x1": 1, "y1": 2, "x2": 11, "y2": 12}]
        answer = self.client.put(
            f"/images/{image_id}/annotations", json={"version": version, "boxes": boxes, **more}
        )
        assert answer.status_code == 200, answer.text
        return cast(Json, answer.json())

    def start_cycle(self, budget: int = 3, **more: Any) -> str:
        """Queues a cycle; gives its id."""
        answer = self.client.post(
            "/cycles", json={"project": self.project, "budget": budget, **more}
        )
        assert answer.status_code == 202, answer.text
        return cast(str, answer.json()["id"])

    def queries(self, **filters: Any) -> list[Json]:
        """The newest selection."""
        answer = self.client.get("/queries", params={"project": self.project, **filters})
        assert answer.status_code == 200, answer.text
        return cast(list[Json], answer.json()["items"])


@pytest.fixture
def pool(client: TestClient) -> Pool:
    answer = client.post("/projects", json={"name": "street", "classes": CLASSES})
    assert answer.status_code == 201, answer.text
    return Pool(client, answer.json()["id"])


@dataclass
class Scribe:
    """Does what a worker does to the database, without training: images score by ordinal."""

    sessions: sessionmaker[Session]
    blobs: BlobStore

    def report(
        self, seconds_ago: float = 0.0, *, cycle: str | None = None, name: str = "w"
    ) -> None:
        """A worker says that it is there, or was so long ago."""
        from server.store.database import now_seconds

        with self.sessions.begin() as session:
            session.merge(
                Worker(
                    id=f"019ab3a1-0000-7000-8000-00000000000{len(name)}",
                    name=name,
                    device="cpu",
                    version="0.1.0",
                    last_seen=(session.scalar(select(now_seconds())) or 0.0) - seconds_ago,
                    cycle_id=cycle,
                )
            )

    def run(self, cycle_id: str, metrics: Json | None = None) -> None:
        """Takes the oldest waiting cycle, which must be this one, through to its queries."""
        with self.sessions.begin() as session:
            lease = queue.claim(session, Cycle, "scribe", 60)
        assert lease is not None
        assert lease.job_id == cycle_id
        with self.sessions() as session:
            cycle = session.get_one(Cycle, cycle_id)
            snapshot = take_snapshot(session, cycle.project_id)
        trained = cycle.kind == "trained"
        writeback.write_scores(
            self.sessions,
            lease,
            (
                (image.id, rank, 1 / rank if trained else None)
                for rank, image in enumerate(snapshot.unlabeled, start=1)
            ),
        )
        heatmaps, model, artifacts = {}, None, []
        if trained:
            box = {"class_id": 1, "score": 0.5, "x1": 1.0, "y1": 2.0, "x2": 9.0, "y2": 9.0}
            better = {**box, "class_id": 0, "score": 0.75}
            writeback.write_predictions(
                self.sessions,
                lease,
                ((image.id, [box, better]) for image in (*snapshot.unlabeled, *snapshot.labeled)),
            )
            heat = self.blobs.put_bytes(picture_bytes(7, 8, 8))
            heatmaps = {image.id: heat.sha256 for image in snapshot.unlabeled}
            weights = self.blobs.put_bytes(b"weights of " + cycle_id.encode())
            model = ModelRecord(weights.sha256, weights.num_bytes, metrics or {})
            artifacts.append(
                ArtifactRecord(
                    "model.safetensors",
                    weights.sha256,
                    weights.num_bytes,
                    "application/octet-stream",
                )
            )
            scores = io.BytesIO()
            count = len(snapshot.unlabeled)
            np.savez(
                scores,
                ordinal=np.array([image.ordinal for image in snapshot.unlabeled], dtype=np.int64),
                uncertainty=1 / np.arange(1, count + 1),
            )
            stored = self.blobs.put_bytes(scores.getvalue())
            artifacts.append(
                ArtifactRecord(
                    "scores.npz", stored.sha256, stored.num_bytes, "application/octet-stream"
                )
            )
        config = self.blobs.put_bytes(b'{"cycle": "%s"}' % cycle_id.encode())
        artifacts.append(
            ArtifactRecord("config.json", config.sha256, config.num_bytes, "application/json")
        )
        with self.sessions.begin() as session:
            writeback.publish(
                session,
                lease,
                heatmaps=heatmaps,
                artifacts=artifacts,
                model=model,
                metrics=metrics,
                message="done",
            )


@pytest.fixture
def scribe(context: Context) -> Scribe:
    return Scribe(context.sessions, context.blobs)


@pytest.fixture
def lease(sessions: sessionmaker[Session]) -> Lease:
    """Of a cycle that has just been claimed."""
    with sessions.begin() as session:
        project = Project(name="road")
        session.add(project)
        session.flush()
        session.add(
            Cycle(
                project_id=project.id,
                number=1,
                kind="initial",
                budget=1,
                strategy={},
                training={},
                seed=1,
            )
        )
    with sessions.begin() as session:
        lease = queue.claim(session, Cycle, "w", 600)
    assert lease is not None
    return lease
