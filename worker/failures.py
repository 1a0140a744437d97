"""Why a cycle cannot succeed, in sentences; and what is worth another attempt instead."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DISK_TROUBLES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
}


class CycleFailed(Exception):
    """The cycle cannot succeed, however often it is tried; the message says why and what to do."""


class CycleStopped(Exception):
    """The worker was told to stop; what the cycle has reached is saved as far as it could be."""


@contextmanager
def disk_and_memory_explained(data_dir: Path) -> Iterator[None]:
    """Turn a full disk and missing memory into `CycleFailed`."""
    try:
        yield
    except MemoryError as error:
        raise CycleFailed(out_of_memory("the machine")) from error
    except OSError as error:
        trouble = _DISK_TROUBLES.get(error.errno or 0)
        if trouble is None:
            raise
        raise CycleFailed(
            f"{trouble} ({data_dir}): make room there, then start the cycle again"
        ) from error


def out_of_memory(whose: str) -> str:
    """The sentence for memory that did not suffice."""
    return (
        f"the memory of {whose} was not enough: lower image_long_side, batch_size, "
        "unlabeled_batch_size or scoring_batch_size"
    )
