from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.worker.miaod.pictures import tiny_config
from worker.miaod.checkpoint import UnknownModelFile, dump_model, load_model, warm_start
from worker.miaod.config import TrainingConfig
from worker.miaod.detector import Detector
from worker.miaod.model import build_model

CONFIG = tiny_config()


def built(num_classes: int, seed: int, config: TrainingConfig = CONFIG) -> Detector:
    return build_model(config, num_classes, weights_dir=None, seed=seed)


def test_a_saved_model_comes_back_with_its_classes_and_configuration(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = built(2, seed=1)
    path.write_bytes(dump_model(model, ["car", "bus"]))
    loaded = load_model(path)
    assert loaded.class_names == ("car", "bus")
    assert loaded.model.config == CONFIG
    weights = loaded.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_a_model_loads_where_the_pretrained_weights_are_not(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    config = tiny_config(backbone="resnet18", frozen_stages=2)
    model = built(1, seed=0, config=config)
    model.config = tiny_config(backbone="resnet18", frozen_stages=2, pretrained=True)
    path.write_bytes(dump_model(model, ["car"]))
    assert load_model(path).model.config.pretrained


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"a picture of a cat")
    with pytest.raises(UnknownModelFile, match="is not a safetensors file"):
        load_model(path)
    later = dump_model(built(1, seed=0), ["car"]).replace(b"retinanet-1", b"retinanet-9")
    path.write_bytes(later)
    with pytest.raises(UnknownModelFile, match="has format 'miaod-retinanet-9'"):
        load_model(path)
    path.write_bytes(safetensors.torch.save({"w": torch.zeros(1)}))
    with pytest.raises(UnknownModelFile, match="has format None"):
        load_model(path)


@pytest.mark.parametrize(
    ("old_names", "new_names"),
    [(["car", "bus"], ["bus", "bike", "car"]), (["car"], ["car", "bus"]), (["a", "car"], ["car"])],
)
def test_a_warm_start_copies_the_rows_of_the_classes_that_both_know(
    old_names: list[str], new_names: list[str]
) -> None:
    old, model = built(len(old_names), seed=1), built(len(new_names), seed=2)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    warm_start(model, new_names, old.state_dict(), old_names)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        said, says = old(images), model(images)
    for name in set(old_names) & set(new_names):
        for tower in ("f1", "f2"):
            for before, after in zip(getattr(said, tower), getattr(says, tower), strict=True):
                torch.testing.assert_close(
                    after[..., new_names.index(name)], before[..., old_names.index(name)]
                )
    weight = "towers.f1.output.weight"
    rows = model.state_dict()[weight].unflatten(0, (9, -1))
    fresh_rows = fresh[weight].unflatten(0, (9, -1))
    for index, name in enumerate(new_names):
        assert torch.equal(rows[:, index], fresh_rows[:, index]) == (name not in old_names)


def test_a_warm_start_from_another_network_is_refused() -> None:
    other = built(2, seed=1, config=tiny_config(head_channels=4))
    with pytest.raises(ValueError, match="a warm start needs the same network"):
        warm_start(built(2, seed=0), ["a", "b"], other.state_dict(), ["a", "b"])
