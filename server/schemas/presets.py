"""What there is to choose in a cycle's training."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class PresetOut(BaseModel):
    """A preset with the value of every field."""

    name: str = Field(examples=["cpu"])
    training: dict[str, Any] = Field(examples=[{"image_long_side": 320}])


class TrainingFieldOut(BaseModel):
    """A field of the training configuration, as `POST /cycles` checks it."""

    name: str = Field(examples=["image_long_side"])
    type: str = Field(description="`int`, `float`, `bool`, `str` or `list[float]`.")
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: list[str | int] | None = None


class PresetsOut(BaseModel):
    """The presets, the one that is taken where none is named, and all fields."""

    default: str = Field(examples=["cpu"])
    items: list[PresetOut]
    fields: list[TrainingFieldOut]
