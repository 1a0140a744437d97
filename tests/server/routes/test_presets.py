from __future__ import annotations

import pytest
from starlette.testclient import TestClient


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_presets_are_listed_with_every_field_and_its_meaning(client: TestClient) -> None:
    found = client.get("/presets").json()
    assert found["default"] == "cpu"
    cpu = next(each for each in found["items"] if each["name"] == "cpu")
    fields = {field["name"]: field for field in found["fields"]}
    assert set(cpu["training"]) == {"preset", *fields}
    assert cpu["training"]["image_long_side"] == 320
    assert fields["image_long_side"]["type"] == "int"
    assert (fields["image_long_side"]["minimum"], fields["image_long_side"]["maximum"]) == (
        32,
        4096,
    )
    assert "mi-aod" in fields["method"]["choices"]
    assert all(field["description"] for field in found["fields"])
