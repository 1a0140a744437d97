"""What a cycle sees of its project."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from server.store.models import Image, Json, utc_now
from server.store.pool import ImageRecord, Snapshot, count_trainable, take_snapshot


def snapshot_of(sessions: sessionmaker[Session], project_id: str) -> Snapshot:
    with sessions() as session:
        return take_snapshot(session, project_id)


def test_an_empty_project_has_an_empty_snapshot(
    world: Any, sessions: sessionmaker[Session]
) -> None:
    project_id = world.project("car", "bus")
    assert snapshot_of(sessions, project_id) == Snapshot(project_id, ("car", "bus"), (), (), ())


def test_class_names_come_in_order_of_their_ids(
    world: Any, sessions: sessionmaker[Session]
) -> None:
    project_id = world.project("zebra", "ant", "mole")
    assert snapshot_of(sessions, project_id).class_names == ("zebra", "ant", "mole")


def test_labeled_and_unlabeled_images_of_the_pool_are_kept_apart(
    world: Any, sessions: sessionmaker[Session], box: Json
) -> None:
    project_id = world.project("car")
    ids = world.images(project_id, 4)
    world.label(ids[2], [box, box])
    world.label(ids[0], [])
    snapshot = snapshot_of(sessions, project_id)
    assert [image.id for image in snapshot.labeled] == [ids[0], ids[2]]
    assert [image.boxes for image in snapshot.labeled] == [[], [box, box]]
    assert [image.ordinal for image in snapshot.unlabeled] == [1, 3]
    row = world.get(Image, ids[1])
    assert snapshot.unlabeled[0] == ImageRecord(
        id=row.id, ordinal=1, name="street/0001.jpg", sha256=row.sha256, width=64, height=48
    )


def test_the_newest_revision_of_an_annotation_counts_with_its_number_of_classes(
    world: Any, sessions: sessionmaker[Session], box: Json
) -> None:
    project_id = world.project("car", "bus")
    [image_id] = world.images(project_id, 1)
    world.label(image_id, [box], num_classes=1)
    world.label(image_id, [box, box], num_classes=2)
    [image] = snapshot_of(sessions, project_id).labeled
    assert (len(image.boxes), image.num_classes) == (2, 2)


def test_an_image_made_unlabeled_again_is_back_in_the_pool_without_its_boxes(
    world: Any, sessions: sessionmaker[Session], box: Json
) -> None:
    project_id = world.project("car")
    [image_id] = world.images(project_id, 1)
    world.label(image_id, [box])
    world.label(image_id, None)
    snapshot = snapshot_of(sessions, project_id)
    assert snapshot.labeled == ()
    assert [image.id for image in snapshot.unlabeled] == [image_id]


def test_deleted_and_skipped_images_and_those_of_other_splits_and_projects_stay_out(
    world: Any, sessions: sessionmaker[Session], box: Json
) -> None:
    project_id = world.project("car")
    deleted, deleted_labeled, skipped, wanted = world.images(project_id, 4)
    world.label(deleted_labeled, [box])
    world.delete(Image, deleted)
    world.delete(Image, deleted_labeled)
    world.change(Image, skipped, skipped_at=utc_now())
    world.images(project_id, 1, split="test")
    [unlabeled_val] = world.images(project_id, 1, split="val")
    [labeled_test] = world.images(project_id, 1, split="test")
    world.label(labeled_test, [box])
    world.images(world.project("car"), 1)
    snapshot = snapshot_of(sessions, project_id)
    assert [image.id for image in snapshot.unlabeled] == [wanted]
    assert snapshot.labeled == ()
    assert snapshot.validation == ()
    world.label(unlabeled_val, [box])
    assert [image.id for image in snapshot_of(sessions, project_id).validation] == [unlabeled_val]


def test_a_snapshot_counts_itself(world: Any, sessions: sessionmaker[Session], box: Json) -> None:
    project_id = world.project("car")
    ids = world.images(project_id, 5)
    world.label(ids[0], [box, box])
    world.label(ids[1], [])
    [validation] = world.images(project_id, 1, split="val")
    world.label(validation, [box])
    assert snapshot_of(sessions, project_id).counts() == {
        "labeled_images": 2,
        "boxes": 2,
        "pool_images": 3,
        "validation_images": 1,
    }


def test_only_labeled_pool_images_with_a_box_count_as_trainable(
    world: Any, sessions: sessionmaker[Session], box: Json
) -> None:
    project_id = world.project("car")
    with_box, negative, deleted, _ = world.images(project_id, 4)
    [validation] = world.images(project_id, 1, split="val")
    world.label(with_box, [box])
    world.label(negative, [])
    world.label(deleted, [box])
    world.label(validation, [box])
    world.delete(Image, deleted)
    empty = world.project()
    with sessions() as session:
        assert count_trainable(session, project_id) == 1
        assert count_trainable(session, empty) == 0
