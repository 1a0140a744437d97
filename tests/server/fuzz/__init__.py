"""schemathesis against a running server that holds something (`make fuzz` for long)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from server.services.identity import Role
from tests.server.fuzz import world
from tests.server.processes import ROOT, running_server

# A schema cannot say that x2 exceeds x1: well-formed requests may be refused.
EXCLUDED_CHECKS = "positive_data_acceptance"
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
REQUEST_SECONDS = 60


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    failed: bool
    # What schemathesis printed: every finding with a request to repeat it.
    report: str
    # Requests by phase and status, as "fuzzing 200".
    requests: Counter[str]

    @property
    def cases(self) -> int:
        """How many requests were sent and checked."""
        return sum(self.requests.values())

    def table(self) -> str:
        """The requests by phase, a line each, and in it by status."""
        phases: dict[str, list[tuple[str, int]]] = {}
        for name, number in sorted(self.requests.items()):
            phase, _, status = name.partition(" ")
            phases.setdefault(phase, []).append((status, number))
        return "\n".join(
            f"{phase:9} {sum(number for _, number in found):6}  "
            + ", ".join(f"{status}: {number}" for status, number in found)
            for phase, found in phases.items()
        )


def run(
    database_url: str,
    data_dir: Path,
    *,
    role: Role | None,
    seed: int,
    max_examples: int,
    phases: str = "examples,coverage,fuzzing,stateful",
    max_seconds: int | None = None,
) -> Outcome:
    """Fill a migrated, empty database, start a server on it, and send it what its document allows,
    and what it does not.

    Args:
        database_url: of the server.
        data_dir: of the server; logs and counts lie there afterwards.
        role: of the key that most requests carry; None: an open server.
        seed: of everything that is generated.
        max_examples: for each operation and phase.
        phases: of schemathesis.
        max_seconds: stop there.
    """
    counts = data_dir / "requests.json"
    filled = world.fill(database_url, data_dir, role)
    world.write(filled.ids, data_dir / "world.json")
    import_roots = str(world.import_root(data_dir))
    with running_server(data_dir, database_url, MIAOD_IMPORT_ROOTS=import_roots) as url:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION)),
            *("run", f"{url}/openapi.json"),
            *("--exclude-checks", EXCLUDED_CHECKS, "--continue-on-failure", "--no-color"),
            *("--seed", str(seed), "--max-examples", str(max_examples), "--phases", phases),
            *("--request-timeout", str(REQUEST_SECONDS)),
            *("--generation-database", "none", "--suppress-health-check", "all"),
            *(("--max-time", str(max_seconds)) if max_seconds else ()),
            *(("--header", f"Authorization: Bearer {filled.key}") if filled.key else ()),
        ]
        ended = subprocess.run(
            command,
            # It keeps a cache in its working folder: a run must not depend on the one before.
            cwd=data_dir,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}",
                "SCHEMATHESIS_HOOKS": "tests.server.fuzz.hooks",
                "FUZZ_WORLD": str(data_dir / "world.json"),
                "FUZZ_COUNTS": str(counts),
                "FUZZ_SEED": str(seed),
                "FUZZ_OPEN": "" if filled.key else "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    requests = Counter(json.loads(counts.read_text())) if counts.exists() else Counter()
    return Outcome(ended.returncode != 0, ended.stdout, requests)
