"""SSD300's network: VGG16, six maps, and for each map one convolution per tower.

Shape suffixes: B images, C channels or classes, H and W rows and columns, A anchors, N boxes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from worker.miaod.anchors import feature_sizes, valid_flags
from worker.miaod.backbones import Backbone, Halfway
from worker.miaod.config import TrainingConfig
from worker.miaod.detections import DetectionConfig, Detections, detect
from worker.miaod.detector import TOWERS, Detector
from worker.miaod.head_outputs import HeadOutputs, flatten_map
from worker.miaod.losses import LossConfig, StageKind
from worker.miaod.ssd import losses, scores, targets
from worker.miaod.ssd.anchors import CELL_OFFSET, IMAGE_SIDE, LEVELS, level_anchors
from worker.miaod.ssd.vgg import build_vgg16
from worker.miaod.targets import Targets

SCALE_AT_START = 20.0
"""Length of every position of conv4_3 after `ChannelNorm`, near what the deeper maps have."""

NORM_MARGIN = 1e-10
"""Added to a length before it divides, as in the reference."""


@dataclasses.dataclass(frozen=True)
class _Step:
    """From one map to the next: a 1x1 convolution, and a 3x3 one that makes it smaller."""

    between: int
    outputs: int
    stride: int
    padding: int


EXTRA = (
    _Step(256, 512, 2, 1),
    _Step(128, 256, 2, 1),
    _Step(128, 256, 1, 0),
    _Step(128, 256, 1, 0),
)
"""What makes 10, 5, 3 and 1 cells a side of conv7's 19."""


class ChannelNorm(nn.Module):
    """Each position divided by its length over the channels, times a learned factor per channel."""

    def __init__(self, channels: int) -> None:
        """Start with the same factor everywhere."""
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), SCALE_AT_START))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Float32, the same shape; 0 where all channels are 0."""
        x_BCHW = x_BCHW.float()
        squares_B1HW = x_BCHW.square().sum(dim=1, keepdim=True)
        # The root has no slope at 0, and the reference's gradient there is not a number. A position
        # where every channel is 0 has no direction to keep: its gradient is 0 here.
        somewhere_B1HW = squares_B1HW > 0
        length_B1HW = squares_B1HW.where(somewhere_B1HW, 1.0).sqrt() + NORM_MARGIN
        normed_BCHW = self.weight[:, None, None] * x_BCHW / length_B1HW
        return normed_BCHW.where(somewhere_B1HW, 0.0)


class SsdPyramid(nn.Module):
    """The six maps from conv4_3 and conv7."""

    def __init__(self, inputs: Sequence[int], width_divisor: int) -> None:
        """Make the convolutions behind conv4_3 and conv7 with `inputs` channels."""
        super().__init__()
        self.norm = ChannelNorm(inputs[0])
        self.extra = nn.ModuleList()
        channels = inputs[1]
        self.channels = list(inputs)
        for step in EXTRA:
            between, outputs = step.between // width_divisor, step.outputs // width_divisor
            self.extra.append(
                nn.Sequential(
                    nn.Conv2d(channels, between, 1),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(between, outputs, 3, stride=step.stride, padding=step.padding),
                    nn.ReLU(inplace=True),
                )
            )
            channels = outputs
            self.channels.append(outputs)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The maps, finest first. Only the head's conv4_3 is normalised, not what conv5 gets."""
        conv4_3, conv7 = features
        levels = [self.norm(conv4_3), conv7]
        for step in self.extra:
            levels.append(step(levels[-1]))
        return levels


class SsdTower(nn.Module):
    """One convolution for each map, none of them shared."""

    def __init__(self, channels: Sequence[int], columns: int) -> None:
        """Make them for maps with `channels`, with `columns` outputs per anchor."""
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs, level.num_base_anchors * columns, 3, padding=1)
            for inputs, level in zip(channels, LEVELS, strict=True)
        )

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """The output maps, same rows and columns."""
        return [conv(level) for conv, level in zip(self.convs, levels, strict=True)]


class MiaodSsd(Detector):
    """SSD300 with two adversarial classifiers and an image-level tower.

    Every classifier and the image-level tower have C + 1 columns, the last for background.
    """

    pad_multiple = IMAGE_SIDE
    cell_offset = CELL_OFFSET

    def __init__(self, config: TrainingConfig, num_classes: int, backbone: Backbone) -> None:
        """Put the parts together and draw the weights of all but the backbone."""
        super().__init__(config, num_classes, backbone, tuple(level.stride for level in LEVELS))
        self.pyramid = SsdPyramid(backbone.channels, config.width_divisor)
        every = num_classes + 1
        self.columns = {"f1": every, "f2": every, "mil": every, "box": 4}
        self.towers = nn.ModuleDict(
            {name: SsdTower(self.pyramid.channels, self.columns[name]) for name in TOWERS}
        )
        self._anchors: dict[torch.device, list[Tensor]] = {}
        self.train_only(())

    @classmethod
    def build(
        cls,
        config: TrainingConfig,
        num_classes: int,
        weights_dir: Path | None,
        generator: torch.Generator,
    ) -> Self:
        """A new network: Xavier uniform behind the backbone, all biases 0, as in the reference."""
        backbone = build_vgg16(
            width_divisor=config.width_divisor,
            pretrained=config.pretrained,
            weights_dir=weights_dir,
            generator=generator,
        )
        model = cls(config, num_classes, backbone)
        for module in (*model.pyramid.modules(), *model.towers.modules()):
            if isinstance(module, nn.Conv2d):
                assert module.bias is not None
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
        return model

    def forward(self, images: Tensor | Halfway, towers: Sequence[str] = TOWERS) -> HeadOutputs:
        """What the towers say, see `Detector.forward`."""
        features = self.backbone(images)
        levels = self.pyramid(features)

        def run(name: str) -> tuple[Tensor, ...] | None:
            if name not in towers:
                return None
            maps = self.towers[name](levels)
            return tuple(flatten_map(level, self.columns[name]) for level in maps)

        f1, f2 = run("f1"), run("f2")
        assert f1 is not None, "every use of the network reads the first classifier"
        return HeadOutputs(
            f1=f1,
            f2=f1 if f2 is None else f2,
            mil=run("mil"),
            deltas=run("box"),
            # conv7, whose 19 cells are 15.8 pixels apart.
            look_BDHW=features[1].detach(),
        )

    def level_sizes(self, image_hw: tuple[int, int]) -> list[tuple[int, int]]:
        """Rows and columns of each level."""
        assert image_hw == (IMAGE_SIDE, IMAGE_SIDE), f"a batch of {image_hw} for SSD300"
        return feature_sizes(image_hw, self.strides)

    def anchors_for(self, image_hw: tuple[int, int]) -> list[Tensor]:
        """Anchors (A, 4) of every level, on the model's device."""
        assert image_hw == (IMAGE_SIDE, IMAGE_SIDE), f"a batch of {image_hw} for SSD300"
        device = next(self.parameters()).device
        if device not in self._anchors:
            self._anchors[device] = level_anchors(device)
        return self._anchors[device]

    def valid_anchors(
        self, sizes_hw: Sequence[tuple[int, int]], padded_hw: tuple[int, int]
    ) -> Tensor:
        """(B, A): all, unless a random zoom left a picture smaller than its frame."""
        level_sizes = self.level_sizes(padded_hw)
        rows = {
            own_hw: torch.cat(
                [
                    valid_flags([size], [level.stride], own_hw, level.num_base_anchors)[0]
                    for size, level in zip(level_sizes, LEVELS, strict=True)
                ]
            )
            for own_hw in set(sizes_hw)
        }
        return torch.stack([rows[own_hw] for own_hw in sizes_hw])

    def assign(
        self,
        anchors_A4: Tensor,
        valid_A: Tensor,
        boxes_N4: Tensor,
        labels_N: Tensor,
        *,
        require_positive_iou: bool,
    ) -> Targets:
        """What the anchors of one image should say; see `ssd.targets.assign`."""
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
        """Losses of a labeled batch; see `ssd.losses`."""
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
        """Losses of an unlabeled batch; see `ssd.losses`."""
        return losses.unlabeled_losses(outputs, stage, config, valid_BA=valid_BA)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax over classes and background, background's share left out."""
        return scores.class_probabilities(logits)

    def anchor_discrepancy(self, f1_logits_BAK: Tensor, f2_logits_BAK: Tensor) -> Tensor:
        """Squared difference of the scores, read as the configuration says."""
        return scores.anchor_discrepancy(f1_logits_BAK, f2_logits_BAK, self.config)

    def anchor_entropy(self, logits_BAK: Tensor) -> Tensor:
        """Of the softmax over classes and background."""
        return scores.anchor_entropy(logits_BAK)

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
        assert outputs.deltas is not None, "the box tower has to run for detections"
        deltas = tuple(level * level.new_tensor(targets.DELTA_SCALES) for level in outputs.deltas)
        return detect(
            dataclasses.replace(outputs, deltas=deltas),
            self.anchors_for(padded_hw),
            image_sizes_hw,
            config,
            scale_factors=scale_factors,
            probabilities=self.probabilities,
        )

    def class_weights(self) -> Mapping[str, int]:
        """The convolutions of both classifiers and the image-level tower, biases included."""
        return {
            f"towers.{tower}.convs.{index}.{kind}": level.num_base_anchors
            for tower in ("f1", "f2", "mil")
            for index, level in enumerate(LEVELS)
            for kind in ("weight", "bias")
        }
