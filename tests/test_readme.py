"""The README's table names every setting, with its default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from server.settings import Settings
from worker.settings import WorkerSettings

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(MIAOD_\w+)` \| (.+?) \|", README, flags=re.MULTILINE))
FIELDS = {
    f"MIAOD_{name.upper()}": field
    for settings in (Settings, WorkerSettings)
    for name, field in settings.model_fields.items()
}


@pytest.mark.parametrize("variable", sorted(FIELDS))
def test_each_setting_stands_in_the_table_with_its_default(variable: str) -> None:
    field: FieldInfo = FIELDS[variable]
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is None or default == []:
        assert not ROWS[variable].startswith("`")
    else:
        # Written as people write numbers: 60, not 60.0.
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        assert ROWS[variable] == f"`{shown}`"


def test_the_table_names_no_setting_that_does_not_exist() -> None:
    assert set(ROWS) == set(FIELDS)
