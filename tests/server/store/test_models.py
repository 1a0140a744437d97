"""The rules that the tables themselves hold."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from server.store.models import Annotation, Artifact, Cycle, Image, Project, ProjectClass, Query


def test_two_live_projects_cannot_have_one_name_but_a_deleted_one_frees_it(world: Any) -> None:
    first = world.project(name="street")
    with pytest.raises(IntegrityError):
        world.project(name="street")
    world.delete(Project, first)
    world.project(name="street")


def test_two_live_images_of_a_project_cannot_have_one_name(world: Any) -> None:
    project_id = world.project()
    [first] = world.images(project_id, 1, name="a.jpg")
    with pytest.raises(IntegrityError):
        world.images(project_id, 1, name="a.jpg")
    world.delete(Image, first)
    world.images(project_id, 1, name="a.jpg")


def test_two_live_images_of_a_project_cannot_have_the_same_bytes(world: Any) -> None:
    project_id = world.project()
    [first] = world.images(project_id, 1, sha256="a" * 64)
    with pytest.raises(IntegrityError):
        world.images(project_id, 1, sha256="a" * 64)
    world.delete(Image, first)
    world.images(project_id, 1, sha256="a" * 64)


def test_two_projects_can_have_the_same_picture_under_the_same_name(world: Any) -> None:
    for _ in range(2):
        world.images(world.project(), 1, sha256="a" * 64, name="a.jpg")


def test_an_ordinal_is_never_given_twice_even_after_a_deletion(world: Any) -> None:
    project_id = world.project()
    [first] = world.images(project_id, 1)
    world.delete(Image, first)
    image = world.get(Image, first)
    twin = {
        name: getattr(image, name)
        for name in ("project_id", "ordinal", "sha256", "num_bytes", "width", "height")
    }
    with pytest.raises(IntegrityError):
        world.add(Image(name="b.jpg", media_type="image/png", **twin))


def test_a_class_name_is_unique_in_its_project(world: Any) -> None:
    project_id = world.project("car")
    with pytest.raises(IntegrityError):
        world.add(ProjectClass(project_id=project_id, class_id=1, name="car"))


def test_a_project_has_at_most_one_active_cycle(world: Any) -> None:
    project_id = world.project()
    first = world.cycle(project_id)
    with pytest.raises(IntegrityError):
        world.cycle(project_id)
    world.change(Cycle, first, state="running")
    with pytest.raises(IntegrityError):
        world.cycle(project_id)
    for ended in ("succeeded", "failed", "cancelled"):
        world.change(Cycle, first, state=ended)
        world.change(Cycle, world.cycle(project_id), state=ended)
    world.cycle(world.project())


def test_two_cycles_of_a_project_cannot_have_one_number(world: Any) -> None:
    project_id = world.project()
    world.cycle(project_id, state="failed")
    with pytest.raises(IntegrityError):
        world.cycle(project_id, number=1)


def test_a_revision_of_an_annotation_is_written_once(world: Any) -> None:
    [image_id] = world.images(world.project(), 1)
    world.label(image_id, [])
    with pytest.raises(IntegrityError):
        world.add(
            Annotation(
                image_id=image_id,
                version=1,
                boxes=[],
                num_classes=1,
                author="bob",
                source="human",
            )
        )


def test_a_cycle_asks_for_an_image_once_and_gives_a_rank_once(world: Any) -> None:
    project_id = world.project()
    first, second = world.images(project_id, 2)
    cycle_id = world.cycle(project_id)
    common = {"cycle_id": cycle_id, "project_id": project_id, "reason": "random"}
    world.add(Query(image_id=first, rank=1, **common))
    with pytest.raises(IntegrityError):
        world.add(Query(image_id=first, rank=2, **common))
    with pytest.raises(IntegrityError):
        world.add(Query(image_id=second, rank=1, **common))


@pytest.mark.parametrize(
    ("table", "column"), [(Image, "split"), (Image, "state"), (Cycle, "kind"), (Cycle, "state")]
)
def test_a_word_that_is_not_in_the_vocabulary_is_refused(
    world: Any, table: type[Any], column: str
) -> None:
    project_id = world.project()
    [image_id] = world.images(project_id, 1)
    key = image_id if table is Image else world.cycle(project_id)
    with pytest.raises(IntegrityError):
        world.change(table, key, **{column: "nonsense"})


def test_what_belongs_to_a_cycle_goes_with_it(world: Any) -> None:
    project_id = world.project()
    [image_id] = world.images(project_id, 1)
    cycle_id = world.cycle(project_id)
    world.add(
        Query(cycle_id=cycle_id, project_id=project_id, image_id=image_id, rank=1, reason="random"),
        Artifact(
            cycle_id=cycle_id, name="log.jsonl", sha256="a" * 64, num_bytes=1, media_type="a/b"
        ),
    )
    with world.sessions.begin() as session:
        session.delete(session.get_one(Cycle, cycle_id))
    assert world.all(Query) == []
    assert world.all(Artifact) == []
    assert len(world.all(Image)) == 1
