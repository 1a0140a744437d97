from __future__ import annotations

from typing import Any

from starlette.testclient import TestClient

from server.deps import Context
from server.store.models import Model

Pool = Any
Scribe = Any


def test_the_weights_come_back_byte_for_byte_as_a_download(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    ids = pool.upload(2)
    pool.label(ids[0])
    cycle_id = pool.start_cycle(budget=1)
    scribe.run(cycle_id, {"map50": 0.25})
    (model,) = client.get("/models", params={"project": pool.project}).json()["items"]
    assert (model["cycle"], model["metrics"]["map50"], model["pinned"]) == (cycle_id, 0.25, False)
    weights = client.get(model["checkpoint_url"])
    assert weights.content == b"weights of " + cycle_id.encode()
    assert weights.headers["content-type"] == "application/octet-stream"
    assert 'attachment; filename="cycle-1.safetensors"' in weights.headers["content-disposition"]
    assert weights.headers["etag"] == f'"{model["sha256"]}"'


def test_a_model_can_be_pinned_noted_and_deleted(
    client: TestClient, pool: Pool, scribe: Scribe, context: Context
) -> None:
    ids = pool.upload(2)
    pool.label(ids[0])
    cycle_id = pool.start_cycle(budget=1)
    scribe.run(cycle_id)
    path = f"/models/{client.get(f'/cycles/{cycle_id}').json()['model']}"
    changed = client.patch(path, json={"pinned": True, "note": "deployed"}).json()
    assert (changed["pinned"], changed["note"]) == (True, "deployed")
    assert client.patch(path, json={"pinned": False}).json()["note"] == "deployed"
    assert client.delete(path).status_code == 204
    for url in (path, f"{path}/checkpoint"):
        assert client.get(url).status_code == 404
    assert client.get("/models").json()["items"] == []
    assert client.get(f"/cycles/{cycle_id}").json()["model"] is None
    names = [a["name"] for a in client.get(f"/cycles/{cycle_id}/artifacts").json()["items"]]
    assert names == ["config.json", "scores.npz"]
    with context.reading() as session:
        assert session.query(Model).one().sha256 is None


def test_weights_that_were_swept_are_a_404_that_says_so(
    client: TestClient, pool: Pool, scribe: Scribe, context: Context
) -> None:
    ids = pool.upload(2)
    pool.label(ids[0])
    scribe.run(pool.start_cycle(budget=1))
    with context.sessions.begin() as session:
        session.query(Model).one().sha256 = None
    (model,) = client.get("/models").json()["items"]
    assert (model["checkpoint_url"], model["sha256"]) == (None, None)
    answer = client.get(f"/models/{model['id']}/checkpoint")
    assert (answer.status_code, answer.json()["code"]) == (404, "weights_swept")
