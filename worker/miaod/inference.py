"""A trained model at work: uncertainties of a pool, and detections with heat maps.

Shape suffixes: B images, C classes, D channels of the backbone's map at stride 16, A anchors,
N detections, H and W rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.ops import roi_align

from worker.miaod.backbones import Halfway
from worker.miaod.config import TrainingConfig
from worker.miaod.detections import DetectionConfig, Detections
from worker.miaod.detector import Detector
from worker.miaod.engine import autocast
from worker.miaod.frozen import FrozenCache
from worker.miaod.head_outputs import LOOK_STRIDE
from worker.miaod.loading import PlainBatches, iterate
from worker.miaod.samples import Dataset
from worker.miaod.scoring import heat_map, image_uncertainty
from worker.miaod.transforms import Batch, normalise


@dataclass(frozen=True)
class Prediction:
    """What the model says about one picture.

    Attributes:
        ordinal: which picture.
        detections: best first, boxes xyxy in the pixels of the original picture, on the CPU.
        heat_map_HW: float32 in [0, 1], where the classifiers disagree, at the resized picture's
            size; None unless asked for.
        looks_ND: what the backbone sees in each box, float32 on the CPU; None unless asked for.
    """

    ordinal: int
    detections: Detections
    heat_map_HW: Tensor | None
    looks_ND: Tensor | None = None


@dataclass(frozen=True)
class ImageScore:
    """What tells how much a picture would teach.

    Attributes:
        ordinal: which picture.
        uncertainty: MI-AOD's, >= 0; not a number where the network's output is not. Always 0
            after plain training, whose second classifier has learned nothing.
        entropy: of the first classifier, >= 0; averaged over as many anchors as the uncertainty.
        presence_C: float32, the highest probability of each class anywhere in the picture.
        look_D: float32, what the backbone sees in the picture, averaged over it.
    """

    ordinal: int
    uncertainty: float
    entropy: float
    presence_C: Tensor
    look_D: Tensor


def score(
    model: Detector,
    dataset: Dataset,
    config: TrainingConfig,
    device: torch.device,
    *,
    frozen: FrozenCache | None = None,
    num_done: int = 0,
) -> Iterator[ImageScore]:
    """Score every picture of a dataset; in groups of one size, not in the order of the dataset.

    Args:
        model: trained.
        dataset: pictures; their boxes are not read.
        config: its data, scoring and thread fields are read.
        device: where to run.
        frozen: cache of the backbone's frozen stages.
        num_done: pictures that an earlier call with the same arguments has given; they are passed
            over, and the rest is what it would have given, to the bit.
    """
    first_batch, num_passed = PlainBatches(dataset, config).place_after(num_done)
    for batch, images in _batches(model, dataset, config, device, frozen, first_batch):
        with torch.inference_mode():
            with autocast(config, device):
                outputs = model(images, _classifiers(config))
            f1_BAK, f2_BAK = torch.cat(outputs.f1, 1), torch.cat(outputs.f2, 1)
            k = config.scoring_k
            uncertainty_B = image_uncertainty(model.anchor_discrepancy(f1_BAK, f2_BAK), k).tolist()
            entropy_B = image_uncertainty(model.anchor_entropy(f1_BAK), k).tolist()
            mean_BAC = (model.probabilities(f1_BAK) + model.probabilities(f2_BAK)) / 2
            presence_BC = mean_BAC.amax(dim=1).cpu()
            assert outputs.look_BDHW is not None, "every detector shows its backbone's map"
            look_BD = outputs.look_BDHW.float().mean(dim=(2, 3)).cpu()
        for place in range(num_passed, len(batch.ordinals)):
            yield ImageScore(
                batch.ordinals[place],
                uncertainty_B[place],
                entropy_B[place],
                presence_BC[place],
                look_BD[place],
            )
        num_passed = 0


def predict(
    model: Detector,
    dataset: Dataset,
    config: TrainingConfig,
    device: torch.device,
    *,
    heat_maps: bool = False,
    looks: bool = False,
    frozen: FrozenCache | None = None,
) -> Iterator[Prediction]:
    """Detections of every picture of a dataset, in groups of one size.

    Args:
        model: trained.
        dataset: pictures; their boxes are not read.
        config: its data, detection and thread fields are read.
        device: where to run.
        heat_maps: make them too.
        looks: say what the backbone sees in each box, too.
        frozen: cache of the backbone's frozen stages.
    """
    thresholds = DetectionConfig(
        score_threshold=config.score_threshold,
        nms_iou=config.nms_iou,
        candidates_per_level=config.nms_candidates,
        max_per_image=config.detections_per_image,
    )
    for batch, images in _batches(model, dataset, config, device, frozen):
        factors = [
            (w / original_w, h / original_h)
            for (h, w), (original_h, original_w) in zip(
                batch.sizes_hw, batch.original_sizes_hw, strict=True
            )
        ]
        with torch.inference_mode():
            with autocast(config, device):
                both = heat_maps or config.average_classifiers
                outputs = model(images, (*_classifiers(config), "box") if both else ("f1", "box"))
            asked = outputs
            if config.average_classifiers:
                means = zip(outputs.f1, outputs.f2, strict=True)
                asked = replace(outputs, f1=tuple((f1 + f2) / 2 for f1, f2 in means))
            found = model.detect(
                asked,
                batch.padded_hw,
                batch.sizes_hw,
                thresholds,
                scale_factors=factors,
            )
            maps: list[Tensor | None] = [None] * len(found)
            if heat_maps:
                levels = [
                    model.anchor_discrepancy(f1, f2)
                    for f1, f2 in zip(outputs.f1, outputs.f2, strict=True)
                ]
                sizes = model.level_sizes(batch.padded_hw)
                maps = [
                    heat_map(
                        [level[row] for level in levels],
                        sizes,
                        model.strides,
                        size_hw,
                        cell_offset=model.cell_offset,
                    ).cpu()
                    for row, size_hw in enumerate(batch.sizes_hw)
                ]
            all_looks: list[Tensor | None] = [None] * len(found)
            if looks:
                assert outputs.look_BDHW is not None, "every detector shows its backbone's map"
                all_looks = list(box_looks(outputs.look_BDHW, found, factors))
        for ordinal, detections, map_HW, looks_ND in zip(
            batch.ordinals, found, maps, all_looks, strict=True
        ):
            on_cpu = Detections(
                boxes=detections["boxes"].cpu(),
                labels=detections["labels"].cpu(),
                scores=detections["scores"].cpu(),
            )
            yield Prediction(ordinal, on_cpu, map_HW, looks_ND)


def box_looks(
    look_BDHW: Tensor, found: Sequence[Detections], factors: Sequence[tuple[float, float]]
) -> Sequence[Tensor]:
    """What a map shows inside each box.

    Args:
        look_BDHW: see `HeadOutputs`.
        found: detections of each image, in the pixels of the original picture.
        factors: network pixels per original pixel of each image, (x, y).

    Returns:
        Per image (N, D), the mean inside each box, on the CPU.
    """
    boxes = [
        detections["boxes"] * detections["boxes"].new_tensor((x, y, x, y))
        for detections, (x, y) in zip(found, factors, strict=True)
    ]
    # One bin with four samples: boxes are small against the map's stride.
    looks = roi_align(
        look_BDHW.float().contiguous(),
        boxes,
        output_size=1,
        spatial_scale=1 / LOOK_STRIDE,
        sampling_ratio=2,
        aligned=True,
    )
    rows: Tensor = looks.flatten(1).cpu()
    return torch.split(rows, [len(image) for image in boxes])


def _classifiers(config: TrainingConfig) -> tuple[str, ...]:
    """Those that learned something; the first takes the place of the other."""
    return ("f1",) if config.method == "plain" else ("f1", "f2")


def _batches(
    model: Detector,
    dataset: Dataset,
    config: TrainingConfig,
    device: torch.device,
    frozen: FrozenCache | None,
    first_batch: int = 0,
) -> Iterator[tuple[Batch, Tensor | Halfway]]:
    if frozen is not None:
        frozen.require_same_stages(model.backbone)
    torch.set_num_threads(config.num_threads)
    model.to(device).eval()
    batches = PlainBatches(dataset, config)
    backbone = model.backbone
    for batch in iterate(batches, range(first_batch, len(batches)), config):
        if frozen is not None:
            yield batch, frozen(backbone, batch, device)
        else:
            yield batch, normalise(batch, backbone.pixel_mean, backbone.pixel_std, device)
