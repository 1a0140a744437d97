"""What the fuzzed server holds: things of every kind, so that requests find something."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from server.main import create_app
from server.settings import Settings
from tests.server.conftest import CLASSES, Pool, Scribe

BOXES = [{"class": "car", "x1": 1, "y1": 2, "x2": 11, "y2": 12}]
METRICS = {"map50": 0.5, "map": 0.25, "per_class": [{"class": "car", "ap50": 0.5}]}

# By the name that a path parameter, a query parameter or a field has.
Ids = dict[str, list[str]]


def fill(database_url: str, data_dir: Path) -> Ids:
    """Fill a migrated, empty database; gives the ids of what there is."""
    settings = Settings(data_dir=data_dir, database_url=database_url, admin_key=None)
    app = create_app(settings)
    context = app.state.context
    with TestClient(app, base_url="http://127.0.0.1") as client:

        def create(name: str) -> Pool:
            answer = client.post("/projects", json={"name": name, "classes": CLASSES})
            return Pool(client, answer.json()["id"])

        pool, scribe = create("street"), Scribe(context.sessions, context.blobs)
        images = pool.upload(40) + pool.upload(4, split="val", start=40)
        first = pool.start_cycle(8)
        scribe.run(first)
        for query in pool.queries():
            pool.label(query["image"]["id"], BOXES)
        second = pool.start_cycle(20)
        scribe.report(cycle=second)
        scribe.run(second, METRICS)
        claim = {"project": pool.project, "limit": 5, "seconds": 86_400, "author": "ana"}
        token = client.post("/queries/claim", json=claim).json()["claim_token"]
        queries = [query["id"] for query in pool.queries(state="all")]
        models = client.get("/models").json()["items"]
        imports = [
            client.post(
                "/imports",
                data={"project": pool.project},
                files={"archive": ("labels.zip", b"no archive")},
            ).json()["id"]
        ]
        return {
            "project_id": [pool.project],
            # What a DELETE may take; the rest stays for the others to find.
            "spare_project_id": [create(f"spare {number}").project for number in range(20)],
            "image_id": images[:30],
            "spare_image_id": images[30:40],
            "cycle_id": [first, second],
            "query_id": queries,
            "model_id": [model["id"] for model in models],
            "import_id": imports,
            "claim_token": [token],
            "name": ["config.json", "model.safetensors"],
        }


def write(ids: Ids, path: Path) -> None:
    """For the hooks, which run in schemathesis' process."""
    path.write_text(json.dumps(ids))


class Finder:
    """Puts ids of things that exist in the place of ids that nothing has."""

    def __init__(self, ids: Ids, seed: int) -> None:
        """Chooses by `seed`."""
        self._ids = ids
        self._random = random.Random(seed)

    def some(self, kind: str) -> str | None:
        """The id of something of this kind."""
        known = self._ids.get(kind)
        return self._random.choice(known) if known else None

    def is_needed(self, kind: str, value: Any) -> bool:
        """Whether this is the id of something that must not be deleted."""
        return value in self._ids.get(kind, [])

    def sometimes(self) -> bool:
        """True in three of four cases; the fourth keeps its id and finds nothing."""
        return self._random.random() < 0.75

    def replaced(self, name: str, value: Any, *, deleted: bool = False) -> Any:
        """The value of a parameter or field, or the id of something that fits its name."""
        kind = {"project": "project_id", "cycle": "cycle_id"}.get(name, name)
        if not isinstance(value, str) or not self.sometimes():
            return value
        return self.some(f"spare_{kind}" if deleted else kind) or value
