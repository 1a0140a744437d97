"""Queries: the images that a cycle asks to have labeled, and the claims on them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from server.schemas.common import (
    EXAMPLE_ID,
    EXAMPLE_TOKEN,
    Author,
    ClaimToken,
    EntityId,
    FreeText,
    RequestModel,
)
from server.schemas.images import PredictionOut, content_url
from server.services.queries import Claim, QueryView

QueryState = Literal["open", "claimed", "labeled", "skipped", "withdrawn"]


class QueryImage(BaseModel):
    """The image of a query."""

    id: str
    name: str
    width: int
    height: int
    annotation_version: int = Field(description="The `version` that a first PUT must name.")
    content_url: str
    thumbnail_url: str


class QueryOut(BaseModel):
    """An image that a cycle asks to have labeled."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019ab3a4-70c1-7d02-8a51-5b0d3c6f2e11",
                    "cycle": "019ab3a2-1b7c-7e4f-9c3d-0f8a6d2b4c55",
                    "project": EXAMPLE_ID,
                    "image": {
                        "id": "019ab3a1-9d20-7b3e-8f67-c4e1a2d90b33",
                        "name": "north/0017.jpg",
                        "width": 1280,
                        "height": 720,
                        "annotation_version": 0,
                        "content_url": "/images/019ab3a1-9d20-7b3e-8f67-c4e1a2d90b33/content",
                        "thumbnail_url": "/images/019ab3a1-9d20-7b3e-8f67-c4e1a2d90b33/thumbnail",
                    },
                    "rank": 1,
                    "uncertainty": 0.041,
                    "reason": "uncertainty",
                    "state": "open",
                    "claimed_by": None,
                    "claim_expires_at": None,
                    "predictions": [
                        {"class": "car", "score": 0.83, "x1": 12.5, "y1": 40, "x2": 96, "y2": 88}
                    ],
                    "heatmap_url": "/queries/019ab3a4-70c1-7d02-8a51-5b0d3c6f2e11/heatmap",
                }
            ]
        }
    )

    id: str
    cycle: str
    project: str
    image: QueryImage
    rank: int = Field(description="1 is the most informative.")
    uncertainty: float | None = Field(
        description="0 or more; higher is labeled first. Null: selected at random."
    )
    reason: str = Field(
        description=(
            "Why it was selected: `uncertainty`, `entropy`, `class-balance`, `diversity`, "
            "`core-set`, `random`, `validation`."
        ),
        examples=["uncertainty"],
    )
    state: QueryState
    claimed_by: str | None = Field(description="The author who holds it now.")
    claim_expires_at: datetime | None = Field(
        description="When it returns to the queue, unless a heartbeat or a save comes first."
    )
    predictions: list[PredictionOut] = Field(description="What the cycle's model sees, best first.")
    heatmap_url: str | None = Field(
        description="The instance uncertainty over the picture (PNG). Null: selected at random."
    )

    @classmethod
    def of(cls, view: QueryView) -> Self:
        """From the service's view."""
        query, image = view.query, view.image
        return cls(
            id=query.id,
            cycle=query.cycle_id,
            project=query.project_id,
            image=QueryImage(
                id=image.id,
                name=image.name,
                width=image.width,
                height=image.height,
                annotation_version=image.annotation_version,
                content_url=content_url(image.id),
                thumbnail_url=f"/images/{image.id}/thumbnail",
            ),
            rank=query.rank,
            uncertainty=query.uncertainty,
            reason=query.reason,
            state=view.state,
            claimed_by=view.claimed_by,
            claim_expires_at=view.claim_expires_at,
            predictions=[PredictionOut.model_validate(box) for box in view.predictions],
            heatmap_url=f"/queries/{query.id}/heatmap" if query.heatmap_sha256 else None,
        )


class ClaimIn(RequestModel):
    """A request for the next images to label."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "project": EXAMPLE_ID,
                    "limit": 5,
                    "seconds": 600,
                    "author": "ana",
                }
            ]
        }
    )

    project: EntityId
    limit: int = Field(default=1, ge=1, le=100, description="At most so many; fewer may be left.")
    seconds: int = Field(
        default=600, ge=1, le=86_400, description="How long the claim holds without a heartbeat."
    )
    author: Author = "anonymous"


class ClaimOut(BaseModel):
    """A claim on a batch of queries, best first; `items` is empty when nothing is left."""

    claim_token: str = Field(
        description="Proves the claim: send it when you save, prolong, release or skip.",
        examples=[EXAMPLE_TOKEN],
    )
    expires_at: datetime = Field(description="When the images return to the queue.")
    items: list[QueryOut]

    @classmethod
    def of(cls, claim: Claim) -> Self:
        """From the service's claim."""
        return cls(
            claim_token=claim.token,
            expires_at=claim.expires_at,
            items=[QueryOut.of(view) for view in claim.items],
        )


class HeartbeatIn(RequestModel):
    """Prolongs a claim: every query still held under the token."""

    claim_token: ClaimToken
    seconds: int = Field(
        default=600, ge=1, le=86_400, description="How long the claim holds from now on."
    )


class HeartbeatOut(BaseModel):
    """How long the claim holds now."""

    expires_at: datetime


class ReleaseIn(RequestModel):
    """Gives a query back."""

    claim_token: ClaimToken


class SkipIn(RequestModel):
    """Says that an image cannot be labeled; it is not selected again until it is un-skipped."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "too blurred"}]})

    claim_token: ClaimToken | None = Field(
        default=None, description="Needed while the query is under a claim."
    )
    reason: FreeText = Field(
        default="", max_length=1000, description="For people: why it cannot be labeled."
    )
