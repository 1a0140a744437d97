"""The distribution of a cycle's uncertainties."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from server.services.histogram import Histogram


class BinOut(BaseModel):
    """Images with an uncertainty from `low` to below `high`, in the last bin to `high` itself."""

    model_config = ConfigDict(from_attributes=True)

    low: float
    high: float
    images: int = Field(description="How many there were in the pool when it was scored.")
    selected: int = Field(description="How many of them became queries.")


class HistogramOut(BaseModel):
    """How uncertain the cycle was of the pool's images, and where its selection lies in that."""

    cycle: str
    bins: list[BinOut] = Field(description="Of one width, lowest first; empty if nothing is known.")
    unscored: int = Field(
        description="Pool images without an uncertainty: all of them in an initial cycle."
    )

    @classmethod
    def of(cls, cycle_id: str, histogram: Histogram) -> Self:
        """From the service's counts."""
        return cls(
            cycle=cycle_id,
            bins=[BinOut.model_validate(each) for each in histogram.bins],
            unscored=histogram.unscored,
        )
