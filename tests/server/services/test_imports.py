from __future__ import annotations

import errno
import io
import json
import re
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow
from sqlalchemy import insert, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from server.errors import Unprocessable
from server.formats.boxes import LabeledBox, LabeledImage, LabelsRefused
from server.formats.voc import write_annotation
from server.services import annotations as annotation_service
from server.services import import_job, imports, projects
from server.services.import_labels import annotate
from server.services.imports import ImportRunner
from server.services.paging import PageRequest
from server.settings import Settings
from server.store import outage, queue
from server.store.blobs import BlobStore
from server.store.models import Annotation, Image, Import, Json, Query

OPTIONS: Json = {
    "format": "auto",
    "split": "pool",
    "splits": None,
    "corners": "voc",
    "empty": "unlabeled",
    "labels": True,
    "add_classes": False,
    "author": "import",
}
CAR = LabeledBox("car", 1, 2, 11, 12)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "roots" / "data"
    path.mkdir(parents=True)
    return path


class Importing:
    """A project, and a server that imports into it."""

    def __init__(self, sessions: sessionmaker[Session], blobs: BlobStore, settings: Settings):
        self.sessions, self.blobs, self.settings = sessions, blobs, settings
        with sessions.begin() as session:
            self.project = projects.create(
                session,
                name="street",
                classes=["car", "bus"],
                instructions="",
                validation_images=0,
                cycle_defaults={},
                default_preset="cpu",
            ).project.id

    def runner(self) -> ImportRunner:
        return ImportRunner(self.sessions, self.blobs, self.settings)

    def ask(self, path: Path | None = None, archive: bytes | None = None, **options: Any) -> str:
        sha256 = None if archive is None else self.blobs.put_bytes(archive).sha256
        with self.sessions.begin() as session:
            return imports.create(
                session,
                self.project,
                {**OPTIONS, **options},
                self.settings,
                path=None if path is None else str(path),
                archive_sha256=sha256,
            ).id

    def look(self, job_id: str) -> imports.ImportView:
        with self.sessions() as session:
            return imports.view(session, job_id, PageRequest(limit=1000))

    def __call__(self, path: Path | None = None, **how: Any) -> imports.ImportView:
        job_id = self.ask(path, **how)
        assert self.runner().run_one()
        return self.look(job_id)

    def images(self) -> list[Image]:
        with self.sessions() as session:
            return list(session.scalars(select(Image).order_by(Image.ordinal)))

    def boxes(self, name: str) -> list[Json] | None:
        with self.sessions() as session:
            image = session.scalars(select(Image).where(Image.name == name)).one()
            return annotation_service.current(session, image.id).boxes


@pytest.fixture
def importing(
    sessions: sessionmaker[Session], blobs: BlobStore, database_url: str, tmp_path: Path
) -> Importing:
    settings = Settings.model_validate(
        {
            "data_dir": tmp_path / "data",
            "database_url": database_url,
            "import_roots": [tmp_path / "roots"],
            "max_image_pixels": 100_000,
            "max_archive_bytes": 10_000_000,
        }
    )
    return Importing(sessions, blobs, settings)


def draw(path: Path, number: int = 0, size: tuple[int, int] = (40, 30), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.new("RGB", size, (number * 37 % 256, number * 91 % 256, 99)).save(path, **options)
    return path


def picture_file(number: int) -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (40, 30), (number, 9, 99)).save(file, "JPEG")
    return file.getvalue()


def label(
    root: Path, stem: str, *boxes: LabeledBox, size: tuple[int, int] = (40, 30), name: str = ""
) -> None:
    path = root / "Annotations" / f"{stem}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(write_annotation(LabeledImage(name or f"{stem}.jpg", *size, boxes)))


def reasons(view: imports.ImportView) -> dict[str, str]:
    return {refusal.name: refusal.reason for refusal in view.refused.items}


def counts(view: imports.ImportView) -> dict[str, int]:
    names = ("total", "created", "duplicate", "rejected", "labeled", "boxes")
    return {name: view.job.counts[name] for name in names}


def test_a_voc_folder_becomes_images_with_labels(importing: Importing, root: Path) -> None:
    for number, stem in enumerate(["b", "street/a", "c"]):
        draw(root / "JPEGImages" / f"{stem}.jpg", number)
    label(root, "street/a", CAR, LabeledBox("bus", 0, 0, 40, 30, difficult=True))
    label(root, "c")

    view = importing(root)

    assert view.job.state == "succeeded", view.job.error
    assert view.job.progress == 1
    assert view.refused.items == []
    assert counts(view) == {
        "total": 3,
        "created": 3,
        "duplicate": 0,
        "rejected": 0,
        "labeled": 2,
        "boxes": 2,
    }
    assert [(image.ordinal, image.name, image.state) for image in importing.images()] == [
        (0, "b.jpg", "unlabeled"),
        (1, "c.jpg", "labeled"),
        (2, "street/a.jpg", "labeled"),
    ]
    assert importing.boxes("c.jpg") == []
    assert importing.boxes("street/a.jpg") == [
        {"class": "car", "x1": 1, "y1": 2, "x2": 11, "y2": 12, "difficult": False},
        {"class": "bus", "x1": 0, "y1": 0, "x2": 40, "y2": 30, "difficult": True},
    ]
    with importing.sessions() as session:
        revisions = session.scalars(select(Annotation)).all()
    assert {(each.source, each.author, each.version) for each in revisions} == {
        ("import", "import", 1)
    }


def test_each_broken_item_is_named_and_the_rest_is_kept(importing: Importing, root: Path) -> None:
    pictures = root / "JPEGImages"
    for number, stem in enumerate(["good", "xml", "outside", "flat", "lorry", "size", "twice"]):
        draw(pictures / f"{stem}.jpg", number)
        label(root, stem, CAR)
    (root / "Annotations" / "xml.xml").write_text("<annotation><object>")
    label(root, "outside", CAR, LabeledBox("car", 1, 1, 60, 20))
    label(root, "flat", LabeledBox("car", 5, 5, 5, 20))
    label(root, "lorry", CAR, LabeledBox("lorry", 1, 1, 6, 6))
    label(root, "size", CAR, size=(80, 60))
    label(root, "gone", CAR)
    (pictures / "text.jpg").write_text("no picture")
    whole = (pictures / "good.jpg").read_bytes()
    (pictures / "short.jpg").write_bytes(whole[: len(whole) // 2])
    draw(pictures / "huge.png", size=(1000, 101))
    (pictures / "same.jpg").write_bytes((pictures / "twice.jpg").read_bytes())

    view = importing(root)

    assert view.job.state == "succeeded", view.job.error
    said = reasons(view)
    expected = {
        "Annotations/xml.xml": "broken",
        "Annotations/outside.xml": "box 2 of outside.jpg is [1, 1, 60, 20]",
        "Annotations/flat.xml": "no area",
        "lorry.jpg": "unknown class 'lorry'; the project's classes are car, bus",
        "Annotations/size.xml": "80 x 60",
        "Annotations/gone.xml": "gone.jpg, which is missing",
        "text.jpg": "no picture",
        "short.jpg": "cut short",
        "huge.png": "1000 x 101",
    }
    assert said.keys() == expected.keys()
    for name, part in expected.items():
        assert part in said[name]
    assert counts(view) == {
        "total": 11,
        "created": 7,
        "duplicate": 1,
        "rejected": 3,
        "labeled": 2,  # good and the picture that is there twice
        "boxes": 2,
    }
    # An annotation is the full set of boxes: with one of them broken the image stays unlabeled.
    states = {image.name: image.state for image in importing.images()}
    assert [name for name, state in states.items() if state == "labeled"] == [
        "good.jpg",
        "same.jpg",
    ]


def test_a_rotated_picture_takes_labels_of_either_way_up(importing: Importing, root: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    for number, stem in enumerate(["stored", "upright"]):
        draw(root / "JPEGImages" / f"{stem}.jpg", number, (40, 30), exif=exif)
    label(root, "stored", LabeledBox("car", 0, 0, 8, 4), size=(40, 30))
    label(root, "upright", LabeledBox("car", 26, 0, 30, 8), size=(30, 40))
    view = importing(root)
    assert view.refused.items == []
    corners = {"x1": 26, "y1": 0, "x2": 30, "y2": 8}
    for name in ("stored.jpg", "upright.jpg"):
        boxes = importing.boxes(name)
        assert boxes == [{"class": "car", **corners, "difficult": False}]


def test_corners_can_be_zero_based(importing: Importing, root: Path) -> None:
    draw(root / "JPEGImages" / "a.jpg")
    label(root, "a", CAR)
    importing(root, corners="zero-based")
    boxes = importing.boxes("a.jpg")
    assert boxes is not None
    assert [boxes[0][key] for key in ("x1", "y1", "x2", "y2")] == [2, 3, 11, 12]


def test_lists_decide_about_splits(importing: Importing, root: Path) -> None:
    for number, stem in enumerate("abcd"):
        draw(root / "JPEGImages" / f"{stem}.jpg", number)
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "trainval.txt").write_text("c\na\n")
    (lists / "test.txt").write_text("b\n")
    view = importing(root, splits={"trainval": "pool", "test": "val"})
    assert [(image.name, image.split, image.ordinal) for image in importing.images()] == [
        ("a.jpg", "pool", 0),
        ("b.jpg", "val", 1),
        ("c.jpg", "pool", 2),
    ]
    assert "1 left out" in view.job.message


def test_labels_can_be_left_aside(importing: Importing, root: Path) -> None:
    draw(root / "JPEGImages" / "a.jpg")
    label(root, "a", CAR)
    label(root, "gone", CAR)
    view = importing(root, labels=False)
    assert counts(view)["created"] == 1
    assert counts(view)["labeled"] == 0
    assert view.refused.items == []


def test_classes_are_added_where_asked(importing: Importing, root: Path) -> None:
    draw(root / "JPEGImages" / "a.jpg")
    label(root, "a", LabeledBox("lorry", 1, 1, 6, 6), CAR, LabeledBox("bike", 1, 1, 6, 6))
    view = importing(root, add_classes=True)
    assert counts(view)["labeled"] == 1
    with importing.sessions() as session:
        names = projects.class_names(session, importing.project)
    assert names == ("car", "bus", "lorry", "bike")


def coco(root: Path, boxes: dict[str, list[list[float]]]) -> None:
    images = [{"id": i, "file_name": name} for i, name in enumerate(boxes, start=1)]
    annotations = [
        {"id": 10 * i + j, "image_id": i, "category_id": 4, "bbox": box}
        for i, each in enumerate(boxes.values(), start=1)
        for j, box in enumerate(each)
    ]
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 4, "name": "car"}]
    (root / "labels.json").write_text(json.dumps(content))


@pytest.mark.parametrize(("empty", "state"), [("unlabeled", "unlabeled"), ("negative", "labeled")])
def test_a_coco_file_labels_what_it_lists(
    importing: Importing, root: Path, empty: str, state: str
) -> None:
    for number, name in enumerate(["1.jpg", "2.jpg", "3.jpg", "4.jpg"]):
        draw(root / "images" / name, number)
    coco(
        root, {"1.jpg": [[1, 2, 10, 10]], "2.jpg": [], "3.jpg": [[1, 2, 0, 5]], "no.jpg": [[0] * 4]}
    )
    view = importing(root, empty=empty)
    assert {image.name: image.state for image in importing.images()} == {
        "1.jpg": "labeled",
        "2.jpg": state,
        "3.jpg": "unlabeled",
        "4.jpg": "unlabeled",
    }
    assert reasons(view).keys() == {"3.jpg", "no.jpg"}


def test_a_class_that_cannot_be_costs_its_images_their_labels_and_no_other(
    importing: Importing, root: Path
) -> None:
    for number, name in enumerate(["1.jpg", "2.jpg"]):
        draw(root / "images" / name, number)
    coco(root, {"1.jpg": [[1, 2, 10, 10]], "2.jpg": [[1, 2, 10, 10]]})
    content = json.loads((root / "labels.json").read_text())
    content["categories"] = [{"id": 4, "name": "lorry"}, {"id": 5, "name": "x" * 201}]
    content["annotations"][1]["category_id"] = 5
    (root / "labels.json").write_text(json.dumps(content))
    view = importing(root, add_classes=True)
    assert view.job.state == "succeeded", view.job.error
    assert reasons(view).keys() == {"2.jpg"}
    assert counts(view)["created"] == 2
    assert counts(view)["labeled"] == 1


def test_labels_meet_the_image_as_it_is_not_as_it_was_read_before(
    importing: Importing, root: Path
) -> None:
    draw(root / "a.jpg")
    importing(root)
    with importing.sessions.begin() as session:
        image = session.scalars(select(Image)).one()  # as the intake of a duplicate reads it
        assert image.annotation_version == 0
        # An annotator saves before the import holds the row.
        saved = {"version": 1, "boxes": [], "num_classes": 2, "author": "ana", "source": "human"}
        session.execute(insert(Annotation).values(image_id=image.id, **saved))
        session.execute(
            update(Image)
            .values(state="labeled", annotation_version=1)
            .execution_options(synchronize_session=False)
        )
        with pytest.raises(LabelsRefused, match=r"labeled otherwise \(version 1 by ana\)"):
            annotate(session, image.id, [CAR], author="import")


def test_names_that_no_database_takes_are_reported(importing: Importing, root: Path) -> None:
    draw(root / "images" / "1.jpg")
    coco(root, {"1.jpg": [], "a\x00.jpg": [[1, 1, 2, 2]], "\ud800.jpg": [[1, 1, 2, 2]], "../b": []})
    view = importing(root)
    assert view.job.state == "succeeded", view.job.error
    assert sorted(reasons(view)) == ["../b", "\\ud800.jpg", "a\\x00.jpg"]


def test_labels_alone_go_to_images_that_came_before(importing: Importing, root: Path) -> None:
    draw(root / "pictures" / "a.jpg")
    importing(root / "pictures")
    labels = root / "labels"
    label(labels, "a", CAR)
    view = importing(labels)
    assert counts(view) | {"total": 0, "created": 0} == counts(view)
    assert counts(view)["labeled"] == 1
    assert importing.boxes("a.jpg") != []


def test_importing_again_counts_duplicates_and_changes_nothing(
    importing: Importing, root: Path
) -> None:
    for number, stem in enumerate("ab"):
        draw(root / "JPEGImages" / f"{stem}.jpg", number)
    label(root, "a", CAR)
    importing(root)
    before = [(image.id, image.annotation_version) for image in importing.images()]
    view = importing(root)
    assert counts(view)["duplicate"] == 2
    assert counts(view)["labeled"] == 0
    assert view.refused.items == []
    assert [(image.id, image.annotation_version) for image in importing.images()] == before


def test_labels_of_an_annotator_are_not_overwritten(importing: Importing, root: Path) -> None:
    draw(root / "JPEGImages" / "a.jpg")
    importing(root)
    (image,) = importing.images()
    with importing.sessions.begin() as session:
        annotation_service.save(session, image.id, annotation_service.Revision(0, [], "ana"))
    label(root, "a", CAR)
    view = importing(root)
    assert "labeled otherwise (version 1 by ana)" in reasons(view)["a.jpg"]
    assert importing.boxes("a.jpg") == []


def test_the_same_picture_in_another_split_is_refused(importing: Importing, root: Path) -> None:
    draw(root / "a.jpg")
    importing(root)
    view = importing(root, split="test")
    assert "split pool" in reasons(view)["a.jpg"]
    assert counts(view)["rejected"] == 1


def pack_zip(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder))
    return buffer.getvalue()


def pack_tar(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        packed.add(folder, "my data set")
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
def test_an_archive_is_imported_and_leaves_nothing_unpacked(
    importing: Importing, root: Path, pack: Callable[[Path], bytes]
) -> None:
    draw(root / "JPEGImages" / "street" / "a.jpg")
    label(root, "street/a", CAR)
    view = importing(archive=pack(root))
    assert view.job.state == "succeeded", view.job.error
    assert [(image.name, image.state) for image in importing.images()] == [
        ("street/a.jpg", "labeled")
    ]
    assert list(importing.blobs.tmp_dir.iterdir()) == []


def test_an_archive_below_an_import_root_is_read_too(importing: Importing, root: Path) -> None:
    draw(root / "a.jpg")
    archive = root.parent / "data.zip"
    archive.write_bytes(pack_zip(root))
    view = importing(archive)
    assert counts(view)["created"] == 1
    assert archive.exists()


def test_hostile_members_are_named_and_the_rest_is_kept(importing: Importing, root: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.write(draw(root / "a.jpg"), "a.jpg")
        packed.writestr("../../evil.jpg", b"x")
    view = importing(archive=buffer.getvalue())
    assert counts(view)["created"] == 1
    assert "leads out" in reasons(view)["../../evil.jpg"]


@pytest.mark.parametrize(
    ("archive", "said"),
    [(b"no archive", "no whole archive"), (pack_zip, "no picture|no files")],
)
def test_an_archive_of_nothing_fails_the_import(
    importing: Importing, tmp_path: Path, archive: Any, said: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    content = archive if isinstance(archive, bytes) else archive(empty)
    view = importing(archive=content)
    assert view.job.state == "failed"
    assert view.job.error is not None
    assert re.search(said, view.job.error)
    assert list(importing.blobs.tmp_dir.iterdir()) == []


def test_only_folders_below_an_import_root_are_read(
    importing: Importing, root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    draw(outside / "a.jpg")
    (root / "way-out").symlink_to(outside)
    for path in (outside, root / "way-out", root / ".." / ".." / "outside", root / "nowhere"):
        with pytest.raises(Unprocessable, match="below one of the import roots"):
            importing.ask(path)


def test_without_import_roots_no_folder_is_read(importing: Importing, root: Path) -> None:
    importing.settings = importing.settings.model_copy(update={"import_roots": []})
    with pytest.raises(Unprocessable, match="MIAOD_IMPORT_ROOTS"):
        importing.ask(root)


def test_a_folder_that_is_gone_fails_the_import(importing: Importing, root: Path) -> None:
    job_id = importing.ask(root)
    root.rmdir()
    importing.runner().run_one()
    job = importing.look(job_id).job
    assert job.state == "failed"
    assert job.error is not None
    assert "no folder" in job.error


def test_an_import_that_was_cut_off_goes_on_and_counts_nothing_twice(
    importing: Importing, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_job, "CHUNK_IMAGES", 4)
    for number in range(10):
        draw(root / "JPEGImages" / f"{number}.jpg", number)
        label(root, f"{number}", CAR)
    (root / "JPEGImages" / "0a.jpg").write_text("no picture")
    label(root, "gone", CAR)
    job_id = importing.ask(root)
    real_write = import_job.ImportJob._write
    written: list[int] = []

    def write_two_chunks(self: import_job.ImportJob, *args: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt  # as a killed process: nobody ends the import
        real_write(self, *args)
        written.append(1)

    monkeypatch.setattr(import_job.ImportJob, "_write", write_two_chunks)
    with pytest.raises(KeyboardInterrupt):
        importing.runner().run_one()
    halfway = importing.look(job_id).job
    assert halfway.state == "running"
    assert 0 < halfway.progress < 1
    assert halfway.counts["created"] == 7

    monkeypatch.setattr(import_job.ImportJob, "_write", real_write)
    with importing.sessions.begin() as session:  # the lease lapses
        session.get_one(Import, job_id).lease_until = 0.0
    assert importing.runner().run_one()
    view = importing.look(job_id)
    assert view.job.state == "succeeded", view.job.error
    assert counts(view) == {
        "total": 11,
        "created": 10,
        "duplicate": 0,
        "rejected": 1,
        "labeled": 10,
        "boxes": 10,
    }
    assert sorted(reasons(view)) == ["0a.jpg", "Annotations/gone.xml"]
    assert [image.ordinal for image in importing.images()] == list(range(10))


def test_whoever_lost_the_lease_writes_nothing(
    importing: Importing, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(root / "a.jpg")
    job_id = importing.ask(root)
    real_prepare = import_job.ImportJob._prepare

    def steal_then_prepare(self: import_job.ImportJob, *args: Any, **more: Any) -> Any:
        with importing.sessions.begin() as session:
            session.get_one(Import, job_id).fence += 1
        return real_prepare(self, *args, **more)

    monkeypatch.setattr(import_job.ImportJob, "_prepare", steal_then_prepare)
    assert importing.runner().run_one()
    assert importing.images() == []
    assert importing.look(job_id).job.state == "running"


def test_a_cancelled_import_stops_and_keeps_what_it_has(
    importing: Importing, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_job, "CHUNK_IMAGES", 2)
    monkeypatch.setattr(imports, "HEARTBEAT_SECONDS", 0.01)
    for number in range(6):
        draw(root / f"{number}.jpg", number)
    job_id = importing.ask(root)
    real_write = import_job.ImportJob._write

    def write_then_cancel(self: import_job.ImportJob, *args: Any) -> None:
        real_write(self, *args)
        with importing.sessions.begin() as session:
            queue.request_cancel(session, Import, job_id)
        keeper = self._lifeline
        for _ in range(500):
            if keeper._cancel:  # type: ignore[attr-defined]
                return
            threading.Event().wait(0.01)

    monkeypatch.setattr(import_job.ImportJob, "_write", write_then_cancel)
    importing.runner().run_one()
    assert importing.look(job_id).job.state == "cancelled"
    assert len(importing.images()) == 2


def test_a_stopped_server_gives_its_import_back(importing: Importing, root: Path) -> None:
    draw(root / "a.jpg")
    job_id = importing.ask(root)
    runner = importing.runner()
    runner.stop()
    runner.run_one()
    job = importing.look(job_id).job
    assert (job.state, job.attempts) == ("queued", 0)
    assert importing.runner().run_one()
    assert importing.look(job_id).job.state == "succeeded"


def test_a_mistake_of_ours_is_tried_again_and_then_given_up(
    importing: Importing, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(root / "a.jpg")
    job_id = importing.ask(root)

    def crash(*_: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(import_job, "read_folder", crash)
    for state in ("queued", "queued", "failed"):
        assert importing.runner().run_one()
        assert importing.look(job_id).job.state == state
    error = importing.look(job_id).job.error
    assert error is not None
    assert "ZeroDivisionError" in error


class Refusing:
    """An import whose chunks meet an error as long as it is there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.error: Exception | None = error
        self.refused = 0
        real_write = import_job.ImportJob._write

        def write(job: import_job.ImportJob, *args: Any) -> None:
            if self.error is not None:
                self.refused += 1
                raise self.error
            real_write(job, *args)

        monkeypatch.setattr(outage, "FIRST_PAUSE_SECONDS", 0.01)
        monkeypatch.setattr(import_job.ImportJob, "_write", write)


OUTAGES = {
    "full disk": OSError(errno.ENOSPC, "No space left on device"),
    "read-only disk": OSError(errno.EROFS, "Read-only file system"),
    "full database": OperationalError("INSERT", {}, Exception("database or disk is full")),
    "no database": OperationalError("BEGIN", {}, ConnectionError("the database is away")),
}


def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.01)
    pytest.fail("it did not happen in time")


@pytest.mark.parametrize("kind", OUTAGES)
def test_an_import_waits_for_what_is_away_and_loses_and_doubles_nothing(
    importing: Importing, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("a.jpg", picture_file(1))
        packed.writestr("b.jpg", picture_file(200))
        packed.writestr("c.jpg", b"no picture")
    job_id = importing.ask(archive=file.getvalue())
    refusing = Refusing(monkeypatch, OUTAGES[kind])
    runner = importing.runner()
    runner.start()
    try:
        until(lambda: importing.look(job_id).job.message.startswith("waiting: the "))
        assert importing.look(job_id).job.state == "running"
        until(lambda: refusing.refused >= 2)
        refusing.error = None
        until(lambda: importing.look(job_id).job.state != "running")
    finally:
        runner.stop()
    view = importing.look(job_id)
    assert (view.job.state, view.job.attempts, view.job.fence) == ("succeeded", 0, 1)
    assert (view.job.counts["created"], view.job.counts["rejected"]) == (2, 1)
    assert list(reasons(view)) == ["c.jpg"]
    assert list(importing.blobs.tmp_dir.iterdir()) == []


@pytest.mark.parametrize(("how", "state"), [("stop", "queued"), ("cancel", "cancelled")])
def test_an_import_that_waits_can_be_stopped_and_cancelled(
    importing: Importing, root: Path, monkeypatch: pytest.MonkeyPatch, how: str, state: str
) -> None:
    monkeypatch.setattr(imports, "HEARTBEAT_SECONDS", 0.05)
    draw(root / "a.jpg")
    job_id = importing.ask(root)
    refusing = Refusing(monkeypatch, OUTAGES["full disk"])
    runner = importing.runner()
    runner.start()
    try:
        until(lambda: refusing.refused >= 1)
        if how == "cancel":
            with importing.sessions.begin() as session:
                queue.request_cancel(session, Import, job_id)
            until(lambda: importing.look(job_id).job.state == state)
    finally:
        runner.stop()
    job = importing.look(job_id).job
    assert (job.state, job.attempts) == (state, 0)


def test_an_import_that_waited_too_long_fails_with_the_reason_and_the_next_is_done(
    importing: Importing, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "LIMIT_SECONDS", 0.05)
    draw(root / "a.jpg")
    job_id = importing.ask(root)
    refusing = Refusing(monkeypatch, OUTAGES["full disk"])
    runner = importing.runner()
    runner.start()
    try:
        until(lambda: importing.look(job_id).job.state == "failed")
        assert (importing.look(job_id).job.error or "").startswith("the disk is full (")
        refusing.error = None
        job_id = importing.ask(root)
        until(lambda: importing.look(job_id).job.state == "succeeded")
    finally:
        runner.stop()


def test_what_an_earlier_claim_of_an_import_has_unpacked_is_removed_when_it_is_taken_up(
    importing: Importing,
) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("a.jpg", picture_file(1))
    job_id = importing.ask(archive=file.getvalue())
    leftovers = [importing.blobs.tmp_dir / f"import-{job_id}-{fence}" for fence in (0, 1)]
    for leftover in leftovers:
        leftover.mkdir()
        (leftover / "a.jpg").write_bytes(b"half")
    assert importing.runner().run_one()
    assert importing.look(job_id).job.state == "succeeded"
    assert not any(leftover.exists() for leftover in leftovers)


def test_a_running_server_takes_up_what_waits(importing: Importing, root: Path) -> None:
    draw(root / "a.jpg")
    leftover = importing.blobs.tmp_dir / "import-019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e-1"
    leftover.mkdir()
    job_id = importing.ask(root)
    runner = importing.runner()
    runner.start()
    try:
        for _ in range(1000):
            if importing.look(job_id).job.state == "succeeded":
                break
            threading.Event().wait(0.01)
    finally:
        runner.stop()
    assert importing.look(job_id).job.state == "succeeded"
    assert not leftover.exists()


def test_an_import_closes_the_query_of_an_image_that_it_labels(
    importing: Importing, root: Path
) -> None:
    from server.store.models import Cycle

    draw(root / "JPEGImages" / "a.jpg")
    importing(root)
    (image,) = importing.images()
    with importing.sessions.begin() as session:
        cycle = Cycle(
            project_id=importing.project,
            number=1,
            kind="initial",
            budget=1,
            strategy={},
            training={},
            seed=0,
            state="succeeded",
        )
        session.add(cycle)
        session.flush()
        session.add(
            Query(
                cycle_id=cycle.id,
                project_id=importing.project,
                image_id=image.id,
                rank=1,
                reason="random",
            )
        )
    label(root, "a", CAR)
    importing(root)
    with importing.sessions() as session:
        assert session.scalars(select(Query)).one().state == "labeled"
