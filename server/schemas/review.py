"""The review of labels: images that deserve a second look."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from server.schemas.images import ImageOut
from server.services.review import Doubt


class DoubtOut(BaseModel):
    """A labeled image, and how much the newest model disagrees with its label."""

    image: ImageOut
    disagreement: float = Field(
        description=(
            "How many things only one of label and model sees: boxes without a detection count 1 "
            "(difficult ones 0), detections without a box their confidence. 0: they agree."
        ),
        examples=[1.8],
    )

    @classmethod
    def of(cls, doubt: Doubt) -> Self:
        """From the service's answer."""
        return cls(image=ImageOut.of(doubt.view), disagreement=doubt.disagreement)


class ReviewOut(BaseModel):
    """Labeled images, those of the most disagreement first."""

    items: list[DoubtOut]
