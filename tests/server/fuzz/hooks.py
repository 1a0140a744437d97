"""Loaded by schemathesis (`SCHEMATHESIS_HOOKS`): most well-formed ids become ids that exist.

A malformed one stays as it is: it was made to be refused. So do those of the stateful phase, which
follows what it created itself.
"""

from __future__ import annotations

import atexit
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis

from server.store.ids import new_id
from tests.server.fuzz.world import Finder

_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")

_finder = Finder(
    json.loads(Path(os.environ["FUZZ_WORLD"]).read_text()), int(os.environ["FUZZ_SEED"])
)
_requests: Counter[str] = Counter()
_by_operation: Counter[str] = Counter()


@schemathesis.hook
def before_load_schema(context: Any, schema: dict[str, Any]) -> None:
    """The document is that of a server with keys; an open one asks nobody for any."""
    if os.environ["FUZZ_OPEN"]:
        for operations in schema["paths"].values():
            for operation in operations.values():
                operation.pop("security", None)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Change a request just before it is sent."""
    if case.operation.path.endswith("/events"):
        # The stream of a cycle that has not ended never does: only ended ones are watched.
        if _is_well_formed("cycle_id", case.path_parameters["cycle_id"]):
            case.path_parameters["cycle_id"] = _finder.some("cycle_id")
        return
    deleted = case.method == "DELETE" and case.operation.path.endswith("_id}")
    if deleted:
        # Found in a list, perhaps; what the others need must stay.
        for name, value in list(case.path_parameters.items()):
            if _finder.is_needed(name, value):
                case.path_parameters[name] = new_id()
    if _phase(case) == "stateful":
        return
    for container in (case.path_parameters, case.query, case.body):
        if not isinstance(container, dict):
            continue
        for name, value in list(container.items()):
            if _is_well_formed(name, value):
                container[name] = _finder.replaced(name, value, deleted=deleted)


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Count the requests by phase and status."""
    _requests[f"{_phase(case)} {response.status_code}"] += 1
    _by_operation[f"{case.method} {case.operation.path} {response.status_code}"] += 1


@atexit.register
def _write_counts() -> None:
    path = Path(os.environ["FUZZ_COUNTS"])
    path.write_text(json.dumps(_requests))
    path.with_name("requests-by-operation.json").write_text(
        json.dumps(dict(sorted(_by_operation.items())), indent=1)
    )


def _phase(case: Any) -> str:
    return "other" if case.meta is None else str(case.meta.phase.name.value)


def _is_well_formed(name: str, value: Any) -> bool:
    if not isinstance(value, str):
        return False
    return (_TOKEN if name == "claim_token" else _ID).fullmatch(value) is not None
