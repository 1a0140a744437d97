"""The work of an import: look at the folder, then take in images and labels, chunk by chunk.

Each chunk is one short transaction under the import's lease: images, annotations, refusals, counts
and the place reached. Pictures are decoded and stored before it begins. Whoever claims the import
after a restart looks at the folder anew and goes on behind the place reached, so nothing is counted
twice.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from server.errors import ServiceError
from server.formats.archive import Limits, unpack
from server.formats.boxes import (
    LabeledBox,
    LabeledImage,
    LabelsRefused,
    check_classes,
    fit_to_picture,
)
from server.formats.dataset import Dataset, Item, LayoutRefused, Reading
from server.formats.layout import read_folder
from server.formats.pictures import Picture, PictureRefused
from server.services import intake, projects
from server.services.decoding import probe
from server.services.import_labels import add_classes, annotate
from server.services.import_paths import below_a_root
from server.settings import Settings
from server.store import queue
from server.store.blobs import BlobStore
from server.store.models import Image, Import, ImportRefusal, Json

log = structlog.get_logger(__name__)

CHUNK_IMAGES = 50
# A chunk of large pictures is closed earlier, so that progress shows.
CHUNK_SECONDS = 3.0
# Of a refused item's name, and of the reason.
MAX_SAID_CHARACTERS = 1000
# Columns of `imports.counts`; `through` is the name of the last item that was dealt with.
_START: Json = {
    "total": 0,
    "created": 0,
    "duplicate": 0,
    "rejected": 0,
    "labeled": 0,
    "boxes": 0,
    "refused": 0,
    "through": "",
}


class Lifeline(Protocol):
    """What a job asks between items."""

    def check(self) -> None:
        """Raise if the job must stop: cancelled, its lease lost, the server going down."""


@dataclass
class _Prepared:
    """An item that was looked at outside of any transaction."""

    item: Item
    candidate: intake.Candidate | None = None
    # Of the image that labels without a picture are for.
    image_id: str | None = None
    labels: LabeledImage | None = None
    boxes: tuple[LabeledBox, ...] = ()
    rejected: bool = False
    refusals: list[tuple[str, str]] = field(default_factory=list)


class ImportJob:
    """One claimed import."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        blobs: BlobStore,
        settings: Settings,
        lease: queue.Lease,
        lifeline: Lifeline,
    ) -> None:
        """Read what the import is to do."""
        self._sessions, self._blobs, self._settings = sessions, blobs, settings
        self._lease, self._lifeline = lease, lifeline
        with sessions.begin() as session:
            row = session.get_one(Import, lease.job_id)
            self._project_id, self._path = row.project_id, row.path
            self._archive_sha256, self._options = row.archive_sha256, row.options
            self._counts: Json = {**_START, **row.counts}
            self._begun = bool(row.counts)
        self._archive_refusals: Sequence[tuple[str, str]] = ()

    def run(self) -> None:
        """Do it all, and end the import as succeeded.

        Raises:
            LayoutRefused, ArchiveRefused, ServiceError: it cannot be done; the sentence says why.
            LeaseLost: somebody else does it now.
        """
        with self._folder() as (root, is_ours):
            dataset = read_folder(root, _reading(self._options))
            dataset.items = list(self._usable(dataset))
            if not dataset.items and not dataset.refusals:
                raise LayoutRefused("there is no picture in it")
            if not self._begun:
                self._begin(dataset)
            remaining = [item for item in dataset.items if item.name > self._counts["through"]]
            for chunk in self._prepared_chunks(dataset, remaining, move=is_ours):
                self._write(chunk)
        with self._sessions.begin() as session:
            queue.finish(session, self._lease, message=self._summary(dataset))
        log.info(
            "import succeeded",
            action="import_succeeded",
            project=self._project_id,
            **{"import": self._lease.job_id},
            **{key: value for key, value in self._counts.items() if key != "through"},
        )

    @contextmanager
    def _folder(self) -> Iterator[tuple[Path, bool]]:
        """The folder to read, and whether its files may be moved away."""
        if self._archive_sha256 is None:
            assert self._path is not None
            source = below_a_root(self._path, self._settings.import_roots)
            if source.is_dir():
                yield source, False
                return
        else:
            source = self._blobs.path(self._archive_sha256).resolve()
        # Named by the fence: whoever still writes under an older claim writes elsewhere.
        target = unpack_folder(self._blobs, self._lease.job_id, self._lease.fence)
        # What an earlier claim unpacked only takes up room: whoever held it writes nothing more.
        for leftover in unpacked_folders(self._blobs, self._lease.job_id):
            shutil.rmtree(leftover, ignore_errors=leftover != target)
        target.mkdir()
        try:
            limits = Limits(max_bytes=self._settings.max_archive_bytes)
            unpacked = unpack(source, target, limits, self._lifeline.check)
            self._archive_refusals = unpacked.refusals
            yield _only_folder(target), True
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def _usable(self, dataset: Dataset) -> Iterator[Item]:
        """The items that can be looked at; names of labels alone may be any text."""
        for item in dataset.items:
            if item.path is None:
                if not self._options["labels"]:
                    continue
                try:
                    intake.clean_name(item.name)
                except intake.Refused as refusal:
                    dataset.refusals.append((item.name, str(refusal)))
                    continue
            yield item

    def _begin(self, dataset: Dataset) -> None:
        self._counts["total"] = sum(item.path is not None for item in dataset.items)
        with self._sessions.begin() as session:
            if self._options["add_classes"]:
                for name in dataset.class_names:
                    # One that can be no class is named with each image that has it.
                    with suppress(LabelsRefused):
                        self._add_classes(session, (name,))
            self._refuse(session, [*self._archive_refusals, *dataset.refusals])
            queue.record(session, self._lease, counts=dict(self._counts))

    def _prepared_chunks(
        self, dataset: Dataset, items: Sequence[Item], *, move: bool
    ) -> Iterator[list[_Prepared]]:
        chunk: list[_Prepared] = []
        started = time.monotonic()
        for item in items:
            self._lifeline.check()
            chunk.append(self._prepare(dataset, item, move=move))
            if len(chunk) >= CHUNK_IMAGES or time.monotonic() - started > CHUNK_SECONDS:
                yield chunk
                chunk, started = [], time.monotonic()
        if chunk:
            yield chunk

    def _prepare(self, dataset: Dataset, item: Item, *, move: bool) -> _Prepared:
        prepared = _Prepared(item)
        picture = None
        try:
            if item.path is not None:
                prepared.candidate = intake.prepare(
                    self._blobs,
                    item.path,
                    item.name,
                    max_pixels=self._settings.max_image_pixels,
                    move=move,
                )
                picture = prepared.candidate.picture
        except intake.Refused as refusal:
            prepared.rejected = True
            prepared.refusals.append((item.name, str(refusal)))
            return prepared
        if not self._options["labels"] or item.label_file is None:
            return prepared
        try:
            if item.path is None:
                prepared.image_id, picture = self._present(item)
            assert picture is not None
            prepared.labels = dataset.labels_of(item)
            if prepared.labels is not None:
                prepared.boxes = fit_to_picture(prepared.labels, picture)
        except LabelsRefused as refusal:
            prepared.labels = None
            name = item.name if dataset.format == "coco" else item.label_file
            prepared.refusals.append((name, str(refusal)))
        return prepared

    def _present(self, item: Item) -> tuple[str, Picture]:
        """The image that labels without a picture are for.

        Raises:
            LabelsRefused: the project has none of this name.
        """
        with self._sessions.begin() as session:
            image = session.scalar(
                select(Image).where(
                    Image.project_id == self._project_id,
                    Image.name == item.name,
                    Image.deleted_at.is_(None),
                )
            )
        if image is None:
            raise LabelsRefused(
                f"it labels {item.name}, which is missing here and not in the project either"
            )
        try:
            return image.id, probe(self._blobs.path(image.sha256), self._settings.max_image_pixels)
        except (PictureRefused, FileNotFoundError):
            return image.id, Picture(image.width, image.height, image.media_type)

    def _write(self, chunk: Sequence[_Prepared]) -> None:
        counts = dict(self._counts)
        try:
            with self._sessions.begin() as session:
                answers = self._add(session, chunk)
                class_names = projects.class_names(session, self._project_id)
                for prepared in chunk:
                    class_names = self._settle(
                        session, prepared, answers.get(prepared.item.name), class_names
                    )
                    self._refuse(session, prepared.refusals)
                self._counts["through"] = chunk[-1].item.name
                done = sum(self._counts[key] for key in ("created", "duplicate", "rejected"))
                total = max(1, self._counts["total"])
                # Last, so that the order of locks is the same everywhere: project, image, job.
                queue.record(
                    session,
                    self._lease,
                    counts=dict(self._counts),
                    progress=min(1.0, done / total),
                    attempts=0,  # it gets on: only being cut off again and again ends an import
                    message=f"{done} of {self._counts['total']} images",
                )
        except BaseException:
            self._counts = counts  # the transaction was rolled back, and so is what it counted
            raise

    def _add(self, session: Session, chunk: Sequence[_Prepared]) -> dict[str, intake.Added]:
        """Make images of the chunk's pictures; answers by the item's name.

        Runs of one split at a time, so that ordinals follow the order of the items.
        """
        answers: dict[str, intake.Added] = {}
        run: list[_Prepared] = []

        def close_run() -> None:
            if run:
                candidates = [each.candidate for each in run if each.candidate is not None]
                added = intake.add(
                    session,
                    self._project_id,
                    self._split(run[0].item),
                    candidates,
                    max_images=self._settings.max_project_images,
                )
                answers.update(zip((each.item.name for each in run), added, strict=True))
                run.clear()

        for prepared in chunk:
            if prepared.candidate is not None:
                if run and self._split(run[0].item) != self._split(prepared.item):
                    close_run()
                run.append(prepared)
        close_run()
        return answers

    def _settle(
        self,
        session: Session,
        prepared: _Prepared,
        answer: intake.Added | None,
        class_names: tuple[str, ...],
    ) -> tuple[str, ...]:
        """Count what became of an item, and label its image; gives the project's classes after."""
        image_id = prepared.image_id
        if prepared.rejected:
            self._counts["rejected"] += 1
        elif answer is not None:
            self._counts[answer.status] += 1
            image_id = answer.id
            if answer.status == "rejected":
                prepared.refusals.append((prepared.item.name, answer.reason or "rejected"))
        labels = prepared.labels
        if labels is None or image_id is None:
            return class_names
        try:
            if self._options["add_classes"]:
                unknown = dict.fromkeys(box.class_name for box in prepared.boxes)
                class_names = self._add_classes(session, tuple(unknown))
            check_classes(labels, class_names)
            if annotate(session, image_id, prepared.boxes, author=self._options["author"]):
                self._counts["labeled"] += 1
                self._counts["boxes"] += len(prepared.boxes)
        except LabelsRefused as refusal:
            prepared.refusals.append((prepared.item.name, f"its labels: {refusal}"))
        except ServiceError as refusal:
            prepared.refusals.append((prepared.item.name, f"its labels: {refusal.detail}"))
        return class_names

    def _add_classes(self, session: Session, wanted: Sequence[str]) -> tuple[str, ...]:
        preset = self._settings.default_preset
        return add_classes(session, self._project_id, wanted, default_preset=preset)

    def _refuse(self, session: Session, refusals: Sequence[tuple[str, str]]) -> None:
        for name, reason in refusals:
            session.add(
                ImportRefusal(
                    import_id=self._lease.job_id,
                    seq=self._counts["refused"],
                    name=_storable(name),
                    reason=_storable(reason),
                )
            )
            self._counts["refused"] += 1

    def _split(self, item: Item) -> str:
        return item.split or (
            "pool" if self._options["split"] == "auto" else self._options["split"]
        )

    def _summary(self, dataset: Dataset) -> str:
        counts = self._counts
        sentence = (
            f"{counts['created']} images created, {counts['duplicate']} duplicates, "
            f"{counts['rejected']} rejected; {counts['labeled']} labeled with {counts['boxes']} "
            f"boxes (read as {dataset.format})"
        )
        if dataset.num_left_out:
            sentence += f"; {dataset.num_left_out} left out, because no list names them"
        return sentence


def unpack_folder(blobs: BlobStore, import_id: str, fence: int | str) -> Path:
    """Where an archive is unpacked under one claim."""
    return blobs.tmp_dir / f"import-{import_id}-{fence}"


def unpacked_folders(blobs: BlobStore, import_id: str = "*") -> list[Path]:
    """The folders into which archives were unpacked, of one import or of all."""
    return list(blobs.tmp_dir.glob(unpack_folder(blobs, import_id, "*").name))


def _reading(options: Json) -> Reading:
    return Reading(
        format=None if options["format"] == "auto" else options["format"],
        corners=options["corners"],
        empty=options["empty"],
        splits=options["splits"] or ("auto" if options["split"] == "auto" else None),
    )


def _only_folder(root: Path) -> Path:
    """The one folder that an archive holds, if that is all: its name is no part of image names."""
    entries = [entry for entry in root.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
    markers = {"jpegimages", "annotations", "images", "train", "val", "valid", "test"}
    if len(entries) == 1 and entries[0].is_dir() and entries[0].name.lower() not in markers:
        return _only_folder(entries[0])
    return root


def _storable(text: str) -> str:
    """What any database takes, no NUL and no half of a character; and what anybody would read."""
    if len(text) > MAX_SAID_CHARACTERS:
        text = f"{text[:MAX_SAID_CHARACTERS]}…"
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
