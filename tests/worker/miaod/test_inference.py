from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.worker.miaod.pictures import CPU, Squares, tiny_config, tiny_model, uncertainties
from worker.miaod.detections import Detections
from worker.miaod.engine import train
from worker.miaod.inference import box_looks, predict, score
from worker.miaod.loading import PlainBatches
from worker.miaod.metrics import GroundTruth, evaluate
from worker.miaod.model import MiaodRetinaNet
from worker.miaod.samples import Sample
from worker.miaod.transforms import normalise


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
    scores = uncertainties(score(differing_model(), mixed_sizes(7), tiny_config(), CPU))
    assert sorted(scores) == list(range(10, 17))
    assert all(0 < value < 1 for value in scores.values())


def test_the_uncertainty_does_not_depend_on_who_shares_the_batch() -> None:
    model = differing_model()
    one_by_one = uncertainties(score(model, mixed_sizes(7), tiny_config(scoring_batch_size=1), CPU))
    together = uncertainties(score(model, mixed_sizes(7), tiny_config(scoring_batch_size=4), CPU))
    assert together == pytest.approx(one_by_one, rel=1e-5)


def test_k_picks_the_most_uncertain_anchors() -> None:
    model = differing_model()
    few = uncertainties(score(model, mixed_sizes(3), tiny_config(scoring_k=1), CPU))
    many = uncertainties(score(model, mixed_sizes(3), tiny_config(scoring_k=10_000), CPU))
    assert all(few[ordinal] > many[ordinal] for ordinal in few)


def test_an_output_that_is_not_a_number_gives_no_uncertainty() -> None:
    model = differing_model()
    with torch.no_grad():
        model.towers["f2"].get_parameter("output.bias").fill_(torch.nan)
    assert all(
        np.isnan(value)
        for value in uncertainties(score(model, Squares(2), tiny_config(), CPU)).values()
    )


def test_boxes_of_a_pool_image_are_not_looked_at() -> None:
    class Hidden(Squares):
        def load(self, index: int) -> Sample:
            labels = torch.zeros(0, dtype=torch.int64)
            return dataclasses.replace(super().load(index), boxes=torch.zeros(0, 4), labels=labels)

    model = differing_model()
    assert uncertainties(score(model, Squares(3), tiny_config(), CPU)) == uncertainties(
        score(model, Hidden(3), tiny_config(), CPU)
    )


def test_a_score_says_what_might_be_in_the_picture_and_what_it_looks_like() -> None:
    config = tiny_config()
    model = differing_model()
    dataset = Squares(2)
    dataset.sizes_hw = [(64, 64), (64, 64)]
    found = sorted(score(model, dataset, config, CPU), key=lambda one: one.ordinal)
    batch = PlainBatches(dataset, config)[0]
    backbone = model.backbone
    with torch.no_grad():
        images = normalise(batch, backbone.pixel_mean, backbone.pixel_std, CPU)
        outputs = model(images)
        look_BDHW = backbone(images)[1]
    f1_BAC, f2_BAC = torch.cat(outputs.f1, 1), torch.cat(outputs.f2, 1)
    for row, one in enumerate(found):
        p1, p2 = f1_BAC[row].double().sigmoid(), f2_BAC[row].double().sigmoid()
        presence = [max(float(p) for p in ((p1 + p2) / 2)[:, c]) for c in range(2)]
        entropy = -(p1 * p1.log() + (1 - p1) * (1 - p1).log())
        k = config.scoring_k
        expected = entropy.mean(dim=1).sort(descending=True).values[:k].mean()
        assert one.presence_C.tolist() == pytest.approx(presence, rel=1e-4)
        assert one.entropy == pytest.approx(float(expected), rel=1e-4)
        assert one.look_D.tolist() == pytest.approx(look_BDHW[row].mean((1, 2)).tolist(), rel=1e-4)


def test_a_box_looks_like_what_the_backbone_sees_inside_it() -> None:
    """The same cells for the same box, whatever the size of the file it comes from."""
    map_BDHW = torch.zeros((2, 3, 8, 8))
    map_BDHW[0, 0] = 5.0
    map_BDHW[0, 1, :, 4:] = 7.0
    map_BDHW[1, 2] = 3.0
    left = Detections(
        boxes=torch.tensor([[0.0, 0.0, 48.0, 128.0], [80.0, 0.0, 128.0, 128.0]]),
        labels=torch.zeros(2, dtype=torch.int64),
        scores=torch.ones(2),
    )
    doubled = Detections(**{**left, "boxes": left["boxes"] * 2})
    for found, factor in ((left, 1.0), (doubled, 0.5)):
        first, second = box_looks(map_BDHW, [found, found], [(factor, factor)] * 2)
        assert first.tolist() == [[5, 0, 0], [5, 7, 0]]
        assert second.tolist() == [[0, 0, 3], [0, 0, 3]]


def test_looks_come_with_the_detections_if_asked_for() -> None:
    config = tiny_config(score_threshold=0.0, detections_per_image=5)
    model = differing_model()
    plain = next(predict(model, Squares(1), config, CPU))
    looked = next(predict(model, Squares(1), config, CPU, looks=True))
    assert plain.looks_ND is None
    assert looked.looks_ND is not None
    assert looked.looks_ND.shape == (5, 8)
    assert torch.equal(plain.detections["boxes"], looked.detections["boxes"])


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


def test_detections_may_come_from_the_mean_of_both_classifiers() -> None:
    config = tiny_config(score_threshold=0.0)
    model = differing_model()

    def scores(**changes: Any) -> Tensor:
        asked = dataclasses.replace(config, **changes)
        return next(predict(model, Squares(1), asked, CPU)).detections["scores"]

    first, mean = scores(), scores(average_classifiers=True)
    assert not torch.equal(first, mean)
    model.towers["f2"].load_state_dict(model.towers["f1"].state_dict())
    assert torch.equal(scores(average_classifiers=True), first)
    # Half a logit from each: with f2 silenced to zero, half of f1's.
    with torch.no_grad():
        for parameter in model.towers["f2"].parameters():
            parameter.zero_()
    assert torch.allclose(scores(average_classifiers=True).logit() * 2, first.logit(), atol=1e-4)


def test_after_plain_training_the_classifier_that_learned_nothing_has_no_say() -> None:
    model, pool = differing_model(), Squares(2)
    plain = tiny_config(method="plain", score_threshold=0.0)
    f1_alone = [one.detections["scores"] for one in predict(model, pool, plain, CPU)]
    averaged = dataclasses.replace(plain, average_classifiers=True)
    for found, scores in zip(predict(model, pool, averaged, CPU), f1_alone, strict=True):
        assert found.detections["scores"].equal(scores)
    trained = dataclasses.replace(averaged, method="mi-aod")
    assert not next(predict(model, pool, trained, CPU)).detections["scores"].equal(f1_alone[0])
    both = tiny_config()
    for one, other in zip(
        score(model, pool, plain, CPU), score(model, pool, both, CPU), strict=True
    ):
        assert one.uncertainty == 0 < other.uncertainty
        assert one.entropy == other.entropy
        assert not one.presence_C.equal(other.presence_C)
