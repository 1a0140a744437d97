"""Cycles, queries, claims and models, with the worker played by the store."""

from collections.abc import Callable
from pathlib import Path

import miaod_client
import pytest
from miaod_client import Client, Cycle, Image, Project

RunCycle = Callable[[], None]
Picture = Callable[[int], bytes]
CAR = {"class": "car", "x1": 1.0, "y1": 2.0, "x2": 20.0, "y2": 25.5, "difficult": False}


def test_an_initial_cycle_waits_runs_and_asks_for_labels(
    client: Client, project: Project, images: list[Image], run_cycle: RunCycle
) -> None:
    cycle = client.cycles.create(
        project=project.id, budget=3, strategy="random", preset="cpu", seed=5, min_labeled=1
    )
    assert (cycle.kind, cycle.state, cycle.seed) == ("initial", "queued", 5)
    assert "no worker" in client.cycles.get(cycle.id).message
    with pytest.raises(miaod_client.ConflictError, match="cycle"):
        client.cycles.create(project=project.id, budget=3)
    run_cycle()
    ended = client.cycles.wait(cycle.id, timeout=10)
    assert (ended.num_selected, ended.metrics) == (3, None)
    events = list(client.cycles.events(cycle.id))
    assert [event.state for event in events] == ["queued", "running", "succeeded"]
    assert list(client.cycles.events(cycle.id, after=events[-1].seq)) == []
    metrics = client.cycles.metrics(cycle.id)
    assert metrics.metrics is None
    assert metrics.message
    queries = list(client.queries.list(project=project.id))
    assert [query.rank for query in queries] == [1, 2, 3]
    assert {query.reason for query in queries} == {"random"}
    with pytest.raises(miaod_client.NotFoundError) as without:
        client.queries.heatmap(queries[0].id)
    assert without.value.code == "no_heatmap"


def test_a_trained_cycle_shows_all_that_it_made(
    client: Client,
    project: Project,
    images: list[Image],
    trained: Cycle,
    tmp_path: Path,
    picture: Picture,
) -> None:
    assert trained.kind == "trained"
    assert trained.training["preset"] == "cpu"
    assert trained.metrics is not None
    assert trained.metrics.map50 == 0.5
    assert [row.class_name for row in trained.metrics.per_class] == ["car", "person"]
    assert client.cycles.metrics(trained.id).metrics == trained.metrics
    scores = list(client.cycles.scores(trained.id, page_size=2))
    assert [(score.rank, score.image.name) for score in scores] == [
        (number, f"{number}.png") for number in range(1, 6)
    ]
    assert client.cycles.histogram(trained.id, bins=5).cycle == trained.id
    presets = client.cycles.presets()
    assert presets.default in [preset.name for preset in presets.items]
    (artifact,) = client.cycles.artifacts(trained.id)
    path = client.cycles.download_artifact(trained.id, artifact.name, to=tmp_path)
    assert path.read_bytes() == b'{"step": 1}\n'
    assert path.stat().st_size == artifact.num_bytes
    assert [cycle.id for cycle in client.cycles.list(project=project.id)] == [trained.id]
    assert client.cycles.list(state="failed").total() == 0

    first = client.queries.list(cycle=trained.id).first()
    assert first is not None
    assert first.predictions[0].class_name == "car"
    assert first.predictions[0].as_box().x2 == 9.0
    assert client.queries.get(first.id) == first
    assert client.queries.heatmap(first.id) == picture(7)
    seen = client.images.predictions(first.image.id)
    assert (seen.cycle, seen.predictions) == (trained.id, first.predictions)
    by_uncertainty = client.images.list(project=project.id, sort="uncertainty", limit=2)
    assert [image.uncertainty for image in by_uncertainty] == [1.0, 0.5]


def test_a_waiting_cycle_is_cancelled_at_once(
    client: Client, project: Project, images: list[Image]
) -> None:
    cycle = client.cycles.create(project=project.id, budget=1)
    assert client.cycles.cancel(cycle.id).state == "cancelled"
    assert client.cycles.cancel(cycle.id).state == "cancelled"
    with pytest.raises(miaod_client.CycleCancelledError):
        client.cycles.wait(cycle.id)


def test_two_annotators_share_a_selection(client: Client, project: Project, trained: Cycle) -> None:
    with client.queries.claim(project=project.id, limit=1, seconds=60, author="ana") as ana:
        bo = client.queries.claim(project=project.id, limit=5, author="bo")
        assert len(ana) == len(bo) == 1
        assert ana.items[0].image.id != bo.items[0].image.id
        assert not client.queries.claim(project=project.id)
        assert ana.heartbeat(seconds=900) > ana.expires_at.replace(year=2000)
        with pytest.raises(miaod_client.ConflictError):
            client.annotations.put(ana.items[0].image.id, version=0, boxes=[], author="bo")
        saved = ana.annotate(ana.items[0], boxes=[CAR], seconds=3)
        assert (saved.author, saved.version) == ("ana", 1)
        bo.skip(bo.items[0], reason="too dark")
        with pytest.raises(miaod_client.ConflictError):
            client.queries.heartbeat(bo.items[0].id, claim_token=bo.token)
    states = [query.state for query in client.queries.list(project=project.id, state="all")]
    assert states == ["labeled", "skipped"]
    skipped = client.images.get(bo.items[0].image.id)
    assert (skipped.skipped, skipped.skip_reason) == (True, "too dark")
    assert not client.images.update(skipped.id, skipped=False).skipped


def test_what_a_claim_leaves_undone_goes_back_to_the_queue(
    client: Client, project: Project, trained: Cycle
) -> None:
    with client.queries.claim(project=project.id, limit=2) as claim:
        claim.annotate(claim.items[0], boxes=[])
        assert client.queries.list(project=project.id, state="claimed").total() == 1
    assert client.queries.list(project=project.id).total() == 1


def test_models_are_pinned_noted_downloaded_and_deleted(
    client: Client, project: Project, trained: Cycle, tmp_path: Path
) -> None:
    (model,) = client.models.list(project=project.id)
    assert (model.cycle, model.metrics.map50, model.id) == (trained.id, 0.5, trained.model)
    changed = client.models.update(model.id, pinned=True, note="deployed")
    assert (changed.pinned, changed.note) == (True, "deployed")
    assert client.models.get(model.id) == changed
    path = client.models.download(model.id, to=tmp_path)
    assert path.read_bytes() == b"weights"
    assert path.suffix == ".safetensors"
    client.models.delete(model.id)
    assert client.models.list(project=project.id).first() is None
