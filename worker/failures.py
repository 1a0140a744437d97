"""Why a cycle cannot succeed, in sentences; and what is worth another attempt instead."""

from __future__ import annotations


class CycleFailed(Exception):
    """The cycle cannot succeed, however often it is tried; the message says why and what to do."""


class CycleStopped(Exception):
    """The worker was told to stop; what the cycle has reached is saved as far as it could be."""


def out_of_memory(whose: str) -> str:
    """The sentence for memory that did not suffice."""
    return (
        f"the memory of {whose} was not enough: lower image_long_side, batch_size, "
        "unlabeled_batch_size or scoring_batch_size"
    )
