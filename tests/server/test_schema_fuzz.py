"""Whatever the OpenAPI document allows, and whatever it does not, gets a documented answer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from server.services.identity import Role
from tests.server import fuzz

# Another one finds other things: FUZZ_SEED=2 make fuzz
SEED = int(os.environ.get("FUZZ_SEED", "1"))


def check(outcome: fuzz.Outcome, at_least: int) -> None:
    table = f"{outcome.cases} requests, seed {SEED}\n{outcome.table()}"
    sys.stdout.write(f"\n{table}\n")
    assert not outcome.failed, f"{outcome.report}\n{table}"
    assert outcome.cases >= at_least, f"{outcome.report}\n{table}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("database_url", "role", "phases", "at_least"),
    [
        ("sqlite", "admin", "examples,coverage", 1000),
        ("postgres", None, "examples,fuzzing,stateful", 300),
    ],
    indirect=["database_url"],
)
def test_a_running_server_keeps_to_its_document(
    database_url: str, data_dir: Path, role: Role | None, phases: str, at_least: int
) -> None:
    outcome = fuzz.run(database_url, data_dir, role=role, seed=SEED, max_examples=4, phases=phases)
    check(outcome, at_least)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("role", ["admin", "engineer", None], ids=["admin", "engineer", "open"])
def test_a_running_server_keeps_to_its_document_for_long(
    database_url: str, data_dir: Path, role: Role | None
) -> None:
    outcome = fuzz.run(database_url, data_dir, role=role, seed=SEED, max_examples=60)
    check(outcome, 5000)
