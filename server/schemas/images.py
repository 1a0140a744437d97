"""Images: what was uploaded, what became of each file, predictions on them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from server.schemas.common import EXAMPLE_ID, RequestModel
from server.services.images import ImageView
from server.services.intake import Added

Split = Literal["pool", "val", "test"]
ImageState = Literal["unlabeled", "labeled"]


def content_url(image_id: str) -> str:
    """Where the original bytes of an image are, relative to the server."""
    return f"/images/{image_id}/content"


class ImageOut(BaseModel):
    """An image. `width` and `height` are those of the upright picture (EXIF rotation applied)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019ab3a1-9d20-7b3e-8f67-c4e1a2d90b33",
                    "project": EXAMPLE_ID,
                    "ordinal": 16,
                    "name": "north/0017.jpg",
                    "split": "pool",
                    "state": "labeled",
                    "width": 1280,
                    "height": 720,
                    "media_type": "image/jpeg",
                    "num_bytes": 204800,
                    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "annotation_version": 1,
                    "num_boxes": 4,
                    "uncertainty": None,
                    "skipped": False,
                    "skip_reason": None,
                    "created_at": "2026-11-23T08:00:00Z",
                    "labeled_at": "2026-11-23T09:30:00Z",
                    "content_url": "/images/019ab3a1-9d20-7b3e-8f67-c4e1a2d90b33/content",
                    "thumbnail_url": "/images/019ab3a1-9d20-7b3e-8f67-c4e1a2d90b33/thumbnail",
                }
            ]
        }
    )

    id: str
    project: str
    ordinal: int = Field(description="Its place in the project's import order, from 0.")
    name: str = Field(description="The relative path it came with; unique in its project.")
    split: Split
    state: ImageState
    width: int
    height: int
    media_type: str
    num_bytes: int
    sha256: str
    annotation_version: int = Field(description="0: never annotated.")
    num_boxes: int
    uncertainty: float | None = Field(
        description="What the project's newest cycle thought of it; null where it has no score."
    )
    skipped: bool = Field(description="Skipped by an annotator: not selected until un-skipped.")
    skip_reason: str | None
    created_at: datetime
    labeled_at: datetime | None
    content_url: str
    thumbnail_url: str

    @classmethod
    def of(cls, view: ImageView) -> Self:
        """From the service's view."""
        image = view.image
        return cls(
            id=image.id,
            project=image.project_id,
            ordinal=image.ordinal,
            name=image.name,
            split=image.split,
            state=image.state,
            width=image.width,
            height=image.height,
            media_type=image.media_type,
            num_bytes=image.num_bytes,
            sha256=image.sha256,
            annotation_version=image.annotation_version,
            num_boxes=image.num_boxes,
            uncertainty=view.uncertainty,
            skipped=image.skipped_at is not None,
            skip_reason=image.skip_reason,
            created_at=image.created_at,
            labeled_at=image.labeled_at,
            content_url=content_url(image.id),
            thumbnail_url=f"/images/{image.id}/thumbnail",
        )


def _boolean(value: object) -> object:
    # A literal would take 0, which equals it.
    if not isinstance(value, bool):
        raise PydanticCustomError("bool_type", "Input should be false")
    return value


class ImagePatch(RequestModel):
    """Changes to an image; what is absent stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"split": "val"}]})

    split: Split | None = Field(
        default=None,
        description=(
            "Moves the image. Its open query is withdrawn when it leaves the pool; 409 while an "
            "annotator holds it."
        ),
    )
    skipped: Annotated[Literal[False], BeforeValidator(_boolean)] | None = Field(
        default=None, description="`false` un-skips: the next cycles may select the image again."
    )


class UploadedFile(BaseModel):
    """What became of one uploaded file."""

    name: str
    status: Literal["created", "duplicate", "rejected"]
    id: str | None = Field(
        description="The image; for a duplicate the one that is there; null when rejected."
    )
    reason: str | None = Field(description="Why it was rejected, or whose duplicate it is.")

    @classmethod
    def of(cls, added: Added) -> Self:
        """From the service's answer."""
        return cls.model_validate(added, from_attributes=True)


class UploadOut(BaseModel):
    """What became of each uploaded file, in the order sent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {
                            "name": "north/0017.jpg",
                            "status": "created",
                            "id": "019ab3a1-9d20-7b3e-8f67-c4e1a2d90b33",
                            "reason": None,
                        },
                        {
                            "name": "north/notes.txt",
                            "status": "rejected",
                            "id": None,
                            "reason": (
                                "the file is no picture that can be read; send JPEG, PNG, WebP, "
                                "BMP or TIFF"
                            ),
                        },
                    ],
                    "created": 1,
                    "duplicate": 0,
                    "rejected": 1,
                }
            ]
        }
    )

    items: list[UploadedFile]
    created: int
    duplicate: int
    rejected: int


class PredictionOut(BaseModel):
    """One detection; corners in absolute pixels of the upright image."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    class_name: str = Field(alias="class", examples=["car"])
    score: float = Field(description="Confidence, 0 to 1.")
    x1: float
    y1: float
    x2: float
    y2: float


class ImagePredictionsOut(BaseModel):
    """What the project's newest model sees on an image. Kept for selected and labeled images."""

    image: str
    cycle: str | None = Field(description="The cycle whose model it is; null without predictions.")
    predictions: list[PredictionOut] | None = Field(
        description="Best first; null where none were kept for this image."
    )
