"""Loaded by schemathesis (`SCHEMATHESIS_HOOKS`): most well-formed ids become ids that exist.

A malformed one stays as it is: it was made to be refused. So do those of the stateful phase, which
follows what it created itself. What would end the run for the others, as revoking its key would, is
turned into something that is refused.
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
_TEXT = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
# What is well formed, of what is not an id.
_FORMS = {
    "claim_token": _TOKEN,
    **dict.fromkeys(("artifact", "action", "actor", "key", "path"), _TEXT),
}
_KINDS = {"project": "project_id", "projects": "project_id", "cycle": "cycle_id"}
# Longer than it takes to read what there is, and short enough for a thousand streams.
_WATCH_SECONDS = 0.05

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
    operation = f"{case.method} {case.operation.path}"
    if os.environ["FUZZ_OPEN"]:
        _keep_open(operation, case.body)
    else:
        # Each comes from another client: the checks send wrong keys and expect 401, and who sends
        # many gets 429.
        case.headers["X-Forwarded-For"] = _finder.address()
    if operation == "GET /cycles/{cycle_id}/events":
        _end_soon(case.query)
    spare = operation == "PATCH /keys/{key_id}" or (
        case.method == "DELETE" and operation.endswith("_id}")
    )
    if spare:
        # Found in a list, perhaps; what the others need must stay.
        for name, value in list(case.path_parameters.items()):
            if _finder.is_needed(name, value):
                case.path_parameters[name] = new_id()
    if _phase(case) == "stateful":
        return
    sent = case.headers.get("Idempotency-Key", "")
    # Generated ones repeat each other, and a used one with another body is refused.
    if _IDEMPOTENCY_KEY.fullmatch(sent) and _finder.sometimes():
        case.headers["Idempotency-Key"] = new_id()
    for container in (case.path_parameters, case.query, case.body):
        if not isinstance(container, dict):
            continue
        for name, value in list(container.items()):
            is_artifact = name == "name" and container is case.path_parameters
            kind = "artifact" if is_artifact else _KINDS.get(name, name)
            if isinstance(value, list):
                container[name] = [_found(kind, item, spare=False) for item in value]
            else:
                container[name] = _found(kind, value, spare=spare)


def _keep_open(operation: str, body: Any) -> None:
    """The first key would be the end of an open server: let it be one that is refused."""
    if operation == "POST /keys" and isinstance(body, dict) and body.get("role") == "admin":
        body["role"] = "viewer"


def _end_soon(query: Any) -> None:
    """The stream of a cycle that waits would go on for as long as was asked for, or for ever."""
    asked = query.get("seconds")
    asked = asked[-1] if isinstance(asked, list) and asked else asked
    try:
        seconds = _WATCH_SECONDS if asked is None else float(asked)
    except (TypeError, ValueError):
        return
    if _WATCH_SECONDS <= seconds <= 86_400:
        query["seconds"] = _WATCH_SECONDS


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Count the requests by phase and status, and note what came to be."""
    operation = f"{case.method} {case.operation.path}"
    _requests[f"{_phase(case)} {response.status_code}"] += 1
    _by_operation[f"{operation} {response.status_code}"] += 1
    if operation == "POST /cycles" and response.status_code == 202:
        # The project takes no other until somebody cancels it.
        _finder.learn("cycle_id", response.json()["id"])


@atexit.register
def _write_counts() -> None:
    path = Path(os.environ["FUZZ_COUNTS"])
    path.write_text(json.dumps(_requests))
    path.with_name("requests-by-operation.json").write_text(
        json.dumps(dict(sorted(_by_operation.items())), indent=1)
    )


def _phase(case: Any) -> str:
    return "other" if case.meta is None else str(case.meta.phase.name.value)


def _found(kind: str, value: Any, *, spare: bool) -> Any:
    if not isinstance(value, str):
        return value
    if kind in ("files", "archive"):
        return _finder.file(kind) if _finder.sometimes() else value
    if _FORMS.get(kind, _ID).fullmatch(value) is None:
        return value
    return _finder.replaced(kind, value, spare=spare)
