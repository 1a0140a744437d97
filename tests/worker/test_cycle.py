"""Whole cycles on small drawn pictures, with a real database, real blobs and the real algorithm."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image as Picture
from PIL import ImageDraw
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from server.store import queue
from server.store.blobs import BlobStore
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
    Worker,
)
from server.store.queue import Lease, LeaseLost
from worker import cycle as cycle_module
from worker.failures import CycleFailed
from worker.loop import Supervisor
from worker.miaod import strategies
from worker.miaod.checkpoint import load_model
from worker.miaod.config import PRESETS
from worker.miaod.selection import rank_at_random, rank_by_uncertainty
from worker.progress import ProgressLines, ProgressPipe
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
ARTIFACTS_OF_EVERY_CYCLE = {
    "config.json",
    "environment.json",
    "labeled.txt",
    "unlabeled.txt",
    "X_L.npy",
    "X_U.npy",
}
ARTIFACTS_OF_TRAINING = {"log.jsonl", "scores.npz", "metrics.json", "model.safetensors"}


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
            scores = session.scalars(select(Score).where(Score.cycle_id == cycle_id)).all()
            found = session.scalars(select(Prediction).where(Prediction.cycle_id == cycle_id)).all()
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


@pytest.fixture
def make_pool(sessions: sessionmaker[Session], blobs: BlobStore) -> Callable[..., Pool]:
    def make(
        *, labeled: int = 4, unlabeled: int = 8, validation: int = 3, validation_images: int = 0
    ) -> Pool:
        with sessions.begin() as session:
            number = session.scalar(select(func.count()).select_from(Project))
            project = Project(name=f"road {number}", validation_images=validation_images)
            session.add(project)
            session.flush()
            for class_id, name in enumerate(CLASSES):
                session.add(ProjectClass(project_id=project.id, class_id=class_id, name=name))
            pool = Pool(sessions, blobs, project.id)
        for _ in range(labeled):
            pool.add_image(labeled=True)
        for _ in range(unlabeled):
            pool.add_image()
        for _ in range(validation):
            pool.add_image(split="val", labeled=True)
        return pool

    return make


@pytest.fixture
def run_here(
    sessions: sessionmaker[Session], settings: WorkerSettings
) -> Callable[[], list[dict[str, Any]]]:
    """Claims the next cycle and runs it in this process; gives what it reported."""

    def run() -> list[dict[str, Any]]:
        with sessions.begin() as session:
            lease = queue.claim(session, Cycle, "here", 600)
        assert lease is not None
        read_fd, write_fd = os.pipe()
        try:
            cycle_module.run(lease, settings, ProgressPipe(write_fd))
        finally:
            os.close(write_fd)
            with os.fdopen(read_fd, "rb") as reader:
                said = ProgressLines().feed(reader.read())
        return said

    return run


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


def test_a_trained_cycle_goes_from_the_order_to_queries_model_and_artifacts(
    make_pool: Callable[..., Pool],
    sessions: sessionmaker[Session],
    settings: WorkerSettings,
    blobs: BlobStore,
) -> None:
    pool = make_pool()
    cycle_id = pool.order_cycle("trained")
    with worker(settings, sessions):
        row = wait_for_end(pool, cycle_id)

    assert (row.state, row.error, row.attempts, row.progress) == ("succeeded", None, 0, 1.0)
    assert row.snapshot == {
        "labeled_images": 4,
        "boxes": 4,
        "pool_images": 8,
        "validation_images": 3,
    }
    assert "trained on 4 labeled images; mAP@0.5 is" in row.message

    files = pool.artifacts(cycle_id)
    assert set(files) == ARTIFACTS_OF_EVERY_CYCLE | ARTIFACTS_OF_TRAINING
    assert np.load(io.BytesIO(files["X_L.npy"])).tolist() == [0, 1, 2, 3]
    assert np.load(io.BytesIO(files["X_U.npy"])).tolist() == list(range(4, 12))
    assert files["labeled.txt"].decode().splitlines()[0] == "street/0000.png"
    assert len(files["unlabeled.txt"].splitlines()) == 8
    config = json.loads(files["config.json"])
    assert config["training"]["fpn_channels"] == 8
    assert config["classes"] == list(CLASSES)
    assert json.loads(files["environment.json"])["device"].startswith("cpu")
    steps = [json.loads(line) for line in files["log.jsonl"].splitlines()]
    assert [step["step"] for step in steps] == list(range(1, 7))
    assert all(np.isfinite(step["total"]) for step in steps)

    # The most uncertain images, in order, each with its uncertainty, predictions and heat map.
    scores = np.load(io.BytesIO(files["scores.npz"]))
    assert scores["ordinal"].tolist() == list(range(4, 12))
    best = np.argsort(-scores["uncertainty"], kind="stable")[:3]
    queries = pool.queries(cycle_id)
    assert [query.uncertainty for query in queries] == scores["uncertainty"][best].tolist()
    with sessions() as session:
        ordinals = [session.get_one(Image, query.image_id).ordinal for query in queries]
        assert ordinals == scores["ordinal"][best].tolist()
        assert row.num_selected == 3
        assert {(query.state, query.reason) for query in queries} == {("open", "uncertainty")}
        assert session.get_one(Project, pool.project_id).scored_cycle_id == cycle_id
        assert session.scalar(select(func.count()).select_from(Score)) == 8
        predictions = {
            prediction.image_id: prediction.boxes
            for prediction in session.scalars(select(Prediction))
        }
        labeled = session.scalars(select(Image.id).where(Image.state == "labeled")).all()
    assert set(predictions) >= {query.image_id for query in queries} | set(labeled)
    for boxes in predictions.values():
        for box in boxes:
            assert set(box) == {"class_id", "score", "x1", "y1", "x2", "y2"}
            assert box["class_id"] in (0, 1)
            assert 0 <= box["x1"] < box["x2"] <= 80
            assert 0 <= box["y1"] < box["y2"] <= 64
    assert any(predictions.values())
    for query in queries:
        assert query.heatmap_sha256 is not None
        with Picture.open(blobs.path(query.heatmap_sha256)) as heat_map:
            assert (heat_map.format, heat_map.mode) == ("PNG", "L")
            assert heat_map.width / heat_map.height == pytest.approx(80 / 64, rel=0.05)
            assert heat_map.getextrema()[1] == 255

    # The model row, its weights and the metrics agree.
    with sessions() as session:
        model = session.scalars(select(Model)).one()
        assert model.sha256 is not None
        assert model.num_bytes == len(files["model.safetensors"])
        device = session.scalars(select(Worker.device)).one()
    assert blobs.read_bytes(model.sha256) == files["model.safetensors"]
    assert load_model(blobs.path(model.sha256)).class_names == CLASSES
    assert device.startswith("cpu (")
    assert model.metrics == row.metrics == json.loads(files["metrics.json"])
    assert row.metrics is not None
    assert {"map50", "map50_voc07", "map", "per_class"} <= set(row.metrics)
    assert [entry["class"] for entry in row.metrics["per_class"]] == list(CLASSES)
    assert row.metrics["validation_images"] == 3
    assert row.metrics["validation_boxes"] == 3
    assert "num_boxes" not in row.metrics
    assert len(row.metrics["validation_sha256"]) == 64
    assert {"train", "evaluate", "score", "predict"} <= set(row.metrics["seconds"])


def test_an_initial_cycle_selects_at_random_by_its_seed_and_never_loads_torch(
    make_pool: Callable[..., Pool], sessions: sessionmaker[Session], settings: WorkerSettings
) -> None:
    no_torch = "import sys; sys.modules['torch'] = None; from worker.cycle import main; main()"
    selected = []
    with worker(settings, sessions, (sys.executable, "-c", no_torch)):
        for _ in range(2):
            pool = make_pool(labeled=0, validation=0, validation_images=2)
            cycle_id = pool.order_cycle("initial")
            row = wait_for_end(pool, cycle_id)
            assert (row.state, row.error) == ("succeeded", None)
            assert (row.num_selected, row.metrics) == (5, None)
            assert set(pool.artifacts(cycle_id)) == ARTIFACTS_OF_EVERY_CYCLE
            queries = pool.queries(cycle_id)
            assert [q.reason for q in queries] == ["random"] * 3 + ["validation"] * 2
            with sessions() as session:
                images = [session.get_one(Image, query.image_id) for query in queries]
            assert [image.split for image in images] == ["pool"] * 3 + ["val"] * 2
            selected.append([image.ordinal for image in images])
    assert selected[0] == selected[1]


def test_a_diverging_training_fails_its_cycle_and_the_worker_lives_on(
    make_pool: Callable[..., Pool], sessions: sessionmaker[Session], settings: WorkerSettings
) -> None:
    wild = make_pool(labeled=2, unlabeled=2, validation=0)
    diverging = wild.order_cycle(
        "trained", optimizer="sgd", learning_rate=10.0, clip_norm=0.0, label_max_steps=60,
        label_min_steps=60,
    )  # fmt: skip
    other = make_pool(labeled=0, unlabeled=3, validation=0)
    next_one = other.order_cycle("initial")
    with worker(settings, sessions):
        row = wait_for_end(wild, diverging)
        assert wait_for_end(other, next_one).state == "succeeded"
    assert (row.state, row.attempts) == ("failed", 0)
    assert row.error is not None
    assert "in stage label 1/2, step " in row.error
    assert not wild.queries(diverging)
    assert not wild.artifacts(diverging)


# What a store can hold about the label of an image that is unlabeled, or that no cycle may use.
HIDDEN_LABELS: dict[str, Callable[[int], Json | None]] = {
    "no label file of any kind": lambda _: None,
    "the true labels, deleted": lambda ordinal: draw(ordinal)[1],
    "the labels of other images, deleted": lambda ordinal: draw(ordinal + 1)[1],
    "labels without sense, deleted": lambda _: {
        "class_id": 77, "x1": 9.0, "y1": 9.0, "x2": 9.0, "y2": -3.0, "difficult": False,
    },
}  # fmt: skip
PARITY = (
    "average_discrepancy", "fresh_optimizer", "joint_update", "keep_zero_terms", "mask_padding",
    "pseudo_label_gate", "skip_empty_images", "unlabeled_subset",
)  # fmt: skip


@pytest.mark.parametrize("preset", ["cpu", "paper-voc"])
def test_a_cycle_keeps_every_bit_when_the_pools_hidden_labels_are_swapped(
    preset: str, make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    """Neither training nor scoring nor selection can know what an unlabeled image shows."""
    training = {name: getattr(PRESETS[preset], name) for name in PARITY}
    results = {}
    for what, label_of in HIDDEN_LABELS.items():
        pool = make_pool(labeled=4, unlabeled=6, validation=2)
        outside = [pool.add_image(split=split) for split in ("test", "val")]
        for image_id, ordinal in pool.unlabeled_images():
            if (box := label_of(ordinal)) is not None:
                pool.annotate(image_id, [box, box])
                if image_id not in outside:
                    pool.annotate(image_id, None)
                    pool.leave_counts_behind(image_id, box)
                elif image_id == outside[1]:
                    # Of the validation set only what is labeled counts.
                    pool.annotate(image_id, None)
        cycle_id = pool.order_cycle("trained", **training)
        run_here()
        results[what] = pool.everything_about(cycle_id)
    expected = results.pop("no label file of any kind")
    assert len(expected["queries"]) == 3
    for what, found in results.items():
        assert found == expected, what


def test_the_same_swap_on_labeled_images_changes_the_cycle(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    results = []
    for shift in (0, 1):
        pool = make_pool(labeled=0, unlabeled=8, validation=0)
        for image_id, ordinal in pool.unlabeled_images()[:3]:
            pool.annotate(image_id, [draw(ordinal + shift)[1]])
        cycle_id = pool.order_cycle("trained")
        run_here()
        results.append(pool.everything_about(cycle_id))
    assert results[0]["model.safetensors"] != results[1]["model.safetensors"]
    assert results[0]["scores.npz"] != results[1]["scores.npz"]


def test_an_image_that_is_labeled_while_the_cycle_runs_is_passed_over(
    make_pool: Callable[..., Pool],
    run_here: Callable[[], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = make_pool(labeled=2, unlabeled=5, validation=0)
    rank = rank_by_uncertainty
    ordinals: list[int] = []

    def label_the_best(numbers: Sequence[int], uncertainty: Sequence[float]) -> Any:
        order = rank(numbers, uncertainty)
        ordinals.extend(numbers[place] for place in order)
        with pool.sessions() as session:
            best = session.scalars(select(Image.id).where(Image.ordinal == ordinals[0])).one()
        pool.annotate(best, [])
        return order

    monkeypatch.setattr(strategies, "rank_by_uncertainty", label_the_best)
    cycle_id = pool.order_cycle("trained")
    run_here()
    queries = pool.queries(cycle_id)
    with pool.sessions() as session:
        selected = [session.get_one(Image, query.image_id).ordinal for query in queries]
    assert selected == ordinals[1:4]
    assert all(query.heatmap_sha256 for query in queries)


def test_images_that_move_up_for_those_drawn_for_validation_have_predictions_as_well(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=2, unlabeled=60, validation=0, validation_images=50)
    cycle_id = pool.order_cycle("trained")
    run_here()
    selected = [query for query in pool.queries(cycle_id) if query.reason == "uncertainty"]
    assert len(selected) == 3
    assert all(query.heatmap_sha256 for query in selected)
    with pool.sessions() as session:
        predicted = set(session.scalars(select(Prediction.image_id)))
    assert predicted >= {query.image_id for query in selected}


def test_a_worker_that_lost_its_lease_publishes_nothing(
    make_pool: Callable[..., Pool],
    run_here: Callable[[], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = make_pool(labeled=2, unlabeled=3, validation=0)
    cycle_id = pool.order_cycle("trained")
    summary = cycle_module.summary

    def lose_the_lease(*arguments: Any) -> str:
        with pool.sessions.begin() as session:
            session.execute(update(Cycle).values(fence=Cycle.fence + 1))
        return summary(*arguments)

    monkeypatch.setattr(cycle_module, "summary", lose_the_lease)
    with pytest.raises(LeaseLost):
        run_here()
    assert pool.row(cycle_id).state == "running"
    assert not pool.queries(cycle_id)
    assert not pool.artifacts(cycle_id)
    with pool.sessions() as session:
        assert session.get_one(Project, pool.project_id).scored_cycle_id is None
        assert session.scalars(select(Model)).all() == []


@pytest.mark.parametrize(
    ("strategy", "options", "reason"),
    [
        ("entropy", {}, "entropy"),
        ("core-set", {}, "core-set"),
        ("mi-aod", {"class_balance": 1.0}, "class-balance"),
        ("mi-aod", {"class_balance": 1.0, "diversity": 2.0}, "diversity"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "-".join(value) or "plain",
)
def test_every_strategy_selects_by_its_own_order(
    make_pool: Callable[..., Pool],
    run_here: Callable[[], list[dict[str, Any]]],
    strategy: str,
    options: Json,
    reason: str,
) -> None:
    pool = make_pool(labeled=2, unlabeled=6, validation=0)
    cycle_id = pool.order_cycle(
        "trained",
        strategy=strategy,
        options=options,
        # The cache of frozen outputs is for whoever asks for it.
        frozen_cache_megabytes=16,
    )
    said = run_here()
    assert pool.row(cycle_id).error is None
    queries = pool.queries(cycle_id)
    assert [query.reason for query in queries] == [reason] * 3
    scores = np.load(io.BytesIO(pool.artifacts(cycle_id)["scores.npz"]))["uncertainty"]
    assert {query.uncertainty for query in queries} <= set(scores.tolist())
    # Over a large pool these take minutes, which must not pass for a hang.
    looks_again = any("looking at" in line.get("message", "") for line in said)
    assert looks_again == (reason in ("core-set", "diversity"))


def test_a_strategy_that_this_worker_does_not_know_fails_the_cycle_with_its_name(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=2, unlabeled=2, validation=0)
    pool.order_cycle("trained", strategy="oracle")
    with pytest.raises(CycleFailed, match="'oracle' is not known"):
        run_here()


def test_the_random_strategy_scores_the_pool_and_selects_by_the_seed_all_the_same(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=2, unlabeled=6, validation=0)
    cycle_id = pool.order_cycle("trained", strategy="random")
    run_here()
    queries = pool.queries(cycle_id)
    assert {query.reason for query in queries} == {"random"}
    scores = np.load(io.BytesIO(pool.artifacts(cycle_id)["scores.npz"]))["uncertainty"]
    assert {query.uncertainty for query in queries} <= set(scores.tolist())
    with pool.sessions() as session:
        selected = [session.get_one(Image, query.image_id).ordinal for query in queries]
    order = rank_at_random(range(2, 8), 11)[:3]
    assert selected == [2 + place for place in order.tolist()]


def test_without_validation_images_the_cycle_runs_and_says_that_it_has_no_metric(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=2, unlabeled=2, validation=0)
    cycle_id = pool.order_cycle("trained")
    run_here()
    row = pool.row(cycle_id)
    assert "no validation images: no metric" in row.message
    assert row.metrics is not None
    assert "map50" not in row.metrics


def test_with_an_empty_pool_the_cycle_trains_and_selects_nothing(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=3, unlabeled=0, validation=1)
    cycle_id = pool.order_cycle("trained")
    run_here()
    row = pool.row(cycle_id)
    assert (row.state, row.num_selected) == ("succeeded", 0)
    assert "no unlabeled image left: nothing was selected" in row.message
    assert "model.safetensors" in pool.artifacts(cycle_id)


@pytest.mark.parametrize(("labeled", "kind"), [(2, "trained"), (0, "initial")])
def test_a_budget_larger_than_the_pool_selects_all_of_it_and_the_cycle_says_so(
    make_pool: Callable[..., Pool], run_here: Callable[[], object], labeled: int, kind: str
) -> None:
    pool = make_pool(labeled=labeled, unlabeled=2, validation=0)
    cycle_id = pool.order_cycle(kind)
    run_here()
    row = pool.row(cycle_id)
    assert row.num_selected == 2
    assert "the pool had 2 unlabeled images for a budget of 3" in row.message


def test_a_warm_start_trains_on_from_the_newest_model(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=4, unlabeled=2, validation=0)
    weights = []
    # A learning rate of almost nothing leaves the weights as the cycle found them.
    settings: list[dict[str, Any]] = [{}, {"warm_start": True, "learning_rate": 1e-8}]
    for changes in (*settings, {"learning_rate": 1e-8}):
        cycle_id = pool.order_cycle("trained", **changes)
        run_here()
        weights.append(safetensors.torch.load(pool.artifacts(cycle_id)["model.safetensors"]))
    first, warm, anew = (found["towers.f1.output.weight"] for found in weights)
    torch.testing.assert_close(warm, first, rtol=0, atol=1e-6)
    assert float((anew - first).abs().max()) > 1e-4


def test_a_warm_start_without_an_earlier_model_starts_anew(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=2, unlabeled=2, validation=0)
    cycle_id = pool.order_cycle("trained", warm_start=True)
    run_here()
    assert pool.row(cycle_id).state == "succeeded"


def test_a_warm_start_from_another_network_fails_with_a_sentence(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=2, unlabeled=2, validation=0)
    pool.order_cycle("trained")
    run_here()
    pool.order_cycle("trained", warm_start=True, head_channels=16)
    with pytest.raises(CycleFailed, match=r"a warm start needs the same network.*warm_start"):
        run_here()


def test_progress_rises_through_the_stages_and_names_them(
    make_pool: Callable[..., Pool], run_here: Callable[[], list[dict[str, Any]]]
) -> None:
    pool = make_pool(labeled=2, unlabeled=3)
    pool.order_cycle("trained")
    said = run_here()
    assert said[0]["device"].startswith("cpu")
    reports = said[1:]
    assert list(dict.fromkeys(line["stage"] for line in reports)) == [
        "train",
        "evaluate",
        "score",
        "select",
    ]
    shares = [line["progress"] for line in reports]
    assert shares == sorted(shares)
    assert 0 < shares[0] <= shares[-1] < 1
    assert reports[0]["message"].startswith("label 1/2, step 1/2, loss ")


def test_a_cycle_whose_labels_were_deleted_after_the_order_fails_with_a_sentence(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    pool = make_pool(labeled=0, unlabeled=2)
    image_id = pool.add_image()
    _, box = draw(0)
    pool.annotate(image_id, [{**box, "difficult": True}])
    pool.order_cycle("trained")
    with pytest.raises(CycleFailed, match="0 labeled images of the pool have a box to train on"):
        run_here()


def test_a_configuration_of_another_release_fails_with_a_sentence(
    make_pool: Callable[..., Pool], run_here: Callable[[], object]
) -> None:
    make_pool(labeled=2, unlabeled=2).order_cycle("trained", flux_capacitor=3)
    with pytest.raises(CycleFailed, match="does not fit this worker: 'flux_capacitor'"):
        run_here()


def test_missing_backbone_weights_fail_the_cycle_before_training(
    make_pool: Callable[..., Pool],
    run_here: Callable[[], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_way_out(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_way_out)
    make_pool(labeled=2, unlabeled=2).order_cycle("trained", backbone="resnet18", frozen_stages=1)
    with pytest.raises(CycleFailed, match="resnet18-f37072fd.pth"):
        run_here()


def test_a_gpu_that_is_not_there_fails_the_cycle_with_a_sentence(
    make_pool: Callable[..., Pool],
    run_here: Callable[[], object],
    settings: WorkerSettings,
) -> None:
    make_pool(labeled=2, unlabeled=2).order_cycle("trained")
    settings.device = "cuda:97"
    with pytest.raises(CycleFailed, match="MIAOD_DEVICE is cuda:97, but torch finds"):
        run_here()


def test_an_image_whose_file_is_gone_fails_the_cycle_and_is_named(
    make_pool: Callable[..., Pool], run_here: Callable[[], object], blobs: BlobStore
) -> None:
    pool = make_pool(labeled=2, unlabeled=0, validation=0)
    with pool.sessions() as session:
        sha256 = session.scalars(select(Image.sha256).where(Image.ordinal == 1)).one()
    blobs.delete(sha256)
    pool.order_cycle("trained")
    with pytest.raises(CycleFailed, match=r"^the file of image street/0001\.png is missing"):
        run_here()


def test_a_full_disk_fails_the_cycle_with_a_sentence(
    make_pool: Callable[..., Pool],
    sessions: sessionmaker[Session],
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = make_pool(labeled=0, unlabeled=2, validation=0)
    cycle_id = pool.order_cycle("initial")
    disk_full = """
import errno, sys
from server.store.blobs import BlobStore
from worker.cycle import main
def refuse(*_): raise OSError(errno.ENOSPC, "No space left on device")
BlobStore.put_stream = refuse
sys.exit(main())
"""
    with worker(settings, sessions, (sys.executable, "-c", disk_full)):
        row = wait_for_end(pool, cycle_id)
    assert row.state == "failed"
    assert row.error is not None
    assert row.error.startswith("the disk is full (")
    assert not pool.queries(cycle_id)


def test_an_unforeseen_error_costs_an_attempt_and_the_reason_is_kept(
    make_pool: Callable[..., Pool], sessions: sessionmaker[Session], settings: WorkerSettings
) -> None:
    pool = make_pool(labeled=0, unlabeled=2, validation=0)
    cycle_id = pool.order_cycle("initial")
    broken = """
import sys
from worker import cycle
cycle.run_initial = lambda *_: 1 / 0
sys.exit(cycle.main())
"""
    with worker(settings, sessions, (sys.executable, "-c", broken)):
        row = wait_for_end(pool, cycle_id)
    assert (row.state, row.attempts) == ("failed", queue.MAX_ATTEMPTS)
    assert row.error is not None
    assert "ZeroDivisionError: division by zero" in row.error


def test_a_lease_that_is_not_ours_reads_the_order_and_writes_nothing(
    make_pool: Callable[..., Pool], settings: WorkerSettings
) -> None:
    pool = make_pool(labeled=0, unlabeled=2, validation=0)
    cycle_id = pool.order_cycle("initial")
    read_fd, write_fd = os.pipe()
    with pytest.raises(LeaseLost):
        cycle_module.run(Lease(Cycle, cycle_id, "nobody", 1), settings, ProgressPipe(write_fd))
    os.close(read_fd)
    os.close(write_fd)
    assert pool.row(cycle_id).state == "queued"
    assert pool.row(cycle_id).snapshot is None
