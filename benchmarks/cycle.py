"""What checkpoints cost: a trained cycle like the demo's, on SQLite, with a worker's defaults."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image as Picture
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.rows import Row
from server.store import queue
from server.store.blobs import BlobStore
from server.store.database import make_engine, session_factory, upgrade
from server.store.models import Annotation, Cycle, Image, Project, ProjectClass
from worker import cycle
from worker.miaod.config import from_dict
from worker.progress import ProgressPipe
from worker.scenes import CLASS_NAMES, Scene, draw_scene
from worker.settings import WorkerSettings

# The demo's first trained cycle: its pictures, its schedule, its seed.
LABELED, POOL, VALIDATION = 30, 300, 80
SIZE = (256, 192)
SEED = 0
TRAINING = {
    "preset": "cpu",
    "image_long_side": 256,
    "label_min_steps": 45,
    "adversarial_min_steps": 10,
}


def run() -> Iterator[Row]:
    """Checkpoints against the cycle that they are part of."""
    with tempfile.TemporaryDirectory() as folder:
        settings = WorkerSettings.model_validate({"data_dir": Path(folder), "device": "cpu"})
        engine = make_engine(settings.resolved_database_url)
        upgrade(engine)
        sessions = session_factory(engine)
        _fill(sessions, BlobStore(settings.data_dir))
        with sessions.begin() as session:
            lease = queue.claim(session, Cycle, "bench", 24 * 3600.0)
        assert lease is not None
        pipe_fd = os.open(os.devnull, os.O_WRONLY)
        cycle.run(lease, settings, ProgressPipe(pipe_fd))
        os.close(pipe_fd)
        with sessions() as session:
            metrics = session.get_one(Cycle, lease.job_id).metrics
        engine.dispose()
    assert metrics is not None
    seconds = metrics["seconds"]
    spent = seconds.pop("checkpoints")
    yield Row(
        f"checkpoints, every {settings.checkpoint_seconds:g} s and at borders",
        spent,
        f"the cycle, {LABELED} of {POOL} images labeled",
        sum(seconds.values()),
    )


def _fill(sessions: sessionmaker[Session], blobs: BlobStore) -> None:
    with sessions.begin() as session:
        project = Project(name="bench")
        session.add(project)
        session.flush()
        for class_id, name in enumerate(CLASS_NAMES):
            session.add(ProjectClass(project_id=project.id, class_id=class_id, name=name))
        for number in range(POOL + VALIDATION):
            is_pool = number < POOL
            scene = draw_scene(0, number, SIZE)
            _add_image(
                session,
                blobs,
                project.id,
                number,
                scene,
                split="pool" if is_pool else "val",
                labeled=not is_pool or number < LABELED,
            )
        session.add(
            Cycle(
                project_id=project.id,
                number=1,
                kind="trained",
                budget=30,
                strategy={"name": "mi-aod"},
                training={**TRAINING, **from_dict(TRAINING).to_dict()},
                seed=SEED,
            )
        )


def _add_image(
    session: Session,
    blobs: BlobStore,
    project_id: str,
    number: int,
    scene: Scene,
    *,
    split: str,
    labeled: bool,
) -> None:
    file = io.BytesIO()
    Picture.fromarray(scene.image).save(file, "PNG")
    blob = blobs.put_bytes(file.getvalue())
    width, height = SIZE
    image = Image(
        project_id=project_id,
        ordinal=number,
        name=f"{number}.png",
        split=split,
        state="labeled" if labeled else "unlabeled",
        sha256=blob.sha256,
        num_bytes=blob.num_bytes,
        media_type="image/png",
        width=width,
        height=height,
        annotation_version=int(labeled),
        num_boxes=len(scene.boxes) if labeled else 0,
    )
    session.add(image)
    session.flush()
    if labeled:
        boxes = [
            {
                "class_id": CLASS_NAMES.index(name),
                **dict(zip(("x1", "y1", "x2", "y2"), map(float, box), strict=True)),
                "difficult": False,
            }
            for name, box in zip(scene.class_names, scene.boxes, strict=True)
        ]
        session.add(
            Annotation(
                image_id=image.id,
                version=1,
                boxes=boxes,
                num_classes=len(CLASS_NAMES),
                author="bench",
                source="import",
            )
        )
