"""A cache of what the backbone's frozen stages make of a picture: they say the same every time.

On a CPU these stages are most of a step's cost where many are frozen. A picture is known by its
pixels, so that flips have entries of their own and no augmentation needs to know of the cache.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor

from worker.miaod.backbones import Backbone, Halfway
from worker.miaod.config import TrainingConfig
from worker.miaod.transforms import Batch, normalise

_Entry = tuple[Tensor, ...]


class FrozenCache:
    """Outputs of the leading stages, the most recently used ones kept in memory.

    Every picture goes through the stages alone, whatever its batch: what is kept does not depend on
    what came before, and a training with a warm cache gives the bits of one with a cold cache.
    """

    def __init__(self, backbone: Backbone, num_stages: int, megabytes: int) -> None:
        """Cache for a backbone whose first `num_stages` stages never change.

        Several models may share a cache if those stages are the same in all of them.
        """
        self._num_stages = num_stages
        self._stages_sha256 = _fingerprint(backbone, num_stages)
        self._kept: OrderedDict[bytes, _Entry] = OrderedDict()
        self._bytes_left = megabytes * 2**20

    def require_same_stages(self, backbone: Backbone) -> None:
        """Make sure that a backbone may use what another one left here.

        Raises:
            ValueError: its frozen stages are not those of the cache.
        """
        if _fingerprint(backbone, self._num_stages) != self._stages_sha256:
            raise ValueError(
                "the cache of frozen outputs was filled by a backbone with other weights: each "
                "needs a cache of its own"
            )

    def __call__(self, backbone: Backbone, batch: Batch, device: torch.device) -> Halfway:
        """The batch after the frozen stages, ready for the others."""
        entries = [
            self._entry(backbone, row, device)
            for row in (batch.only(place) for place in range(len(batch.sizes_hw)))
        ]
        x, *features = (
            torch.cat(parts).contiguous(memory_format=torch.channels_last)
            for parts in zip(*entries, strict=True)
        )
        return Halfway(self._num_stages, x, tuple(features))

    def _entry(self, backbone: Backbone, picture: Batch, device: torch.device) -> _Entry:
        pixels = picture.images_BCHW.numpy()
        key = hashlib.blake2b(pixels.tobytes(), digest_size=16)
        key.update(repr((picture.sizes_hw, pixels.shape)).encode())
        name = key.digest()
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        # Inference mode would taint what training later needs for its gradients; and whoever asks
        # first, in half precision or not, must not decide what the others get.
        exact = torch.autocast(device.type, enabled=False)
        with torch.inference_mode(mode=False), torch.no_grad(), exact:
            images = normalise(picture, backbone.pixel_mean, backbone.pixel_std, device)
            halfway = backbone.advance(Halfway(0, images), self._num_stages)
        entry = (halfway.x, *halfway.features)
        self._kept[name] = entry
        self._bytes_left -= _num_bytes(entry)
        while self._bytes_left < 0:
            _, dropped = self._kept.popitem(last=False)
            self._bytes_left += _num_bytes(dropped)
        return entry


def frozen_cache(backbone: Backbone, config: TrainingConfig) -> FrozenCache | None:
    """The cache that a configuration asks for, if it does and anything is frozen."""
    if config.frozen_cache_megabytes == 0 or config.frozen_stages == 0:
        return None
    return FrozenCache(backbone, config.frozen_stages, config.frozen_cache_megabytes)


def _num_bytes(entry: Iterable[Tensor]) -> int:
    # Where the last stage is one of C3 to C5, two names stand for one piece of memory.
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in entry}.values())


def _fingerprint(backbone: Backbone, num_stages: int) -> str:
    digest = hashlib.sha256()
    for stage in list(backbone.stages)[:num_stages]:
        for name, tensor in stage.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
