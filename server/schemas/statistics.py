"""What a project's labels amount to."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from server.services.statistics import Statistics


class ClassCountOut(BaseModel):
    """How often a class stands in the current annotations, of all splits."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True, from_attributes=True)

    class_name: str = Field(alias="class", examples=["car"])
    boxes: int
    images: int = Field(description="Images with at least one.")


class AuthorWorkOut(BaseModel):
    """What somebody annotated; labels that came with an import are not counted here."""

    model_config = ConfigDict(from_attributes=True)

    author: str = Field(examples=["ana"])
    annotations: int = Field(description="Everything they saved, corrections included.")
    images: int = Field(description="Images whose current annotation is theirs.")
    boxes: int = Field(description="Boxes of those.")
    seconds_median: float | None = Field(
        description="Time spent on an annotation; null where no client told it."
    )
    seconds_mean: float | None
    last_at: datetime = Field(description="When they last saved one.")


class StatisticsOut(BaseModel):
    """The labels of a project: boxes per class, and who annotated how much and how fast."""

    classes: list[ClassCountOut] = Field(description="Every class, in the order of their ids.")
    authors: list[AuthorWorkOut] = Field(description="Who saved most comes first.")
    imported: int = Field(description="Images whose current annotation came with an import.")

    @classmethod
    def of(cls, statistics: Statistics) -> Self:
        """From the service's counts."""
        return cls(
            classes=[
                ClassCountOut(class_name=each.name, boxes=each.boxes, images=each.images)
                for each in statistics.classes
            ],
            authors=[AuthorWorkOut.model_validate(each) for each in statistics.authors],
            imported=statistics.imported,
        )
