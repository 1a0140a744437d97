"""The SDK against the real application, in process, on SQLite.

The worker is played by the store's own functions: what it leaves behind is what the SDK reads.
"""

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import PIL.Image
import pytest
import structlog
from fastapi import FastAPI
from miaod_client import Client, Cycle, Image, Project
from starlette.testclient import TestClient

from server.deps import Context
from server.main import create_app
from server.settings import Settings
from server.store import models as tables
from server.store import queue, writeback
from server.store.writeback import ArtifactRecord, ModelRecord

CAR = {"class": "car", "x1": 1.0, "y1": 2.0, "x2": 20.0, "y2": 25.5, "difficult": False}
METRICS = {
    "map50": 0.5,
    "map50_voc07": 0.55,
    "map": 0.3,
    "per_class": [
        {"class": "car", "ap50": 0.5, "ap50_voc07": 0.55, "ap": 0.3, "num_boxes": 4},
        {"class": "person", "ap50": None, "ap50_voc07": None, "ap": None, "num_boxes": 0},
    ],
    "validation_images": 2,
    "validation_sha256": "0" * 64,
}
RunCycle = Callable[[], None]
Picture = Callable[[int], bytes]
DrawPictures = Callable[[Path, int], None]


@pytest.fixture
def picture() -> Picture:
    """Draws a picture of 40 x 30 pixels in one of many shades."""

    def draw(shade: int) -> bytes:
        buffer = io.BytesIO()
        PIL.Image.new("RGB", (40, 30), (shade, 2 * shade, 255 - shade)).save(buffer, "PNG")
        return buffer.getvalue()

    return draw


@pytest.fixture
def draw_pictures(picture: Picture) -> DrawPictures:
    """Fills a new folder with so many pictures, `0.png` and on."""

    def draw(folder: Path, count: int) -> None:
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number}.png").write_bytes(picture(10 + number))

    return draw


@pytest.fixture(autouse=True)
def _quiet_server() -> Iterator[None]:
    """The server logs to stdout, where the command line's results are."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def application(tmp_path: Path, sqlite_template: Path) -> FastAPI:
    data = tmp_path / "data"
    data.mkdir()
    shutil.copyfile(sqlite_template, data / "miaod.db")
    roots = tmp_path / "roots"
    roots.mkdir()
    return create_app(Settings(data_dir=data, import_roots=[roots]), background=True)


@pytest.fixture
def http(application: FastAPI) -> Iterator[TestClient]:
    with TestClient(
        application, base_url="http://127.0.0.1", raise_server_exceptions=False
    ) as http:
        yield http


@pytest.fixture
def client(http: TestClient) -> Client:
    return Client(http_client=http)


@pytest.fixture
def project(client: Client) -> Project:
    return client.projects.create(name="street", classes=["car", "person"])


@pytest.fixture
def images(
    client: Client, project: Project, tmp_path: Path, draw_pictures: DrawPictures
) -> list[Image]:
    """Six pool images."""
    draw_pictures(tmp_path / "pool", 6)
    client.images.upload(project=project.id, paths=tmp_path / "pool")
    return list(client.images.list(project=project.id))


@pytest.fixture
def run_cycle(application: FastAPI, picture: Picture) -> RunCycle:
    """Plays the worker for the cycle that waits."""
    context: Context = application.state.context

    def run() -> None:
        with context.sessions.begin() as session:
            session.merge(tables.Worker(id="w1", name="w", device="cpu", version="1", last_seen=0))
            lease = queue.claim(session, tables.Cycle, "w1", 60)
        assert lease is not None
        with context.reading() as session:
            cycle = session.get_one(tables.Cycle, lease.job_id)
            trained = cycle.kind == "trained"
            pool = session.query(tables.Image).filter_by(
                project_id=cycle.project_id, state="unlabeled", split="pool"
            )
            ids = [image.id for image in pool.order_by(tables.Image.ordinal)]
        scores = [
            (image, rank, 1.0 / rank if trained else None) for rank, image in enumerate(ids, 1)
        ]
        writeback.write_scores(context.sessions, lease, scores)
        log = context.blobs.put_bytes(b'{"step": 1}\n')
        artifacts = [ArtifactRecord("log.jsonl", log.sha256, log.num_bytes, "application/jsonl")]
        heatmaps, model = {}, None
        if trained:
            found = {"class_id": 0, "score": 0.75, "x1": 1.0, "y1": 1.0, "x2": 9.0, "y2": 9.0}
            writeback.write_predictions(context.sessions, lease, [(ids[0], [found])])
            heatmaps = {ids[0]: context.blobs.put_bytes(picture(7)).sha256}
            weights = context.blobs.put_bytes(b"weights")
            model = ModelRecord(weights.sha256, weights.num_bytes, METRICS)
        with context.sessions.begin() as session:
            writeback.publish(
                session,
                lease,
                heatmaps=heatmaps,
                artifacts=artifacts,
                model=model,
                metrics=METRICS if trained else None,
                message="done",
            )

    return run


@pytest.fixture
def trained(client: Client, project: Project, images: list[Image], run_cycle: RunCycle) -> Cycle:
    """A succeeded trained cycle that asks for two of five images."""
    client.annotations.put(images[0].id, boxes=[CAR], version=0)
    cycle = client.cycles.create(project=project.id, budget=2, seed=3)
    run_cycle()
    return client.cycles.wait(cycle.id, timeout=10)
