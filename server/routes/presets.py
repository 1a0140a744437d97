"""What there is to choose in a cycle's training, over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

from server.access import RoleRoute, requires
from server.deps import SettingsDep
from server.schemas import PresetOut, PresetsOut, TrainingFieldOut
from server.services import training

router = APIRouter(prefix="/presets", tags=["cycles"], route_class=RoleRoute)


@router.get("")
@requires("viewer")
def list_presets(settings: SettingsDep) -> PresetsOut:
    """List the training presets, and every field that a cycle may override, with its meaning."""
    return PresetsOut(
        default=settings.default_preset,
        items=[
            PresetOut(name=name, training=training.resolve({}, name)) for name in training.presets()
        ],
        fields=[
            TrainingFieldOut.model_validate({"name": name, **field})
            for name, field in training.fields().items()
        ],
    )
