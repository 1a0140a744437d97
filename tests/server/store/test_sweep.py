"""The sweeper removes what nobody needs and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from server.store import queue, sweep, writeback
from server.store.blobs import BlobStore
from server.store.models import (
    Annotation,
    Artifact,
    Base,
    Counter,
    Cycle,
    Image,
    Import,
    Model,
    Prediction,
    Project,
    Query,
    Score,
    Worker,
)
from server.store.queue import Lease
from server.store.sweep import Swept
from server.store.writeback import ArtifactRecord, ModelRecord

HOURS_AGO = time.time() - 5 * 3600


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "CHUNK_ROWS", 2)


def swept(world: Any, blobs: BlobStore, older_than_seconds: float = 3600.0) -> Swept:
    return sweep.sweep(world.sessions, blobs, older_than_seconds)


@pytest.mark.parametrize("table", [Cycle, Import])
def test_a_lapsed_job_that_nobody_may_claim_again_is_ended_though_nobody_asks_for_work(
    world: Any, blobs: BlobStore, table: queue.JobTable
) -> None:
    def lapsed(**values: Any) -> str:
        project_id = world.project()
        job_id: str = (
            world.cycle(project_id) if table is Cycle else world.import_job(project_id, path="/x")
        )
        with world.sessions.begin() as session:
            session.execute(
                update(table)
                .where(table.id == job_id)
                .values(state="running", lease_until=1.0, **values)
            )
        return job_id

    cancelled, given_up = lapsed(cancel_requested=True), lapsed(attempts=queue.MAX_ATTEMPTS - 1)
    to_be_claimed = lapsed()
    swept(world, blobs)
    assert [world.get(table, id).state for id in (cancelled, given_up, to_be_claimed)] == [
        "cancelled",
        "failed",
        "running",
    ]


def old_blob(blobs: BlobStore, text: str) -> str:
    """A blob that was stored hours ago."""
    sha256 = blobs.put_bytes(text.encode()).sha256
    os.utime(blobs.path(sha256), (HOURS_AGO, HOURS_AGO))
    return sha256


def run_cycle(
    world: Any, project_id: str, ids: list[str], blobs: BlobStore, **values: Any
) -> tuple[str, str]:
    """A whole cycle with scores, predictions and a model; gives its id and that of its weights."""
    map50 = values.pop("map50", None)
    cycle_id = world.cycle(project_id, **values)
    lease = world.claim()
    scored(world, lease, ids)
    weights = old_blob(blobs, f"weights of {cycle_id}")
    with world.sessions.begin() as session:
        writeback.publish(
            session,
            lease,
            heatmaps={image_id: old_blob(blobs, f"{cycle_id} {image_id}") for image_id in ids},
            artifacts=[ArtifactRecord("model.safetensors", weights, 9, "application/octet-stream")],
            model=ModelRecord(weights, 9, {"map50": map50}),
            metrics=None,
            message="done",
        )
    return cycle_id, weights


def scored(world: Any, lease: Lease, ids: list[str]) -> None:
    rows = [(image_id, rank, 0.5) for rank, image_id in enumerate(ids, start=1)]
    writeback.write_scores(world.sessions, lease, rows)
    writeback.write_predictions(world.sessions, lease, [(image_id, []) for image_id in ids])


def owners(world: Any, table: type[Any]) -> set[tuple[str, int]]:
    return {(row.cycle_id, row.fence) for row in world.all(table)}


def test_a_sweep_of_a_tidy_service_removes_nothing(world: Any, blobs: BlobStore) -> None:
    project_id = world.project()
    ids = world.images(project_id, 5)
    run_cycle(world, project_id, ids, blobs)
    # Heat maps of images that were not selected after all have no row.
    swept(world, blobs)
    before = rows(world)
    assert not swept(world, blobs)
    assert rows(world) == before


def test_blobs_that_no_row_names_are_removed_once_they_are_old(
    world: Any, blobs: BlobStore
) -> None:
    orphan = old_blob(blobs, "orphan")
    young = blobs.put_bytes(b"its row may be written in a moment").sha256
    assert swept(world, blobs).blobs == 1
    assert not blobs.exists(orphan)
    assert blobs.exists(young)
    assert swept(world, blobs, older_than_seconds=-60).blobs == 1


def test_every_kind_of_row_keeps_its_blob(world: Any, blobs: BlobStore) -> None:
    project_id = world.project()
    image, weights, artifact, heatmap, archive = (
        old_blob(blobs, name) for name in ("image", "weights", "artifact", "heatmap", "archive")
    )
    [image_id] = world.images(project_id, 1, sha256=image)
    cycle_id = world.cycle(project_id, state="succeeded")
    world.import_job(project_id, archive_sha256=archive)
    world.add(
        Model(project_id=project_id, cycle_id=cycle_id, sha256=weights, num_bytes=1, metrics={}),
        Artifact(
            cycle_id=cycle_id, name="log.jsonl", sha256=artifact, num_bytes=1, media_type="a/b"
        ),
        Query(
            cycle_id=cycle_id,
            project_id=project_id,
            image_id=image_id,
            rank=1,
            reason="random",
            heatmap_sha256=heatmap,
        ),
    )
    assert swept(world, blobs).blobs == 0
    for sha256 in (image, weights, artifact, heatmap, archive):
        assert blobs.exists(sha256)


def test_the_archive_of_an_import_goes_when_it_has_ended(world: Any, blobs: BlobStore) -> None:
    archive = old_blob(blobs, "archive")
    world.import_job(world.project(), archive_sha256=archive, state="succeeded")
    swept(world, blobs)
    assert not blobs.exists(archive)


def test_a_deleted_image_keeps_its_blob_while_a_cycle_of_its_project_runs(
    world: Any, blobs: BlobStore
) -> None:
    picture = old_blob(blobs, "picture")
    project_id = world.project()
    [image_id] = world.images(project_id, 1, sha256=picture)
    cycle_id = world.cycle(project_id)
    world.delete(Image, image_id)
    swept(world, blobs)
    assert blobs.exists(picture)
    world.change(Cycle, cycle_id, state="cancelled")
    swept(world, blobs)
    assert not blobs.exists(picture)


def test_a_picture_that_another_project_has_stays_when_one_deletes_it(
    world: Any, blobs: BlobStore
) -> None:
    picture = old_blob(blobs, "picture")
    [first] = world.images(world.project(), 1, sha256=picture)
    world.images(world.project(), 1, sha256=picture)
    world.delete(Image, first)
    swept(world, blobs)
    assert blobs.exists(picture)


def test_what_a_running_cycle_has_stored_stays_until_it_ends(world: Any, blobs: BlobStore) -> None:
    cycle_id = world.cycle(world.project())
    world.claim()
    heatmap = blobs.put_bytes(b"named by a row only when the cycle is published").sha256
    assert swept(world, blobs, older_than_seconds=-60).blobs == 0
    world.change(Cycle, cycle_id, state="failed")
    assert swept(world, blobs, older_than_seconds=-60).blobs == 1
    assert not blobs.exists(heatmap)


def test_stale_temporary_files_are_removed_and_those_in_use_are_not(
    world: Any, blobs: BlobStore
) -> None:
    stale, waiting = blobs.tmp_dir / "stale", blobs.tmp_dir / "waiting"
    stale.write_bytes(b"left by a process that was killed")
    os.utime(stale, (time.time() - 2 * 86_400,) * 2)
    unpacked = blobs.tmp_dir / "import-019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e-1"
    (unpacked / "images").mkdir(parents=True)
    (unpacked / "images" / "a.jpg").write_bytes(b"of an import whose server never came back")
    os.utime(unpacked, (time.time() - 2 * 86_400,) * 2)
    waiting.write_bytes(b"the first file of an upload whose last one is still on its way")
    os.utime(waiting, (HOURS_AGO, HOURS_AGO))
    with blobs.spool() as file:
        assert swept(world, blobs).temporary_files == 2
        assert Path(file.name).exists()
    assert waiting.exists()
    assert not stale.exists()
    assert not unpacked.exists()


def test_only_the_scores_of_the_newest_cycle_stay(world: Any, blobs: BlobStore) -> None:
    project_id = world.project()
    ids = world.images(project_id, 5)
    run_cycle(world, project_id, ids, blobs)
    second, _ = run_cycle(world, project_id, ids, blobs)
    other = world.project()
    third, _ = run_cycle(world, other, world.images(other, 3), blobs)
    assert swept(world, blobs).scores == 5
    assert owners(world, Score) == {(second, 1), (third, 1)}
    assert len(world.all(Score)) == 8


def test_scores_and_predictions_of_lost_claims_go_and_those_of_the_running_one_stay(
    world: Any, blobs: BlobStore
) -> None:
    project_id = world.project()
    ids = world.images(project_id, 3)
    cycle_id = world.cycle(project_id)
    scored(world, world.lapsing_claim(), ids)
    scored(world, world.claim(worker_id="worker-2"), ids)
    result = swept(world, blobs)
    assert (result.scores, result.predictions) == (3, 3)
    assert owners(world, Score) == owners(world, Prediction) == {(cycle_id, 2)}


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_scores_and_predictions_of_a_cycle_that_came_to_nothing_go(
    world: Any, blobs: BlobStore, state: str
) -> None:
    project_id = world.project()
    cycle_id = world.cycle(project_id)
    scored(world, world.claim(), world.images(project_id, 3))
    world.change(Cycle, cycle_id, state=state)
    result = swept(world, blobs)
    assert (result.scores, result.predictions) == (3, 3)


def test_an_image_keeps_the_predictions_of_the_newest_model_that_saw_it(
    world: Any, blobs: BlobStore
) -> None:
    project_id = world.project()
    ids = world.images(project_id, 4)
    first, _ = run_cycle(world, project_id, ids, blobs)
    second, _ = run_cycle(world, project_id, ids[:3], blobs)
    assert swept(world, blobs).predictions == 3
    kept = {row.image_id: row.cycle_id for row in world.all(Prediction)}
    assert kept == {ids[0]: second, ids[1]: second, ids[2]: second, ids[3]: first}


def test_predictions_of_a_cycle_that_has_not_succeeded_supersede_nothing(
    world: Any, blobs: BlobStore
) -> None:
    project_id = world.project()
    ids = world.images(project_id, 2)
    run_cycle(world, project_id, ids, blobs)
    world.cycle(project_id)
    scored(world, world.claim(), ids)
    assert swept(world, blobs).predictions == 0


def test_a_lapsed_claim_of_a_superseded_cycle_is_withdrawn(world: Any, blobs: BlobStore) -> None:
    project_id = world.project()
    ids = world.images(project_id, 3)
    first, _ = run_cycle(world, project_id, ids[:1], blobs)
    world.claim_query(ids[0], seconds=60)
    second, _ = run_cycle(world, project_id, ids, blobs)
    world.claim_query(ids[1], seconds=-1)
    assert swept(world, blobs).queries == 0
    world.change(Query, world.all(Query, Query.id)[0].id, claimed_until=0.0)
    assert swept(world, blobs).queries == 1
    states = {query.cycle_id: query.state for query in world.all(Query, Query.rank.desc())}
    assert states == {first: "withdrawn", second: "claimed"}


def test_a_query_given_back_while_a_newer_cycle_selected_is_withdrawn(
    world: Any, blobs: BlobStore
) -> None:
    project_id = world.project()
    ids = world.images(project_id, 3)
    first, _ = run_cycle(world, project_id, ids[:1], blobs)
    world.claim_query(ids[0], seconds=60)
    second, _ = run_cycle(world, project_id, ids[1:], blobs)
    [held] = [query.id for query in world.all(Query) if query.cycle_id == first]
    # Whoever gives it back does not see the newer selection before that is committed.
    world.change(Query, held, state="open", claimed_until=None)
    assert swept(world, blobs).queries == 1
    assert world.get(Query, held).state == "withdrawn"
    assert {q.state for q in world.all(Query) if q.cycle_id == second} == {"open"}


def test_the_newest_the_best_and_the_pinned_models_keep_their_weights(
    world: Any, blobs: BlobStore
) -> None:
    project_id = world.project()
    weights = {}
    for name, map50 in [("a", 0.2), ("best", 0.9), ("b", 0.3), ("pinned", 0.1), ("c", None)]:
        cycle_id, weights[name] = run_cycle(world, project_id, [], blobs, map50=map50)
        if name == "pinned":
            [model] = [row for row in world.all(Model) if row.cycle_id == cycle_id]
            world.change(Model, model.id, pinned=True)
    _, weights["newest"] = run_cycle(world, project_id, [], blobs, map50=0.4)
    result = swept(world, blobs)
    assert (result.models, result.blobs) == (3, 3)
    kept = {name for name, sha256 in weights.items() if blobs.exists(sha256)}
    assert kept == {"best", "pinned", "newest"}
    models = world.all(Model)
    assert len(models) == 6
    assert {row.sha256 for row in models} == {None} | {weights[name] for name in kept}
    # The artifact goes with the weights; a file that the database names exists.
    assert {row.sha256 for row in world.all(Artifact)} == {weights[name] for name in kept}


def test_a_project_may_keep_the_weights_of_all_its_models(world: Any, blobs: BlobStore) -> None:
    project_id = world.project()
    for map50 in (0.9, 0.2, 0.3):
        run_cycle(world, project_id, [], blobs, map50=map50, training={"keep_models": "all"})
    assert swept(world, blobs).models == 0


def test_a_deleted_model_loses_its_weights_even_if_it_is_the_newest(
    world: Any, blobs: BlobStore
) -> None:
    project_id = world.project()
    _, weights = run_cycle(world, project_id, [], blobs)
    world.delete(Model, world.all(Model)[0].id)
    swept(world, blobs)
    assert not blobs.exists(weights)


def test_a_deleted_project_is_purged_with_all_that_is_its_own(world: Any, blobs: BlobStore) -> None:
    projects = []
    for _ in range(2):
        project_id = world.project("car")
        ids = world.images(project_id, 5, num_bytes=1)
        world.label(ids[0], [])
        run_cycle(world, project_id, ids, blobs)
        projects.append(project_id)
    for project_id in projects:
        world.cycle(project_id)
        world.import_job(project_id)
    swept(world, blobs)
    before = rows(world)
    world.delete(Project, projects[0])
    result = swept(world, blobs)
    assert result.projects == 1
    after = rows(world)
    assert {name: number * 2 for name, number in after.items()} == before
    assert {row.project_id for row in world.all(Image)} == {projects[1]}
    assert len(world.all(Annotation)) == 1
    # One kind of blob is left per kind of row that is left.
    assert len(list(blobs.iter_all())) == after["models"] + after["queries"]


def rows(world: Any) -> dict[str, int]:
    """How many rows each table has that belongs to projects."""
    return {
        mapper.class_.__tablename__: len(world.all(mapper.class_))
        for mapper in Base.registry.mappers
        if mapper.class_ not in (Counter, Worker)
    }


def test_a_deleted_project_whose_cycle_still_runs_waits_for_its_worker_to_stop(
    world: Any, blobs: BlobStore
) -> None:
    project_id = world.project()
    world.import_job(project_id)
    cycle_id = world.cycle(project_id)
    lease = world.claim()
    world.delete(Project, project_id)
    assert swept(world, blobs).projects == 0
    assert world.all(Import)[0].state == "cancelled"
    with world.sessions.begin() as session:
        assert queue.heartbeat(session, lease, 60.0) is True
        queue.cancelled(session, lease)
    assert world.get(Cycle, cycle_id).state == "cancelled"
    assert swept(world, blobs).projects == 1
    assert world.all(Project) == []


def test_a_deleted_project_whose_worker_is_gone_does_not_wait(world: Any, blobs: BlobStore) -> None:
    project_id = world.project()
    world.cycle(project_id)
    world.lapsing_claim()
    world.delete(Project, project_id)
    assert swept(world, blobs).projects == 1
