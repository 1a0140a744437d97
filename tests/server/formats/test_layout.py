from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from server.formats.boxes import LabeledBox, LabeledImage, LabelsRefused
from server.formats.dataset import Dataset, LayoutRefused, Reading
from server.formats.layout import read_folder
from server.formats.voc import write_annotation

Splits = Mapping[str, str] | Literal["auto"] | None


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def annotate(root: Path, xml: str, filename: str) -> None:
    path = root / xml
    path.parent.mkdir(parents=True, exist_ok=True)
    box = LabeledBox("car", 0, 0, 5, 5)
    path.write_bytes(write_annotation(LabeledImage(filename, 10, 10, (box,))))


def lists(root: Path, **names: list[str]) -> None:
    folder = root / "ImageSets" / "Main"
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in names.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def coco(root: Path, name: str, *file_names: str, **more: Any) -> None:
    images = [{"id": i, "file_name": f, **more} for i, f in enumerate(file_names)]
    annotations = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 2, 2]} for i in range(len(images))
    ]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "car"}],
    }
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def read(root: Path, splits: Splits = None, **how: Any) -> Dataset:
    return read_folder(root, Reading(splits=splits, **how))


def splits_of(dataset: Dataset) -> dict[str, str | None]:
    return {item.name: item.split for item in dataset.items}


def names(dataset: Dataset) -> list[str]:
    return [item.name for item in dataset.items]


def labeled(dataset: Dataset) -> list[str]:
    return [item.name for item in dataset.items if dataset.labels_of(item) is not None]


def test_a_folder_of_pictures_is_listed_by_path_without_hidden_files(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.jpg", "a.jpg", "b/1.png", ".DS_Store", "__MACOSX/a.jpg", ".git/x.jpg")
    dataset = read(tmp_path)
    assert dataset.format == "images"
    assert names(dataset) == ["a.jpg", "b/1.png", "b/2.jpg"]
    assert labeled(dataset) == []


def test_links_lead_nowhere_outside(tmp_path: Path) -> None:
    touch(tmp_path, "secret.jpg", "other/x.jpg", "data/real.jpg")
    data = tmp_path / "data"
    (data / "inside.jpg").symlink_to(data / "real.jpg")
    (data / "outside.jpg").symlink_to(tmp_path / "secret.jpg")
    (data / "folder").symlink_to(tmp_path / "other")
    (data / "broken.jpg").symlink_to(data / "nowhere")
    dataset = read(data)
    assert names(dataset) == ["inside.jpg", "real.jpg"]
    assert [name for name, _ in dataset.refusals] == ["broken.jpg", "folder", "outside.jpg"]


def test_a_voc_folder_is_found_wherever_it_lies(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2007"
    touch(root, "JPEGImages/1.jpg", "JPEGImages/street/2.jpg", "SegmentationClass/1.png")
    annotate(root, "Annotations/1.xml", "1.jpg")
    annotate(root, "Annotations/street/2.xml", "street/2.jpg")
    dataset = read(tmp_path)
    assert dataset.format == "voc"
    assert names(dataset) == labeled(dataset) == ["1.jpg", "street/2.jpg"]
    assert dataset.refusals == []


def test_two_voc_folders_at_once_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "VOC2007/JPEGImages/1.jpg", "VOC2012/JPEGImages/1.jpg")
    with pytest.raises(LayoutRefused, match="VOC2007/, VOC2012/"):
        read(tmp_path)


def test_xml_files_beside_the_pictures_are_understood(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg", "notes.txt")
    annotate(tmp_path, "1.xml", "1.jpg")
    dataset = read(tmp_path)
    assert names(dataset) == ["1.jpg", "2.jpg"]
    assert labeled(dataset) == ["1.jpg"]


def test_xml_files_in_a_folder_next_to_images_are_understood(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.png", "images/2.png")
    annotate(tmp_path, "annotations/2.xml", "whatever.jpg")
    dataset = read(tmp_path)
    assert names(dataset) == ["1.png", "2.png"]
    assert labeled(dataset) == ["2.png"]


def test_pictures_that_differ_only_in_their_extension_keep_their_own_labels(tmp_path: Path) -> None:
    touch(tmp_path, "JPEGImages/a.jpg", "JPEGImages/a.png", "JPEGImages/b.jpg", "JPEGImages/b.png")
    annotate(tmp_path, "Annotations/a.png.xml", "a.png")
    annotate(tmp_path, "Annotations/b.xml", "b.jpg")
    dataset = read(tmp_path)
    assert labeled(dataset) == ["a.png", "b.jpg"]


def test_labels_that_fit_no_picture_or_several_are_reported(tmp_path: Path) -> None:
    touch(tmp_path, "JPEGImages/a.jpg", "JPEGImages/a.png", "JPEGImages/b.jpg")
    annotate(tmp_path, "Annotations/a.xml", "c.jpg")
    annotate(tmp_path, "Annotations/b.xml", "b.jpg")
    annotate(tmp_path, "Annotations/b.jpg.xml", "b.jpg")
    touch(tmp_path, "Annotations/broken.xml")
    dataset = read(tmp_path)
    assert [name for name, _ in dataset.refusals] == [
        "Annotations/a.xml",
        "Annotations/b.xml",
        "Annotations/broken.xml",
    ]
    assert labeled(dataset) == ["b.jpg"]


def test_labels_without_a_picture_are_for_an_image_that_came_before(tmp_path: Path) -> None:
    annotate(tmp_path, "Annotations/street/1.xml", "street/1.jpg")
    annotate(tmp_path, "Annotations/street/2.xml", "2.jpg")
    dataset = read(tmp_path)
    assert names(dataset) == ["street/1.jpg", "street/2.jpg"]
    assert [item.path for item in dataset.items] == [None, None]


def test_a_broken_annotation_is_met_when_it_is_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, "JPEGImages/1.jpg", "Annotations/1.xml")
    (item,) = (dataset := read(tmp_path)).items
    assert item.label_file == "Annotations/1.xml"
    with pytest.raises(LabelsRefused, match="broken"):
        dataset.labels_of(item)


def voc(root: Path, *stems: str) -> None:
    touch(root, *(f"JPEGImages/{stem}.jpg" for stem in stems))


def test_lists_say_nothing_unless_asked(tmp_path: Path) -> None:
    voc(tmp_path, "1", "2")
    lists(tmp_path, trainval=["1"])
    assert splits_of(read(tmp_path)) == {"1.jpg": None, "2.jpg": None}


def test_named_lists_decide_and_what_they_do_not_name_stays_behind(tmp_path: Path) -> None:
    voc(tmp_path, "1", "2", "street/3", "4")
    lists(tmp_path, trainval=["1", "street/3"], test=["2"], other=["4"])
    dataset = read(tmp_path, {"trainval": "pool", "test": "val"})
    assert splits_of(dataset) == {"1.jpg": "pool", "2.jpg": "val", "street/3.jpg": "pool"}
    assert dataset.num_left_out == 1


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ({"trainval": ["1", "2"], "test": ["3"]}, {"1": "pool", "2": "pool", "3": "val"}),
        (
            {"trainval": ["1", "2"], "train": ["1"], "val": ["2"], "test": ["3"]},
            {"1": "pool", "2": "val", "3": "test"},
        ),
        ({"trainval": ["1", "2"], "val": ["2"]}, {"1": "pool", "2": "pool"}),
        ({"train": ["1"], "valid": ["2"], "test": ["3"]}, {"1": "pool", "2": "val", "3": "test"}),
        ({"odd": ["1"]}, {"1": None, "2": None, "3": None}),
        ({}, {"1": None, "2": None, "3": None}),
    ],
)
def test_the_usual_lists_are_understood(
    tmp_path: Path, present: dict[str, list[str]], expected: dict[str, str | None]
) -> None:
    voc(tmp_path, "1", "2", "3")
    lists(tmp_path, **present)
    found = splits_of(read(tmp_path, "auto"))
    assert found == {f"{stem}.jpg": split for stem, split in expected.items()}


def test_lists_of_one_class_and_lines_that_name_nothing(tmp_path: Path) -> None:
    voc(tmp_path, "1", "2", "my picture")
    lists(tmp_path, train=["1  1", "2 -1", "", "my picture", "gone"])
    dataset = read(tmp_path, {"train": "pool"})
    assert names(dataset) == ["1.jpg", "2.jpg", "my picture.jpg"]
    assert dataset.refusals == [("train.txt line 5", "there is no picture 'gone'")]


def test_an_image_in_two_lists_that_disagree_is_refused(tmp_path: Path) -> None:
    voc(tmp_path, "1", "2")
    lists(tmp_path, a=["1", "2"], b=["2"])
    dataset = read(tmp_path, {"a": "pool", "b": "test"})
    assert names(dataset) == ["1.jpg"]
    assert dataset.refusals[0][0] == "2.jpg"
    assert "a (pool), b (test)" in dataset.refusals[0][1]


def test_a_list_that_is_not_there_is_missed(tmp_path: Path) -> None:
    voc(tmp_path, "1")
    lists(tmp_path, train=["1"])
    with pytest.raises(LayoutRefused, match="no list trainval; there are train"):
        read(tmp_path, {"trainval": "pool"})


def test_a_coco_folder_is_found_with_its_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "images/a/1.jpg", "images/2.jpg", "images/3.jpg", "README.txt")
    coco(tmp_path, "annotations/instances.json", "a/1.jpg", "./2.jpg")
    dataset = read(tmp_path)
    assert dataset.format == "coco"
    assert names(dataset) == ["2.jpg", "3.jpg", "a/1.jpg"]
    assert labeled(dataset) == ["2.jpg", "a/1.jpg"]
    assert dataset.class_names == ("car",)


def test_one_coco_file_per_split(tmp_path: Path) -> None:
    touch(tmp_path, "train2017/1.jpg", "val2017/1.jpg")
    coco(tmp_path, "annotations/instances_train2017.json", "1.jpg")
    coco(tmp_path, "annotations/instances_val2017.json", "1.jpg")
    coco(tmp_path, "annotations/captions_val2017.json", "1.jpg")
    dataset = read(tmp_path, "auto")
    assert splits_of(dataset) == {"train2017/1.jpg": "pool", "val2017/1.jpg": "val"}
    assert labeled(dataset) == names(dataset)
    assert dataset.refusals == []


def test_label_files_beside_the_pictures_of_their_split(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        touch(tmp_path, f"{split}/1.jpg")
        coco(tmp_path, f"{split}/_annotations.coco.json", "1.jpg")
    dataset = read(tmp_path, {"train": "pool", "valid": "val"})
    assert splits_of(dataset) == {"train/1.jpg": "pool", "valid/1.jpg": "val"}
    assert dataset.num_left_out == 1


def test_the_split_of_an_entry_counts_where_nothing_else_says_it(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg")
    coco(tmp_path, "annotations/instances.json", "1.jpg", split="val")
    assert splits_of(read(tmp_path, "auto")) == {"1.jpg": "val"}
    assert splits_of(read(tmp_path)) == {"1.jpg": None}


def test_broken_and_repeated_coco_entries_are_reported(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    coco(tmp_path, "a.json", "1.jpg")
    coco(tmp_path, "b.json", "1.jpg", "missing.jpg")
    (tmp_path / "c.json").write_text('{"images": [')
    dataset = read(tmp_path)
    assert [name for name, _ in dataset.refusals] == ["b.json: 1.jpg", "c.json"]
    assert names(dataset) == ["1.jpg", "2.jpg", "missing.jpg"]
    assert dataset.items[2].path is None


@pytest.mark.parametrize(
    ("format", "said"), [("voc", "no VOC data set"), ("coco", "no COCO label file")]
)
def test_a_format_that_is_not_there_is_missed(
    tmp_path: Path, format: Literal["voc", "coco"], said: str
) -> None:
    touch(tmp_path, "data.json" if format == "voc" else "1.jpg")
    with pytest.raises(LayoutRefused, match=said):
        read(tmp_path, format=format)


def test_labels_can_be_passed_over_by_format(tmp_path: Path) -> None:
    touch(tmp_path, "JPEGImages/1.jpg", "Annotations/1.xml")
    assert names(read(tmp_path, format="images")) == ["Annotations/1.xml", "JPEGImages/1.jpg"]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutRefused, match="no files"):
        read(tmp_path)


def test_top_folders_named_like_splits_are_splits_where_asked(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "val/2.jpg")
    assert splits_of(read(tmp_path, "auto")) == {"train/1.jpg": "pool", "val/2.jpg": "val"}


def test_what_the_server_may_not_read_is_reported_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "JPEGImages/a.jpg", "JPEGImages/closed/b.jpg", "Annotations/a.xml")
    allowed, scan = os.access, os.scandir

    # Not by permissions: to root, as whom the tests may run, everything is open.
    def access(path: Path, mode: int) -> bool:
        return path.name != "a.xml" and allowed(path, mode)

    def scandir(path: str) -> Any:
        if path.endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "access", access)
    monkeypatch.setattr(os, "scandir", scandir)
    dataset = read(tmp_path)
    assert [(item.name, item.label_file) for item in dataset.items] == [("a.jpg", None)]
    assert dict(dataset.refusals) == {
        "Annotations/a.xml": "the server may not read it; change its permissions",
        "JPEGImages/closed": "the folder cannot be read (Permission denied)",
    }
