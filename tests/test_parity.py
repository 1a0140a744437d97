"""The page on parity names tests and settings that there are, and no quirk is missing."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from worker.miaod.config import TrainingConfig

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}
SETTINGS = {field.name for field in dataclasses.fields(TrainingConfig)}
# Values of settings, and what else a word between backticks may be.
OTHER_WORDS = {"always", "batch", "difficult", "image", "iscrowd", "map", "map50_voc07", "never"}
OTHER_WORDS |= {"eval_map", "paper", "plan_stages", "reference", "selection"}


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 50
    assert named <= TESTS, sorted(named - TESTS)


def test_every_setting_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`([a-z][a-z0-9]*(?:_[a-z0-9]+)*)`", PAGE))
    named = {name for name in named if not name.startswith("test_")} - OTHER_WORDS
    assert len(named) > 30
    assert named <= SETTINGS, sorted(named - SETTINGS)


@pytest.mark.parametrize(("letter", "last"), [("D", 19), ("Q", 25)])
def test_every_difference_and_every_quirk_has_its_row(letter: str, last: int) -> None:
    rows = re.findall(rf"^\| {letter}(\d+) \|", PAGE, re.MULTILINE)
    assert rows == [str(number) for number in range(1, last + 1)]
