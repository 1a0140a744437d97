from __future__ import annotations

import tomllib
from pathlib import Path

import server
from server.__main__ import OPENAPI_FILE, openapi_text

ROOT = Path(__file__).parents[2]


def test_the_checked_in_openapi_document_is_that_of_the_code() -> None:
    checked_in = (ROOT / OPENAPI_FILE).read_text()
    assert checked_in == openapi_text(), "run `python -m server openapi` and look at the diff"


def test_the_version_is_that_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == server.__version__
