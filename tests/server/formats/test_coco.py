from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from server.formats.boxes import LabeledBox, LabeledImage
from server.formats.coco import (
    CocoRefused,
    annotation_entry,
    document,
    image_entry,
    looks_like_coco,
    read_coco,
)

CLASSES = ("car", "Bär ☃")
corners = st.floats(min_value=0, max_value=1e5, allow_nan=False)
boxes = st.builds(
    LabeledBox, st.sampled_from(CLASSES), corners, corners, corners, corners, st.booleans()
)


def write(path: Path, images: list[LabeledImage]) -> Path:
    entries = [image_entry(i, labels, "pool") for i, labels in enumerate(images, start=1)]
    annotations = [
        annotation_entry(1000 * i + j, i, CLASSES.index(box.class_name) + 1, box)
        for i, labels in enumerate(images, start=1)
        for j, box in enumerate(labels.boxes)
    ]
    path.write_text("".join(document(entries, annotations, lambda: CLASSES)), encoding="utf-8")
    return path


def put(path: Path, **content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


CAR = [{"id": 1, "name": "car"}]
ONE = [{"id": 1, "file_name": "a.jpg", "width": 10, "height": 10}]


@given(st.lists(st.lists(boxes, max_size=4), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_comes_back_exactly(tmp_path: Path, drawn: list[list[LabeledBox]]) -> None:
    images = [
        LabeledImage(f"street/{i}.jpg", 640, 480, tuple(each)) for i, each in enumerate(drawn)
    ]
    path = write(tmp_path / "labels.json", images)
    if not images:
        with pytest.raises(CocoRefused, match="no images"):
            read_coco(path)
        return
    found = read_coco(path, "negative")
    assert found.images == images
    assert (found.broken, found.problems, found.unlabeled) == ({}, [], set())


def test_pycocotools_reads_what_is_written(tmp_path: Path) -> None:
    drawn = LabeledImage(
        "a/1.jpg",
        640,
        480,
        (LabeledBox("car", 0.1, 0.2, 0.3, 40), LabeledBox("Bär ☃", 5, 6, 7.5, 8, difficult=True)),
    )
    negative = LabeledImage("a/2.jpg", 640, 480, ())
    path = write(tmp_path / "labels.json", [drawn, negative])
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    assert [coco.cats[i]["name"] for i in coco.getCatIds()] == list(CLASSES)
    assert coco.getImgIds() == [1, 2]
    assert coco.getAnnIds(imgIds=[2]) == []
    first, second = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert first["bbox"] == [0.1, 0.2, 0.2, 39.8]
    assert second["bbox"] == [5, 6, 2.5, 2]
    assert second["area"] == 5
    assert second["difficult"] is True


def test_pycocotools_agrees_on_what_others_write(tmp_path: Path) -> None:
    path = put(
        tmp_path / "labels.json",
        info={"year": 2020, "nested": [1, {"a": "]}"}]},
        annotations=[
            {"id": 5, "image_id": 7, "category_id": 3, "bbox": [1.5, 2, 3, 4.25], "iscrowd": 0,
             "segmentation": [[1, 2, 3, 4, 5, 6]], "area": 12.75},
            {"id": 6, "image_id": 7, "category_id": 9, "bbox": [0, 0, 9, 9], "iscrowd": 1,
             "segmentation": {"counts": [1, 2], "size": [3, 1]}, "area": 81},
        ],
        categories=[{"id": 9, "name": "crowd"}, {"id": 3, "name": "dog"}],
        images=[{"id": 7, "file_name": "x.jpg", "width": 64, "height": 48}],
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    found = read_coco(path)
    (image,) = found.images
    for box, entry in zip(image.boxes, coco.loadAnns(coco.getAnnIds(imgIds=[7])), strict=True):
        x, y, width, height = entry["bbox"]
        assert (box.x1, box.y1, box.x2, box.y2) == (x, y, x + width, y + height)
        assert box.class_name == coco.cats[entry["category_id"]]["name"]
        assert box.difficult == bool(entry["iscrowd"])
    assert found.class_names == ("dog", "crowd")


def test_an_image_without_annotations_is_unlabeled_unless_told_otherwise(tmp_path: Path) -> None:
    path = put(tmp_path / "a.json", images=ONE, annotations=[], categories=CAR)
    assert read_coco(path).unlabeled == {"a.jpg"}
    assert read_coco(path, "negative").unlabeled == set()


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        ({"image_id": 1, "category_id": 1, "bbox": [1, 2, 3]}, "bbox"),
        ({"image_id": 1, "category_id": 1, "bbox": None}, "bbox"),
        ({"image_id": 1, "category_id": 1, "bbox": [1, 2, "3", 4]}, "bbox"),
        ({"image_id": 1, "category_id": 1}, "bbox"),
        ({"image_id": 1, "category_id": 8, "bbox": [1, 2, 3, 4]}, "category_id 8"),
        ({"image_id": 1, "category_id": [], "bbox": [1, 2, 3, 4]}, r"category_id \[\]"),
    ],
)
def test_a_broken_annotation_spoils_its_image_and_no_other(
    tmp_path: Path, annotation: dict[str, Any], said: str
) -> None:
    good = {"id": 2, "image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4]}
    images = [*ONE, {"id": 2, "file_name": "b.jpg"}]
    path = put(tmp_path / "a.json", images=images, annotations=[annotation, good], categories=CAR)
    found = read_coco(path)
    assert list(found.broken) == ["a.jpg"]
    assert re.search(said, found.broken["a.jpg"])
    assert found.images[1].boxes == (LabeledBox("car", 1, 2, 4, 6),)


def test_entries_that_lead_nowhere_are_reported(tmp_path: Path) -> None:
    path = put(
        tmp_path / "a.json",
        images=[*ONE, {"id": 1, "file_name": "again.jpg"}, {"id": 3}, "nonsense"],
        annotations=[{"id": 4, "image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4]}, None],
        categories=[*CAR, {"name": "nameless id"}, 7],
    )
    found = read_coco(path)
    assert [name for name, _ in found.problems] == [
        "again.jpg",
        "image entry 3",
        "image entry 4",
        "annotation 4",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'{' is due"),
        ("[]", "'{' is due"),
        ("{}", "no images"),
        ('{"images": [{"id": 1', "broken at character"),
        ('{"images": [1, 2}', "broken at character"),
        ('{"images" [1]}', "':' is due"),
        ("{3: 4}", "broken"),
        ('{"images": ' + "[" * 100_000, "nested|broken"),
        ('{"images": [' + "9" * 5000 + "]}", "broken"),
    ],
)
def test_a_file_that_is_no_coco_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(CocoRefused, match=said):
        read_coco(path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"images": ["\xff\xfe"]}')
    with pytest.raises(CocoRefused, match="UTF-8"):
        read_coco(path)


@pytest.mark.parametrize("number", ["1e999999999", "NaN", "-Infinity", "1e-999999999"])
def test_numbers_out_of_measure_do_no_harm(tmp_path: Path, number: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(
        f'{{"images": [{{"id": 1, "file_name": "a.jpg", "width": {number}}}],'
        f'"annotations": [{{"image_id": 1, "category_id": 1, "bbox": [{number}, 1, 2, 3]}}],'
        '"categories": [{"id": 1, "name": "car"}]}'
    )
    found = read_coco(path)
    assert found.images[0].width is None
    assert found.broken or not 0 < found.images[0].boxes[0].x1 < 1e9


def test_a_file_longer_than_any_buffer_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.formats.json_stream.CHUNK_CHARACTERS", 7)
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(50)]
    annotations = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [i, 12.25, 1000, 3]} for i in range(50)
    ]
    path = put(tmp_path / "a.json", images=images, annotations=annotations, categories=CAR)
    found = read_coco(path)
    assert [image.boxes[0].x1 for image in found.images] == list(range(50))
    assert {image.boxes[0].y2 for image in found.images} == {15.25}


def test_an_element_out_of_measure_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.formats.json_stream.CHUNK_CHARACTERS", 64)
    monkeypatch.setattr("server.formats.json_stream.MAX_ELEMENT_CHARACTERS", 1000)
    path = put(tmp_path / "a.json", images=[{"id": 1, "file_name": "x" * 5000}])
    with pytest.raises(CocoRefused, match="more than 1000 characters"):
        read_coco(path)


def test_label_files_are_told_from_other_json(tmp_path: Path) -> None:
    assert looks_like_coco(put(tmp_path / "a.json", images=ONE, annotations=[], categories=CAR))
    assert not looks_like_coco(put(tmp_path / "b.json", name="settings", version=3))
    (tmp_path / "c.json").write_text("[]")
    assert not looks_like_coco(tmp_path / "c.json")
