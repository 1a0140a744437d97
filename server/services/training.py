"""Training configurations: a preset and its overrides, checked by name, type and range.

What there is to configure stands in `training_presets.json`, which is generated from the worker's
own dataclass (`python -m worker.miaod.config`), because the server loads no worker code.
"""

from __future__ import annotations

import difflib
import json
import math
import reprlib
from functools import cache
from pathlib import Path
from typing import Any

from server.errors import Unprocessable
from server.store.models import Json

_FILE = Path(__file__).with_name("training_presets.json")
_SCALARS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
}
_MAX_LIST = 32
_SAY = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_FILE.read_text())
    return document


def presets() -> tuple[str, ...]:
    """The names of the presets."""
    return tuple(_document()["presets"])


def fields() -> dict[str, dict[str, Any]]:
    """Each field of the configuration: type, description, and its range or choices, if any."""
    found: dict[str, dict[str, Any]] = _document()["fields"]
    return found


def resolve(training: Json, default_preset: str) -> Json:
    """Every field of the configuration, and `preset`.

    Args:
        training: `preset` (optional) and overrides by field name.
        default_preset: the preset of a configuration that names none.

    Raises:
        Unprocessable: unknown preset or field, a value of another type or out of range, or one that
            the detector does not take.
    """
    document = _document()
    preset = training.get("preset") or default_preset
    if not isinstance(preset, str) or preset not in document["presets"]:
        raise Unprocessable(
            f"unknown preset {reprlib.repr(preset)}: there are {', '.join(presets())}",
            code="bad_training",
        )
    resolved: Json = {"preset": preset, **document["presets"][preset]}
    for name, value in training.items():
        if name == "preset":
            continue
        field = document["fields"].get(name)
        if field is None:
            near = difflib.get_close_matches(name, document["fields"], n=3)
            hint = (
                f"did you mean {' or '.join(near)}?"
                if near
                else f"there are {', '.join(document['fields'])}"
            )
            raise Unprocessable(
                f"training has no field {reprlib.repr(name)}: {hint}", code="bad_training"
            )
        resolved[name] = _checked(name, value, field)
    detector = resolved["detector"]
    for name, allowed in document["detector_needs"][detector].items():
        if resolved[name] not in allowed:
            raise Unprocessable(
                f"training.{name} is {json.dumps(resolved[name])}: detector {detector} takes "
                f"{' or '.join(map(json.dumps, allowed))}",
                code="bad_training",
            )
    return resolved


def _checked(name: str, value: Any, field: dict[str, Any]) -> Any:
    """The value in its type (a whole number given for a float becomes one), or Unprocessable."""
    kind: str = field["type"]
    if kind.startswith("list["):
        inner = {**field, "type": kind[len("list[") : -1]}
        if not isinstance(value, list) or not 1 <= len(value) <= _MAX_LIST:
            raise Unprocessable(
                f"training.{name} is no list of 1 to {_MAX_LIST} values", code="bad_training"
            )
        return [_checked(f"{name}[{index}]", item, inner) for index, item in enumerate(value)]
    given = f"training.{name} is {reprlib.repr(value)}"
    if not isinstance(value, _SCALARS[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise Unprocessable(f"{given}: it must be {_SAY[kind]}", code="bad_training")
    if "choices" in field and value not in field["choices"]:
        choices = ", ".join(map(str, field["choices"]))
        raise Unprocessable(f"{given}: it must be one of {choices}", code="bad_training")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    low, high = field.get("minimum", -math.inf), field.get("maximum", math.inf)
    if not low <= value <= high:  # so also for NaN
        raise Unprocessable(f"{given}: it must lie between {low} and {high}", code="bad_training")
    return float(value) if kind == "float" else value
