"""A team that starts with nothing: images only, two annotators, a real server and a real worker."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path

import pytest
from miaod_client import Client, Cycle
from PIL import Image
from pycocotools.coco import COCO

from examples.local_service import LocalService, free_port
from worker.scenes import CLASS_NAMES, Scene, draw_scene

NUM_IMAGES, BUDGET, VALIDATION = 24, 6, 4
TINY = {
    "preset": "cpu",
    "image_long_side": 128,
    "label_min_steps": 2,
    "label_max_steps": 2,
    "adversarial_min_steps": 1,
    "adversarial_max_steps": 1,
    "batch_size": 2,
    "unlabeled_batch_size": 2,
    "num_threads": 1,
}


@pytest.fixture
def scenes() -> dict[str, Scene]:
    return {f"street/{n:03d}.png": draw_scene(5, n, (128, 96)) for n in range(NUM_IMAGES)}


@pytest.fixture
def pictures(scenes: dict[str, Scene], tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for name, scene in scenes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(path)
    return folder


def annotate_until_nothing_is_left(
    url: str, project: str, author: str, scenes: dict[str, Scene], done: list[str]
) -> None:
    with Client(url=url) as client:
        while True:
            claim = client.queries.claim(project=project, limit=1, author=author)
            if not claim.items:
                return
            for query in claim:
                scene = scenes[query.image.name]
                boxes = [
                    {"class": name, "x1": x1, "y1": y1, "x2": x2, "y2": y2}
                    for name, (x1, y1, x2, y2) in zip(
                        scene.class_names, scene.boxes.tolist(), strict=True
                    )
                ]
                claim.annotate(query, boxes=boxes, seconds=1.5)
                done.append(query.image.name)


def test_from_images_alone_to_a_trained_cycle_with_a_metric_and_an_export(
    database_url: str,
    scenes: dict[str, Scene],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MIAOD_DATABASE_URL", database_url)
    service = LocalService(data_dir=tmp_path / "data", port=free_port(), log_dir=tmp_path)
    with service, Client(url=service.url) as client:
        project = client.projects.create(
            name="from nothing", classes=list(CLASS_NAMES), validation_images=VALIDATION
        )
        report = client.images.upload(project=project.id, paths=pictures)
        assert len(report.created) == NUM_IMAGES

        def run_cycle() -> Cycle:
            cycle = client.cycles.create(project=project.id, budget=BUDGET, training=TINY, seed=3)
            return client.cycles.wait(cycle.id, timeout=120, poll_seconds=0.2)

        initial = run_cycle()
        assert initial.kind == "initial"
        reasons = Counter(query.reason for query in client.queries.list(project=project.id))
        assert reasons == {"random": BUDGET, "validation": VALIDATION}

        done: dict[str, list[str]] = {"ada": [], "bob": []}
        threads = [
            threading.Thread(
                target=annotate_until_nothing_is_left,
                args=(service.url, project.id, author, scenes, names),
            )
            for author, names in done.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        labeled = done["ada"] + done["bob"]
        assert len(labeled) == len(set(labeled)) == BUDGET + VALIDATION
        assert all(done.values()), "both had something to do"

        trained = run_cycle()
        assert trained.kind == "trained"
        assert trained.metrics is not None
        assert trained.metrics.map50 is not None
        assert trained.metrics.validation_images == VALIDATION
        queries = list(client.queries.list(project=project.id))
        assert len(queries) == BUDGET
        assert not {query.image.name for query in queries} & set(labeled)
        assert [query.rank for query in queries] == list(range(1, BUDGET + 1))
        uncertainties = [query.uncertainty or 0.0 for query in queries]
        assert uncertainties == sorted(uncertainties, reverse=True)

        export = tmp_path / "labels.json"
        client.exports.download(project=project.id, format="coco", to=export)
    coco = COCO(str(export))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASS_NAMES)
    names = {image["id"]: image["file_name"] for image in coco.loadImgs(coco.getImgIds())}
    boxes = Counter(names[a["image_id"]] for a in coco.loadAnns(coco.getAnnIds()))
    assert boxes == Counter({n: len(scenes[n].boxes) for n in labeled if len(scenes[n].boxes)})
    assert set(labeled) <= {i["file_name"] for i in json.loads(export.read_text())["images"]}
