from __future__ import annotations

from typing import Any

import pytest

from server.errors import Unprocessable
from server.services import training


def test_a_preset_resolves_to_every_field() -> None:
    resolved = training.resolve({}, "cpu")
    assert resolved["preset"] == "cpu"
    for preset in training.presets():
        assert training.resolve({"preset": preset}, "cpu").keys() == resolved.keys()


def test_every_preset_passes_its_own_checks() -> None:
    for preset in training.presets():
        resolved = training.resolve({"preset": preset}, "cpu")
        assert training.resolve(resolved, "cpu") == resolved


def test_overrides_change_what_they_name_and_the_preset_stays_as_it_was() -> None:
    before = training.resolve({}, "cpu")
    changed = training.resolve({"learning_rate": 1}, "cpu")
    assert changed == {**before, "learning_rate": 1.0}
    assert isinstance(changed["learning_rate"], float)
    assert training.resolve({}, "cpu") == before


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"preset": 5}, "unknown preset 5"),
        ({"preset": "gpu"}, "there are paper-voc"),
        ({"learning_rat": 1}, "did you mean learning_rate"),
        ({"zzzz": 1}, "there are detector, backbone"),
        ({"learning_rate": float("nan")}, "must lie between"),
        ({"learning_rate": float("inf")}, "must lie between"),
        ({"learning_rate": True}, "must be a number"),
        ({"batch_size": 2.0}, "must be a whole number"),
        ({"batch_size": 10**400}, "must lie between"),
        ({"backbone": "vgg"}, "must be one of"),
        ({"backbone": "vgg16"}, "detector retinanet takes "),
        ({"detector": "ssd300"}, 'backbone is "efficientnet_lite0": detector ssd300 takes "vgg16"'),
        (
            {"preset": "paper-voc-ssd", "image_long_side": 512},
            "image_long_side is 512: detector ssd300 takes 300",
        ),
        ({"amp": "yes"}, "must be true or false"),
        ({"aspect_ratios": 1.0}, "no list"),
        ({"aspect_ratios": ["1"]}, "aspect_ratios[0] is '1': it must be a number"),
    ],
)
def test_an_override_that_cannot_be_is_refused_with_a_sentence(
    override: dict[str, Any], words: str
) -> None:
    with pytest.raises(Unprocessable) as refusal:
        training.resolve(override, "cpu")
    assert words in refusal.value.detail
