from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow
from pycocotools.coco import COCO
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from server.errors import NotFound
from server.services import annotations as annotation_service
from server.services import exports, intake, projects
from server.services.exports import ExportFormat
from server.services.imports import ImportRunner, create
from server.settings import Settings
from server.store.blobs import BlobStore
from server.store.models import Image, Import, Json

CLASSES = ["zebra", "car", "Bär"]
CAR: Json = {"class": "car", "x1": 0.1, "y1": 2.0, "x2": 11.3, "y2": 12.0, "difficult": True}
BEAR: Json = {"class": "Bär", "x1": 0.0, "y1": 0.0, "x2": 40.0, "y2": 30.0, "difficult": False}


class Labels:
    """A project with labeled images of every kind."""

    def __init__(self, sessions: sessionmaker[Session], blobs: BlobStore, folder: Path) -> None:
        self.sessions, self.blobs, self.folder = sessions, blobs, folder
        self.number = 0
        folder.mkdir(exist_ok=True)

    def project(self, name: str, classes: Sequence[str]) -> str:
        with self.sessions.begin() as session:
            return projects.create(
                session,
                name=name,
                classes=classes,
                instructions="",
                validation_images=0,
                cycle_defaults={},
                default_preset="cpu",
            ).project.id

    def add(
        self, project: str, name: str, boxes: list[Json] | None = None, split: str = "pool"
    ) -> str:
        self.number += 1
        path = self.folder / "picture.png"
        Pillow.new("RGB", (40, 30), (self.number, 0, 0)).save(path)
        candidate = intake.prepare(self.blobs, path, name, max_pixels=10**6, move=False)
        with self.sessions.begin() as session:
            (added,) = intake.add(session, project, split, [candidate], max_images=1000)
            assert added.id is not None, added.reason
            if boxes is not None:
                revision = annotation_service.Revision(0, boxes, "ana")
                annotation_service.save(session, added.id, revision)
            return added.id

    def export(self, project: str, format: ExportFormat, *, images: bool = False) -> bytes:
        made = exports.export(self.sessions, self.blobs, project, format, with_images=images)
        return b"".join(made.chunks)

    def annotations(self, project: str) -> dict[str, Any]:
        """What every image of a project says: split, state and boxes, by name."""
        with self.sessions() as session:
            images = session.scalars(select(Image).where(Image.project_id == project)).all()
            return {
                image.name: (
                    image.split,
                    image.state,
                    annotation_service.current(session, image.id).boxes,
                )
                for image in images
            }


@pytest.fixture
def labels(sessions: sessionmaker[Session], blobs: BlobStore, tmp_path: Path) -> Labels:
    return Labels(sessions, blobs, tmp_path / "pictures")


@pytest.fixture
def project(labels: Labels) -> str:
    project = labels.project("Street 7/ü", CLASSES)
    labels.add(project, "street/a.jpg", [CAR, BEAR])
    labels.add(project, "unlabeled.jpg")
    labels.add(project, "negative.png", [])
    labels.add(project, "street/a.png", [BEAR], split="val")
    labels.add(project, "t.jpg", [CAR], split="test")
    return project


def read_coco(content: bytes, folder: Path) -> COCO:
    path = folder / "exported.json"
    path.write_bytes(content)
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_pycocotools_reads_a_coco_export(labels: Labels, project: str, tmp_path: Path) -> None:
    coco = read_coco(labels.export(project, "coco"), tmp_path)
    assert [coco.cats[i]["name"] for i in (1, 2, 3)] == CLASSES
    images = coco.loadImgs(coco.getImgIds())
    # Ids follow the import order; the unlabeled image is left out, the negative stays.
    assert [(image["id"], image["file_name"], image["split"]) for image in images] == [
        (1, "street/a.jpg", "pool"),
        (3, "negative.png", "pool"),
        (4, "street/a.png", "val"),
        (5, "t.jpg", "test"),
    ]
    assert {(image["width"], image["height"]) for image in images} == {(40, 30)}
    assert coco.getAnnIds(imgIds=[3]) == []
    first, second = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert (first["category_id"], first["bbox"]) == (2, [0.1, 2, 11.2, 10])
    assert first["difficult"] is True
    assert (second["category_id"], second["bbox"], second["area"]) == (3, [0, 0, 40, 30], 1200)
    assert len({annotation["id"] for annotation in coco.anns.values()}) == 4


@pytest.mark.parametrize("format", ["coco", "voc"])
@pytest.mark.parametrize("images", [False, True])
def test_the_same_labels_give_the_same_bytes(
    labels: Labels, project: str, format: ExportFormat, images: bool
) -> None:
    first, second = (labels.export(project, format, images=images) for _ in range(2))
    assert first == second


def test_a_coco_zip_holds_the_pictures_that_it_lists(
    labels: Labels, project: str, tmp_path: Path
) -> None:
    with zipfile.ZipFile(io.BytesIO(labels.export(project, "coco", images=True))) as packed:
        assert packed.testzip() is None
        coco = read_coco(packed.read("annotations/instances.json"), tmp_path)
        listed = {f"images/{image['file_name']}" for image in coco.imgs.values()}
        assert listed == {name for name in packed.namelist() if name.startswith("images/")}
        with Pillow.open(packed.open("images/street/a.jpg")) as picture:
            assert picture.size == (40, 30)


def test_a_voc_export_has_its_layout(labels: Labels, project: str) -> None:
    with zipfile.ZipFile(io.BytesIO(labels.export(project, "voc", images=True))) as packed:
        assert packed.testzip() is None
        assert set(packed.namelist()) == {
            # Two pictures that differ in their extension only keep their full names.
            "Annotations/street/a.jpg.xml",
            "Annotations/street/a.png.xml",
            "Annotations/negative.xml",
            "Annotations/t.xml",
            "JPEGImages/street/a.jpg",
            "JPEGImages/street/a.png",
            "JPEGImages/negative.png",
            "JPEGImages/t.jpg",
            "ImageSets/Main/train.txt",
            "ImageSets/Main/val.txt",
            "ImageSets/Main/trainval.txt",
            "ImageSets/Main/test.txt",
            "classes.txt",
        }
        assert packed.read("ImageSets/Main/train.txt").decode() == "street/a.jpg\nnegative\n"
        assert packed.read("classes.txt").decode().split() == CLASSES


@pytest.mark.parametrize("format", ["coco", "voc"])
def test_an_export_comes_back_exactly_through_an_import(
    labels: Labels, project: str, format: ExportFormat, database_url: str, data_dir: Path
) -> None:
    archive = labels.blobs.put_bytes(labels.export(project, format, images=True))
    copy = labels.project("copy", CLASSES)
    options = {
        "format": "auto",
        "split": "auto",
        "splits": None,
        "corners": "voc",
        "empty": "negative",
        "labels": True,
        "add_classes": False,
        "author": "import",
    }
    settings = Settings(data_dir=data_dir, database_url=database_url)
    with labels.sessions.begin() as session:
        job_id = create(session, copy, options, settings, archive_sha256=archive.sha256).id
    assert ImportRunner(labels.sessions, labels.blobs, settings).run_one()
    with labels.sessions() as session:
        job = session.get_one(Import, job_id)
    assert job.state == "succeeded", job.error
    assert job.counts["refused"] == 0
    expected = labels.annotations(project)
    del expected["unlabeled.jpg"]
    assert labels.annotations(copy) == expected


def test_many_images_are_read_page_by_page(
    labels: Labels, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "PAGE_IMAGES", 2)
    coco = read_coco(labels.export(project, "coco"), tmp_path)
    assert coco.getImgIds() == [1, 3, 4, 5]


def test_a_project_without_labels_gives_an_empty_export(labels: Labels, tmp_path: Path) -> None:
    project = labels.project("empty", ["car"])
    content = json.loads(labels.export(project, "coco"))
    assert (content["images"], content["annotations"]) == ([], [])
    assert [category["name"] for category in content["categories"]] == ["car"]
    with zipfile.ZipFile(io.BytesIO(labels.export(project, "voc", images=True))) as packed:
        assert packed.namelist() == ["classes.txt"]


def test_a_file_is_named_after_its_project(labels: Labels, project: str) -> None:
    kinds: list[tuple[ExportFormat, bool]] = [("coco", False), ("coco", True), ("voc", False)]
    names = [
        exports.export(labels.sessions, labels.blobs, project, format, with_images=images).file_name
        for format, images in kinds
    ]
    assert names == ["Street-7-ü-coco.json", "Street-7-ü-coco.zip", "Street-7-ü-voc.zip"]


def test_a_project_that_is_not_there_is_missed_before_anything_is_sent(labels: Labels) -> None:
    with pytest.raises(NotFound):
        labels.export("019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e", "coco")


def test_a_deleted_image_is_not_exported(labels: Labels, project: str, tmp_path: Path) -> None:
    from server.services import images

    with labels.sessions.begin() as session:
        image = session.scalars(select(Image).where(Image.name == "t.jpg")).one()
        images.delete(session, image.id)
    coco = read_coco(labels.export(project, "coco"), tmp_path)
    assert 5 not in coco.imgs
    assert list(labels.blobs.tmp_dir.iterdir()) == []
