"""What training, scoring and prediction ask of a detector, whichever it is.

RetinaNet (`model.py`) and SSD300 (`ssd/network.py`) answer. Backbone, pyramid and four towers they
have in common, and with them the stages; anchors, targets, losses and what a logit means are each
one's own.

Shape suffixes: B images, A anchors (of a level, or of all), C classes, K columns of a classifier,
N boxes or rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from worker.miaod.backbones import Backbone, Halfway
from worker.miaod.config import TrainingConfig
from worker.miaod.detections import DetectionConfig, Detections
from worker.miaod.head_outputs import HeadOutputs
from worker.miaod.losses import LossConfig, StageKind
from worker.miaod.targets import Targets

TOWERS = ("f1", "f2", "mil", "box")
"""The two adversarial classifiers, the image-level tower, the box tower."""


class Detector(nn.Module, ABC):
    """A network with two adversarial classifiers and an image-level tower.

    Attributes:
        pad_multiple: batches are padded to a multiple of this.
        cell_offset: where in its cell an anchor is centred, in strides from the corner.
        config: what it was built by.
        num_classes: C, background not counted.
        strides: pixels between cells, per level.
        backbone: says how pixels are normalised, too.
        pyramid: all between backbone and towers.
        towers: by the names in `TOWERS`.
    """

    pad_multiple: ClassVar[int]
    cell_offset: ClassVar[float]
    pyramid: nn.Module
    towers: nn.ModuleDict

    def __init__(
        self,
        config: TrainingConfig,
        num_classes: int,
        backbone: Backbone,
        strides: tuple[int, ...],
    ) -> None:
        """Check and keep them; pyramid and towers are for the subclass to add."""
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}: a detector needs at least one class")
        if config.frozen_stages > len(backbone.stages):
            raise ValueError(
                f"frozen_stages is {config.frozen_stages}: {config.backbone} has "
                f"{len(backbone.stages)} stages"
            )
        self.config = config
        self.num_classes = num_classes
        self.strides = strides
        self.backbone = backbone

    @classmethod
    @abstractmethod
    def build(
        cls,
        config: TrainingConfig,
        num_classes: int,
        weights_dir: Path | None,
        generator: torch.Generator,
    ) -> Self:
        """A new network; all weights that are drawn come from the generator.

        Raises:
            PretrainedWeightsMissing: the backbone's ImageNet weights are not there.
        """

    @abstractmethod
    def forward(self, images: Tensor | Halfway, towers: Sequence[str] = TOWERS) -> HeadOutputs:
        """What the towers say.

        Args:
            images: normalised float images (B, 3, H, W), sides multiples of `pad_multiple`; or what
                the leading stages of the backbone made of them (see `frozen`).
            towers: those to run. "f1" always runs; without "f2" its place is taken by f1, since
                detection, which reads f1 alone, need not pay for both.
        """

    # Anchors and targets.

    @abstractmethod
    def level_sizes(self, image_hw: tuple[int, int]) -> list[tuple[int, int]]:
        """Rows and columns of each level for batches of that padded size."""

    @abstractmethod
    def anchors_for(self, image_hw: tuple[int, int]) -> list[Tensor]:
        """Anchors (A, 4) of every level for batches of that padded size, on the model's device."""

    @abstractmethod
    def valid_anchors(
        self, sizes_hw: Sequence[tuple[int, int]], padded_hw: tuple[int, int]
    ) -> Tensor:
        """(B, A) bool on the CPU, all levels: anchors on each image's own area.

        Args:
            sizes_hw: rows and columns of each image of the batch.
            padded_hw: those of the batch.
        """

    @abstractmethod
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

    # Losses; arguments and results as of the functions in `losses`.

    @abstractmethod
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
        """Losses of a labeled batch."""

    @abstractmethod
    def unlabeled_losses(
        self,
        outputs: HeadOutputs,
        stage: StageKind,
        config: LossConfig,
        *,
        valid_BA: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of an unlabeled batch."""

    # What the outputs mean.

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities (…, C) from a classifier's logits (…, K)."""

    @abstractmethod
    def anchor_discrepancy(self, f1_logits_BAK: Tensor, f2_logits_BAK: Tensor) -> Tensor:
        """(B, A) float32 in [0, 1]: how far the classifiers are apart, as scoring counts it."""

    @abstractmethod
    def anchor_entropy(self, logits_BAK: Tensor) -> Tensor:
        """(B, A) float32: how undecided a classifier is."""

    @abstractmethod
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

    # Which weights are what.

    @abstractmethod
    def class_weights(self) -> Mapping[str, int]:
        """Weights with one row per anchor of a cell and class: their names, and those anchors.

        The class runs fastest. A column past the classes stands for background.
        """

    def parts(self) -> dict[str, nn.Module]:
        """The modules that stages freeze, by name: `backbone`, `pyramid` and the towers."""
        towers = {name: self.towers[name] for name in TOWERS}
        return {"backbone": self.backbone, "pyramid": self.pyramid, **towers}

    def train_only(self, parts: Sequence[str]) -> None:
        """Let only the named `parts` train; the backbone's frozen stages never do.

        Gradients of all parameters are dropped, so that what is frozen now cannot move by a
        gradient from before.

        Raises:
            ValueError: a name is no part. The reference freezes by names in a list and passes over
                those that do not fit, so that a stage may quietly freeze nothing.
        """
        unknown = sorted(set(parts) - set(self.parts()))
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is no part of the network: it has {', '.join(self.parts())}"
            )
        for name, part in self.parts().items():
            part.requires_grad_(name in parts)
        for stage in list(self.backbone.stages)[: self.config.frozen_stages]:
            stage.requires_grad_(False)
        self.zero_grad(set_to_none=True)
