"""A trained model at work: uncertainties of a pool, and detections with heat maps.

Shape suffixes: B images, C channels or classes, A anchors, N detections, H and W rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.miaod.config import TrainingConfig
from worker.miaod.detections import DetectionConfig, Detections
from worker.miaod.detector import Detector
from worker.miaod.engine import autocast
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
    """

    ordinal: int
    detections: Detections
    heat_map_HW: Tensor | None


def score(
    model: Detector, dataset: Dataset, config: TrainingConfig, device: torch.device
) -> Iterator[tuple[int, float]]:
    """Uncertainty of every picture of a dataset, as (ordinal, uncertainty).

    Pictures come in groups of one size, not in the order of the dataset. Not a number where the
    network's output is not.
    """
    for batch, images_BCHW in _batches(model, dataset, config, device):
        with torch.inference_mode():
            with autocast(config, device):
                outputs = model(images_BCHW, ("f1", "f2"))
            discrepancy_BA = model.anchor_discrepancy(
                torch.cat(outputs.f1, 1), torch.cat(outputs.f2, 1)
            )
            uncertainty_B = image_uncertainty(discrepancy_BA, config.scoring_k)
        yield from zip(batch.ordinals, uncertainty_B.tolist(), strict=True)


def predict(
    model: Detector,
    dataset: Dataset,
    config: TrainingConfig,
    device: torch.device,
    *,
    heat_maps: bool = False,
) -> Iterator[Prediction]:
    """Detections of every picture of a dataset, in groups of one size.

    Args:
        model: trained.
        dataset: pictures; their boxes are not read.
        config: its data, detection and thread fields are read.
        device: where to run.
        heat_maps: make them too.
    """
    thresholds = DetectionConfig(
        score_threshold=config.score_threshold,
        nms_iou=config.nms_iou,
        candidates_per_level=config.nms_candidates,
        max_per_image=config.detections_per_image,
    )
    for batch, images_BCHW in _batches(model, dataset, config, device):
        with torch.inference_mode():
            with autocast(config, device):
                outputs = model(images_BCHW, ("f1", "f2", "box") if heat_maps else ("f1", "box"))
            found = model.detect(
                outputs,
                batch.padded_hw,
                batch.sizes_hw,
                thresholds,
                scale_factors=[
                    (w / original_w, h / original_h)
                    for (h, w), (original_h, original_w) in zip(
                        batch.sizes_hw, batch.original_sizes_hw, strict=True
                    )
                ],
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
        for ordinal, detections, map_HW in zip(batch.ordinals, found, maps, strict=True):
            on_cpu = Detections(
                boxes=detections["boxes"].cpu(),
                labels=detections["labels"].cpu(),
                scores=detections["scores"].cpu(),
            )
            yield Prediction(ordinal, on_cpu, map_HW)


def _batches(
    model: Detector, dataset: Dataset, config: TrainingConfig, device: torch.device
) -> Iterator[tuple[Batch, Tensor]]:
    torch.set_num_threads(config.num_threads)
    model.to(device).eval()
    batches = PlainBatches(dataset, config)
    backbone = model.backbone
    for batch in iterate(batches, range(len(batches)), config):
        yield batch, normalise(batch, backbone.pixel_mean, backbone.pixel_std, device)
