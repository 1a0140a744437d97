"""ImageNet weights of torchvision's backbones: from a folder, or once from the net into it.

`python -m worker.miaod.pretrained FOLDER NAME…` fills a folder, as the worker image's build can.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torchvision
from torch import Tensor

# A closed network often swallows connections rather than refusing them.
CONNECT_SECONDS = 20.0

# The reference was trained from torchvision's first set; its default today is another.
DEFAULT_SET = "IMAGENET1K_V1"
# VGG16 as SSD wants it: caffe's normalisation, and no dense layers in it.
SETS = {"vgg16": "IMAGENET1K_FEATURES"}


class PretrainedWeightsMissing(Exception):
    """The ImageNet weights of a backbone cannot be had; the message says what to do."""


def imagenet_weights(name: str, folder: Path) -> Mapping[str, Tensor]:
    """The ImageNet weights of a torchvision network that we train from, under torchvision's names.

    Args:
        name: of the network, as "resnet50".
        folder: where the file lies, or is put after a download with its hash checked.

    Raises:
        PretrainedWeightsMissing: the file is absent and cannot be downloaded, or is unreadable.
    """
    chosen = SETS.get(name, DEFAULT_SET)
    published = torchvision.models.get_model_weights(name)[chosen]
    path = folder / published.url.rpartition("/")[2]
    remedy = f"put torchvision's {chosen} file {path.name} into {folder}"
    if not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _impatient_sockets():
                published.get_state_dict(progress=False, model_dir=str(folder), check_hash=True)
        # The hash check raises RuntimeError; everything of the net and the disk is an OSError.
        except (OSError, RuntimeError) as error:
            raise PretrainedWeightsMissing(
                f"the ImageNet weights of {name} are not at {path} and could not be downloaded "
                f"({error}): {remedy}, or choose the preset cpu"
            ) from error
    try:
        weights: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise PretrainedWeightsMissing(
            f"{path} cannot be read ({error}): {remedy} anew, or choose the preset cpu"
        ) from error
    return weights


@contextmanager
def _impatient_sockets() -> Iterator[None]:
    # torchvision's download has no time-out of its own.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


if __name__ == "__main__":
    try:
        for wanted in sys.argv[2:]:
            imagenet_weights(wanted, Path(sys.argv[1]))
    except PretrainedWeightsMissing as missing:
        sys.exit(str(missing))
