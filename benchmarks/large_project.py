"""A project of 100,000 images as it would be after five cycles, written straight to the store."""

from __future__ import annotations

import hashlib
import io
import os
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture
from sqlalchemy import insert
from sqlalchemy.orm import Session, sessionmaker

from server.store.blobs import BlobStore
from server.store.ids import new_id
from server.store.models import (
    Annotation,
    Artifact,
    Cycle,
    Image,
    ImageClass,
    Json,
    Model,
    Prediction,
    Project,
    ProjectClass,
    Query,
    Score,
    utc_now,
)
from worker.scenes import CLASS_NAMES, draw_scene

WIDTH, HEIGHT = 640, 480
# All images show one of these; each has a name of its own in the blob store all the same.
NUM_PICTURES = 24
NUM_CYCLES = 5
BUDGET = 500
AUTHORS = ("ada", "ben", "cleo")


def fill(sessions: sessionmaker[Session], data_dir: Path, num_images: int) -> str:
    """Write the project; gives its id."""
    random.seed(0)
    blobs = BlobStore(data_dir)
    images = _images(blobs, num_images)
    labeled = images[: NUM_CYCLES * BUDGET]
    unlabeled = images[NUM_CYCLES * BUDGET :]
    with sessions.begin() as session:
        project = Project(name="large", next_ordinal=num_images, next_cycle_number=NUM_CYCLES + 1)
        session.add(project)
        session.flush()
        for number, name in enumerate(CLASS_NAMES):
            session.add(ProjectClass(project_id=project.id, class_id=number, name=name))
        for image in labeled:
            image |= {"state": "labeled", "annotation_version": 1, "num_boxes": 2}
        session.execute(insert(Image), [{"project_id": project.id, **row} for row in images])
        _label(session, project.id, labeled)
        # Ids of one millisecond are in no order, and cycles are listed by theirs.
        ids = sorted(new_id() for _ in range(NUM_CYCLES))
        cycles = [_cycle(session, project.id, id_, number) for number, id_ in enumerate(ids, 1)]
        newest = cycles[-1]
        project.scored_cycle_id = newest.id
        uncertainty = sorted((random.betavariate(2, 9) for _ in unlabeled), reverse=True)
        _score(session, blobs, newest, unlabeled, uncertainty)
        for cycle in cycles[:-1]:
            _keep_scores(session, blobs, cycle, uncertainty)
        return project.id


def _images(blobs: BlobStore, count: int) -> list[dict[str, Any]]:
    files = []
    for number in range(NUM_PICTURES):
        file = io.BytesIO()
        Picture.fromarray(draw_scene(3, number, (WIDTH, HEIGHT)).image).save(file, "JPEG")
        files.append(blobs.path(blobs.put_bytes(file.getvalue()).sha256))
    rows = []
    for ordinal in range(count):
        sha256 = hashlib.sha256(str(ordinal).encode()).hexdigest()
        path = blobs.path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(files[ordinal % NUM_PICTURES], path)
        rows.append(
            {
                "id": new_id(),
                "ordinal": ordinal,
                "name": f"line/{ordinal:06}.jpg",
                "sha256": sha256,
                "num_bytes": 50_000,
                "media_type": "image/jpeg",
                "width": WIDTH,
                "height": HEIGHT,
                "state": "unlabeled",
                "annotation_version": 0,
                "num_boxes": 0,
            }
        )
    return rows


def _label(session: Session, project_id: str, labeled: list[dict[str, Any]]) -> None:
    box = {"x1": 20.0, "y1": 20.0, "x2": 120.0, "y2": 120.0, "difficult": False}
    session.execute(
        insert(Annotation),
        [
            {
                "image_id": image["id"],
                "version": 1,
                "boxes": [{"class_id": image["ordinal"] % 5, **box}] * 2,
                "num_classes": len(CLASS_NAMES),
                "author": random.choice(AUTHORS),
                "source": "human",
                "seconds": random.uniform(3, 30),
            }
            for image in labeled
        ],
    )
    session.execute(
        insert(ImageClass),
        [
            {
                "image_id": image["id"],
                "class_id": image["ordinal"] % 5,
                "project_id": project_id,
                "num_boxes": 2,
            }
            for image in labeled
        ],
    )


def _cycle(session: Session, project_id: str, cycle_id: str, number: int) -> Cycle:
    ap = 0.2 + 0.1 * number
    metrics: Json = {
        "map50": ap,
        "map50_voc07": ap,
        "map": ap / 2,
        "per_class": [
            {"class": name, "ap50": ap, "ap50_voc07": ap, "ap": ap / 2, "num_boxes": 40}
            for name in CLASS_NAMES
        ],
        "validation_images": 200,
        "validation_sha256": "0" * 64,
    }
    ended = utc_now() - timedelta(days=NUM_CYCLES - number)
    cycle = Cycle(
        id=cycle_id,
        project_id=project_id,
        number=number,
        kind="trained",
        state="succeeded",
        budget=BUDGET,
        strategy={"name": "mi-aod"},
        training={"preset": "cpu"},
        seed=number,
        progress=1.0,
        fence=1,
        snapshot={
            "labeled_images": number * BUDGET,
            "boxes": number * 2 * BUDGET,
            "pool_images": 100_000 - number * BUDGET,
        },
        metrics=metrics,
        num_selected=BUDGET,
        started_at=ended - timedelta(hours=2),
        finished_at=ended,
    )
    session.add(cycle)
    session.flush()
    session.add(
        Model(project_id=project_id, cycle_id=cycle.id, metrics=metrics, num_bytes=8_000_000)
    )
    return cycle


def _score(
    session: Session,
    blobs: BlobStore,
    cycle: Cycle,
    images: list[dict[str, Any]],
    uncertainty: list[float],
) -> None:
    key = {"cycle_id": cycle.id, "fence": cycle.fence}
    scores = [
        {**key, "image_id": image["id"], "rank": rank, "uncertainty": value}
        for rank, (image, value) in enumerate(zip(images, uncertainty, strict=True), start=1)
    ]
    session.execute(insert(Score), scores)
    heat = io.BytesIO()
    Picture.linear_gradient("L").save(heat, "PNG")
    heat_sha256 = blobs.put_bytes(heat.getvalue()).sha256
    selected = scores[:BUDGET]
    session.execute(
        insert(Query),
        [
            {
                "cycle_id": cycle.id,
                "project_id": cycle.project_id,
                "image_id": row["image_id"],
                "rank": row["rank"],
                "uncertainty": row["uncertainty"],
                "reason": "uncertainty",
                "heatmap_sha256": heat_sha256,
            }
            for row in selected
        ],
    )
    box = {"x1": 30.0, "y1": 30.0, "x2": 200.0, "y2": 200.0}
    session.execute(
        insert(Prediction),
        [
            {
                **key,
                "image_id": row["image_id"],
                "boxes": [{"class_id": n % 5, "score": 0.9 - n / 50, **box} for n in range(20)],
            }
            for row in selected
        ],
    )
    _keep_scores(session, blobs, cycle, uncertainty)


def _keep_scores(
    session: Session, blobs: BlobStore, cycle: Cycle, uncertainty: list[float]
) -> None:
    file = io.BytesIO()
    np.savez(file, ordinal=np.arange(len(uncertainty)), uncertainty=np.array(uncertainty))
    blob = blobs.put_bytes(file.getvalue())
    session.add(
        Artifact(
            cycle_id=cycle.id,
            name="scores.npz",
            sha256=blob.sha256,
            num_bytes=blob.num_bytes,
            media_type="application/octet-stream",
        )
    )
