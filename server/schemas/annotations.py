"""Annotations: the full set of boxes of an image, version by version."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, JsonValue

from server.schemas.common import MAX_INTEGER, Author, ClaimToken, LimitedFields, Name, RequestModel
from server.schemas.images import ImageState

Source = Literal["human", "import", "suggestion"]

_BOX: dict[str, JsonValue] = {
    "class": "car",
    "x1": 12.5,
    "y1": 40,
    "x2": 96,
    "y2": 88,
    "difficult": False,
}


class BoxModel(LimitedFields):
    """A box: corners in absolute pixels of the upright image, origin top left, x2 > x1, y2 > y1."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        populate_by_name=True,
        serialize_by_alias=True,
        json_schema_extra={"examples": [_BOX]},
    )

    class_name: Name = Field(alias="class", description="The name of one of the project's classes.")
    # NaN and infinity pass here: the service refuses them with a sentence that names the box.
    x1: float
    y1: float
    x2: float
    y2: float
    difficult: bool = Field(
        default=False, description="Hard to recognise: trained on as usual, ignored by metrics."
    )


class AnnotationOut(BaseModel):
    """The current annotation of an image."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "state": "labeled",
                    "version": 3,
                    "boxes": [_BOX],
                    "author": "ana",
                    "source": "human",
                    "seconds": 14.2,
                    "updated_at": "2026-11-23T08:00:00Z",
                }
            ]
        }
    )

    state: ImageState
    version: int = Field(description="0: never annotated. Rises by one with every revision.")
    boxes: list[BoxModel] | None = Field(
        description="Null: unlabeled. An empty list: labeled, and there is nothing to box."
    )
    author: str | None
    source: Source | None
    seconds: float | None = Field(description="Time spent on this revision, as the client said.")
    updated_at: datetime | None


class AnnotationIn(RequestModel):
    """The full set of boxes of an image; replaces what is there."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"version": 3, "boxes": [_BOX], "seconds": 14.2}]}
    )

    version: int = Field(
        ge=0,
        le=MAX_INTEGER,
        description="The version these boxes are based on (0 for a new image).",
    )
    boxes: Annotated[list[BoxModel], FailFast(), Field(max_length=10_000)] = Field(
        description="An empty list says that there is nothing to box: a valid negative."
    )
    claim_token: ClaimToken | None = Field(
        default=None, description="Needed while the image is under a claim: the claim's token."
    )
    seconds: float | None = Field(
        default=None, ge=0, le=1e6, allow_inf_nan=False, description="Time spent on it."
    )
    author: Author = "anonymous"
    source: Source = Field(
        default="human",
        description="Where the boxes come from: a person, a data set, or the model's suggestion.",
    )
