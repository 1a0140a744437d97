"""The part of a cycle that needs torch: train, evaluate, score, predict, with progress.

It adds to `worker.miaod` only what a service wants: which device, what to report, sentences for
what can go wrong, and results in the store's terms.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from server.store.blobs import BlobStore
from server.store.models import Json
from server.store.pool import ImageRecord, LabeledRecord
from worker.checkpoints import Checkpoints, State
from worker.dataset import ImageUnreadable, SnapshotDataset, is_trained_on
from worker.failures import CycleFailed, out_of_memory
from worker.miaod import metrics
from worker.miaod.checkpoint import UnknownModelFile, dump_model, load_model, warm_start
from worker.miaod.config import from_dict
from worker.miaod.corners import as_evaluated_on
from worker.miaod.engine import (
    StepReport,
    TrainingDiverged,
    TrainingState,
    images_per_step,
    stages_of,
    train,
)
from worker.miaod.frozen import frozen_cache
from worker.miaod.inference import ImageScore, Prediction, predict
from worker.miaod.model import build_model
from worker.miaod.pretrained import PretrainedWeightsMissing
from worker.miaod.strategies import rank_pool, require_measure, score_pool, strategy_from
from worker.pace import TRAINED_IMAGE, LossMeans, Pace
from worker.records import Job, with_reserve
from worker.settings import WorkerSettings


@dataclass(frozen=True)
class Seen:
    """What the model says about an image, as the store keeps it."""

    image_id: str
    boxes: list[Json]
    heat_map_png: bytes = field(repr=False, default=b"")


class Learner:
    """A model in the making: `train` first, then the others; `rank` after `score`."""

    def __init__(
        self,
        job: Job,
        blobs: BlobStore,
        settings: WorkerSettings,
        pace: Pace,
        checkpoints: Checkpoints,
    ) -> None:
        """Build the model.

        Raises:
            CycleFailed: no labels to learn from, no such device, no pretrained weights, or a warm
                start from another network.
        """
        self._job = job
        self._blobs = blobs
        self._pace = pace
        self._checkpoints = checkpoints
        self._found: list[ImageScore] = []
        # By this attempt; those that an earlier one has scored are not counted again.
        self.num_scored = 0
        self._step_log = b""
        try:
            self._config = from_dict(job.training)
            self._strategy = strategy_from(job.strategy)
            require_measure(self._strategy, self._config)
        except ValueError as error:
            raise CycleFailed(
                f"the cycle's configuration does not fit this worker: {error}"
            ) from error
        self._require_labels()
        self._device = choose_device(settings.device)
        self.device_name = describe_device(self._device, self._config.num_threads)
        pace.device(self.device_name)
        torch.set_num_threads(self._config.num_threads)
        self._validation: list[Prediction] = []
        self._scores: list[ImageScore] = []
        with self._explained():
            self._model = build_model(
                self._config,
                len(job.snapshot.class_names),
                weights_dir=settings.resolved_weights_dir,
                seed=job.seed,
            )
        if self._config.warm_start and job.previous_model is not None:
            self._start_from(job.previous_model)
        self._model.to(self._device)
        self._frozen = frozen_cache(self._model.backbone, self._config)
        self._plan()

    def train(self, step_log: BinaryIO) -> None:
        """Train; every step's losses go to `step_log`, one JSON object per line.

        Goes on where an earlier attempt was, whose log comes along.
        """
        snapshot = self._job.snapshot
        saved = self._checkpoints.load()
        if saved is not None:
            self._step_log = saved["log"]
            step_log.write(self._step_log)
            if saved["phase"] == "score":
                self._model.load_state_dict(saved["model"])
                self._model.train_only(())
                self._found = unpack_scores(saved["scores"])
                return
        state = TrainingState(self._model, self._config)
        if saved is not None:
            state.load_state_dict(saved["training"])

        def save() -> State:
            return {"phase": "train", "training": state.state_dict(), "log": whole(step_log)}

        means = LossMeans()

        def on_step(report: StepReport) -> None:
            line = {
                "step": report.total_step,
                "stage": report.stage,
                "lr": report.lr,
                "seconds": round(report.seconds, 4),
                **report.losses,
            }
            step_log.write(json.dumps(line).encode() + b"\n")
            # At the end of the last stage the state that scoring starts from follows at once.
            is_last = report.total_step == report.total_steps
            ends = report.step + 1 == report.steps_in_stage and not is_last
            self._checkpoints.pause(save, is_border=ends)
            before, per_step = self._training_work[report.stage_index]
            self._step(
                "train",
                f"{report.stage}, step {report.step + 1}/{report.steps_in_stage}, "
                f"loss {report.losses['total']:.3f}",
                done=before + (report.step + 1) * per_step,
                step=report.total_step,
                steps=report.total_steps,
                losses=means.add(report.stage, report.losses),
            )

        with self._explained():
            train(
                self._model,
                self._dataset(snapshot.labeled),
                self._dataset(snapshot.unlabeled),
                self._config,
                seed=self._job.seed,
                device=self._device,
                on_step=on_step,
                state=state,
                frozen=self._frozen,
            )
        self._step_log = whole(step_log)
        self._checkpoints.pause(self._scoring_state, is_border=True)

    def evaluate(self) -> Json:
        """Metrics on the validation set, and which set that was; only counts without one."""
        records = self._job.snapshot.validation
        counts = self._job.snapshot.counts()
        result: Json = {
            "labeled_images": counts["labeled_images"],
            "boxes": counts["boxes"],
            "validation_images": len(records),
        }
        if not records:
            return result
        self._validation = sorted(
            self._predict("evaluate", records), key=lambda prediction: prediction.ordinal
        )
        self._say("evaluate", "comparing what was found with the labels")
        with self._explained():
            figures = metrics.evaluate(
                [ground_truth(record, self._config.box_corners) for record in records],
                [prediction.detections for prediction in self._validation],
                self._job.snapshot.class_names,
            )
        del figures["num_images"]
        num_boxes = figures.pop("num_boxes")
        return {
            **figures,
            **result,
            "validation_boxes": num_boxes,
            "validation_sha256": fingerprint(records),
        }

    def score(self) -> list[float]:
        """Score the pool: the uncertainty of each image in its order; NaN where it has none.

        Goes on behind the images that an earlier attempt has scored.
        """
        pool = self._job.snapshot.unlabeled
        already = len(self._found)

        def on_image(done: int) -> None:
            self._checkpoints.pause(self._scoring_state)
            self._step_of_images("score", done, len(pool))

        with self._explained():
            self._scores = score_pool(
                self._model,
                self._dataset(pool),
                self._config,
                self._device,
                frozen=self._frozen,
                found=self._found,
                on_image=on_image,
            )
        self._checkpoints.pause(self._scoring_state, is_border=True)
        self.num_scored = len(self._scores) - already
        return [one.uncertainty for one in self._scores]

    def rank(self) -> Sequence[int]:
        """The positions of the pool's images in the order in which to label them."""
        job, snapshot = self._job, self._job.snapshot
        counts = Counter(box["class_id"] for record in snapshot.labeled for box in record.boxes)
        with self._explained():
            order = rank_pool(
                self._strategy,
                self._scores,
                self._model,
                self._dataset(snapshot.unlabeled),
                self._dataset(snapshot.labeled),
                [counts[label] for label in range(len(snapshot.class_names))],
                self._config,
                self._device,
                budget=job.budget,
                seed=job.seed,
                frozen=self._frozen,
                say=lambda words: self._say("select", words),
            )
        return [int(place) for place in order]

    def look_at_labeled(self) -> Iterator[Seen]:
        """Predictions on the labeled images, for review; those of the validation set included."""
        labeled, validation = self._job.snapshot.labeled, self._job.snapshot.validation
        by_ordinal = {record.ordinal: record for record in (*labeled, *validation)}
        for prediction in (*self._validation, *self._predict("select", labeled)):
            record = by_ordinal[prediction.ordinal]
            yield Seen(record.id, stored_boxes(prediction, record))

    def look_at(self, records: Sequence[ImageRecord]) -> Iterator[Seen]:
        """Predictions on some images of the pool, with their heat maps."""
        by_ordinal = {record.ordinal: record for record in records}
        before = len(self._job.snapshot.labeled)
        for prediction in self._predict("select", records, before=before, heat_maps=True):
            record = by_ordinal[prediction.ordinal]
            assert prediction.heat_map_HW is not None
            png = heat_map_png(prediction.heat_map_HW)
            yield Seen(record.id, stored_boxes(prediction, record), png)

    def weights(self) -> bytes:
        """The model as a safetensors file, which says by itself what it is."""
        return dump_model(self._model, self._job.snapshot.class_names)

    def _scoring_state(self) -> State:
        return {
            "phase": "score",
            "model": self._model.state_dict(),
            "scores": pack_scores(self._found, looks=self._strategy.name == "core-set"),
            "log": self._step_log,
        }

    def _start_from(self, sha256: str) -> None:
        try:
            earlier = load_model(self._blobs.path(sha256))
            warm_start(
                self._model,
                self._job.snapshot.class_names,
                earlier.model.state_dict(),
                earlier.class_names,
            )
        except (UnknownModelFile, ValueError) as error:
            raise CycleFailed(
                f"{error}; keep the network's settings, or turn warm_start off"
            ) from error

    def _require_labels(self) -> None:
        side = self._config.min_image_side
        count = sum(
            min(record.width, record.height) >= side and any(map(is_trained_on, record.boxes))
            for record in self._job.snapshot.labeled
        )
        wanted = self._job.min_labeled
        if count < max(1, wanted):
            raise CycleFailed(
                f"{count} labeled images of the pool have a box to train on, {max(1, wanted)} are "
                "needed (labels may have been deleted since the cycle was ordered; difficult boxes "
                "do not count): label some more, then start a cycle again"
            )

    def _dataset(self, records: Sequence[ImageRecord]) -> SnapshotDataset:
        return SnapshotDataset(
            self._blobs, records, num_classes=len(self._job.snapshot.class_names)
        )

    def _predict(
        self,
        stage: str,
        records: Sequence[ImageRecord],
        *,
        before: int = 0,
        heat_maps: bool = False,
    ) -> Iterator[Prediction]:
        """Predictions, which go on with a stage behind so many images before."""
        with self._explained():
            predictions = predict(
                self._model,
                self._dataset(records),
                self._config,
                self._device,
                heat_maps=heat_maps,
                frozen=self._frozen,
            )
            for done, prediction in enumerate(predictions, start=1):
                self._step_of_images(stage, done, len(records), before=before)
                yield prediction

    def _plan(self) -> None:
        """Lay out the work of all stages, for the progress."""
        snapshot, config = self._job.snapshot, self._config
        labeled, unlabeled = self._dataset(snapshot.labeled), self._dataset(snapshot.unlabeled)
        # Of each stage of the training: the work before it, and that of a step.
        self._training_work: list[tuple[float, float]] = []
        work = 0.0
        for stage in stages_of(labeled, unlabeled, config):
            per_step = TRAINED_IMAGE * images_per_step(config, stage.kind)
            self._training_work.append((work, per_step))
            work += stage.num_steps * per_step
        to_look_at = min(with_reserve(self._job.budget), len(snapshot.unlabeled))
        self._pace.plan(
            {
                "train": work,
                "evaluate": len(snapshot.validation),
                "score": len(snapshot.unlabeled),
                "select": len(snapshot.labeled) + to_look_at,
            }
        )

    def _step_of_images(self, stage: str, done: int, images: int, *, before: int = 0) -> None:
        message = f"image {done}/{images}"
        self._step(stage, message, done=before + done, step=done, steps=images)

    def _step(
        self,
        stage: str,
        message: str,
        *,
        done: float,
        step: int,
        steps: int,
        losses: Mapping[str, float] | None = None,
    ) -> None:
        self._checkpoints.pause_unchanged()
        self._pace.step(stage, message, done=done, step=step, steps=steps, losses=losses)

    def _say(self, stage: str, message: str) -> None:
        self._checkpoints.pause_unchanged()
        self._pace.say(stage, message)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the foreseeable failures of training into `CycleFailed`."""
        try:
            yield
        except (TrainingDiverged, PretrainedWeightsMissing) as error:
            raise CycleFailed(str(error)) from error
        except ImageUnreadable as error:
            raise CycleFailed(error.sentence) from error
        except torch.OutOfMemoryError as error:
            raise CycleFailed(out_of_memory(self.device_name)) from error
        except RuntimeError as error:
            if "DefaultCPUAllocator" not in str(error):
                raise
            raise MemoryError(str(error)) from error


def whole(file: BinaryIO) -> bytes:
    """All that was written into a file, whose position stays at the end."""
    file.seek(0)
    return file.read()


def pack_scores(found: Sequence[ImageScore], *, looks: bool) -> dict[str, Tensor]:
    """Scores as tensors, for a checkpoint; looks are large, and one strategy alone needs them."""
    return {
        "ordinal": torch.tensor([one.ordinal for one in found], dtype=torch.int64),
        "uncertainty": torch.tensor([one.uncertainty for one in found], dtype=torch.float64),
        "entropy": torch.tensor([one.entropy for one in found], dtype=torch.float64),
        "presence": torch.stack([one.presence_C for one in found]) if found else torch.zeros(0, 0),
        "look": torch.stack([one.look_D for one in found])
        if found and looks
        else torch.zeros(len(found), 0),
    }


def unpack_scores(packed: Mapping[str, Tensor]) -> list[ImageScore]:
    """What `pack_scores` was given."""
    columns = (packed[name].tolist() for name in ("ordinal", "uncertainty", "entropy"))
    return [
        ImageScore(*row) for row in zip(*columns, packed["presence"], packed["look"], strict=True)
    ]


def choose_device(setting: str) -> torch.device:
    """The device that `MIAOD_DEVICE` means here.

    Raises:
        CycleFailed: it names a GPU that is not there.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if setting == "auto":
        return torch.device("cuda:0" if available else "cpu")
    device = torch.device(setting)
    if device.type == "cuda" and (device.index or 0) >= available:
        raise CycleFailed(
            f"MIAOD_DEVICE is {setting}, but torch finds {available} CUDA devices on the worker's "
            "machine: check the driver, or set it to cpu"
        )
    return device


def describe_device(device: torch.device, num_threads: int) -> str:
    """The device as people know it."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    # Which instructions it has decides about the last bits of a result, as the threads do.
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"cpu ({platform.machine()}, {instructions}, {num_threads} threads)"


def ground_truth(record: LabeledRecord, box_corners: str = "exact") -> metrics.GroundTruth:
    """An image's annotation as the evaluation wants it, difficult boxes included."""
    boxes = record.boxes
    exact_N4 = torch.tensor([corners(box) for box in boxes], dtype=torch.float64).reshape(-1, 4)
    return metrics.GroundTruth(
        boxes=as_evaluated_on(exact_N4, box_corners).numpy(),
        labels=np.array([box["class_id"] for box in boxes], dtype=np.int64),
        difficult=np.array([box["difficult"] for box in boxes], dtype=np.bool_),
        num_known_classes=record.num_classes,
    )


def fingerprint(records: Sequence[LabeledRecord]) -> str:
    """A hash that changes when an image of the set or its annotation does.

    Two figures may be compared only if they were taken on the same set. Neither the images' names
    nor the order of boxes count.
    """
    lines = sorted(
        json.dumps(
            [
                record.sha256,
                sorted([box["class_id"], *corners(box), box["difficult"]] for box in record.boxes),
            ]
        )
        for record in records
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def corners(box: Json) -> list[float]:
    """x1, y1, x2, y2."""
    return [float(box[name]) for name in ("x1", "y1", "x2", "y2")]


def stored_boxes(prediction: Prediction, record: ImageRecord) -> list[Json]:
    """Detections in the store's form: hundredths of a pixel, within the image, never empty."""
    found = prediction.detections
    limits = np.array([record.width, record.height, record.width, record.height])
    boxes = np.clip(found["boxes"].numpy().astype(np.float64), 0, limits).round(2)
    return [
        {"class_id": label, "score": round(score, 4), "x1": x1, "y1": y1, "x2": x2, "y2": y2}
        for label, score, (x1, y1, x2, y2) in zip(
            found["labels"].tolist(), found["scores"].tolist(), boxes.tolist(), strict=True
        )
        # NaN, too, compares as not greater.
        if x2 > x1 and y2 > y1
    ]


def heat_map_png(map_HW: Tensor) -> bytes:
    """A heat map as an 8-bit grey PNG, white where the image's uncertainty is greatest."""
    values = map_HW.nan_to_num()
    highest = max(float(values.max()), 1e-12)
    grey = (values / highest * 255).round().to(torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    return file.getvalue()
