"""What tests of the dashboard share: pictures on the disk, labels, and the smallest training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from miaod_client import Client, Cycle
from PIL import Image as Pillow
from PIL import ImageFilter

from server.store.models import Json
from worker.scenes import draw_scene

SEED = 7
SIZE = (256, 192)
# Two steps a stage on small pictures: seconds on a loaded machine.
TINY: Json = {
    "preset": "cpu",
    "image_long_side": 96,
    "image_short_side": 96,
    "fpn_channels": 16,
    "head_channels": 16,
    "label_min_steps": 2,
    "label_max_steps": 2,
    "adversarial_min_steps": 1,
    "adversarial_max_steps": 1,
    "batch_size": 2,
    "unlabeled_batch_size": 2,
    "score_threshold": 0.0,
    "detections_per_image": 5,
    "num_threads": 1,
}


def write_pictures(folder: Path, count: int, *, start: int = 0) -> list[Path]:
    """Scenes as files named scene-000.jpg and on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(start, start + count):
        path = folder / f"scene-{number:03}.jpg"
        picture = Pillow.fromarray(draw_scene(SEED, number, SIZE).image)
        # Without the sensor's noise, which would make up most of a picture of the page.
        picture.filter(ImageFilter.MedianFilter(3)).save(path, quality=90)
        paths.append(path)
    return paths


def boxes_of(name: str) -> list[Json]:
    """What a person would see in the scene of this file name."""
    scene = draw_scene(SEED, int(Path(name).stem.rpartition("-")[2]), SIZE)
    return [
        {"class": class_name, "x1": x1, "y1": y1, "x2": x2, "y2": y2}
        for class_name, (x1, y1, x2, y2) in zip(
            scene.class_names, scene.boxes.tolist(), strict=True
        )
    ]


def answer_queries(client: Client, project: str, authors: Sequence[str] = ("ada",)) -> int:
    """Label all that is asked for, the authors in turns; gives how many images that were."""
    done = 0
    while True:
        claim = client.queries.claim(
            project=project, limit=5, author=authors[done // 5 % len(authors)]
        )
        if not claim.items:
            return done
        for query in claim.items:
            claim.annotate(query, boxes=boxes_of(query.image.name), seconds=4.0 + done % 7)
            done += 1


def run_cycle(client: Client, project: str, **asked: object) -> Cycle:
    """A cycle from its order to its end."""
    cycle = client.cycles.create(project=project, **asked)  # type: ignore[arg-type]
    return client.cycles.wait(cycle.id, timeout=900, poll_seconds=0.2)
