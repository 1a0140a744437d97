from __future__ import annotations

import dataclasses
import json

import pytest

from worker.miaod.config import (
    PRESETS,
    PRESETS_FILE,
    TrainingConfig,
    from_dict,
    presets_text,
)


def test_the_server_knows_the_same_presets() -> None:
    assert PRESETS_FILE.read_text(encoding="utf-8") == presets_text(), (
        "training_presets.json is stale: run `python -m worker.miaod.config`"
    )


def test_every_setting_says_what_it_is_for() -> None:
    for name, setting in json.loads(presets_text())["fields"].items():
        assert setting["description"].endswith("."), name
        bounded = setting["type"] in ("int", "float", "list[float]")
        assert bounded == ("minimum" in setting) == ("maximum" in setting), name
        assert (setting["type"] == "str") == ("choices" in setting), name


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name: str) -> None:
    assert from_dict(json.loads(json.dumps(PRESETS[name].to_dict()))) == PRESETS[name]


def test_a_preset_fills_in_what_is_not_given() -> None:
    config = from_dict({"preset": "cpu", "learning_rate": 1, "aspect_ratios": [1, 2]})
    assert config == dataclasses.replace(
        PRESETS["cpu"], learning_rate=1.0, aspect_ratios=(1.0, 2.0)
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "gpu"}, f"'gpu' is not known: it must be one of {', '.join(PRESETS)}"),
        ({"learning_rat": 1.0}, "'learning_rat' is not a training setting"),
        ({"batch_size": 0}, "batch_size is 0: it must lie between 1 and 1024"),
        ({"batch_size": 2.5}, "batch_size is 2.5: it must be of type int"),
        ({"batch_size": True}, "batch_size is True: it must be of type int"),
        ({"amp": 1}, "amp is 1: it must be of type bool"),
        ({"learning_rate": float("nan")}, "learning_rate is nan: it must lie between"),
        ({"backbone": "vgg"}, "backbone is 'vgg': it must be one of efficientnet_lite0"),
        ({"aspect_ratios": []}, "aspect_ratios is (): it must be a list of numbers, not empty"),
        (
            {"backbone": "vgg16"},
            "backbone is 'vgg16': detector retinanet takes 'efficientnet_lite0'",
        ),
        ({"detector": "ssd300"}, "backbone is 'resnet50': detector ssd300 takes 'vgg16'"),
        ({"preset": "paper-voc-ssd", "keep_ratio": True}, "keep_ratio is True: detector ssd300"),
        ({"preset": "paper-voc-ssd", "width_divisor": 2}, "width_divisor is 2 and pretrained is"),
        ({"label_min_steps": 9, "label_max_steps": 8}, "label_min_steps 9 exceeds"),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_be_right(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=".") as refusal:
        from_dict(values)
    assert message in str(refusal.value)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingConfig().batch_size = 3  # type: ignore[misc]
