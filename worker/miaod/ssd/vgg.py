"""VGG16 as SSD uses it: thirteen convolutions, and its first two dense layers as two more.

Shape suffixes: B images, C channels, H and W rows and columns.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from worker.miaod.backbones import Backbone
from worker.miaod.pretrained import imagenet_weights

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the 3x3 convolutions, block after block; a pooling lies between two blocks."""

DENSE_CHANNELS = 1024
"""Channels of conv6 and conv7, once dense layers."""


def build_vgg16(
    *,
    width_divisor: int,
    pretrained: bool,
    weights_dir: Path | None,
    generator: torch.Generator,
) -> Backbone:
    """A VGG16 whose two taps are conv4_3 (stride 8) and conv7 (stride 16), each after its ReLU.

    The caffe weights that the reference starts from cannot be had any more. Published in their
    place, with caffe's normalisation, is the port that torchvision carries for its own SSD. It
    lacks conv6 and conv7; they are drawn, as torchvision draws them (Xavier uniform).

    Args:
        width_divisor: divides every layer's channels.
        pretrained: load those weights; otherwise draw all of them (Kaiming normal, fan-out).
        weights_dir: folder with torchvision's weight files.
        generator: of the drawn weights.

    Raises:
        PretrainedWeightsMissing: the weight file cannot be had or read.
    """
    stages: list[nn.Module] = []
    inputs = 3
    for index, widths in enumerate(BLOCKS):
        # Rounded up: 300 pixels become 150, 75, 38 and 19 cells.
        layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if index else []
        for width in widths:
            outputs = width // width_divisor
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = outputs
        stages.append(nn.Sequential(*layers))
    dense = DENSE_CHANNELS // width_divisor
    stages.append(
        nn.Sequential(
            # The pooling behind conv5 keeps the size, and conv6 sees as far as it did by its gaps.
            nn.MaxPool2d(3, stride=1, padding=1),
            nn.Conv2d(inputs, dense, 3, padding=6, dilation=6),
            nn.ReLU(inplace=True),
            nn.Conv2d(dense, dense, 1),
            nn.ReLU(inplace=True),
        )
    )
    backbone = Backbone(
        stages,
        taps=(3, 5),
        channels=(BLOCKS[3][-1] // width_divisor, dense),
        # The reference's numbers; the weights, its own and these, were trained with
        # (123, 117, 104).
        pixel_mean=(123.675, 116.28, 103.53),
        pixel_std=(1.0, 1.0, 1.0),
    )
    _draw(backbone, generator, pretrained=pretrained)
    if pretrained:
        _load(backbone, weights_dir or Path("weights"))
    return backbone


def convolutions(backbone: Backbone) -> list[nn.Conv2d]:
    """The fifteen convolutions, in their order."""
    return [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]


def _draw(backbone: Backbone, generator: torch.Generator, *, pretrained: bool) -> None:
    for conv in convolutions(backbone):
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        if pretrained:
            nn.init.xavier_uniform_(conv.weight, generator=generator)
        else:
            nn.init.kaiming_normal_(
                conv.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )


@torch.no_grad()
def _load(backbone: Backbone, folder: Path) -> None:
    published = imagenet_weights("vgg16", folder)
    names = [name for name in published if name.startswith("features.") and name.endswith("weight")]
    names.sort(key=lambda name: int(name.split(".")[1]))
    num_published = sum(len(widths) for widths in BLOCKS)
    for conv, name in zip(convolutions(backbone)[:num_published], names, strict=True):
        assert conv.bias is not None
        conv.weight.copy_(published[name])
        conv.bias.copy_(published[name.replace("weight", "bias")])
