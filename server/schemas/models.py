"""Models: what succeeded trained cycles trained."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from server.schemas.common import FreeText, RequestModel
from server.schemas.cycles import Metrics
from server.services.models import ModelView


class ModelOut(BaseModel):
    """A model with its metrics."""

    id: str
    project: str
    cycle: str
    cycle_number: int
    metrics: Metrics
    note: str
    pinned: bool = Field(description="Pinned models keep their weights.")
    num_bytes: int
    sha256: str | None = Field(description="Null: the weights were swept (see `keep_models`).")
    checkpoint_url: str | None
    created_at: datetime

    @classmethod
    def of(cls, view: ModelView) -> Self:
        """From the service's view."""
        model = view.model
        return cls(
            id=model.id,
            project=model.project_id,
            cycle=model.cycle_id,
            cycle_number=view.cycle_number,
            metrics=Metrics.model_validate(model.metrics),
            note=model.note,
            pinned=model.pinned,
            num_bytes=model.num_bytes,
            sha256=model.sha256,
            checkpoint_url=f"/models/{model.id}/checkpoint" if model.sha256 else None,
            created_at=model.created_at,
        )


class ModelPatch(RequestModel):
    """Changes to a model; what is absent stays."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"pinned": True, "note": "deployed in Lyon"}]}
    )

    pinned: bool | None = None
    note: FreeText | None = None
