from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from server.formats.dataset import Reading
from server.formats.layout import read_folder
from worker.scenes import CLASS_NAMES, FIRST_TEST_INDEX, draw_scene, write_voc

ROOT = Path(__file__).parents[2]


def test_a_scene_is_the_same_in_every_run() -> None:
    program = (
        "import hashlib; from worker.scenes import draw_scene; "
        "print(hashlib.sha256(draw_scene(3, 7).image.tobytes()).hexdigest())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    here = hashlib.sha256(draw_scene(3, 7).image.tobytes()).hexdigest()
    assert answer.stdout.strip() == here


def test_scenes_differ_by_seed_and_by_index() -> None:
    pictures = {draw_scene(seed, index).image.tobytes() for seed in (0, 1) for index in range(3)}
    assert len(pictures) == 6


@pytest.mark.parametrize("size", [(256, 192), (320, 320), (160, 120)])
def test_boxes_lie_inside_the_picture_and_are_large_enough(size: tuple[int, int]) -> None:
    width, height = size
    for index in range(40):
        scene = draw_scene(0, index, size)
        assert scene.image.shape == (height, width, 3)
        assert scene.image.dtype == np.uint8
        assert len(scene.boxes) == len(scene.class_names)
        assert set(scene.class_names) <= set(CLASS_NAMES)
        x1, y1, x2, y2 = scene.boxes.T
        assert (scene.boxes == np.round(scene.boxes)).all()
        assert (x1 >= 0).all()
        assert (y1 >= 0).all()
        assert (x2 <= width).all()
        assert (y2 <= height).all()
        longest = np.maximum(x2 - x1, y2 - y1)
        assert (longest >= 16 * width / 256).all()


def test_a_pool_has_a_long_tail_and_sparse_and_crowded_scenes() -> None:
    scenes = [draw_scene(0, index) for index in range(200)]
    frequency = Counter(name for scene in scenes for name in scene.class_names)
    assert [name for name, _ in frequency.most_common()] == list(CLASS_NAMES)
    assert frequency["screw"] > 4 * frequency["key"] > 0
    counts = np.array([len(scene.boxes) for scene in scenes])
    assert (counts == 0).sum() >= 5
    assert (counts <= 2).mean() > 0.4
    assert (counts >= 8).mean() > 0.04


def test_objects_stand_out_from_their_background() -> None:
    # Were boxes and drawings out of step, the inside of a box would look like anywhere else.
    inside, outside = [], []
    for index in range(60):
        scene = draw_scene(1, index)
        covered = np.zeros(scene.image.shape[:2], bool)
        for x1, y1, x2, y2 in scene.boxes.astype(int):
            covered[y1:y2, x1:x2] = True
        grey = scene.image.mean(axis=2)
        slope = np.abs(np.diff(grey, axis=1))[:, 4:]
        covered = covered[:, 5:]
        if covered.any():
            inside.append(slope[covered].mean())
            outside.append(slope[~covered].mean())
    assert np.mean(inside) > 1.5 * np.mean(outside)


def test_a_written_data_set_is_read_as_drawn(tmp_path: Path) -> None:
    write_voc(tmp_path, num_trainval=5, num_test=3, seed=4)
    dataset = read_folder(tmp_path, Reading(splits={"trainval": "pool", "test": "val"}))
    assert dataset.refusals == []
    assert Counter(item.split for item in dataset.items) == {"pool": 5, "val": 3}
    for item in dataset.items:
        number = int(item.name[-9:-4])
        index = number + (FIRST_TEST_INDEX if item.split == "val" else 0)
        scene = draw_scene(4, index)
        labels = dataset.labels_of(item)
        assert labels is not None
        assert [(b.x1, b.y1, b.x2, b.y2) for b in labels.boxes] == [
            tuple(box) for box in scene.boxes.tolist()
        ]
        assert tuple(box.class_name for box in labels.boxes) == scene.class_names


def test_a_larger_pool_leaves_the_test_set_as_it_is(tmp_path: Path) -> None:
    for folder, number in (("small", 2), ("large", 4)):
        write_voc(tmp_path / folder, num_trainval=number, num_test=2, seed=0, size=(128, 96))
    for name in ("test_00000.jpg", "test_00001.jpg", "trainval_00001.jpg"):
        small, large = (tmp_path / folder / "JPEGImages" / name for folder in ("small", "large"))
        assert small.read_bytes() == large.read_bytes()
