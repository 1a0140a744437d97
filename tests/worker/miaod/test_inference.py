from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.worker.miaod.pictures import CPU, Squares, tiny_config, tiny_model
from worker.miaod.engine import train
from worker.miaod.inference import predict, score
from worker.miaod.metrics import GroundTruth, evaluate
from worker.miaod.model import MiaodRetinaNet
from worker.miaod.samples import Sample


def differing_model() -> MiaodRetinaNet:
    """A model whose two classifiers disagree."""
    model = tiny_model(tiny_config())
    generator = torch.Generator().manual_seed(3)
    for name in ("f1", "f2"):
        weight = model.towers[name].get_parameter("output.weight")
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return model


def mixed_sizes(count: int) -> Squares:
    dataset = Squares(count, first_ordinal=10, size_hw=(64, 64))
    dataset.sizes_hw = [((64, 64), (40, 80), (128, 64))[index % 3] for index in range(count)]
    return dataset


def test_every_picture_of_the_pool_gets_an_uncertainty() -> None:
    scores = dict(score(differing_model(), mixed_sizes(7), tiny_config(), CPU))
    assert sorted(scores) == list(range(10, 17))
    assert all(0 < value < 1 for value in scores.values())


def test_the_uncertainty_does_not_depend_on_who_shares_the_batch() -> None:
    model = differing_model()
    one_by_one = dict(score(model, mixed_sizes(7), tiny_config(scoring_batch_size=1), CPU))
    together = dict(score(model, mixed_sizes(7), tiny_config(scoring_batch_size=4), CPU))
    assert together == pytest.approx(one_by_one, rel=1e-5)


def test_k_picks_the_most_uncertain_anchors() -> None:
    model = differing_model()
    few = dict(score(model, mixed_sizes(3), tiny_config(scoring_k=1), CPU))
    many = dict(score(model, mixed_sizes(3), tiny_config(scoring_k=10_000), CPU))
    assert all(few[ordinal] > many[ordinal] for ordinal in few)


def test_an_output_that_is_not_a_number_gives_no_uncertainty() -> None:
    model = differing_model()
    with torch.no_grad():
        model.towers["f2"].get_parameter("output.bias").fill_(torch.nan)
    assert all(np.isnan(value) for _, value in score(model, Squares(2), tiny_config(), CPU))


def test_boxes_of_a_pool_image_are_not_looked_at() -> None:
    class Hidden(Squares):
        def load(self, index: int) -> Sample:
            labels = torch.zeros(0, dtype=torch.int64)
            return dataclasses.replace(super().load(index), boxes=torch.zeros(0, 4), labels=labels)

    model = differing_model()
    assert dict(score(model, Squares(3), tiny_config(), CPU)) == dict(
        score(model, Hidden(3), tiny_config(), CPU)
    )


class Plain(Squares):
    """Pictures of one grey, which resizing does not change."""

    def load(self, index: int) -> Sample:
        image = torch.full((3, *self.sizes_hw[index]), 90, dtype=torch.uint8)
        return dataclasses.replace(super().load(index), image=image)


def test_detections_come_in_the_pixels_of_the_original_picture() -> None:
    config = tiny_config(score_threshold=0.0)
    model = tiny_model(config, num_classes=1)
    small, large = (
        next(predict(model, Plain(1, size_hw=size_hw), config, CPU)).detections["boxes"]
        for size_hw in ((40, 80), (80, 160))
    )
    assert len(small) > 0
    assert torch.equal(large, small * 2)
    assert float(large[:, 0::2].max()) <= 160
    assert float(large[:, 1::2].max()) <= 80


def test_a_heat_map_has_the_size_of_the_resized_picture() -> None:
    dataset = Squares(1, size_hw=(40, 80))
    plain = next(predict(differing_model(), dataset, tiny_config(), CPU))
    mapped = next(predict(differing_model(), dataset, tiny_config(), CPU, heat_maps=True))
    assert plain.heat_map_HW is None
    assert mapped.heat_map_HW is not None
    assert mapped.heat_map_HW.shape == (32, 64)
    assert 0 < float(mapped.heat_map_HW.max()) <= 1
    for key in ("boxes", "labels", "scores"):
        assert torch.equal(plain.detections[key], mapped.detections[key])


def test_a_detector_that_learned_a_few_pictures_by_heart_finds_their_boxes() -> None:
    """From pictures to average precision: no link of the chain may be off by a pixel or a class."""
    config = tiny_config(
        rounds=0,
        label_min_steps=250,
        label_max_steps=250,
        frozen_stages=0,
        fpn_channels=16,
        head_channels=16,
        flip_probability=0.0,
        batch_size=4,
        learning_rate=1e-2,
        octave_scale=2.0,
    )
    dataset = Squares(4)
    model = tiny_model(config)
    train(model, dataset, Squares(0), config, seed=0, device=CPU)
    found = {p.ordinal: p.detections for p in predict(model, dataset, config, CPU)}
    samples = [dataset.load(index) for index in range(len(dataset))]
    truth = [
        GroundTruth(
            boxes=s.boxes.numpy().astype(np.float64),
            labels=s.labels.numpy(),
            difficult=np.zeros(len(s.labels), dtype=np.bool_),
            num_known_classes=2,
        )
        for s in samples
    ]
    metrics = evaluate(truth, [found[s.ordinal] for s in samples], ["small", "large"])
    assert metrics["map50"] > 0.95
