"""A drawn data set and a small network for the tests of training and inference."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from worker.miaod.backbones import Backbone, FoldedConv
from worker.miaod.config import PRESETS, TrainingConfig
from worker.miaod.inference import ImageScore
from worker.miaod.model import MiaodRetinaNet, initialise
from worker.miaod.samples import Sample

CPU = torch.device("cpu")


def tiny_config(**changes: Any) -> TrainingConfig:
    """The preset `cpu` with a narrow head, small images and a handful of steps."""
    small: dict[str, Any] = {
        "pretrained": False,
        "frozen_stages": 2,
        "fpn_channels": 8,
        "head_channels": 8,
        "image_long_side": 64,
        "image_short_side": 64,
        "batch_size": 2,
        "unlabeled_batch_size": 2,
        "scoring_batch_size": 2,
        "rounds": 1,
        "label_min_steps": 2,
        "label_max_steps": 2,
        "adversarial_min_steps": 2,
        "adversarial_max_steps": 2,
        "warmup_steps": 0,
        "num_threads": 1,
    }
    return dataclasses.replace(PRESETS["cpu"], **(small | changes))


def small(preset: str, **changes: Any) -> TrainingConfig:
    """A preset as it is but for size: a narrow network, small images, two steps a stage."""
    sizes: dict[str, Any] = {
        "pretrained": False,
        "fpn_channels": 8,
        "head_channels": 8,
        "head_depth": 1,
        "image_long_side": 64,
        "image_short_side": 64,
        "num_loader_workers": 0,
        "num_threads": 1,
        "label_min_steps": 1,
        "label_max_steps": 2,
        "adversarial_min_steps": 1,
        "adversarial_max_steps": 2,
    }
    return dataclasses.replace(PRESETS[preset], **(sizes | changes))


def tiny_model(config: TrainingConfig, num_classes: int = 2, seed: int = 0) -> MiaodRetinaNet:
    """A network whose backbone has five stages of 8 channels, so that a step takes milliseconds."""
    generator = torch.Generator().manual_seed(seed)
    stages: list[nn.Module] = []
    for index in range(5):
        conv = FoldedConv(3 if index == 0 else 8, 8, 3, stride=2, relu=True)
        nn.init.kaiming_normal_(conv.conv.weight, generator=generator)
        stages.append(conv)
    backbone = Backbone(
        stages,
        taps=(2, 3, 4),
        channels=(8, 8, 8),
        pixel_mean=(127.0, 127.0, 127.0),
        pixel_std=(128.0, 128.0, 128.0),
    )
    model = MiaodRetinaNet(config, num_classes, backbone)
    initialise(model, generator)
    return model.train()


class Squares:
    """Grey pictures with one bright square each; class 0 is small, class 1 is large."""

    def __init__(
        self,
        count: int,
        *,
        first_ordinal: int = 0,
        size_hw: tuple[int, int] = (64, 64),
        empty: tuple[int, ...] = (),
        num_classes: int = 2,
    ) -> None:
        self.ordinals = list(range(first_ordinal, first_ordinal + count))
        self.sizes_hw = [size_hw] * count
        self.num_classes = num_classes
        self._empty = empty

    def __len__(self) -> int:
        return len(self.ordinals)

    def load(self, index: int) -> Sample:
        height, width = self.sizes_hw[index]
        draws = np.random.default_rng(self.ordinals[index])
        image = torch.full((3, height, width), 90, dtype=torch.uint8)
        if index in self._empty:
            boxes, labels = torch.zeros((0, 4)), torch.zeros(0, dtype=torch.int64)
        else:
            label = int(draws.integers(self.num_classes))
            side = (16, 32)[label % 2]
            y, x = int(draws.integers(height - side)), int(draws.integers(width - side))
            image[:, y : y + side, x : x + side] = 250
            boxes = torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32)
            labels = torch.tensor([label])
        return Sample(image, boxes, labels, self.ordinals[index], self.num_classes)


def uncertainties(scores: Iterable[ImageScore]) -> dict[int, float]:
    """The uncertainty of each picture by its ordinal."""
    return {one.ordinal: one.uncertainty for one in scores}
