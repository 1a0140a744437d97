"""What Prometheus reads, and that it still reads something when the database is away."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from starlette.testclient import TestClient

from server.deps import Context
from server.main import create_app
from server.settings import Settings
from server.store import counters, queue
from server.store.models import Cycle
from tests.server.conftest import LOCAL

ROOT = Path(__file__).parents[3]
Pool = Any
Scribe = Any
Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that two scrapes within a second see what happened between them."""
    monkeypatch.setattr("server.services.watched.FRESH_SECONDS", -1.0)


def read(client: TestClient) -> Figures:
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(figures: Figures, name: str, **labels: str) -> float:
    return figures[name, frozenset(labels.items())]


def names_of(client: TestClient) -> set[str]:
    return {
        sample.name
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def test_a_fresh_service_tells_zeros_not_gaps(client: TestClient) -> None:
    figures = read(client)
    assert value(figures, "miaod_database_up") == 1
    for name in ("cycles", "imports"):
        assert value(figures, "miaod_jobs", queue=name, state="queued") == 0
        assert value(figures, "miaod_oldest_queued_seconds", queue=name) == 0
        assert value(figures, "miaod_attempts_lost_total", queue=name, kind="lapsed") == 0
        assert value(figures, "miaod_jobs_ended_total", queue=name, state="failed") == 0
    assert value(figures, "miaod_workers", state="idle") == 0
    assert value(figures, "miaod_images_scored_total") == 0
    assert value(figures, "miaod_data_free_bytes") > 0
    assert value(figures, "miaod_database_size_bytes") > 0


def test_the_queue_the_workers_and_the_stock_are_told(
    client: TestClient, pool: Pool, scribe: Scribe, context: Context
) -> None:
    pool.upload(5)
    cycle_id = pool.start_cycle(budget=3)
    waiting = read(client)
    assert value(waiting, "miaod_jobs", queue="cycles", state="queued") == 1
    assert value(waiting, "miaod_oldest_queued_seconds", queue="cycles") > 0
    scribe.run(cycle_id)
    scribe.report(name="w")
    scribe.report(name="other", cycle=cycle_id)
    scribe.report(name="long gone", seconds_ago=100)
    client.post("/queries/claim", json={"project": pool.project, "limit": 1, "author": "ada"})
    done = read(client)
    assert value(done, "miaod_jobs_ended_total", queue="cycles", state="succeeded") == 1
    assert value(done, "miaod_jobs", queue="cycles", state="queued") == 0
    assert value(done, "miaod_queries", state="open") == 2
    assert value(done, "miaod_queries", state="claimed") == 1
    assert value(done, "miaod_images") == 5
    assert value(done, "miaod_projects") == 1
    assert value(done, "miaod_workers", state="idle") == 1
    assert value(done, "miaod_workers", state="busy") == 1
    silent = {
        dict(labels)["name"]: seconds
        for (name, labels), seconds in done.items()
        if name == "miaod_worker_silent_seconds"
    }
    assert set(silent) == {"w", "other", "long gone"}
    assert silent["long gone"] > 99


def test_a_lease_that_lapsed_is_told_before_and_after_somebody_takes_the_cycle_over(
    client: TestClient, pool: Pool, context: Context
) -> None:
    pool.upload(2)
    pool.start_cycle()
    with context.sessions.begin() as session:
        queue.claim(session, Cycle, "dead", -1.0)
    before = read(client)
    assert value(before, "miaod_lapsed_leases", queue="cycles") == 1
    assert value(before, "miaod_attempts_lost_total", queue="cycles", kind="lapsed") == 0
    with context.sessions.begin() as session:
        queue.claim(session, Cycle, "alive", 60.0)
    after = read(client)
    assert value(after, "miaod_lapsed_leases", queue="cycles") == 0
    assert value(after, "miaod_attempts_lost_total", queue="cycles", kind="lapsed") == 1


def test_what_workers_counted_is_told_by_any_server(
    client: TestClient, context: Context, settings: Settings
) -> None:
    with context.sessions.begin() as session:
        counters.add(session, "stages", "score")
        counters.add(session, "stage_seconds", "score", 20.0)
        counters.add(session, "images_scored", value=1000)
    with TestClient(create_app(settings), base_url=LOCAL) as other:
        for figures in (read(client), read(other)):
            assert value(figures, "miaod_cycle_stage_seconds_sum", stage="score") == 20
            assert value(figures, "miaod_cycle_stage_seconds_count", stage="score") == 1
            assert value(figures, "miaod_images_scored_total") == 1000


def test_requests_are_counted_by_route_and_not_by_path(client: TestClient, pool: Pool) -> None:
    for path in (f"/projects/{pool.project}", "/projects/none", "/nowhere", "/static/docs.js"):
        client.get(path)
    requests = {
        (dict(labels)["method"], dict(labels)["route"], dict(labels)["status"]): number
        for (name, labels), number in read(client).items()
        if name == "miaod_http_request_seconds_count"
    }
    assert requests["POST", "/projects", "2xx"] == 1
    assert requests["GET", "/projects/{project_id}", "2xx"] == 1
    assert requests["GET", "/projects/{project_id}", "4xx"] == 1
    assert requests["GET", "none", "4xx"] == 1
    assert not any(pool.project in route or "docs.js" in route for _, route, _ in requests)


def test_own_figures_name_their_process_and_the_request_in_progress(client: TestClient) -> None:
    client.get("/healthz")
    [(labels, number)] = [
        (dict(labels), number)
        for (name, labels), number in read(client).items()
        if name == "miaod_http_requests_in_flight"
    ]
    assert labels["process"].endswith(f":{os.getpid()}")
    assert number == 1


def test_without_the_database_the_process_tells_its_own_figures(
    data_dir: Path, tmp_path: Path
) -> None:
    nobody = "postgresql+psycopg://miaod@127.0.0.1:1/miaod"
    key = SecretStr("open sesame, please")  # one that no database has to be asked for
    settings = Settings(data_dir=data_dir, database_url=nobody, admin_key=key)
    with TestClient(
        create_app(settings), headers={"Authorization": "Bearer open sesame, please"}
    ) as client:
        client.get("/healthz")
        figures = read(client)
    assert value(figures, "miaod_database_up") == 0
    assert value(figures, "miaod_data_free_bytes") > 0
    assert any(name == "miaod_http_request_seconds_count" for name, _ in figures)
    assert not any(name == "miaod_jobs" for name, _ in figures)


def test_with_a_key_the_metrics_are_closed_to_strangers(settings: Settings) -> None:
    keyed = settings.model_copy(update={"admin_key": SecretStr("s3cret")})
    with TestClient(create_app(keyed)) as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers={"Authorization": "Bearer s3cret"}).status_code == 200


@pytest.mark.parametrize("page", ["docs/alerts.yml", "docs/operations.md"])
def test_alarms_and_handbook_name_only_figures_that_there_are(
    client: TestClient, context: Context, scribe: Scribe, page: str
) -> None:
    scribe.report()
    client.get("/healthz")
    with context.sessions.begin() as session:
        counters.add(session, "stages", "score")
    context.own_figures.sweeps_done.inc()
    known = names_of(client)
    known |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in known}
    text = (ROOT / page).read_text()
    named = set(re.findall(r"\bmiaod_[a-z_]+\b", text)) - {"miaod_client"}
    assert named
    assert named <= known
    if page.endswith(".md"):
        ours = {name for name in known if name.startswith("miaod_")}
        whole = {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours}
        assert whole <= named, "every figure stands in the handbook's table"
