from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

import server
from server.deps import Context

Scribe = Any


def test_the_process_says_that_it_lives_and_which_version_it_is(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok", "version": server.__version__}


def test_a_healthy_server_is_ready(client: TestClient) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["ready"] is True
    assert set(body["checks"]) == {"database", "schema", "storage", "free_space"}
    assert all(check["ok"] for check in body["checks"].values())


def test_a_database_of_another_revision_is_not_ready(client: TestClient, context: Context) -> None:
    with context.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    answer = client.get("/readyz")
    assert answer.status_code == 503
    checks = answer.json()["checks"]
    assert checks["database"]["ok"]
    assert not checks["schema"]["ok"]
    assert "9999" in checks["schema"]["detail"]


def test_a_data_folder_that_cannot_be_written_is_not_ready(
    client: TestClient, data_dir: Path
) -> None:
    shutil.rmtree(data_dir / "tmp")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert not answer.json()["checks"]["storage"]["ok"]
    assert client.get("/healthz").status_code == 200


def test_too_little_free_space_is_not_ready(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.services.health.MIN_FREE_BYTES", 2**80)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "should be" in answer.json()["checks"]["free_space"]["detail"]


def test_workers_are_listed_with_when_they_were_seen(client: TestClient, scribe: Scribe) -> None:
    assert client.get("/workers").json()["items"] == []
    scribe.report(seconds_ago=40, name="w")
    scribe.report(name="other")
    workers = {worker["name"]: worker for worker in client.get("/workers").json()["items"]}
    assert (workers["w"]["live"], workers["other"]["live"]) == (False, True)
    assert 39 < workers["w"]["seconds_since_seen"] < 60
    assert workers["w"]["last_seen"].endswith("Z")
