"""RetinaNet's network: backbone, feature pyramid, four towers; and building any detector.

Shape suffixes: B images, C channels or classes, H and W rows and columns, A anchors, K columns per
anchor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worker.miaod import losses, scoring, targets
from worker.miaod.anchors import feature_sizes, level_anchors, valid_flags
from worker.miaod.backbones import Backbone, Halfway, build_backbone
from worker.miaod.config import TrainingConfig
from worker.miaod.detections import DetectionConfig, Detections, detect
from worker.miaod.detector import TOWERS, Detector
from worker.miaod.head_outputs import HeadOutputs, flatten_map
from worker.miaod.losses import LossConfig, StageKind
from worker.miaod.ssd.network import MiaodSsd
from worker.miaod.targets import Targets
from worker.miaod.transforms import padded_size

NORM_GROUPS = 8
"""Groups of a group normalisation; fewer in networks too narrow for two channels in each."""

PRIOR = 0.01
"""Probability that the classifiers give everything at the start: most anchors are background."""


class FeaturePyramid(nn.Module):
    """C3..C5 to P3..P5 by lateral and smoothing convolutions, then halvings of C5 for P6 and up."""

    def __init__(
        self, inputs: Sequence[int], channels: int, num_levels: int, *, group_norm: bool
    ) -> None:
        """Make the convolutions for C3..C5 with `inputs` channels."""
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in inputs)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in inputs)
        extra = num_levels - len(inputs)
        self.extra = nn.ModuleList(
            nn.Conv2d(inputs[-1] if level == 0 else channels, channels, 3, stride=2, padding=1)
            for level in range(extra)
        )
        self.norms = nn.ModuleList(_norm(channels, group_norm) for _ in range(num_levels))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The levels, finest first."""
        merged = [lateral(c) for lateral, c in zip(self.lateral, features, strict=True)]
        for level in range(len(merged) - 1, 0, -1):
            size = merged[level - 1].shape[2:]
            merged[level - 1] = merged[level - 1] + F.interpolate(merged[level], size=size)
        levels = [smooth(p) for smooth, p in zip(self.smooth, merged, strict=True)]
        # As in the reference: from C5, not P5, and without a ReLU in between.
        coarse = features[-1]
        for conv in self.extra:
            coarse = conv(coarse)
            levels.append(coarse)
        return [norm(level) for norm, level in zip(self.norms, levels, strict=True)]


class Tower(nn.Module):
    """Convolutions with ReLU and one output convolution, the same on every level."""

    def __init__(
        self, inputs: int, channels: int, depth: int, outputs: int, *, group_norm: bool = False
    ) -> None:
        """Make `depth` convolutions of `channels` and one of `outputs`."""
        super().__init__()
        widths = [inputs] + [channels] * depth
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.norms = nn.ModuleList(_norm(channels, group_norm) for _ in range(depth))
        self.output = nn.Conv2d(widths[-1], outputs, 3, padding=1)

    def forward(self, level_BCHW: Tensor) -> Tensor:
        """The output map, same rows and columns."""
        x = level_BCHW
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)), inplace=True)
        y: Tensor = self.output(x)
        return y


class MiaodRetinaNet(Detector):
    """RetinaNet with two adversarial classifiers and an image-level tower.

    Attributes:
        mil_columns: columns of the image-level tower: one per class, and one for background where
            `mil_background` asks for it. With one class and none for background its softmax is
            constant and nothing is learned (the reference's failure with one class).
        num_base_anchors: anchors per cell.
    """

    pyramid: FeaturePyramid
    # The stride of C5.
    pad_multiple = 32
    cell_offset = 0.0

    def __init__(self, config: TrainingConfig, num_classes: int, backbone: Backbone) -> None:
        """Put the parts together; their weights are drawn by `initialise`."""
        strides = tuple(8 * 2**level for level in range(config.num_levels))
        super().__init__(config, num_classes, backbone, strides)
        has_background = config.mil_background == "always" or (
            config.mil_background == "one_class" and num_classes == 1
        )
        self.mil_columns = num_classes + has_background
        self.num_base_anchors = config.scales_per_octave * len(config.aspect_ratios)
        self.pyramid = FeaturePyramid(
            backbone.channels, config.fpn_channels, config.num_levels, group_norm=config.group_norm
        )
        columns = {"f1": num_classes, "f2": num_classes, "mil": self.mil_columns, "box": 4}
        self.towers = nn.ModuleDict(
            {
                name: Tower(
                    config.fpn_channels,
                    config.head_channels,
                    config.head_depth,
                    self.num_base_anchors * columns[name],
                    group_norm=config.group_norm,
                )
                for name in TOWERS
            }
        )
        self.columns = columns
        self._anchors: dict[tuple[tuple[int, int], torch.device], list[Tensor]] = {}
        self.train_only(())

    @classmethod
    def build(
        cls,
        config: TrainingConfig,
        num_classes: int,
        weights_dir: Path | None,
        generator: torch.Generator,
    ) -> Self:
        """A new network, see `Detector.build`."""
        backbone = build_backbone(
            config.backbone,
            pretrained=config.pretrained,
            weights_dir=weights_dir,
            generator=generator,
        )
        model = cls(config, num_classes, backbone)
        initialise(model, generator)
        return model

    def forward(self, images: Tensor | Halfway, towers: Sequence[str] = TOWERS) -> HeadOutputs:
        """What the towers say, see `Detector.forward`."""
        features = self.backbone(images)
        levels = self.pyramid(features)

        def run(name: str) -> tuple[Tensor, ...] | None:
            if name not in towers:
                return None
            tower = self.towers[name]
            return tuple(flatten_map(tower(level), self.columns[name]) for level in levels)

        f1, f2 = run("f1"), run("f2")
        assert f1 is not None, "every use of the network reads the first classifier"
        return HeadOutputs(
            f1=f1,
            f2=f1 if f2 is None else f2,
            mil=run("mil"),
            deltas=run("box"),
            look_BDHW=features[1].detach(),
        )

    def anchors_for(self, image_hw: tuple[int, int]) -> list[Tensor]:
        """Anchors (A, 4) of every level for batches of that padded size, on the model's device."""
        device = next(self.parameters()).device
        key = (image_hw, device)
        if key not in self._anchors:
            # Pictures come in a few sizes only, but a zoomed pool could bring hundreds.
            if len(self._anchors) >= 64:
                self._anchors.clear()
            self._anchors[key] = level_anchors(
                self.level_sizes(image_hw),
                self.strides,
                self.config.octave_scale,
                self.config.scales_per_octave,
                self.config.aspect_ratios,
                device=device,
            )
        return self._anchors[key]

    def level_sizes(self, image_hw: tuple[int, int]) -> list[tuple[int, int]]:
        """Rows and columns of each level for batches of that padded size."""
        return feature_sizes(image_hw, self.strides)

    def valid_anchors(
        self, sizes_hw: Sequence[tuple[int, int]], padded_hw: tuple[int, int]
    ) -> Tensor:
        """(B, A) bool: anchors on each image's own area, all levels.

        An image's own area includes what pads it to the network's multiple, as in the reference,
        but not what evens out the batch.
        """
        level_sizes = self.level_sizes(padded_hw)
        own_sizes = [padded_size(size_hw, self.pad_multiple) for size_hw in sizes_hw]
        rows = {
            own_hw: torch.cat(valid_flags(level_sizes, self.strides, own_hw, self.num_base_anchors))
            for own_hw in set(own_sizes)
        }
        return torch.stack([rows[own_hw] for own_hw in own_sizes])

    def assign(
        self,
        anchors_A4: Tensor,
        valid_A: Tensor,
        boxes_N4: Tensor,
        labels_N: Tensor,
        *,
        require_positive_iou: bool,
    ) -> Targets:
        """What the anchors of one image should say; see `targets.assign`."""
        return targets.assign(
            anchors_A4,
            valid_A,
            boxes_N4,
            labels_N,
            self.num_classes,
            require_positive_iou=require_positive_iou,
        )

    def labeled_losses(
        self,
        outputs: HeadOutputs,
        targets: Sequence[Targets],
        present_BC: Tensor,
        stage: StageKind,
        config: LossConfig,
        *,
        known_BC: Tensor | None = None,
        valid_BA: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of a labeled batch; see `losses`."""
        return losses.labeled_losses(
            outputs, targets, present_BC, stage, config, known_BC=known_BC, valid_BA=valid_BA
        )

    def unlabeled_losses(
        self,
        outputs: HeadOutputs,
        stage: StageKind,
        config: LossConfig,
        *,
        valid_BA: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of an unlabeled batch; see `losses`."""
        return losses.unlabeled_losses(outputs, stage, config, valid_BA=valid_BA)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Sigmoids: each class for itself."""
        return logits.sigmoid()

    def anchor_discrepancy(self, f1_logits_BAK: Tensor, f2_logits_BAK: Tensor) -> Tensor:
        """Squared difference of the probabilities; see `scoring.anchor_discrepancy`."""
        return scoring.anchor_discrepancy(f1_logits_BAK, f2_logits_BAK)

    def anchor_entropy(self, logits_BAK: Tensor) -> Tensor:
        """Of the yes or no to each class; see `scoring.anchor_entropy`."""
        return scoring.anchor_entropy(logits_BAK)

    def detect(
        self,
        outputs: HeadOutputs,
        padded_hw: tuple[int, int],
        image_sizes_hw: Sequence[tuple[int, int]],
        config: DetectionConfig,
        *,
        scale_factors: Sequence[tuple[float, float]] | None = None,
    ) -> list[Detections]:
        """Detections per image; see `detections.detect`."""
        return detect(
            outputs,
            self.anchors_for(padded_hw),
            image_sizes_hw,
            config,
            scale_factors=scale_factors,
            probabilities=self.probabilities,
        )

    def class_weights(self) -> Mapping[str, int]:
        """The output convolutions of both classifiers and the image-level tower."""
        return {
            f"towers.{tower}.output.{kind}": self.num_base_anchors
            for tower in ("f1", "f2", "mil")
            for kind in ("weight", "bias")
        }


DETECTORS: dict[str, type[Detector]] = {"retinanet": MiaodRetinaNet, "ssd300": MiaodSsd}
"""By the choices of `TrainingConfig.detector`."""


def build_model(
    config: TrainingConfig, num_classes: int, *, weights_dir: Path | None, seed: int
) -> Detector:
    """A new model on the CPU, in training mode, a pure function of its arguments.

    Args:
        config: its model fields are read.
        num_classes: C.
        weights_dir: folder with torchvision's weight files.
        seed: of every weight that is drawn.

    Raises:
        PretrainedWeightsMissing: the backbone's ImageNet weights are not there.
    """
    generator = torch.Generator().manual_seed(seed)
    model = DETECTORS[config.detector].build(config, num_classes, weights_dir, generator)
    # Channels last is the layout that convolutions want on CPU and GPU alike: twice the speed.
    return model.to(memory_format=torch.channels_last).train()


def initialise(model: MiaodRetinaNet, generator: torch.Generator) -> None:
    """Draw the weights of pyramid and towers as the reference does; biases start at 0.

    The classifiers' output biases start where they give everything the probability `PRIOR`. The
    hidden convolutions of the image-level tower keep their library's default in the reference,
    Kaiming normal; all else in the towers is N(0, 0.01).
    """
    for module in (*model.pyramid.modules(), *model.towers.modules()):
        if isinstance(module, nn.Conv2d):
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    for module in model.pyramid.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight, generator=generator)
    for name in TOWERS:
        tower = model.towers[name]
        assert isinstance(tower, Tower)
        for conv in tower.convs:
            assert isinstance(conv, nn.Conv2d)
            if name == "mil":
                nn.init.kaiming_normal_(
                    conv.weight, mode="fan_out", nonlinearity="relu", generator=generator
                )
            else:
                nn.init.normal_(conv.weight, std=0.01, generator=generator)
        nn.init.normal_(tower.output.weight, std=0.01, generator=generator)
        if name != "box":
            assert tower.output.bias is not None
            nn.init.constant_(tower.output.bias, -math.log((1 - PRIOR) / PRIOR))


def _norm(channels: int, group_norm: bool) -> nn.Module:
    if not group_norm:
        return nn.Identity()
    # Two channels per group at least: one channel of a level with one cell has no variance.
    return nn.GroupNorm(max(math.gcd(2 * NORM_GROUPS, channels) // 2, 1), channels)
