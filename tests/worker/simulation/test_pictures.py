from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worker.scenes import write_voc
from worker.simulation.pictures import (
    DataRefused,
    LabeledData,
    Pictures,
    count_boxes,
    ground_truth,
    read_data,
)
from worker.simulation.published import read_published


def read(root: Path, pool_list: str = "trainval", test_list: str = "test") -> LabeledData:
    return read_data(root, pool_list=pool_list, test_list=test_list)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    write_voc(tmp_path / "voc", 6, 3, seed=2, size=(128, 96))
    return tmp_path / "voc"


def test_a_voc_folder_is_a_pool_and_a_test_set(voc: Path) -> None:
    data = read(voc)
    assert [picture.ordinal for picture in data.pool] == list(range(6))
    assert [picture.ordinal for picture in data.test] == list(range(3))
    assert data.class_names == tuple(sorted(data.class_names))
    assert all(picture.size_hw == (96, 128) for picture in data.pool)
    everything = [box for picture in (*data.pool, *data.test) for box in picture.boxes]
    assert {box.class_name for box in everything} == set(data.class_names)
    counts = count_boxes(data.pool, data.class_names)
    assert sum(counts) == sum(len(picture.boxes) for picture in data.pool)


def test_the_pool_s_labels_are_not_in_what_training_reads_of_it(voc: Path) -> None:
    data = read(voc)
    labeled = Pictures(data.pool, data.class_names, labeled=True)
    hidden = Pictures(data.pool, data.class_names, labeled=False)
    for index, picture in enumerate(data.pool):
        one, other = labeled.load(index), hidden.load(index)
        assert one.image.equal(other.image)
        assert len(one.boxes) == len(picture.boxes)
        assert other.boxes.shape == (0, 4)
        assert len(other.labels) == 0
        truth = ground_truth(picture, data.class_names)
        np.testing.assert_array_equal(truth.boxes, one.boxes.numpy())
        np.testing.assert_array_equal(truth.labels, one.labels.numpy())


def test_a_difficult_object_is_tested_and_not_trained(voc: Path) -> None:
    data = read(voc)
    stem = Path(next(picture.name for picture in data.pool if picture.boxes)).stem
    path = voc / "Annotations" / f"{stem}.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1"))
    data = read(voc)
    place = next(i for i, picture in enumerate(data.pool) if Path(picture.name).stem == stem)
    assert len(Pictures(data.pool, data.class_names, labeled=True).load(place).boxes) == 0
    assert ground_truth(data.pool[place], data.class_names).difficult.all()


def test_held_out_pictures_come_from_the_pool_and_the_test_set_is_left_alone(voc: Path) -> None:
    data = read(voc)
    part = data.hold_out(2)
    assert (len(part.pool), len(part.test)) == (4, 2)
    names = {picture.name for picture in (*part.pool, *part.test)}
    assert names == {picture.name for picture in data.pool}
    assert [picture.ordinal for picture in part.test] == [0, 1]
    assert data.hold_out(2) == part
    for count in (0, 6):
        with pytest.raises(DataRefused, match="held out"):
            data.hold_out(count)


def test_data_are_known_again_by_their_labels(voc: Path) -> None:
    data = read(voc)
    assert read(voc).sha256() == data.sha256()
    stem = Path(next(picture.name for picture in data.pool if picture.boxes)).stem
    path = voc / "Annotations" / f"{stem}.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1", 1))
    assert read(voc).sha256() != data.sha256()


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        (("train", "test"), "no list train"),
        (("trainval", "val"), "no list val"),
    ],
)
def test_a_missing_list_is_named(voc: Path, lists: tuple[str, str], words: str) -> None:
    with pytest.raises(DataRefused, match=words):
        read(voc, *lists)


def test_a_broken_label_file_is_named(voc: Path) -> None:
    (voc / "Annotations" / "trainval_00001.xml").write_text("<annotation><object>")
    with pytest.raises(DataRefused, match="trainval_00001"):
        read(voc)


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="nowhere"):
        read(tmp_path / "nowhere")


def write_coco(root: Path) -> None:
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train2017", 3), ("val2017", 2)):
        (root / split).mkdir()
        for number in range(count):
            Image.new("RGB", (40, 30)).save(root / split / f"{split}{number}.jpg")
        document = {
            "images": [
                {"id": n, "file_name": f"{split}{n}.jpg", "width": 40, "height": 30}
                for n in range(count)
            ],
            "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
            # The last image has no annotation, as a thousand of COCO's have none.
            "annotations": [
                {"id": n, "image_id": n, "category_id": 7, "bbox": [1.5, 2, 10, 5], "iscrowd": 0}
                for n in range(count - 1)
            ],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))


def test_coco_is_read_without_images_that_nobody_labeled(
    tmp_path: Path,
) -> None:
    write_coco(tmp_path)
    data = read_published("coco", tmp_path)
    # A category without a single box has nothing to learn from.
    assert data.class_names == ("dog",)
    assert [Path(picture.name).name for picture in data.pool] == [
        "train20170.jpg",
        "train20171.jpg",
    ]
    assert [Path(picture.name).name for picture in data.test] == ["val20170.jpg"]
    [box] = data.pool[0].boxes
    assert (box.class_name, box.x1, box.y1, box.x2, box.y2) == ("dog", 1.5, 2, 11.5, 7)


def test_voc07_and_12_are_one_pool_in_that_order(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOC2007", 3, 2, seed=1, size=(128, 96))
    with pytest.raises(DataRefused, match="VOC2012 is missing"):
        read_published("voc07+12", tmp_path)
    write_voc(tmp_path / "VOC2012", 4, 2, seed=2, size=(128, 96))
    data = read_published("voc07+12", tmp_path)
    assert (len(data.pool), len(data.test)) == (7, 2)
    assert ["VOC2007" in str(picture.path) for picture in data.pool] == [True] * 3 + [False] * 4
    assert all("VOC2007" in str(picture.path) for picture in data.test)
