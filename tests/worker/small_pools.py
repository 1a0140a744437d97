"""Projects of a dozen drawn pictures, and a network that trains on them within seconds."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from server.store.blobs import BlobStore
from server.store.models import (
    Annotation,
    Artifact,
    Cycle,
    Image,
    ImageClass,
    Json,
    Prediction,
    Query,
    Score,
)
from worker.loop import Supervisor
from worker.miaod.config import PRESETS
from worker.settings import WorkerSettings

CLASSES = ("square", "disc")
# As small as the real thing can be: two steps a stage, a network of a few thousand weights.
TINY = {
    "image_long_side": 64,
    "image_short_side": 64,
    "num_levels": 3,
    "fpn_channels": 8,
    "head_channels": 8,
    "batch_size": 2,
    "unlabeled_batch_size": 2,
    "label_min_steps": 2,
    "label_max_steps": 2,
    "adversarial_min_steps": 1,
    "adversarial_max_steps": 1,
    "rounds": 1,
    "warmup_steps": 0,
    "score_threshold": 0.0,
    "detections_per_image": 5,
    "num_threads": 1,
}


@dataclass
class Pool:
    """A project on disk and in the database, for a test to change."""

    sessions: sessionmaker[Session]
    blobs: BlobStore
    project_id: str
    num_images: int = 0
    num_cycles: int = 0

    def add_image(self, *, split: str = "pool", labeled: bool = False) -> str:
        """Draw a picture, with its one object as annotation if it is to be labeled."""
        ordinal = self.num_images
        self.num_images += 1
        data, box = draw(ordinal)
        blob = self.blobs.put_bytes(data)
        with self.sessions.begin() as session:
            image = Image(
                project_id=self.project_id,
                ordinal=ordinal,
                name=f"street/{ordinal:04}.png",
                split=split,
                sha256=blob.sha256,
                num_bytes=blob.num_bytes,
                media_type="image/png",
                width=80,
                height=64,
            )
            session.add(image)
            session.flush()
            image_id = image.id
        if labeled:
            self.annotate(image_id, [box])
        return image_id

    def annotate(self, image_id: str, boxes: list[Json] | None) -> None:
        """Add a revision; None makes the image unlabeled again."""
        with self.sessions.begin() as session:
            image = session.get_one(Image, image_id)
            image.annotation_version += 1
            image.state = "unlabeled" if boxes is None else "labeled"
            image.num_boxes = len(boxes or [])
            session.add(
                Annotation(
                    image_id=image_id,
                    version=image.annotation_version,
                    boxes=boxes,
                    num_classes=len(CLASSES),
                    author="ann",
                    source="human",
                )
            )

    def unlabeled_images(self) -> list[tuple[str, int]]:
        """Id and ordinal of all images without a label, whatever their split."""
        with self.sessions() as session:
            query = select(Image.id, Image.ordinal).where(
                Image.project_id == self.project_id, Image.state == "unlabeled"
            )
            return [(row.id, row.ordinal) for row in session.execute(query.order_by(Image.ordinal))]

    def leave_counts_behind(self, image_id: str, box: Json) -> None:
        """Counts of an annotation that is no more, as a fault might leave them."""
        with self.sessions.begin() as session:
            session.get_one(Image, image_id).num_boxes = 2
            session.add(
                ImageClass(
                    image_id=image_id,
                    class_id=box["class_id"],
                    project_id=self.project_id,
                    num_boxes=2,
                )
            )

    def everything_about(self, cycle_id: str) -> Json:
        """What a cycle computed, with ordinals for ids and without times."""
        files = self.artifacts(cycle_id)
        metrics = json.loads(files.pop("metrics.json"))
        config = json.loads(files.pop("config.json"))
        del metrics["seconds"], config["project"], files["environment.json"]
        steps = [json.loads(line) for line in files.pop("log.jsonl").splitlines()]
        for step in steps:
            del step["seconds"]
        with self.sessions() as session:
            images = select(Image.id, Image.ordinal).where(Image.project_id == self.project_id)
            ordinals = {row.id: row.ordinal for row in session.execute(images)}
            # Rows of earlier attempts are there, unseen, until the next sweep.
            fence = session.get_one(Cycle, cycle_id).fence
            scores = session.scalars(
                select(Score).where(Score.cycle_id == cycle_id, Score.fence == fence)
            ).all()
            found = session.scalars(
                select(Prediction).where(Prediction.cycle_id == cycle_id, Prediction.fence == fence)
            ).all()
        return {
            **files,
            "config": config,
            "metrics": metrics,
            "steps": steps,
            "queries": [
                (ordinals[q.image_id], q.rank, q.uncertainty, q.reason, q.heatmap_sha256)
                for q in self.queries(cycle_id)
            ],
            "scores": sorted((ordinals[s.image_id], s.rank, s.uncertainty) for s in scores),
            "predictions": {ordinals[p.image_id]: p.boxes for p in found},
        }

    def order_cycle(
        self, kind: str, *, strategy: str = "mi-aod", options: Json | None = None, **training: Any
    ) -> str:
        """Queue a cycle."""
        self.num_cycles += 1
        with self.sessions.begin() as session:
            cycle = Cycle(
                project_id=self.project_id,
                number=self.num_cycles,
                kind=kind,
                budget=3,
                strategy={"name": strategy, **(options or {})},
                training={"preset": "cpu", **PRESETS["cpu"].to_dict(), **TINY, **training},
                seed=11,
            )
            session.add(cycle)
            session.flush()
            return cycle.id

    def row(self, cycle_id: str) -> Cycle:
        with self.sessions() as session:
            return session.get_one(Cycle, cycle_id)

    def queries(self, cycle_id: str) -> Sequence[Query]:
        with self.sessions() as session:
            query = select(Query).where(Query.cycle_id == cycle_id).order_by(Query.rank)
            return session.scalars(query).all()

    def artifacts(self, cycle_id: str) -> dict[str, bytes]:
        with self.sessions() as session:
            rows = session.scalars(select(Artifact).where(Artifact.cycle_id == cycle_id)).all()
        content = {row.name: self.blobs.read_bytes(row.sha256) for row in rows}
        for row in rows:
            data = content[row.name]
            assert hashlib.sha256(data).hexdigest() == row.sha256
            assert len(data) == row.num_bytes
        return content


def draw(ordinal: int) -> tuple[bytes, Json]:
    """A PNG of 80 x 64 pixels with one object, and the object's box."""
    rng = np.random.default_rng(ordinal)
    picture = Picture.fromarray(rng.integers(0, 90, (64, 80, 3), dtype=np.uint8))
    x1, y1 = int(rng.integers(0, 50)), int(rng.integers(0, 36))
    side = int(rng.integers(16, 28))
    class_id = ordinal % 2
    pen = ImageDraw.Draw(picture)
    (pen.ellipse if class_id else pen.rectangle)((x1, y1, x1 + side, y1 + side), fill="yellow")
    file = io.BytesIO()
    picture.save(file, "PNG")
    box = {
        "class_id": class_id,
        "x1": float(x1),
        "y1": float(y1),
        "x2": float(x1 + side + 1),
        "y2": float(y1 + side + 1),
        "difficult": False,
    }
    return file.getvalue(), box


@contextmanager
def worker(
    settings: WorkerSettings, sessions: sessionmaker[Session], command: Sequence[str] | None = None
) -> Iterator[None]:
    supervisor = (
        Supervisor(settings, sessions, command) if command else Supervisor(settings, sessions)
    )
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield
    finally:
        supervisor.stop()
        thread.join(timeout=30)
        assert not thread.is_alive()


def wait_for_end(pool: Pool, cycle_id: str) -> Cycle:
    deadline = time.monotonic() + 60
    while (row := pool.row(cycle_id)).state in ("queued", "running"):
        assert time.monotonic() < deadline, f"still {row.state}: {row.message}"
        time.sleep(0.1)
    return row
