"""Images of a snapshot as samples."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from server.store.blobs import BlobStore
from server.store.models import Json
from server.store.pool import ImageRecord, LabeledRecord
from worker.dataset import ImageUnreadable, SnapshotDataset
from worker.miaod.config import PRESETS
from worker.miaod.loading import PlainBatches, iterate


def png(width: int, height: int, *, orientation: int = 1) -> bytes:
    pixels = np.arange(width * height * 3, dtype=np.uint32).reshape(height, width, 3) % 251
    exif = Picture.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Picture.fromarray(pixels.astype(np.uint8)).save(file, "PNG", exif=exif)
    return file.getvalue()


def box(class_id: int, x1: float, *, difficult: bool = False) -> Json:
    corners = {"x1": x1, "y1": 2.0, "x2": x1 + 3.5, "y2": 6.0}
    return {"class_id": class_id, "difficult": difficult, **corners}


def labeled(blobs: BlobStore, data: bytes, boxes: list[Json]) -> LabeledRecord:
    sha256 = blobs.put_bytes(data).sha256
    return LabeledRecord(
        id="a", ordinal=5, name="street/5.png", sha256=sha256, width=12, height=8, boxes=boxes,
        num_classes=2,
    )  # fmt: skip


def test_a_labeled_image_brings_its_boxes_but_not_the_difficult_ones(blobs: BlobStore) -> None:
    boxes = [box(1, 1.0), box(0, 2.0, difficult=True), box(0, 3.0)]
    dataset = SnapshotDataset(blobs, [labeled(blobs, png(12, 8), boxes)], num_classes=3)
    sample = dataset.load(0)
    assert sample.boxes.tolist() == [[1.0, 2.0, 4.5, 6.0], [3.0, 2.0, 6.5, 6.0]]
    assert sample.labels.tolist() == [1, 0]
    assert sample.labels.dtype == torch.int64
    assert (sample.ordinal, sample.num_known_classes) == (5, 2)
    assert sample.image.dtype == torch.uint8
    assert tuple(sample.image.shape) == (3, 8, 12)
    # The second pixel of the first row, channel by channel.
    assert sample.image[:, 0, 1].tolist() == [3, 4, 5]
    assert (list(dataset.ordinals), list(dataset.sizes_hw), len(dataset)) == ([5], [(8, 12)], 1)


def test_negatives_and_unlabeled_images_have_no_boxes(blobs: BlobStore) -> None:
    sha256 = blobs.put_bytes(png(12, 8)).sha256
    unlabeled = ImageRecord("b", 6, "street/6.png", sha256, 12, 8)
    dataset = SnapshotDataset(blobs, [labeled(blobs, png(12, 8), []), unlabeled], num_classes=3)
    for index in range(2):
        sample = dataset.load(index)
        assert tuple(sample.boxes.shape) == (0, 4)
        assert tuple(sample.labels.shape) == (0,)
    assert dataset.load(1).num_known_classes == 3


def test_an_image_that_lies_on_its_side_in_its_file_comes_upright(blobs: BlobStore) -> None:
    record = labeled(blobs, png(8, 12, orientation=6), [])
    assert tuple(SnapshotDataset(blobs, [record], num_classes=2).load(0).image.shape) == (3, 8, 12)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (None, "the file of image street/5.png is missing"),
        (png(12, 8)[:-40], "image street/5.png cannot be decoded"),
        (png(9, 8), "image street/5.png is 9x8 pixels"),
    ],
    ids=["missing", "cut short", "of another size"],
)
def test_an_image_that_cannot_be_read_any_more_is_named(
    blobs: BlobStore, damage: bytes | None, sentence: str
) -> None:
    record = labeled(blobs, png(12, 8), [])
    path = blobs.path(record.sha256)
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(ImageUnreadable, match=sentence) as caught:
        SnapshotDataset(blobs, [record], num_classes=2).load(0)
    assert caught.value.sentence == str(caught.value)


def test_the_name_comes_through_from_a_loader_process_without_its_traceback(
    blobs: BlobStore,
) -> None:
    record = labeled(blobs, png(12, 8), [])
    blobs.delete(record.sha256)
    images = SnapshotDataset(blobs, [record], num_classes=2)
    config = replace(PRESETS["cpu"], num_loader_workers=1)
    with pytest.raises(ImageUnreadable) as caught:
        next(iterate(PlainBatches(images, config), range(1), config))
    assert "Traceback" in str(caught.value)
    assert caught.value.sentence.startswith("the file of image street/5.png is missing")
