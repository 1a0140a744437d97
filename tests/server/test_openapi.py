from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

import server
from server import schemas
from server.__main__ import OPENAPI_FILE, openapi_text

ROOT = Path(__file__).parents[2]


def test_the_checked_in_openapi_document_is_that_of_the_code() -> None:
    checked_in = (ROOT / OPENAPI_FILE).read_text()
    assert checked_in == openapi_text(), "run `python -m server openapi` and look at the diff"


def test_the_version_is_that_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == server.__version__


WITH_EXAMPLES = [
    model
    for model in vars(schemas).values()
    if isinstance(model, type) and issubclass(model, BaseModel)
    if "examples" in model.model_json_schema()
]


@pytest.mark.parametrize("model", WITH_EXAMPLES, ids=lambda model: model.__name__)
def test_the_examples_of_the_document_are_valid(model: type[BaseModel]) -> None:
    for example in model.model_json_schema()["examples"]:
        assert model.model_validate_json(json.dumps(example)).model_fields_set
