from __future__ import annotations

from collections import Counter

import torch

from tests.worker.miaod.pictures import Squares, tiny_config
from worker.miaod.loading import (
    BatchOrder,
    FittedImages,
    PlainBatches,
    TrainingBatches,
    iterate,
)
from worker.miaod.samples import Sample

LANDSCAPE, PORTRAIT = (48, 64), (64, 48)


def order(count: int, batch_size: int, repeats: int = 1, seed: int = 0) -> BatchOrder:
    sizes = [LANDSCAPE] * count
    return BatchOrder(range(count), sizes, batch_size=batch_size, repeats=repeats, key=(seed, 0))


def test_an_epoch_shows_each_picture_as_often_as_asked() -> None:
    batches = order(6, 4, repeats=2)
    assert batches.batches_per_epoch == 3
    for epoch in range(3):
        shown = Counter(i for step in range(3) for i in batches.batch(3 * epoch + step))
        assert shown == dict.fromkeys(range(6), 2)


def test_epochs_differ_and_any_batch_can_be_had_without_those_before() -> None:
    first = [order(20, 4).batch(step) for step in range(10)]
    assert [order(20, 4).batch(step) for step in reversed(range(10))] == first[::-1]
    assert first[:5] != first[5:]
    assert [order(20, 4, seed=1).batch(step) for step in range(10)] != first


def test_fewer_pictures_than_a_batch_holds_are_repeated() -> None:
    assert sorted(set(order(3, 8).batch(0))) == [0, 1, 2]
    assert len(order(3, 8).batch(0)) == 8
    assert order(1, 8).batch(5) == [0] * 8


def test_landscape_and_portrait_pictures_do_not_share_a_batch() -> None:
    sizes = [LANDSCAPE, PORTRAIT] * 5
    batches = BatchOrder(range(10), sizes, batch_size=2, repeats=1, key=(0,))
    assert batches.batches_per_epoch == 6
    for step in range(6):
        assert len({sizes[index] for index in batches.batch(step)}) == 1


def test_pictures_left_out_never_come() -> None:
    batches = BatchOrder([1, 3], [LANDSCAPE] * 5, batch_size=2, repeats=1, key=(0,))
    assert {index for step in range(4) for index in batches.batch(step)} == {1, 3}


class Counting(Squares):
    """Counts how often pictures are decoded."""

    loads = 0

    def load(self, index: int) -> Sample:
        self.loads += 1
        return super().load(index)


def test_pictures_are_decoded_once_while_they_fit_into_memory() -> None:
    dataset = Counting(4)
    images = FittedImages(dataset, tiny_config(cache_megabytes=1))
    for index in (0, 1, 2, 3, 0, 1, 2, 3):
        assert images[index].sample.ordinal == index
    assert dataset.loads == 4


def test_the_memory_for_pictures_is_bounded() -> None:
    # A picture has 12,288 bytes: 85 fit into a megabyte.
    dataset = Counting(100)
    images = FittedImages(dataset, tiny_config(cache_megabytes=1))
    for index in (*range(100), 99, 0):
        assert images[index].sample.ordinal == index
    assert dataset.loads == 101


def test_plain_batches_hold_every_picture_once_and_one_size_each() -> None:
    dataset = Squares(7)
    dataset.sizes_hw = [(64, 64), (40, 128), (64, 64), (39, 128), (64, 64), (64, 64), (40, 128)]
    batches = PlainBatches(dataset, tiny_config())
    seen = [batches[place] for place in range(len(batches))]
    assert sorted(ordinal for batch in seen for ordinal in batch.ordinals) == list(range(7))
    assert all(len(batch.ordinals) <= 2 for batch in seen)


def test_loader_processes_give_the_same_batches() -> None:
    dataset = Squares(6)
    for workers in (0, 1):
        config = tiny_config(num_loader_workers=workers, cache_megabytes=0)
        key = (3, 1)
        source = TrainingBatches(
            FittedImages(dataset, config),
            BatchOrder(range(6), dataset.sizes_hw, batch_size=2, repeats=1, key=key),
            config,
            key,
        )
        batches = list(iterate(source, range(1, 4), config))
        if workers == 0:
            expected = batches
    assert [batch.ordinals for batch in batches] == [batch.ordinals for batch in expected]
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.images_BCHW, other.images_BCHW)
