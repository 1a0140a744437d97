"""Every operation of the OpenAPI document, as each role, as nobody, and across projects.

What is tried comes from the document, so that a new operation is tried as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi import FastAPI
from httpx2 import Response
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from server.deps import Context
from server.main import create_app
from server.services import keys
from server.services.identity import ROLES
from server.services.keys import KeyRequest
from server.settings import Settings
from server.store.models import ApiKey, Import, utc_now

URL = "https://miaod.example.org"
NOWHERE = "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e"
DOCS = Path(__file__).parents[2] / "docs" / "security.md"
OPTIONS = {"format": "auto", "split": "pool"}
BOX = {"class": "car", "x1": 1, "y1": 2, "x2": 11, "y2": 12}


@dataclass(frozen=True)
class Operation:
    """An operation of the document."""

    name: str
    method: str
    path: str
    role: str
    all_projects: bool
    parameters: tuple[tuple[str, str], ...]
    has_body: bool

    def send(self, client: TestClient, key: str | None, ids: dict[str, str]) -> Response:
        """Ask for it with these ids in path, query and body."""
        path = self.path
        for name in re.findall(r"\{(\w+)\}", path):
            path = path.replace(f"{{{name}}}", ids[name])
        wanted = {
            name: ids[name] for where, name in self.parameters if where == "query" and name in ids
        }
        more: dict[str, Any] = {"params": wanted}
        if self.name == "upload_images":
            files = [("files", ("new.png", b"no picture", "image/png"))]
            more |= {"data": {"project": ids["project"]}, "files": files}
        elif self.has_body:
            more["json"] = body_of(self.name, ids)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return client.request(self.method, path, headers=headers, **more)


def body_of(name: str, ids: dict[str, str]) -> Any:
    """A body that the operation takes."""
    return {
        "create_project": {"name": "another", "classes": ["car"]},
        "update_project": {"instructions": "changed"},
        "update_image": {"split": "val"},
        "put_annotation": {"version": 0, "boxes": [BOX], "author": "eve"},
        "create_import": {"project": ids["project"], "path": "."},
        "create_cycle": {"project": ids["project"], "budget": 1},
        "claim_queries": {"project": ids["project"], "limit": 1},
        "heartbeat_query": {"claim_token": "t"},
        "release_query": {"claim_token": "t"},
        "skip_query": {},
        "update_model": {"note": "changed"},
        "create_session": {"key": "wrong"},
        "create_key": {"name": "new", "role": "viewer", "projects": [ids["project"]]},
        "update_key": {"all_projects": True},
    }[name]


def operations(app: FastAPI) -> list[Operation]:
    return [
        Operation(
            operation["operationId"],
            method.upper(),
            path,
            operation["x-required-role"],
            operation.get("x-required-projects") == "all",
            tuple((each["in"], each["name"]) for each in operation.get("parameters", ())),
            "requestBody" in operation,
        )
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """A server that others reach, so that it is never open."""
    return create_app(settings.model_copy(update={"host": "0.0.0.0"}))


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=URL) as client:
        yield client


@dataclass
class House:
    """Two projects, alike but for their names, and keys for each."""

    client: TestClient
    keys: dict[str, str] = field(default_factory=dict)
    ids: dict[str, dict[str, str]] = field(default_factory=dict)


MakeKey = Callable[..., str]


@pytest.fixture
def make_key(sessions: sessionmaker[Session]) -> MakeKey:
    def make(name: str, role: Any, projects: list[str] | None = None) -> str:
        with sessions.begin() as session:
            asked = KeyRequest(name, role, projects)
            return keys.create(session, asked, created_by="test", admin_without=True)[1]

    return make


@pytest.fixture
def house(
    client: TestClient,
    context: Context,
    scribe: Any,
    picture: Callable[..., bytes],
    make_key: MakeKey,
) -> House:
    built = House(client, {"admin": make_key("root", "admin")})
    client.headers["Authorization"] = f"Bearer {built.keys['admin']}"
    for number, name in enumerate(("open-street", "vault-of-secrets")):
        made = client.post("/projects", json={"name": name, "classes": ["car", "person"]}).json()
        project = made["id"]
        files = [
            # The same bytes in both: what one project holds says nothing of another.
            ("files", (f"{name}-{i}.png", picture(i), "image/png"))
            for i in range(4)
        ]
        uploaded = client.post("/images", data={"project": project}, files=files).json()
        assert uploaded["created"] == 4, uploaded
        images = [item["id"] for item in uploaded["items"]]
        client.put(f"/images/{images[0]}/annotations", json={"version": 0, "boxes": [BOX]})
        cycle = client.post("/cycles", json={"project": project, "budget": 2}).json()["id"]
        scribe.run(cycle, metrics={})
        query = client.get("/queries", params={"project": project}).json()["items"][0]
        with context.sessions.begin() as session:
            job = Import(project_id=project, path="/srv/secret", options=OPTIONS, state="succeeded")
            session.add(job)
            session.flush()
            import_id = job.id
        built.ids[name] = {
            "project": project,
            "project_id": project,
            "image_id": query["image"]["id"],
            "cycle": cycle,
            "cycle_id": cycle,
            "query_id": query["id"],
            "model_id": client.get(f"/cycles/{cycle}").json()["model"],
            "import_id": import_id,
            "name": "model.safetensors",
            "key_id": NOWHERE,
        }
        for role in ("viewer", "annotator", "engineer"):
            key = make_key(f"{role}-{number}", role, [project])
            built.keys[f"{role} of {name}"] = key
    del client.headers["Authorization"]
    return built


OWN, OTHER = "open-street", "vault-of-secrets"
ABSENT = dict.fromkeys(
    ("project", "project_id", "image_id", "cycle", "cycle_id", "query_id", "model_id", "import_id"),
    NOWHERE,
) | {"key_id": NOWHERE, "name": "model.safetensors"}


def test_each_role_may_do_what_the_document_says_and_nothing_else(
    app: FastAPI, client: TestClient, make_key: MakeKey
) -> None:
    key_of = {role: make_key(role, role) for role in ROLES}
    tried = 0
    for operation in operations(app):
        for role, key in key_of.items():
            answer = operation.send(client, key, ABSENT)
            said = (operation.name, role, answer.status_code, answer.text)
            allowed = operation.role == "anyone" or ROLES.index(role) >= ROLES.index(
                cast(Any, operation.role)
            )
            if operation.name == "create_session":
                assert answer.status_code in (401, 429), said
            elif allowed:
                assert answer.status_code < 500, said
                assert answer.status_code not in (401, 403, 429), said
            else:
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), said
            tried += 1
    assert tried == len(operations(app)) * len(ROLES)


def test_nobody_and_keys_that_have_ended_may_do_nothing_that_needs_a_role(
    app: FastAPI, client: TestClient, make_key: MakeKey, sessions: sessionmaker[Session]
) -> None:
    ended = {"revoked": make_key("revoked", "admin"), "expired": make_key("expired", "admin")}
    with sessions.begin() as session:
        now = utc_now()
        for name, values in (
            ("revoked", {"revoked_at": now}),
            ("expired", {"expires_at": now - timedelta(seconds=1)}),
        ):
            session.execute(update(ApiKey).where(ApiKey.name == name).values(**values))
    for operation in operations(app):
        for who, key in (("nobody", None), *ended.items()):
            answer = operation.send(client, key, ABSENT)
            said = (operation.name, who, answer.status_code, answer.text)
            if operation.role == "anyone":
                continue
            # After ten wrong keys an address is told to wait, which lets nobody in either.
            assert answer.status_code in ((401,) if key is None else (401, 429)), said


def test_what_is_of_another_project_does_not_exist(app: FastAPI, house: House) -> None:
    tell_tale = [OTHER, "secret", *(v for k, v in house.ids[OTHER].items() if k != "name")]
    for operation in operations(app):
        if operation.role in ("anyone", "admin") or operation.name == "delete_session":
            continue
        asked = house.ids[OTHER]
        for role in ("viewer", "annotator", "engineer"):
            answer = operation.send(house.client, house.keys[f"{role} of {OWN}"], asked)
            said = (operation.name, role, answer.status_code, answer.text)
            named = set(re.findall(r"\{(\w+)\}", operation.path)) | {
                name for where, name in operation.parameters if where == "query" and name != "name"
            }
            low = ROLES.index(cast(Any, role)) < ROLES.index(cast(Any, operation.role))
            if low or operation.all_projects or operation.name == "create_import":
                assert answer.status_code == 403, said
            elif named & {*asked} or operation.has_body:
                assert answer.status_code == 404, said
            else:
                assert answer.status_code == 200, said
            # An answer may repeat what was asked for, and nothing else.
            sent = [v for k, v in asked.items() if k in named or k == "project"]
            for secret in set(tell_tale) - set(sent):
                assert secret not in answer.text, said


def test_the_same_requests_find_it_with_a_key_of_that_project(app: FastAPI, house: House) -> None:
    found = 0
    for operation in operations(app):
        if operation.method != "GET" or operation.role in ("anyone", "admin"):
            continue
        if operation.all_projects:
            continue
        key = house.keys[f"engineer of {OTHER}"]
        answer = operation.send(house.client, key, house.ids[OTHER])
        assert answer.status_code == 200, (operation.name, answer.text)
        found += 1
    assert found > 15


def test_lists_hold_the_key_s_projects_only_and_count_no_others(house: House) -> None:
    headers = {"Authorization": f"Bearer {house.keys[f'viewer of {OWN}']}"}
    for path in ("/projects", "/cycles", "/models"):
        answer = house.client.get(path, params={"count": True}, headers=headers).json()
        assert (len(answer["items"]), answer["total"]) == (1, 1), path
    by_name = house.client.get("/projects", params={"name": OTHER}, headers=headers).json()
    assert by_name["items"] == []


def test_a_leaked_annotator_key_reads_no_image_of_another_project_in_any_way(house: House) -> None:
    headers = {"Authorization": f"Bearer {house.keys[f'annotator of {OWN}']}"}
    own, other = house.ids[OWN], house.ids[OTHER]
    known = house.client.get(f"/images/{own['image_id']}/content", headers=headers)
    assert known.status_code == 200
    for path, statuses in {
        f"/images/{other['image_id']}": {404},
        f"/images/{other['image_id']}/content": {404},
        f"/images/{other['image_id']}/content?rendition=display": {404},
        f"/images/{other['image_id']}/thumbnail": {404},
        f"/images/{other['image_id']}/annotations": {404},
        f"/images/{other['image_id']}/predictions": {404},
        f"/queries/{other['query_id']}/heatmap": {404},
        f"/queries?cycle={other['cycle']}": {404},
        f"/queries?project={own['project']}&cycle={other['cycle']}": {404},
        f"/cycles/{other['cycle']}/artifacts": {404},
        f"/cycles/{other['cycle']}/artifacts/model.safetensors": {403},
        f"/cycles/{other['cycle']}/events": {404},
        f"/exports?project={other['project']}&images=true": {403},
    }.items():
        # Knowing the bytes' name (the images of both projects are the same) is no way in either.
        for more in ({}, {"If-None-Match": known.headers["etag"]}, {"Range": "bytes=0-9"}):
            answer = house.client.get(path, headers={**headers, **more})
            assert answer.status_code in statuses, (path, answer.status_code, answer.text)


def test_an_upload_does_not_tell_that_another_project_has_the_same_picture(
    house: House, picture: Callable[..., bytes]
) -> None:
    headers = {"Authorization": f"Bearer {house.keys[f'engineer of {OWN}']}"}
    with_other = {"Authorization": f"Bearer {house.keys[f'engineer of {OTHER}']}"}
    files = [("files", ("secret.png", picture(99), "image/png"))]
    theirs = house.client.post(
        "/images", data={"project": house.ids[OTHER]["project"]}, files=files, headers=with_other
    )
    assert theirs.json()["items"][0]["status"] == "created"
    mine = house.client.post(
        "/images", data={"project": house.ids[OWN]["project"]}, files=files, headers=headers
    )
    assert mine.json()["items"][0]["status"] == "created"


def test_a_worker_does_not_tell_which_cycle_of_another_project_it_runs(
    house: House, scribe: Any
) -> None:
    scribe.report(cycle=house.ids[OTHER]["cycle"])
    for name, seen in ((OWN, None), (OTHER, house.ids[OTHER]["cycle"])):
        headers = {"Authorization": f"Bearer {house.keys[f'engineer of {name}']}"}
        (worker,) = house.client.get("/workers", headers=headers).json()["items"]
        assert worker["cycle"] == seen


def test_a_key_of_some_projects_cannot_find_out_names_by_renaming(house: House) -> None:
    headers = {"Authorization": f"Bearer {house.keys[f'engineer of {OWN}']}"}
    for name in (OTHER, "free"):
        answer = house.client.patch(
            f"/projects/{house.ids[OWN]['project']}", json={"name": name}, headers=headers
        )
        assert answer.status_code == 403


def test_a_key_s_name_is_the_author_and_holds_its_claims_alone(
    house: House, make_key: MakeKey
) -> None:
    project = house.ids[OWN]["project"]
    ana = {"Authorization": f"Bearer {make_key('ana', 'annotator', [project])}"}
    eve = {"Authorization": f"Bearer {make_key('eve', 'annotator', [project])}"}
    asked = {"project": project, "limit": 2, "author": "somebody else"}
    claim = house.client.post("/queries/claim", json=asked, headers=ana).json()
    first, second = claim["items"]
    assert first["claimed_by"] == "ana"
    token = claim["claim_token"]
    image = f"/images/{first['image']['id']}/annotations"
    body = {"version": 0, "boxes": [BOX], "claim_token": token, "author": "ana"}
    # A token that leaked is not enough.
    for answer, code in (
        (house.client.put(image, json=body, headers=eve), "claimed"),
        *(
            (
                house.client.post(
                    f"/queries/{second['id']}/{verb}", json={"claim_token": token}, headers=eve
                ),
                "stale_claim",
            )
            for verb in ("heartbeat", "release", "skip")
        ),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, code)
    saved = house.client.put(image, json={**body, "author": "eve"}, headers=ana)
    assert saved.json()["author"] == "ana"
    verbs = ("heartbeat", "release")
    for verb in verbs:
        answer = house.client.post(
            f"/queries/{second['id']}/{verb}", json={"claim_token": token}, headers=ana
        )
        assert answer.status_code == 200
    cleared = house.client.delete(image, params={"author": "eve"}, headers=ana)
    assert cleared.json()["author"] == "ana"


def test_an_export_stays_within_the_project_while_it_streams(house: House) -> None:
    headers = {"Authorization": f"Bearer {house.keys[f'engineer of {OWN}']}"}
    answer = house.client.get(
        "/exports", params={"project": house.ids[OWN]["project"]}, headers=headers
    )
    assert len(json.loads(answer.text)["images"]) == 1


def test_the_table_in_the_documentation_is_the_document_s(app: FastAPI) -> None:
    rows = re.findall(r"^\| `([A-Z]+) (\S+)` \| (\w+)(, all projects)? \|", DOCS.read_text(), re.M)
    said = {(method, path): (role, bool(every)) for method, path, role, every in rows}
    assert said == {
        (each.method, each.path): (each.role, each.all_projects) for each in operations(app)
    }
