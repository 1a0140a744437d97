"""A trained model as one safetensors file, and back; and a new model that starts from an old one.

The format holds tensors and text and runs no code on loading.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from worker.miaod.config import from_dict
from worker.miaod.detector import Detector
from worker.miaod.model import DETECTORS, build_model

FORMATS = {name: f"miaod-{name}-1" for name in DETECTORS}
"""What the file of a detector says that it is."""

METADATA_KEY = "miaod"


class UnknownModelFile(Exception):
    """The file is not one of ours, or of another version; the message says which."""


@dataclass(frozen=True)
class LoadedModel:
    """A model with the names of its classes; its configuration is `model.config`."""

    model: Detector
    class_names: tuple[str, ...]


def dump_model(model: Detector, class_names: Sequence[str]) -> bytes:
    """The model's weights, with its configuration and classes in the metadata."""
    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    about = {
        "format": FORMATS[model.config.detector],
        "classes": list(class_names),
        "training": model.config.to_dict(),
    }
    # Under one key: the library writes several in random order, and then the same model would not
    # give the same file.
    return safetensors.torch.save(weights, {METADATA_KEY: json.dumps(about)})


def load_model(path: Path) -> LoadedModel:
    """A model from a file with the content of `dump_model`, on the CPU.

    Raises:
        UnknownModelFile: something else is in the file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise UnknownModelFile(f"{path} is not a safetensors file: {error}") from error
    if about.get("format") not in FORMATS.values():
        known = " and ".join(map(repr, FORMATS.values()))
        raise UnknownModelFile(
            f"{path} has format {about.get('format')!r}: this version reads {known}"
        )
    config = from_dict(about["training"])
    class_names = tuple(about["classes"])
    # The weights replace everything that building draws, so the pretrained ones need not be there.
    blank = dataclasses.replace(config, pretrained=False)
    model = build_model(blank, len(class_names), weights_dir=None, seed=0)
    model.config = config
    model.load_state_dict(weights)
    return LoadedModel(model, class_names)


@torch.no_grad()
def warm_start(
    model: Detector,
    class_names: Sequence[str],
    previous: Mapping[str, Tensor],
    previous_class_names: Sequence[str],
) -> None:
    """Start a new model from an earlier one's weights, class by class.

    A class that both know keeps its rows of the classifiers, and so does background; a new class
    keeps those it was built with.

    Args:
        model: of the same shape but for the number of classes; changed in place.
        class_names: its classes.
        previous: the earlier model's `state_dict`.
        previous_class_names: the earlier model's classes.

    Raises:
        ValueError: a weight's shape differs by more than its classes: the networks differ.
    """
    per_class = model.class_weights()
    for name, weight in model.state_dict().items():
        old = previous.get(name)
        same = old is not None and old.shape[1:] == weight.shape[1:]
        if old is None or not same or (name not in per_class and old.shape != weight.shape):
            raise ValueError(
                f"weight {name} is {None if old is None else tuple(old.shape)} in the earlier "
                f"model and {tuple(weight.shape)} in this one: a warm start needs the same network"
            )
        if name in per_class:
            # A channel per anchor and column, the column running fastest.
            shape = weight.shape[1:]
            anchors = per_class[name]
            rows, old_rows = weight.view(anchors, -1, *shape), old.reshape(anchors, -1, *shape)
            columns = _columns(class_names, rows.shape[1])
            old_columns = _columns(previous_class_names, old_rows.shape[1])
            known = [column for column in columns if column in old_columns]
            to_rows = [columns.index(column) for column in known]
            from_rows = [old_columns.index(column) for column in known]
            rows[:, to_rows] = old_rows[:, from_rows].to(rows.device)
        else:
            weight.copy_(old)


def _columns(class_names: Sequence[str], count: int) -> list[str | None]:
    """What the columns of a classifier stand for: the classes, then background if there is more."""
    return [*class_names, *[None] * (count - len(class_names))]
