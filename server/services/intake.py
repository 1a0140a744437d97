"""Taking pictures in: from a file that came from outside to an image of a project.

Two steps, so that no transaction is open while pictures are decoded and stored: `prepare` looks at
one file and stores it as a blob, `add` makes rows of what was prepared. Uploads and imports share
both.
"""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from server.errors import NotFound
from server.formats.folder import FileRefused, open_regular
from server.formats.pictures import Picture, PictureRefused
from server.services.decoding import probe
from server.store.blobs import Blob, BlobStore
from server.store.models import Image, Project

MAX_NAME_CHARACTERS = 500
# Characters that reorder the text around them: "gpj.exe" could be shown as "exe.jpg".
_REORDERING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Refused(ValueError):
    """A file that does not become an image; the message says why and what would be right."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored picture that is about to become an image."""

    name: str
    blob: Blob
    picture: Picture


@dataclass(frozen=True, slots=True)
class Added:
    """What became of one file: `id` is the image's, or that of the one it is a duplicate of."""

    name: str
    status: Literal["created", "duplicate", "rejected"]
    id: str | None = None
    reason: str | None = None


def clean_name(raw: str) -> str:
    """The relative path under which an image is known; never used as a path of this machine.

    Backslashes become slashes, parts that say nothing (`.`, a doubled slash) go.

    Raises:
        Refused: empty, absolute, too long, with `..` or a control character in it.
    """
    slashed = raw.replace("\\", "/")
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    name = "/".join(parts)
    if slashed.startswith("/") or _has_drive(slashed):
        raise Refused(f"{raw!r} is an absolute path: a relative one such as street/0017.jpg is due")
    if not name.strip() or slashed.endswith("/"):
        raise Refused(f"{raw!r} is no file name: a relative path such as street/0017.jpg is")
    if ".." in parts:
        raise Refused(f"{raw!r} leads out of its folder: a relative path without '..' is due")
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in _REORDERING for c in name):
        raise Refused(f"{raw!r} holds a control character")
    # What a decoder leaves of bytes that are no UTF-8: two such names could not be told apart.
    if any(character == "\ufffd" or "\ud800" <= character <= "\udfff" for character in name):
        raise Refused(f"{raw!r} is not valid Unicode: send the name as UTF-8")
    if len(name) > MAX_NAME_CHARACTERS:
        raise Refused(
            f"the name has {len(name)} characters, at most {MAX_NAME_CHARACTERS} are allowed: "
            f"{name[:60]!r}…"
        )
    return name


def prepare(
    blobs: BlobStore, path: Path, raw_name: str, *, max_pixels: int, move: bool
) -> Candidate:
    """Look at a file and store it; with `move` the file itself is taken.

    Raises:
        Refused: the name or the picture is not acceptable. Nothing was stored.
    """
    name = clean_name(raw_name)
    if move:
        return _looked_at(blobs, path, name, max_pixels)
    # A copy first: what is decoded and what is stored must be the same bytes, whatever becomes of
    # the file meanwhile.
    with blobs.spool() as copy:
        try:
            with open_regular(path) as source:
                shutil.copyfileobj(source, copy, 1 << 20)
        except FileRefused as error:
            raise Refused(str(error)) from None
        copy.flush()
        return _looked_at(blobs, Path(copy.name), name, max_pixels)


def _looked_at(blobs: BlobStore, path: Path, name: str, max_pixels: int) -> Candidate:
    """Store a file of ours if it is a picture."""
    try:
        picture = probe(path, max_pixels)
    except PictureRefused as error:
        raise Refused(str(error)) from None
    return Candidate(name, blobs.put_file(path, move=True), picture)


def _has_drive(path: str) -> bool:
    """Whether Windows would see a drive in it: in `C:/a.jpg`, and in `C:a.jpg` as well."""
    return path[1:2] == ":" and path[0].isascii() and path[0].isalpha()


def add(
    session: Session,
    project_id: str,
    split: str,
    candidates: Sequence[Candidate],
    *,
    max_images: int,
) -> list[Added]:
    """Make images of prepared pictures, in their order; one answer for each.

    The same bytes again are a duplicate, unless the split differs; other bytes under a taken name
    are rejected, and so is what would be more than `max_images` in the project.

    Raises:
        NotFound: the project is gone.
    """
    # Holds the project's row until the commit: ordinals have no gaps, and no other intake can slip
    # in between the look-up of names and hashes and the insertion.
    ordinal = session.scalar(
        update(Project)
        .where(Project.id == project_id, Project.deleted_at.is_(None))
        .values(next_ordinal=Project.next_ordinal)
        .returning(Project.next_ordinal)
    )
    if ordinal is None:
        raise NotFound(f"no project {project_id}")
    by_name, by_hash = _present(session, project_id, candidates)
    room = _room(session, project_id, ordinal, len(candidates), max_images)
    answers: list[Added] = []
    for candidate in candidates:
        answer = _refusal_or_duplicate(candidate, split, by_name, by_hash)
        if answer is None and room <= 0:
            reason = (
                f"the project holds {max_images} images, which is the most that is allowed here: "
                "delete some, or go on in another project"
            )
            answer = Added(candidate.name, "rejected", None, reason)
        if answer is None:
            room -= 1
            image = Image(
                project_id=project_id,
                ordinal=ordinal,
                name=candidate.name,
                split=split,
                sha256=candidate.blob.sha256,
                num_bytes=candidate.blob.num_bytes,
                media_type=candidate.picture.media_type,
                width=candidate.picture.width,
                height=candidate.picture.height,
            )
            session.add(image)
            session.flush()
            ordinal += 1
            by_name[image.name] = by_hash[image.sha256] = image
            answer = Added(candidate.name, "created", image.id)
        answers.append(answer)
    session.execute(update(Project).where(Project.id == project_id).values(next_ordinal=ordinal))
    return answers


def _room(
    session: Session, project_id: str, ordinal: int, num_candidates: int, max_images: int
) -> int:
    """How many images more the project may hold; counted only where it may matter."""
    if ordinal + num_candidates <= max_images:
        return num_candidates
    live = select(func.count()).where(Image.project_id == project_id, Image.deleted_at.is_(None))
    return max_images - (session.scalar(live) or 0)


def _present(
    session: Session, project_id: str, candidates: Sequence[Candidate]
) -> tuple[dict[str, Image], dict[str, Image]]:
    """The project's images that share a name or the bytes with a candidate."""
    live = select(Image).where(Image.project_id == project_id, Image.deleted_at.is_(None))
    # Two statements: each uses the unique index of its column.
    names = session.scalars(live.where(Image.name.in_([each.name for each in candidates])))
    hashes = [each.blob.sha256 for each in candidates]
    return (
        {image.name: image for image in names},
        {image.sha256: image for image in session.scalars(live.where(Image.sha256.in_(hashes)))},
    )


def _refusal_or_duplicate(
    candidate: Candidate, split: str, by_name: dict[str, Image], by_hash: dict[str, Image]
) -> Added | None:
    same_bytes = by_hash.get(candidate.blob.sha256)
    if same_bytes is not None:
        if same_bytes.split != split:
            reason = (
                f"the same picture is in split {same_bytes.split} as {same_bytes.name}, "
                f"so it cannot also be in {split}: move that image instead"
            )
            return Added(candidate.name, "rejected", None, reason)
        reason = f"the same bytes as {same_bytes.name}"
        return Added(candidate.name, "duplicate", same_bytes.id, reason)
    if candidate.name in by_name:
        reason = (
            f"the name {candidate.name} is taken by another picture of the project: "
            "rename this one, or delete that one first"
        )
        return Added(candidate.name, "rejected", None, reason)
    return None
