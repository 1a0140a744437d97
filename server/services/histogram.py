"""How the uncertainties of a cycle's pool are distributed, and where its selection lies in them."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.errors import Conflict
from server.services import cycles
from server.store.blobs import BlobStore
from server.store.models import Artifact, Query


@dataclass(frozen=True, slots=True)
class Bin:
    """Images with an uncertainty from `low` to below `high` (the last bin's own `high` included).

    Attributes:
        low, high: bounds.
        images: how many there were in the pool when it was scored.
        selected: how many of them became queries.
    """

    low: float
    high: float
    images: int
    selected: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """The bins, and how many images have no uncertainty: not a number, or an initial selection."""

    bins: list[Bin]
    unscored: int


@dataclass(frozen=True, slots=True)
class Found:
    """Where the scores of a cycle are, and what was selected by them; no session is needed more."""

    scores_sha256: str | None
    pool_images: int
    selected: list[float]


def find(session: Session, cycle_id: str) -> Found:
    """What `count` needs.

    Raises:
        NotFound: there is no such cycle.
        Conflict: it has not succeeded.
    """
    cycle = cycles.get(session, cycle_id).cycle
    if cycle.state != "succeeded":
        raise Conflict(
            f"cycle {cycle.number} is {cycle.state}: scores appear when it has succeeded",
            code="not_succeeded",
        )
    artifact = session.get(Artifact, (cycle.id, "scores.npz"))
    selected = session.scalars(
        select(Query.uncertainty).where(Query.cycle_id == cycle.id, Query.uncertainty.is_not(None))
    )
    return Found(
        None if artifact is None else artifact.sha256,
        (cycle.snapshot or {}).get("pool_images") or 0,
        [value for value in selected if value is not None],
    )


def count(blobs: BlobStore, found: Found, num_bins: int) -> Histogram:
    """Distribute the scores over bins of one width; none where nothing was scored."""
    if found.scores_sha256 is None:
        return Histogram([], found.pool_images)
    file = io.BytesIO(blobs.read_bytes(found.scores_sha256))
    with np.load(file, allow_pickle=False) as arrays:
        scores = np.asarray(arrays["uncertainty"], dtype=np.float64)
    known = scores[np.isfinite(scores)]
    if known.size == 0:
        return Histogram([], int(scores.size))
    images, edges = np.histogram(known, bins=num_bins)
    selected, _ = np.histogram(np.array(found.selected, dtype=np.float64), bins=edges)
    bins = [
        Bin(float(low), float(high), int(number), int(chosen))
        for low, high, number, chosen in zip(edges, edges[1:], images, selected, strict=False)
    ]
    return Histogram(bins, int(scores.size - known.size))
