from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from worker.miaod.backbones import (
    Backbone,
    FoldedConv,
    build_backbone,
    efficientnet_lite0_weights,
)


def build(name: str, *, pretrained: bool = False, weights_dir: Path | None = None) -> Backbone:
    generator = torch.Generator().manual_seed(1)
    return build_backbone(name, pretrained=pretrained, weights_dir=weights_dir, generator=generator)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "resnet50"])
def test_the_features_have_strides_8_16_and_32(name: str) -> None:
    backbone = build(name).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 64, 96))
    shapes = [tuple(c.shape[1:]) for c in features]
    assert shapes == [
        (channels, 64 // stride, 96 // stride)
        for channels, stride in zip(backbone.channels, (8, 16, 32), strict=True)
    ]


def test_all_packaged_weights_of_the_feature_extractor_are_used() -> None:
    packaged = {
        name: value
        for name, value in efficientnet_lite0_weights().items()
        if not name.startswith(("_conv_head", "_bn1", "_fc")) and "num_batches" not in name
    }
    ours = build("efficientnet_lite0", pretrained=True).state_dict()
    assert sum(v.numel() for v in ours.values()) == sum(v.numel() for v in packaged.values())


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 1, 8), (3, 2, 8), (5, 2, 8), (5, 2, 7)])
def test_a_folded_convolution_is_padding_convolution_and_normalisation(
    kernel: int, stride: int, size: int
) -> None:
    torch.manual_seed(0)
    unit = FoldedConv(6, 6, kernel, stride=stride, groups=3, relu=True)
    for name, value in unit.named_parameters():
        if not name.startswith("conv"):
            torch.nn.init.uniform_(value, 0.5, 1.5)
    unit.running_mean.uniform_(-1, 1)
    unit.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 6, size, size)

    # TensorFlow's SAME: as many outputs as strides, the odd pixel of padding at the lower right.
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    low, high = total // 2, total - total // 2
    padded = functional.pad(x, (low, high, low, high))
    convolved = functional.conv2d(padded, unit.conv.weight, stride=stride, groups=3)
    expected = functional.relu6(
        functional.batch_norm(
            convolved, unit.running_mean, unit.running_var, unit.weight, unit.bias, eps=1e-3
        )
    )
    torch.testing.assert_close(unit(x), expected)


def test_training_mode_leaves_the_normalisation_statistics_alone() -> None:
    backbone = build("resnet18").train()
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone(torch.randn(2, 3, 64, 64))
    for name, value in backbone.named_buffers():
        assert torch.equal(value, before[name]), name


def test_drawn_weights_depend_on_nothing_but_the_generator() -> None:
    first = build("efficientnet_lite0").state_dict()
    torch.manual_seed(99)
    second = build("efficientnet_lite0").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
