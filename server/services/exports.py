"""Exports: the labels of a project as COCO or VOC, with or without the pictures, as a stream.

An export holds the labeled images of every split, negatives included. Unlabeled images are left
out: in both formats an image without boxes reads as a negative. Ids are the same each time: those
of images follow the import order (ordinal + 1), those of categories the class ids (+ 1).

Rows are read page by page in short sessions, because a client may take hours to read an export.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from sqlalchemy import and_, select
from sqlalchemy.orm import Session, sessionmaker

from server.formats.boxes import LabeledBox, LabeledImage
from server.formats.coco import annotation_entry, document, image_entry
from server.formats.voc import write_annotation
from server.formats.zip_stream import ZipStream
from server.services import projects
from server.store.blobs import BlobStore
from server.store.models import Annotation, Image, Json

ExportFormat = Literal["coco", "voc"]

PAGE_IMAGES = 500
# VOC's `trainval` is train and val together; our pool is what training draws from.
_VOC_LISTS = {"pool": ("train", "trainval"), "val": ("val", "trainval"), "test": ("test",)}


@dataclass(frozen=True)
class Export:
    """A file to be sent: what to call it, what it is, and its bytes as they come."""

    file_name: str
    media_type: str
    chunks: Iterator[bytes]


@dataclass(frozen=True)
class _Labeled:
    """A labeled image as the formats want it."""

    ordinal: int
    split: str
    sha256: str
    labels: LabeledImage
    class_ids: tuple[int, ...]


def export(
    sessions: sessionmaker[Session],
    blobs: BlobStore,
    project_id: str,
    format: ExportFormat,
    *,
    with_images: bool,
) -> Export:
    """Prepare an export; its chunks are made while they are read.

    * `coco`: one JSON file; with pictures a zip of `annotations/instances.json` and `images/`.
    * `voc`: a zip of `Annotations`, `ImageSets/Main` and `classes.txt`, and `JPEGImages` with
      pictures.

    Raises:
        NotFound: there is no such project.
    """
    with sessions() as session:
        name = projects.get(session, project_id).name
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "project"
    exporter = _Exporter(sessions, blobs, project_id, with_images)
    if format == "voc":
        return Export(f"{stem}-voc.zip", "application/zip", exporter.voc())
    if with_images:
        return Export(f"{stem}-coco.zip", "application/zip", exporter.coco_zip())
    chunks = (piece.encode() for piece in _batched(exporter.coco()))
    return Export(f"{stem}-coco.json", "application/json", chunks)


class _Exporter:
    def __init__(
        self, sessions: sessionmaker[Session], blobs: BlobStore, project_id: str, with_images: bool
    ) -> None:
        self._sessions, self._blobs, self._project_id = sessions, blobs, project_id
        self._with_images = with_images
        self._is_labeled = and_(
            Image.project_id == project_id,
            Image.state == "labeled",
            Image.deleted_at.is_(None),
        )
        # Name and blob of what the JSON file lists, so that a zip holds exactly these pictures.
        self._listed: list[tuple[str, str]] = []

    def coco(self) -> Iterator[str]:
        """The pieces of the JSON file."""
        # Boxes are met together with their images, but stand behind all of them in the file.
        with self._blobs.spool() as spooled:

            def images() -> Iterator[str]:
                number = 0
                for each in self._labeled():
                    image_id = each.ordinal + 1
                    for class_id, box in zip(each.class_ids, each.labels.boxes, strict=True):
                        number += 1
                        entry = annotation_entry(number, image_id, class_id + 1, box)
                        spooled.write(entry.encode() + b"\n")
                    if self._with_images:
                        self._listed.append((each.labels.name, each.sha256))
                    yield image_entry(image_id, each.labels, each.split)

            def annotations() -> Iterator[str]:
                spooled.seek(0)
                for line in spooled:
                    yield line.decode().rstrip("\n")

            yield from document(images(), annotations(), self._class_names)

    def coco_zip(self) -> Iterator[bytes]:
        """The JSON file and the pictures."""
        stream = ZipStream()
        yield from stream.add_text("annotations/instances.json", _batched(self.coco()))
        for name, sha256 in self._listed:
            yield from stream.add_file(f"images/{name}", self._blobs.path(sha256))
        yield from stream.finish()

    def voc(self) -> Iterator[bytes]:
        """A folder in VOC layout."""
        stream = ZipStream()
        # VOC knows a picture by its name without extension: a.jpg and a.png need their full names.
        stems = Counter(_stem(name) for name in self._names())
        lists: dict[str, list[str]] = {}
        for each in self._labeled():
            name = each.labels.name
            key = _stem(name) if stems[_stem(name)] <= 1 else name
            for list_name in _VOC_LISTS[each.split]:
                lists.setdefault(list_name, []).append(f"{key}\n")
            yield from stream.add_bytes(f"Annotations/{key}.xml", write_annotation(each.labels))
            if self._with_images:
                yield from stream.add_file(f"JPEGImages/{name}", self._blobs.path(each.sha256))
        for list_name, lines in sorted(lists.items()):
            path = f"ImageSets/Main/{list_name}.txt"
            yield from stream.add_bytes(path, "".join(lines).encode())
        names = "".join(f"{name}\n" for name in self._class_names())
        yield from stream.add_bytes("classes.txt", names.encode())
        yield from stream.finish()

    def _class_names(self) -> tuple[str, ...]:
        with self._sessions() as session:
            return projects.class_names(session, self._project_id)

    def _names(self) -> list[str]:
        with self._sessions() as session:
            return list(session.scalars(select(Image.name).where(self._is_labeled)))

    def _labeled(self) -> Iterator[_Labeled]:
        last = -1
        while True:
            with self._sessions() as session:
                names = projects.class_names(session, self._project_id)
                rows = session.execute(
                    select(Image, Annotation.boxes)
                    .join(
                        Annotation,
                        and_(
                            Annotation.image_id == Image.id,
                            Annotation.version == Image.annotation_version,
                        ),
                    )
                    .where(self._is_labeled, Image.ordinal > last)
                    .order_by(Image.ordinal)
                    .limit(PAGE_IMAGES)
                ).all()
            for image, revision in rows:
                stored: list[Json] = revision or []
                boxes = tuple(
                    LabeledBox(
                        names[box["class_id"]],
                        box["x1"],
                        box["y1"],
                        box["x2"],
                        box["y2"],
                        box["difficult"],
                    )
                    for box in stored
                )
                labels = LabeledImage(image.name, image.width, image.height, boxes)
                class_ids = tuple(box["class_id"] for box in stored)
                yield _Labeled(image.ordinal, image.split, image.sha256, labels, class_ids)
                last = image.ordinal
            if len(rows) < PAGE_IMAGES:
                return


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix else name


def _batched(pieces: Iterator[str], characters: int = 1 << 16) -> Iterator[str]:
    """The same text in pieces worth sending."""
    held: list[str] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= characters:
            yield "".join(held)
            held, size = [], 0
    yield "".join(held)
