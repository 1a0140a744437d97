from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from server.errors import NotFound
from server.formats.pictures import Picture
from server.services import images, intake, projects
from server.services.decoding import probe
from server.services.intake import Refused, clean_name
from server.store.blobs import BlobStore
from server.store.models import Image


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("a.jpg", "a.jpg"),
        ("./street/a.jpg", "street/a.jpg"),
        ("street\\a.jpg", "street/a.jpg"),
        (".hidden/..a.jpg", ".hidden/..a.jpg"),
        ("a b+ü.jpg", "a b+ü.jpg"),
    ],
)
def test_a_relative_path_is_a_name(raw: str, name: str) -> None:
    assert clean_name(raw) == name


@pytest.mark.parametrize(
    "raw",
    [
        "",
        " ",
        ".",
        "./",
        "street/",
        "/etc/passwd",
        "C:\\a.jpg",
        "c:/a.jpg",
        "c:a.jpg",
        "a\u0085.jpg",
        "a\u2028.jpg",
        "a\u202egpj.exe",
        "../a.jpg",
        "a/../../b.jpg",
        "a\n.jpg",
        "a\x00.jpg",
        "\ufffd.jpg",
        "x" * 501,
    ],
)
def test_what_is_no_relative_path_is_no_name(raw: str) -> None:
    with pytest.raises(Refused):
        clean_name(raw)


def test_a_picture_is_looked_at_before_it_is_stored(
    blobs: BlobStore, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    path = tmp_path / "upload"
    path.write_bytes(b"GIF89a and no more")
    with pytest.raises(Refused):
        intake.prepare(blobs, path, "a.gif", max_pixels=10_000, move=True)
    assert list(blobs.iter_all()) == []
    path.write_bytes(picture(1))
    candidate = intake.prepare(blobs, path, "a.png", max_pixels=10_000, move=False)
    assert blobs.read_bytes(candidate.blob.sha256) == picture(1)
    assert path.exists()


def test_ordinals_follow_the_order_of_intake_without_gaps(
    sessions: sessionmaker[Session],
    blobs: BlobStore,
    tmp_path: Path,
    picture: Callable[..., bytes],
) -> None:
    with sessions.begin() as session:
        project_id = new_project(session)

    def candidates(*numbers: int) -> list[intake.Candidate]:
        found = []
        for number in numbers:
            path = tmp_path / "upload"
            path.write_bytes(picture(number))
            found.append(intake.prepare(blobs, path, f"{number}.png", max_pixels=10_000, move=True))
        return found

    with sessions.begin() as session:
        intake.add(session, project_id, "pool", candidates(5, 3), max_images=1000)
    with sessions.begin() as session:
        added = intake.add(session, project_id, "pool", candidates(3, 9, 9, 1), max_images=1000)
    assert [each.status for each in added] == ["duplicate", "created", "duplicate", "created"]
    with sessions() as session:
        images = session.query(Image).order_by(Image.ordinal)
        assert [(image.ordinal, image.name) for image in images] == [
            (0, "5.png"),
            (1, "3.png"),
            (2, "9.png"),
            (3, "1.png"),
        ]


def test_a_project_takes_no_more_images_than_it_may_hold(
    sessions: sessionmaker[Session],
    blobs: BlobStore,
    tmp_path: Path,
    picture: Callable[..., bytes],
) -> None:
    def add(session: Session, *numbers: int) -> list[str]:
        candidates = []
        for number in numbers:
            path = tmp_path / "upload"
            path.write_bytes(picture(number))
            name = f"{number}.png"
            candidates.append(intake.prepare(blobs, path, name, max_pixels=10_000, move=True))
        added = intake.add(session, project_id, "pool", candidates, max_images=3)
        return [f"{each.status} {each.reason or ''}".strip() for each in added]

    with sessions.begin() as session:
        project_id = new_project(session)
        assert add(session, 1, 2) == ["created", "created"]
    full = (
        "rejected the project holds 3 images, which is the most that is allowed here: "
        "delete some, or go on in another project"
    )
    with sessions.begin() as session:
        assert add(session, 1, 3, 4) == ["duplicate the same bytes as 1.png", "created", full]
    with sessions.begin() as session:
        image_id = session.query(Image).filter_by(name="2.png").one().id
        images.delete(session, image_id)
        assert add(session, 5, 6) == ["created", full]


def test_a_file_that_changes_while_it_is_taken_in_is_stored_as_it_was_decoded(
    blobs: BlobStore,
    tmp_path: Path,
    picture: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "a"
    path.write_bytes(picture(1))

    def exchanging(looked_at: Path, max_pixels: int) -> Picture:
        path.write_bytes(b"<html>something else</html>")
        return probe(looked_at, max_pixels)

    monkeypatch.setattr(intake, "probe", exchanging)
    candidate = intake.prepare(blobs, path, "a.png", max_pixels=10_000, move=False)
    assert blobs.read_bytes(candidate.blob.sha256) == picture(1)


def test_a_link_that_a_file_has_become_is_not_followed(
    blobs: BlobStore, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    (tmp_path / "secret").write_bytes(picture(1))
    (tmp_path / "a").symlink_to("secret")
    with pytest.raises(Refused, match="link"):
        intake.prepare(blobs, tmp_path / "a", "a.png", max_pixels=10_000, move=False)
    assert list(blobs.iter_all()) == []


def test_nothing_is_added_to_a_project_that_is_gone(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        project_id = new_project(session)
        projects.delete(session, project_id)
    with sessions() as session, pytest.raises(NotFound):
        intake.add(session, project_id, "pool", [], max_images=1000)


def new_project(session: Session) -> str:
    created = projects.create(
        session,
        name="p",
        classes=["car"],
        instructions="",
        validation_images=0,
        cycle_defaults={},
        default_preset="cpu",
    )
    return created.project.id
