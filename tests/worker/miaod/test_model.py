from __future__ import annotations

import pytest
import torch

from tests.worker.miaod.pictures import tiny_config, tiny_model
from worker.miaod.detector import TOWERS
from worker.miaod.model import Tower, build_model


def test_every_class_starts_with_a_probability_of_one_percent() -> None:
    model = tiny_model(tiny_config()).eval()
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, 64, 64))
    for logits in (*outputs.f1, *outputs.f2):
        torch.testing.assert_close(
            logits.sigmoid(), torch.full_like(logits, 0.01), rtol=0.2, atol=0
        )


def test_there_is_an_output_for_each_anchor() -> None:
    model = tiny_model(tiny_config(), num_classes=3).eval()
    with torch.no_grad():
        outputs = model(torch.zeros(2, 3, 96, 128))
    assert outputs.mil is not None
    assert outputs.deltas is not None
    anchors = [len(level) for level in model.anchors_for((96, 128))]
    assert anchors == [9 * rows * columns for rows, columns in model.level_sizes((96, 128))]
    for level, count in enumerate(anchors):
        assert outputs.f1[level].shape == outputs.f2[level].shape == (2, count, 3)
        assert outputs.mil[level].shape == (2, count, 3)
        assert outputs.deltas[level].shape == (2, count, 4)


def test_towers_that_are_not_asked_for_do_not_run() -> None:
    model = tiny_model(tiny_config()).eval()
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, 64, 64), ("f1", "f2"))
    assert outputs.mil is None
    assert outputs.deltas is None


def test_one_class_gets_a_background_column_in_the_image_level_tower() -> None:
    model = tiny_model(tiny_config(), num_classes=1)
    outputs = model(torch.zeros(1, 3, 64, 64))
    assert outputs.mil is not None
    assert outputs.mil[0].shape[2] == 2
    assert outputs.f1[0].shape[2] == 1


def test_frozen_stages_never_train() -> None:
    model = tiny_model(tiny_config(frozen_stages=2))
    model.train_only(tuple(model.parts()))
    for index, stage in enumerate(model.backbone.stages):
        assert all(p.requires_grad == (index >= 2) for p in stage.parameters())


def test_only_the_named_parts_train_and_old_gradients_go() -> None:
    model = tiny_model(tiny_config())
    model.train_only(tuple(model.parts()))
    sum(level.sum() for level in model(torch.randn(1, 3, 64, 64)).f1).backward()
    model.train_only(("f1", "f2"))
    assert all(p.grad is None for p in model.parameters())
    for name, part in model.parts().items():
        assert all(p.requires_grad == (name in ("f1", "f2")) for p in part.parameters())


def test_more_frozen_stages_than_there_are_is_refused() -> None:
    config = tiny_config(backbone="resnet18", frozen_stages=8)
    with pytest.raises(ValueError, match=r"frozen_stages is 8: resnet18 has 5 stages"):
        build_model(config, 2, weights_dir=None, seed=0)


def test_the_towers_start_as_the_reference_starts_them() -> None:
    config = tiny_config(head_channels=64, fpn_channels=64, head_depth=2)
    model = tiny_model(config)
    for name in TOWERS:
        tower = model.towers[name]
        assert isinstance(tower, Tower)
        # Kaiming normal, fan-out: sqrt(2 / (64 * 9)).
        expected = 0.0589 if name == "mil" else 0.01
        for conv in tower.convs:
            weight = conv.get_parameter("weight")
            assert float(weight.detach().std()) == pytest.approx(expected, rel=0.05)
            assert not conv.get_parameter("bias").any()
        assert float(tower.output.weight.detach().std()) == pytest.approx(0.01, rel=0.05)


def test_a_model_is_a_function_of_its_seed() -> None:
    same, again, other = (
        build_model(tiny_config(), 2, weights_dir=None, seed=seed).state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert not torch.equal(same["towers.f1.output.weight"], other["towers.f1.output.weight"])
