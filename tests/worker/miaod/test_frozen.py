from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.worker.miaod.pictures import CPU, Squares, tiny_config, tiny_model
from worker.miaod.backbones import Backbone, Halfway
from worker.miaod.engine import train
from worker.miaod.frozen import FrozenCache, frozen_cache
from worker.miaod.inference import predict, score
from worker.miaod.loading import PlainBatches
from worker.miaod.transforms import Batch, augment, collate, fit, normalise


def batch_of(count: int) -> Batch:
    return PlainBatches(Squares(count), tiny_config(scoring_batch_size=count))[0]


def counted(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by a number whenever the backbone's stages run."""
    runs: list[int] = []
    advance = backbone.advance

    def noted(halfway: Halfway, num_stages: int) -> Halfway:
        runs.append(num_stages)
        return advance(halfway, num_stages)

    monkeypatch.setattr(backbone, "advance", noted)
    return runs


def test_the_rest_of_the_network_sees_what_it_would_see_without_a_cache() -> None:
    model = tiny_model(tiny_config())
    batch = batch_of(3)
    images = normalise(batch, model.backbone.pixel_mean, model.backbone.pixel_std, CPU)
    for num_stages in range(1, 6):
        cache = FrozenCache(model.backbone, num_stages, megabytes=10)
        for _ in range(2):
            with torch.no_grad():
                expected, found = model(images), model(cache(model.backbone, batch, CPU))
            for one, other in zip(expected.f1 + expected.mil, found.f1 + found.mil, strict=True):
                assert torch.allclose(one, other, atol=1e-6)


def test_a_picture_goes_through_the_stages_once_and_its_flip_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model(tiny_config())
    cache = FrozenCache(model.backbone, 2, megabytes=10)
    runs = counted(model.backbone, monkeypatch)
    plain = fit(Squares(1, first_ordinal=3).load(0), tiny_config())
    flipped = augment(plain, tiny_config(flip_probability=1.0), np.random.default_rng(0))
    assert not torch.equal(plain.sample.image, flipped.sample.image)
    for pictures in ([plain], [flipped], [plain, flipped, plain]):
        cache(model.backbone, collate(pictures, 32), CPU)
    assert runs == [2, 2]


def test_who_asks_first_does_not_decide_the_precision() -> None:
    model, batch = tiny_model(tiny_config()), batch_of(2)
    kept = FrozenCache(model.backbone, 2, megabytes=10)(model.backbone, batch, CPU)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        other = FrozenCache(model.backbone, 2, megabytes=10)(model.backbone, batch, CPU)
    assert other.x.dtype == torch.float32
    assert torch.equal(kept.x, other.x)


def test_a_training_with_a_warm_cache_gives_the_bits_of_one_with_a_cold_cache() -> None:
    config = tiny_config(frozen_stages=3)
    weights = []
    cache = None
    for _ in range(2):
        model = tiny_model(config)
        cache = cache or FrozenCache(model.backbone, 3, megabytes=10)
        labeled, pool = Squares(3), Squares(3, first_ordinal=3)
        train(model, labeled, pool, config, seed=1, device=CPU, frozen=cache)
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any("backbone.stages.4" in name for name in weights[0])


def test_what_scoring_left_in_the_cache_can_be_trained_on() -> None:
    config = tiny_config(frozen_stages=3)
    model = tiny_model(config)
    cache = FrozenCache(model.backbone, 3, megabytes=10)
    dataset = Squares(2)
    list(score(model, dataset, config, CPU, frozen=cache))
    list(predict(model, dataset, config, CPU, frozen=cache))
    train(model, dataset, Squares(0), config, seed=1, device=CPU, frozen=cache)


def test_the_oldest_entries_go_when_the_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(tiny_config())
    cache = FrozenCache(model.backbone, 1, megabytes=0)
    runs = counted(model.backbone, monkeypatch)
    batch = batch_of(2)
    cache(model.backbone, batch, CPU)
    cache(model.backbone, batch, CPU)
    assert len(runs) == 4


def test_a_backbone_with_other_frozen_weights_is_refused() -> None:
    config = tiny_config()
    cache = FrozenCache(tiny_model(config, seed=0).backbone, 2, megabytes=1)
    other = tiny_model(config, seed=5)
    with pytest.raises(ValueError, match="needs a cache of its own"):
        train(other, Squares(1), Squares(0), config, seed=0, device=CPU, frozen=cache)
    with pytest.raises(ValueError, match="needs a cache of its own"):
        list(score(other, Squares(1), config, CPU, frozen=cache))


def test_a_configuration_asks_for_a_cache_only_where_something_is_frozen() -> None:
    backbone = tiny_model(tiny_config()).backbone
    assert frozen_cache(backbone, tiny_config(frozen_cache_megabytes=1)) is not None
    assert frozen_cache(backbone, tiny_config(frozen_cache_megabytes=0)) is None
    nothing_frozen = tiny_config(frozen_cache_megabytes=1, frozen_stages=0)
    assert frozen_cache(backbone, nothing_frozen) is None
