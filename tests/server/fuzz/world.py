"""What the fuzzed server holds: things of every kind, so that requests find something."""

from __future__ import annotations

import io
import json
import random
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image as Pillow
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from server.main import create_app
from server.services import keys
from server.services.identity import Role
from server.settings import Settings
from tests.server.conftest import CLASSES, Pool, Scribe, picture_bytes

BOXES = [{"class": "car", "x1": 1, "y1": 2, "x2": 11, "y2": 12}]
METRICS = {"map50": 0.5, "map": 0.25, "per_class": [{"class": "car", "ap50": 0.5}]}

# By the name that a path parameter, a query parameter or a field has. What a request may end or
# change for good is a spare one; the rest stays for the others to find.
Ids = dict[str, list[str]]


@dataclass(frozen=True)
class World:
    """What there is, and the key of who is let in; None: anyone is."""

    ids: Ids
    key: str | None


def import_root(data_dir: Path) -> Path:
    """The folder that the server may import from."""
    return data_dir / "import"


def fill(database_url: str, data_dir: Path, role: Role | None) -> World:
    """Fill a migrated, empty database.

    Args:
        database_url: of the database.
        data_dir: gets the blobs.
        role: of the key that is made, for one of the projects unless it is `admin`; None: no key is
            made, and the server stays open.
    """
    settings = Settings(data_dir=data_dir, database_url=database_url, admin_key=None)
    app = create_app(settings)
    context = app.state.context
    with TestClient(app, base_url="http://127.0.0.1") as client:

        def create(name: str) -> Pool:
            answer = client.post("/projects", json={"name": name, "classes": CLASSES})
            return Pool(client, answer.json()["id"])

        pool, scribe = create("street"), Scribe(context.sessions, context.blobs)
        images, spare_images = pool.upload(40), pool.upload(10, start=60)
        images += pool.upload(4, split="val", start=40)
        client.patch(f"/projects/{pool.project}", json={"cycle_defaults": {"budget": 2}})
        first = pool.start_cycle(8)
        scribe.run(first)
        labeled = [query["image"]["id"] for query in pool.queries()]
        for image in labeled:
            pool.label(image, BOXES)
        second = pool.start_cycle(20)
        scribe.report(cycle=second)
        scribe.run(second, METRICS)
        # Of another project: its cycle waits for a worker, and a key of one project sees nothing.
        other = create("harbour")
        other_images = other.upload(6, start=50)
        waiting = other.start_cycle(2)
        folder = import_root(data_dir) / "street"
        folder.mkdir(parents=True)
        (folder / "found.png").write_bytes(picture_bytes(80))
        ids = {
            "project_id": [pool.project, other.project],
            "spare_project_id": [create(f"spare {number}").project for number in range(20)],
            # Most labels stay: without any there is nothing to train on.
            "image_id": [image for image in images if image not in labeled[2:]] + other_images,
            "spare_image_id": spare_images,
            "cycle_id": [first, second, waiting],
            "model_id": [model["id"] for model in client.get("/models").json()["items"]],
            "artifact": ["config.json", "model.safetensors"],
            "path": [str(folder)],
            "action": ["project_created", "key_created"],
        }
        key = None
        if role is not None:
            key, key_ids = _make_keys(context.sessions, client, pool.project, role)
            ids |= key_ids
        claim = {"project": pool.project, "limit": 5, "seconds": 86_400, "author": "ana"}
        ids["claim_token"] = [client.post("/queries/claim", json=claim).json()["claim_token"]]
        ids["query_id"] = [query["id"] for query in pool.queries(state="all")]
        archive = {"archive": ("labels.zip", b"no archive")}
        imported = client.post("/imports", data={"project": pool.project}, files=archive)
        ids["import_id"] = [imported.json()["id"]]
        return World(ids, key)


def _make_keys(
    sessions: sessionmaker[Session], client: TestClient, project: str, role: Role
) -> tuple[str, Ids]:
    """Make keys, and go on with the one of this role."""
    with sessions.begin() as session:
        admin = keys.ensure_admin(session)
    assert admin is not None
    client.headers["Authorization"] = f"Bearer {admin}"

    def create(name: str, role: Role, *projects: str) -> tuple[str, str]:
        body = {"name": name, "role": role, "projects": projects}
        answer = client.post("/keys", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["key"], answer.json()["id"]

    key = admin if role == "admin" else create("ana", role, project)[0]
    needed = [known["id"] for known in client.get("/keys").json()["items"]]
    spare = [create(f"spare {number}", "annotator", project)[1] for number in range(20)]
    client.headers["Authorization"] = f"Bearer {key}"
    actor = client.get("/session").json()["user"]["name"]
    return key, {"key_id": needed, "spare_key_id": spare, "key": [key], "actor": [actor]}


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

    def learn(self, kind: str, value: str) -> None:
        """There is one more of this kind."""
        self._ids[kind].append(value)

    def is_needed(self, kind: str, value: Any) -> bool:
        """Whether this is the id of something that must stay as it is."""
        return value in self._ids.get(kind, [])

    def sometimes(self) -> bool:
        """True in three of four cases; the fourth keeps its id and finds nothing."""
        return self._random.random() < 0.75

    def file(self, kind: str) -> str:
        """A picture, or an archive (kind `archive`) with one.

        As text, because schemathesis takes what is none for a violation: none of its bytes, small
        and uncompressed as it is, needs the eighth bit.
        """
        colour = (self._random.randrange(128), self._random.randrange(128), 77)
        picture, archive = io.BytesIO(), io.BytesIO()
        Pillow.new("RGB", (40, 30), colour).save(picture, "BMP", dpi=(1, 1))
        if kind != "archive":
            return picture.getvalue().decode("ascii")
        with tarfile.open(fileobj=archive, mode="w") as tar:
            member = tarfile.TarInfo("packed.bmp")
            member.size = picture.tell()
            picture.seek(0)
            tar.addfile(member, picture)
        return archive.getvalue().decode("ascii")

    def address(self) -> str:
        """The address of a client behind the proxy."""
        return "10." + ".".join(str(self._random.randrange(256)) for _ in range(3))

    def replaced(self, kind: str, value: str, *, spare: bool = False) -> str:
        """The value of a parameter or field, or the id of something of its kind."""
        if not self.sometimes():
            return value
        return self.some(f"spare_{kind}" if spare else kind) or value
