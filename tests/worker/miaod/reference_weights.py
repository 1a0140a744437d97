"""The reference's weights in our network: its names for them, and a network of their shape."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from worker.miaod.backbones import Backbone, from_resnet
from worker.miaod.config import PRESETS, TrainingConfig
from worker.miaod.model import FeaturePyramid, MiaodRetinaNet

# Their names, and ours. C3..C5 are merged and smoothed; from the fourth on, levels are halvings.
NUM_MERGED = 3
NAMES = (
    (r"(?:backbone\.)?conv1\.", r"backbone.stages.0.0."),
    (r"(?:backbone\.)?bn1\.", r"backbone.stages.0.1."),
    (r"(?:backbone\.)?layer(\d)\.", r"backbone.stages.\1."),
    (r"(?:neck\.)?lateral_convs\.(\d)\.conv\.", r"pyramid.lateral.\1."),
    (r"(?:neck\.)?fpn_convs\.([0-2])\.conv\.", r"pyramid.smooth.\1."),
    (r"(?:neck\.)?fpn_convs\.(\d)\.conv\.", r"pyramid.extra.\1."),
    # torchvision's names of a pyramid.
    (r"(?:fpn\.|neck\.)?inner_blocks\.(\d)\.(?:0\.)?", r"pyramid.lateral.\1."),
    (r"(?:fpn\.|neck\.)?layer_blocks\.(\d)\.(?:0\.)?", r"pyramid.smooth.\1."),
    (r"(?:fpn\.|neck\.)?(?:extra_blocks\.)?p6\.", r"pyramid.extra.3."),
    (r"(?:fpn\.|neck\.)?(?:extra_blocks\.)?p7\.", r"pyramid.extra.4."),
    (r"(?:bbox_head\.)?f_(\w+)_convs\.(\d)\.conv\.", r"towers.f\1.convs.\2."),
    (r"(?:bbox_head\.)?f_(\w+)_retina\.", r"towers.f\1.output."),
)


def our_name(theirs: str) -> str:
    """Where a tensor of the reference's state dict lies in a `MiaodRetinaNet`."""
    for pattern, replacement in NAMES:
        ours, count = re.subn("^" + pattern, replacement, theirs)
        if count:
            break
    else:
        raise KeyError(f"{theirs} is no weight of a ResNet, a pyramid or a head")
    ours = ours.replace("towers.fmil.", "towers.mil.").replace("towers.fr.", "towers.box.")
    return re.sub(
        r"^pyramid\.extra\.(\d)", lambda found: f"pyramid.extra.{int(found[1]) - NUM_MERGED}", ours
    )


def our_weights(theirs: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """A whole state dict under our names; counters of batches, which nothing reads, stay away."""
    return {
        our_name(name): torch.from_numpy(values.copy())
        for name, values in theirs.items()
        if not name.endswith("num_batches_tracked")
    }


def load_all(module: nn.Module, weights: Mapping[str, Tensor], prefix: str = "") -> None:
    """Load exactly the tensors that the module has below `prefix`: none missing, none over."""
    found = {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
    missing, unexpected = module.load_state_dict(found, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    assert not missing, f"no figures for {missing}"
    assert not unexpected, f"no place for {unexpected}"


def backbone_for(weights: Mapping[str, Tensor]) -> Backbone:
    """A ResNet of the depth and width that these weights (in our names) have.

    Its images come normalised: it subtracts nothing.
    """

    def out_channels(conv: str) -> int:
        return weights[f"backbone.stages.{conv}.weight"].shape[0]

    depths = []
    for layer in range(1, 5):
        blocks = {name.split(".")[3] for name in weights if f"backbone.stages.{layer}." in name}
        depths.append(len(blocks))
    is_deep = "backbone.stages.1.0.conv3.weight" in weights
    resnet = ResNet(Bottleneck if is_deep else BasicBlock, depths)
    # torchvision makes them with 64 channels; made anew with those of the figures.
    resnet.inplanes = out_channels("0.0")
    resnet.conv1 = nn.Conv2d(3, resnet.inplanes, 7, stride=2, padding=3, bias=False)
    resnet.bn1 = nn.BatchNorm2d(resnet.inplanes)
    for layer in range(1, 5):
        stage = resnet._make_layer(
            Bottleneck if is_deep else BasicBlock,
            out_channels(f"{layer}.0.conv1"),
            depths[layer - 1],
            stride=1 if layer == 1 else 2,
        )
        setattr(resnet, f"layer{layer}", stage)
    backbone = from_resnet(resnet)
    backbone.pixel_mean, backbone.pixel_std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    load_all(backbone, weights, "backbone.")
    return backbone


def pyramid_for(weights: Mapping[str, Tensor], backbone: Backbone) -> FeaturePyramid:
    """The pyramid of these weights (in our names)."""
    levels = {name.split(".")[2] for name in weights if name.startswith("pyramid.extra.")}
    channels = weights["pyramid.lateral.0.weight"].shape[0]
    pyramid = FeaturePyramid(
        backbone.channels, channels, NUM_MERGED + len(levels), group_norm=False
    )
    load_all(pyramid, weights, "pyramid.")
    return pyramid


def parity_config(weights: Mapping[str, Tensor], **changes: Any) -> TrainingConfig:
    """`paper-voc` for a network of these weights' shape, on images that come as tensors."""
    channels, levels = weights["pyramid.lateral.0.weight"].shape[0], NUM_MERGED
    levels += sum(bool(re.fullmatch(r"pyramid\.extra\.\d+\.bias", name)) for name in weights)
    depth = sum(bool(re.fullmatch(r"towers\.f1\.convs\.\d+\.bias", name)) for name in weights)
    narrow: dict[str, Any] = {
        "fpn_channels": channels,
        "num_levels": levels,
        "head_channels": weights["towers.f1.convs.0.weight"].shape[0],
        "head_depth": depth,
        "num_loader_workers": 0,
        "num_threads": 1,
    }
    return dataclasses.replace(PRESETS["paper-voc"], **(narrow | changes))


def network_for(
    weights: Mapping[str, Tensor], num_classes: int, config: TrainingConfig
) -> MiaodRetinaNet:
    """Our whole network with these weights (in our names)."""
    model = MiaodRetinaNet(config, num_classes, backbone_for(weights))
    load_all(model, weights)
    return model
