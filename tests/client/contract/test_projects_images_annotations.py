"""Projects, images and annotations: what goes in comes out, and wrong things are refused."""

import io
from collections.abc import Callable
from pathlib import Path

import miaod_client
import PIL.Image
import pytest
from miaod_client import Box, Client, Image, ImageFile, Project

Picture = Callable[[int], bytes]
DrawPictures = Callable[[Path, int], None]
CAR = {"class": "car", "x1": 1.0, "y1": 2.0, "x2": 20.0, "y2": 25.5, "difficult": False}


def test_a_project_lives_from_creation_to_deletion(client: Client) -> None:
    made = client.projects.create(
        name="harbour",
        classes=["boat"],
        instructions="Box every boat.",
        validation_images=3,
        cycle_defaults={"budget": 7},
    )
    assert made.cycle_defaults["budget"] == 7
    changed = client.projects.update(made.id, classes=["boat", "buoy"])
    assert changed.classes == ["boat", "buoy"]
    found = client.projects.find(name="harbour")
    assert found is not None
    assert found.counts is not None
    assert (found.counts.images, found.instructions) == (0, "Box every boat.")
    client.projects.delete(made.id)
    assert client.projects.find(name="harbour") is None
    with pytest.raises(miaod_client.NotFoundError):
        client.projects.get(made.id)


def test_refusals_come_with_their_class_and_code(client: Client, project: Project) -> None:
    with pytest.raises(miaod_client.ConflictError) as taken:
        client.projects.create(name="street", classes=["a"])
    assert taken.value.code == "name_taken"
    assert taken.value.request_id
    with pytest.raises(miaod_client.UnprocessableError, match="body.classes"):
        client.projects.create(name="other", classes=[])
    with pytest.raises(miaod_client.ConflictError, match="class"):
        client.projects.update(project.id, classes=["person", "car"])


def test_labels_are_counted_by_class_and_author(
    client: Client, project: Project, images: list[Image]
) -> None:
    client.annotations.put(images[0].id, boxes=[CAR], version=0, author="ana", seconds=4.0)
    found = client.projects.statistics(project.id)
    assert [(row.class_name, row.boxes) for row in found.classes] == [("car", 1), ("person", 0)]
    (ana,) = found.authors
    assert (ana.author, ana.images, ana.seconds_median) == ("ana", 1, 4.0)
    assert found.imported == 0


def test_projects_are_listed_page_by_page(client: Client) -> None:
    for number in range(5):
        client.projects.create(name=f"p{number}", classes=["a"])
    listed = client.projects.list(page_size=2)
    assert [project.name for project in listed] == [f"p{number}" for number in range(5)]
    assert listed.total() == 5


def test_uploads_are_answered_file_by_file_in_order(
    client: Client, project: Project, tmp_path: Path, draw_pictures: DrawPictures, picture: Picture
) -> None:
    draw_pictures(tmp_path / "a", 3)
    (tmp_path / "a" / "1.png").write_bytes(b"no picture at all")
    (tmp_path / "again.png").write_bytes(picture(10))
    report = client.images.upload(
        project=project.id,
        paths=[tmp_path / "a", tmp_path / "again.png"],
        split="test",
        batch_files=2,
    )
    assert [(item.name, item.status) for item in report.items] == [
        ("0.png", "created"),
        ("1.png", "rejected"),
        ("2.png", "created"),
        ("again.png", "duplicate"),
    ]
    assert report.rejected[0].reason
    assert report.duplicates[0].id == report.items[0].id
    assert {image.split for image in client.images.list(project=project.id)} == {"test"}


def test_names_keep_their_folders_spaces_and_accents(
    client: Client, project: Project, tmp_path: Path, picture: Picture
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(picture(1))
    name = "Straße nord/Ansicht 1 (ü).png"
    client.images.upload(project=project.id, paths=ImageFile(path=path, name=name))
    found = client.images.list(project=project.id, name=name).first()
    assert found is not None
    assert found.name == name


def test_uploading_into_nowhere_is_not_found(
    client: Client, tmp_path: Path, draw_pictures: DrawPictures
) -> None:
    draw_pictures(tmp_path / "a", 1)
    with pytest.raises(miaod_client.NotFoundError):
        client.images.upload(project="019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e", paths=tmp_path / "a")


def test_images_are_filtered_moved_and_deleted(
    client: Client, project: Project, images: list[Image]
) -> None:
    client.annotations.put(images[0].id, boxes=[CAR], version=0)
    by_class = client.images.list(project=project.id, class_name="car", state="labeled")
    assert [image.id for image in by_class] == [images[0].id]
    assert client.images.update(images[1].id, split="val").split == "val"
    assert client.images.list(project=project.id, split="val").total() == 1
    assert client.images.list(project=project.id, skipped=True).total() == 0
    client.images.delete(images[2].id)
    assert client.images.list(project=project.id, page_size=2).total() == 5
    assert len(list(client.images.list(project=project.id, page_size=2))) == 5
    with pytest.raises(miaod_client.NotFoundError):
        client.images.get(images[2].id)


def test_pictures_come_back_as_they_were(
    client: Client, images: list[Image], tmp_path: Path
) -> None:
    image = images[0]
    original = (tmp_path / "pool" / "0.png").read_bytes()
    assert client.images.content(image.id) == original
    assert client.images.download(image.id, to=tmp_path) == tmp_path / "0.png"
    assert (tmp_path / "0.png").read_bytes() == original
    for made in (
        client.images.content(image.id, rendition="display"),
        client.images.thumbnail(image.id),
    ):
        assert PIL.Image.open(io.BytesIO(made)).format == "JPEG"
    assert client.images.predictions(image.id).predictions is None


def test_annotations_are_versioned(client: Client, images: list[Image]) -> None:
    image = images[0].id
    assert client.annotations.get(image).boxes is None
    first = client.annotations.put(
        image, version=0, boxes=[CAR], author="ana", seconds=4.5, source="suggestion"
    )
    assert first.boxes == [Box.model_validate(CAR)]
    assert (first.version, first.author, first.seconds) == (1, "ana", 4.5)
    with pytest.raises(miaod_client.ConflictError) as conflict:
        client.annotations.put(image, version=0, boxes=[])
    assert conflict.value.code == "version_conflict"
    assert conflict.value.current is not None
    assert conflict.value.current["version"] == 1
    negative = client.annotations.put(image, boxes=[])
    assert (negative.version, negative.boxes, negative.state) == (2, [], "labeled")
    assert client.annotations.delete(image, version=2).state == "unlabeled"


def test_a_box_that_cannot_be_is_refused_with_a_sentence(
    client: Client, images: list[Image]
) -> None:
    for wrong in ({**CAR, "x2": 0.5}, {**CAR, "class": "cat"}, {**CAR, "x2": 4000}):
        with pytest.raises(miaod_client.UnprocessableError, match="box 1"):
            client.annotations.put(images[0].id, version=0, boxes=[wrong])
