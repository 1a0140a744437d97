"""Which pictures make up which batch, and how they come into memory.

The order of an epoch and the augmentation of each picture are pure functions of the seed, the
stage, the step and the place in the batch: no generator is carried from step to step, so that
training can go on at any step as if it had never stopped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils import data

from worker.miaod.config import TrainingConfig
from worker.miaod.distortion import changes_originals, distort, reduced
from worker.miaod.model import DETECTORS
from worker.miaod.samples import Dataset
from worker.miaod.transforms import (
    Batch,
    Fitted,
    augment,
    collate,
    fit,
    fitted_size,
    padded_size,
    with_targets,
)

# Streams of random numbers, so that no two uses of one seed share one.
_ORDER, _AUGMENTATION, _DISTORTION = 0, 1, 2


class BatchOrder:
    """Endless batches of indices, epoch after epoch, each in an order of its own.

    Landscape pictures share batches with landscape ones and portrait with portrait, which keeps
    padding small; each group is filled up with repeats to whole batches, as in the reference.
    """

    def __init__(
        self,
        indices: Sequence[int],
        sizes_hw: Sequence[tuple[int, int]],
        *,
        batch_size: int,
        repeats: int,
        key: Sequence[int],
    ) -> None:
        """Group the pictures.

        Args:
            indices: pictures of the dataset that take part.
            sizes_hw: sizes of all pictures of the dataset.
            batch_size: pictures per batch.
            repeats: how often an epoch shows each picture.
            key: integers >= 0 that decide the order (seed, stage, …).
        """
        landscape = [index for index in indices if sizes_hw[index][1] > sizes_hw[index][0]]
        others = [index for index in indices if sizes_hw[index][1] <= sizes_hw[index][0]]
        self._groups = [np.repeat(group, repeats) for group in (others, landscape) if group]
        self._batch_size = batch_size
        self._key = tuple(key)
        self.batches_per_epoch = sum(-(-len(group) // batch_size) for group in self._groups)
        self._current: tuple[int, list[list[int]]] | None = None

    def batch(self, step: int) -> list[int]:
        """Indices of batch `step`, counted from the start of the key's order."""
        epoch, place = divmod(step, self.batches_per_epoch)
        if self._current is None or self._current[0] != epoch:
            self._current = (epoch, self._shuffled(epoch))
        return self._current[1][place]

    def _shuffled(self, epoch: int) -> list[list[int]]:
        draws = np.random.default_rng((*self._key, _ORDER, epoch))
        batches: list[list[int]] = []
        for group in self._groups:
            order = draws.permutation(group)
            missing = -len(order) % self._batch_size
            order = np.concatenate((order, draws.choice(group, missing)))
            batches += order.reshape(-1, self._batch_size).tolist()
        return [batches[place] for place in draws.permutation(len(batches))]


class FittedImages:
    """A dataset's pictures decoded and resized, the most recent ones kept in memory.

    What is distorted before it is resized comes as it is, but for being very large.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: TrainingConfig,
        zoom: float = 1.0,
        *,
        with_boxes: bool = True,
    ) -> None:
        """Read from `dataset`; keep up to `config.cache_megabytes`.

        Without boxes, an unlabeled set's pictures lose any that they have: not even the choice of
        a random part may look at them.
        """
        self._dataset = dataset
        self._with_boxes = with_boxes
        self._config = config
        self._zoom = zoom
        self._kept: OrderedDict[int, Fitted] = OrderedDict()
        self._bytes_left = config.cache_megabytes * 2**20

    def __getitem__(self, index: int) -> Fitted:
        """Picture `index`, fitted at the zoom."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        sample = with_targets(self._dataset.load(index), self._config)
        if not self._with_boxes:
            sample = replace(sample, boxes=sample.boxes[:0], labels=sample.labels[:0])
        if changes_originals(self._config):
            original_hw = (sample.image.shape[1], sample.image.shape[2])
            fitted = Fitted(reduced(sample, self._config), original_hw)
        else:
            fitted = fit(sample, self._config, self._zoom)
        self._kept[index] = fitted
        self._bytes_left -= fitted.sample.image.numel()
        while self._bytes_left < 0:
            _, dropped = self._kept.popitem(last=False)
            self._bytes_left += dropped.sample.image.numel()
        return fitted


class TrainingBatches(data.Dataset[Batch]):
    """The augmented batches of one stage by their step."""

    def __init__(
        self, images: FittedImages, order: BatchOrder, config: TrainingConfig, key: Sequence[int]
    ) -> None:
        """Take batches from `order`; `key` decides the augmentation as it does the order."""
        self._images = images
        self._order = order
        self._config = config
        self._key = tuple(key)

    @property
    def batches_per_epoch(self) -> int:
        """Batches until every picture was shown `repeats` times."""
        return self._order.batches_per_epoch

    def __getitem__(self, step: int) -> Batch:
        """Batch `step` of the stage."""
        augmented = []
        for place, index in enumerate(self._order.batch(step)):
            fitted = self._images[index]
            if changes_originals(self._config):
                draws = np.random.default_rng((*self._key, _DISTORTION, step, place))
                sample = distort(fitted.sample, self._config, draws)
                fitted = fit(sample, self._config, self._config.scale_max)
            draws = np.random.default_rng((*self._key, _AUGMENTATION, step, place))
            augmented.append(augment(fitted, self._config, draws))
        return collate(augmented, DETECTORS[self._config.detector].pad_multiple)


class PlainBatches(data.Dataset[Batch]):
    """Every picture of a dataset once, unaugmented, only those of one padded size together.

    A picture's place and neighbours then change nothing of what the network says about it.
    """

    def __init__(self, dataset: Dataset, config: TrainingConfig) -> None:
        """Plan the batches from the sizes alone."""
        # No cache: each picture is read once.
        self._dataset = dataset
        self._config = config
        self._multiple = DETECTORS[config.detector].pad_multiple
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, size_hw in enumerate(dataset.sizes_hw):
            padded = padded_size(fitted_size(size_hw, config), self._multiple)
            by_size.setdefault(padded, []).append(index)
        size = config.scoring_batch_size
        self._plan = [
            group[start : start + size]
            for group in by_size.values()
            for start in range(0, len(group), size)
        ]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._plan)

    def place_after(self, num_pictures: int) -> tuple[int, int]:
        """The batch in which the pictures after the first `num_pictures` begin, and where in it."""
        for place, indices in enumerate(self._plan):
            if num_pictures < len(indices):
                return place, num_pictures
            num_pictures -= len(indices)
        return len(self._plan), 0

    def __getitem__(self, place: int) -> Batch:
        """Batch `place`."""
        fitted = [fit(self._dataset.load(index), self._config) for index in self._plan[place]]
        return collate(fitted, self._multiple)


def iterate(batches: data.Dataset[Batch], places: range, config: TrainingConfig) -> Iterator[Batch]:
    """The batches at `places` in order, read ahead by `config.num_loader_workers` processes."""
    if config.num_loader_workers == 0:
        for place in places:
            yield batches[place]
        return
    loader = data.DataLoader(
        batches,
        batch_size=None,
        sampler=places,
        num_workers=config.num_loader_workers,
        # Clients of object stores hang after a fork, and so may threads of torch.
        multiprocessing_context="forkserver",
        # Its draw of a base seed must not touch the process's own generator.
        generator=torch.Generator(),
    )
    yield from loader
