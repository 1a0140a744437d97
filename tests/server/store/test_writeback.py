"""Results come in unseen, under the lease, and are shown in one transaction."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from server.store import queue, writeback
from server.store.models import (
    Artifact,
    Cycle,
    Image,
    Model,
    Prediction,
    Project,
    Query,
    Score,
    utc_now,
)
from server.store.queue import Lease, LeaseLost
from server.store.writeback import ArtifactRecord, ModelRecord


def scored(world: Any, lease: Lease, ids: Sequence[str]) -> None:
    """Scores images so that they rank as they come."""
    writeback.write_scores(
        world.sessions,
        lease,
        [(image_id, rank, 1.0 / rank) for rank, image_id in enumerate(ids, start=1)],
    )


def published(world: Any, lease: Lease, **values: Any) -> int:
    arguments: dict[str, Any] = {
        "heatmaps": {},
        "artifacts": [],
        "model": None,
        "metrics": None,
        "message": "done",
        **values,
    }
    with world.sessions.begin() as session:
        number: int = writeback.publish(session, lease, **arguments)
    return number


def selected(world: Any, cycle_id: str) -> list[str]:
    return [query.image_id for query in world.all(Query, Query.rank) if query.cycle_id == cycle_id]


def run_cycle(world: Any, project_id: str, ids: Sequence[str], **values: Any) -> str:
    """One cycle from the queue to its queries."""
    cycle_id: str = world.cycle(project_id, **values)
    lease = world.claim()
    scored(world, lease, ids)
    published(world, lease)
    return cycle_id


def test_scores_are_written_in_chunks_under_cycle_and_fence(world: Any) -> None:
    project_id = world.project()
    ids = world.images(project_id, 5)
    cycle_id = world.cycle(project_id)
    lease = world.claim()
    rows = ((image_id, rank, rank / 10) for rank, image_id in enumerate(ids, start=1))
    writeback.write_scores(world.sessions, lease, rows, chunk=2)
    scores = world.all(Score, Score.rank)
    assert [(row.image_id, row.rank, row.uncertainty) for row in scores] == [
        (image_id, rank, rank / 10) for rank, image_id in enumerate(ids, start=1)
    ]
    assert {(row.cycle_id, row.fence) for row in scores} == {(cycle_id, 1)}


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_an_uncertainty_that_is_no_number_is_null(world: Any, value: float | None) -> None:
    project_id = world.project()
    [image_id] = world.images(project_id, 1)
    world.cycle(project_id)
    writeback.write_scores(world.sessions, world.claim(), [(image_id, 1, value)])
    assert world.all(Score)[0].uncertainty is None


def test_rows_written_again_after_a_lost_answer_do_no_harm(world: Any) -> None:
    project_id = world.project()
    ids = world.images(project_id, 3)
    world.cycle(project_id)
    lease = world.claim()
    for _ in range(2):
        scored(world, lease, ids)
        writeback.write_predictions(world.sessions, lease, [(ids[0], [{"score": 0.5}])])
    assert len(world.all(Score)) == 3
    assert [row.boxes for row in world.all(Prediction)] == [[{"score": 0.5}]]


def test_what_an_attempt_writes_once_more_takes_the_place_of_what_it_had_written(
    world: Any,
) -> None:
    project_id = world.project()
    ids = world.images(project_id, 3)
    world.cycle(project_id)
    lease = world.claim()
    for order, score in ((ids, 0.5), (ids[::-1], 0.25)):
        scored(world, lease, order)
        writeback.write_predictions(world.sessions, lease, [(ids[0], [{"score": score}])])
    ranks = {row.image_id: (row.rank, row.uncertainty) for row in world.all(Score)}
    assert ranks == {ids[2]: (1, 1.0), ids[1]: (2, 0.5), ids[0]: (3, pytest.approx(1 / 3))}
    assert [row.boxes for row in world.all(Prediction)] == [[{"score": 0.25}]]


def test_a_lease_lost_between_two_chunks_stops_the_writing(world: Any) -> None:
    project_id = world.project()
    ids = world.images(project_id, 4)
    world.cycle(project_id)
    late = world.lapsing_claim()

    def rows() -> Any:
        for rank, image_id in enumerate(ids, start=1):
            if rank == 3:
                world.claim(worker_id="worker-2")
            yield image_id, rank, 0.5

    with pytest.raises(LeaseLost):
        writeback.write_scores(world.sessions, late, rows(), chunk=2)
    assert {row.fence for row in world.all(Score)} == {1}
    assert len(world.all(Score)) == 2


def test_candidates_are_the_first_images_by_rank_that_can_still_be_selected(world: Any) -> None:
    project_id = world.project()
    ids = world.images(project_id, 7)
    labeled, skipped, deleted, moved, *free = ids
    world.cycle(project_id)
    lease = world.claim()
    scored(world, lease, ids)
    spoil(world, labeled, skipped, deleted, moved)
    with world.sessions() as session:
        found = writeback.candidates(session, lease, 2)
    assert [image.id for image in found] == free[:2]
    assert found[0].name == "street/0004.jpg"


def test_scores_of_an_earlier_claim_are_no_candidates(world: Any) -> None:
    project_id = world.project()
    ids = world.images(project_id, 3)
    cycle_id = world.cycle(project_id)
    scored(world, world.lapsing_claim(), ids)
    lease = world.claim(worker_id="worker-2")
    scored(world, lease, list(reversed(ids)))
    with world.sessions() as session:
        assert [image.id for image in writeback.candidates(session, lease, 9)] == ids[::-1]
    published(world, lease)
    assert selected(world, cycle_id) == ids[:0:-1]


def test_publishing_shows_everything_at_once(world: Any) -> None:
    project_id = world.project()
    ids = world.images(project_id, 4)
    cycle_id = world.cycle(project_id, budget=3)
    lease = world.claim()
    scored(world, lease, ids)
    number = published(
        world,
        lease,
        heatmaps={ids[0]: "a" * 64},
        artifacts=[ArtifactRecord("log.jsonl", "b" * 64, 10, "application/jsonl")],
        model=ModelRecord("c" * 64, 5_000_000_000, {"map50": 0.4}),
        metrics={"map50": 0.4},
        message="3 images selected",
    )
    assert number == 3
    queries = world.all(Query, Query.rank)
    assert [(row.image_id, row.rank, row.uncertainty, row.reason) for row in queries] == [
        (ids[0], 1, 1.0, "uncertainty"),
        (ids[1], 2, 0.5, "uncertainty"),
        (ids[2], 3, 1 / 3, "uncertainty"),
    ]
    assert [row.heatmap_sha256 for row in queries] == ["a" * 64, None, None]
    assert {(row.cycle_id, row.project_id, row.state) for row in queries} == {
        (cycle_id, project_id, "open")
    }
    [model] = world.all(Model)
    assert (model.cycle_id, model.sha256, model.num_bytes) == (cycle_id, "c" * 64, 5_000_000_000)
    [artifact] = world.all(Artifact)
    assert (artifact.name, artifact.sha256) == ("log.jsonl", "b" * 64)
    cycle = world.get(Cycle, cycle_id)
    assert (cycle.state, cycle.progress, cycle.num_selected) == ("succeeded", 1.0, 3)
    assert (cycle.metrics, cycle.message) == ({"map50": 0.4}, "3 images selected")
    assert world.get(Project, project_id).scored_cycle_id == cycle_id


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"kind": "initial"}, "random"),
        ({"strategy": {"name": "random"}}, "random"),
        ({"strategy": {"name": "mi-aod"}}, "uncertainty"),
        ({"strategy": {"name": "entropy"}}, "entropy"),
        ({"strategy": {"name": "core-set"}}, "core-set"),
        ({"strategy": {"name": "mi-aod", "class_balance": 1.0}}, "class-balance"),
        ({"strategy": {"name": "mi-aod", "class_balance": 1.0, "diversity": 4.0}}, "diversity"),
        (
            {"kind": "initial", "strategy": {"name": "mi-aod", "diversity": 4.0}},
            "random",
        ),
    ],
)
def test_a_query_says_why_its_image_was_selected(
    world: Any, values: dict[str, Any], reason: str
) -> None:
    project_id = world.project()
    run_cycle(world, project_id, world.images(project_id, 3), **values)
    assert {query.reason for query in world.all(Query)} == {reason}


def test_a_budget_larger_than_the_pool_selects_the_whole_pool(world: Any) -> None:
    project_id = world.project()
    ids = world.images(project_id, 3)
    cycle_id = run_cycle(world, project_id, ids, budget=10)
    assert selected(world, cycle_id) == ids
    assert world.get(Cycle, cycle_id).num_selected == 3


def test_an_empty_pool_publishes_no_query(world: Any) -> None:
    project_id = world.project()
    cycle_id = run_cycle(world, project_id, [])
    assert world.all(Query) == []
    assert world.get(Cycle, cycle_id).state == "succeeded"


def spoil(world: Any, labeled: str, skipped: str, deleted: str, moved: str) -> None:
    """What people may do to images while a cycle runs."""
    world.label(labeled, [])
    world.change(Image, skipped, skipped_at=utc_now(), skip_reason="blurred")
    world.delete(Image, deleted)
    world.change(Image, moved, split="test")


def test_images_changed_meanwhile_are_passed_over_and_the_next_ranks_fill_the_budget(
    world: Any,
) -> None:
    project_id = world.project()
    ids = world.images(project_id, 8)
    first, labeled, skipped, deleted, moved, *rest = ids
    cycle_id = world.cycle(project_id, budget=3)
    lease = world.claim()
    scored(world, lease, ids)
    spoil(world, labeled, skipped, deleted, moved)
    assert published(world, lease) == 3
    assert selected(world, cycle_id) == [first, rest[0], rest[1]]
    assert [query.rank for query in world.all(Query, Query.rank)] == [1, 2, 3]


def test_an_image_that_is_just_being_labeled_is_not_selected_and_nobody_waits_forever(
    world: Any,
) -> None:
    project_id = world.project()
    ids = world.images(project_id, 4)
    run_cycle(world, project_id, ids)
    cycle_id = world.cycle(project_id)
    lease = world.claim()
    scored(world, lease, ids)
    publisher = threading.Thread(target=published, args=(world, lease))
    # Saving an annotation: the image first, then its query, which the publisher withdraws.
    with world.sessions.begin() as session:
        image = session.get_one(Image, ids[0], with_for_update={"key_share": True})
        image.state = "labeled"
        session.flush()
        publisher.start()
        publisher.join(0.3)
        [query] = session.query(Query).filter_by(image_id=ids[0]).all()
        query.closed_at = utc_now()
    publisher.join(20)
    assert not publisher.is_alive()
    assert selected(world, cycle_id) == [ids[1], ids[2]]


def test_a_worker_that_comes_back_late_publishes_nothing(world: Any) -> None:
    project_id = world.project(validation_images=1)
    ids = world.images(project_id, 3)
    cycle_id = world.cycle(project_id)
    late = world.lapsing_claim()
    scored(world, late, ids)
    world.claim(worker_id="worker-2")
    with pytest.raises(LeaseLost):
        published(
            world,
            late,
            artifacts=[ArtifactRecord("log.jsonl", "b" * 64, 10, "application/jsonl")],
            model=ModelRecord("c" * 64, 5, {}),
        )
    assert world.all(Query) == world.all(Artifact) == world.all(Model) == []
    assert world.get(Cycle, cycle_id).state == "running"
    assert world.get(Project, project_id).scored_cycle_id is None
    assert {image.split for image in world.all(Image)} == {"pool"}


def test_a_cancelled_cycle_publishes_nothing(world: Any) -> None:
    project_id = world.project()
    cycle_id = world.cycle(project_id)
    lease = world.claim()
    scored(world, lease, world.images(project_id, 3))
    with world.sessions.begin() as session:
        queue.cancelled(session, lease)
    with pytest.raises(LeaseLost):
        published(world, lease)
    assert world.all(Query) == []
    assert world.get(Cycle, cycle_id).state == "cancelled"


def test_publishing_again_after_a_lost_answer_gives_the_same_number_and_changes_nothing(
    world: Any,
) -> None:
    project_id = world.project()
    ids = world.images(project_id, 5)
    cycle_id = world.cycle(project_id)
    lease = world.claim()
    scored(world, lease, ids)
    assert published(world, lease, message="first") == 2
    assert published(world, lease, message="second") == 2
    assert len(world.all(Query)) == 2
    assert world.get(Cycle, cycle_id).message == "first"


def test_a_failure_in_the_middle_of_publishing_shows_nothing(world: Any) -> None:
    project_id = world.project(validation_images=2)
    ids = world.images(project_id, 5)
    cycle_id = world.cycle(project_id)
    lease = world.claim()
    scored(world, lease, ids)
    twice = ArtifactRecord("log.jsonl", "b" * 64, 10, "application/jsonl")
    with pytest.raises(Exception, match=r"(?i)unique"):
        published(world, lease, artifacts=[twice, twice])
    assert world.all(Query) == []
    assert {image.split for image in world.all(Image)} == {"pool"}
    assert world.get(Cycle, cycle_id).state == "running"
    assert published(world, lease, artifacts=[twice]) == 4


def test_open_queries_of_earlier_cycles_are_withdrawn_and_a_claimed_one_stays(
    world: Any,
) -> None:
    project_id = world.project()
    ids = world.images(project_id, 6)
    first = run_cycle(world, project_id, ids, budget=4)
    opened, claimed, lapsed, labeled = ids[:4]
    world.claim_query(claimed, seconds=60.0)
    world.claim_query(lapsed, seconds=-1.0)
    world.label(labeled, [])
    with world.sessions.begin() as session:
        session.query(Query).filter_by(image_id=labeled).update({"state": "labeled"})
    other_project = world.project()
    other = run_cycle(world, other_project, world.images(other_project, 2))
    second = run_cycle(world, project_id, ids, budget=10)
    states = {query.image_id: query.state for query in world.all(Query) if query.cycle_id == first}
    assert states == {
        opened: "withdrawn",
        claimed: "claimed",
        lapsed: "withdrawn",
        labeled: "labeled",
    }
    withdrawn = [query for query in world.all(Query) if query.state == "withdrawn"]
    assert all(query.closed_at is not None for query in withdrawn)
    # What an annotator holds is not asked of another one at the same time.
    assert selected(world, second) == [opened, lapsed, *ids[4:]]
    assert {query.state for query in world.all(Query) if query.cycle_id == other} == {"open"}


def validation_drawn(world: Any, seed: int = 7, number: int = 20) -> tuple[list[int], list[int]]:
    """Ordinals drawn for validation and ordinals selected by a first cycle."""
    project_id = world.project(validation_images=5)
    ids = world.images(project_id, number)
    cycle_id = run_cycle(world, project_id, ids, budget=4, kind="initial", seed=seed)
    queries = [query for query in world.all(Query, Query.rank) if query.cycle_id == cycle_id]
    assert [query.rank for query in queries] == list(range(1, len(queries) + 1))
    reasons = [query.reason for query in queries]
    assert reasons == sorted(reasons)  # "random" before "validation"
    ordinals = {image.id: image.ordinal for image in world.all(Image)}
    drawn = [ordinals[query.image_id] for query in queries if query.reason == "validation"]
    rest = [ordinals[query.image_id] for query in queries if query.reason == "random"]
    for query in queries:
        split = world.get(Image, query.image_id).split
        assert split == ("val" if query.reason == "validation" else "pool")
    assert world.get(Cycle, cycle_id).num_selected == len(queries)
    return drawn, rest


def test_the_first_cycle_also_draws_validation_images_on_top_of_its_budget(world: Any) -> None:
    drawn, rest = validation_drawn(world)
    assert len(set(drawn)) == 5
    assert rest == [ordinal for ordinal in range(20) if ordinal not in drawn][:4]


def test_the_draw_depends_on_the_seed_and_the_ordinals_alone(world: Any) -> None:
    drawn, _ = validation_drawn(world)
    assert validation_drawn(world)[0] == drawn
    assert validation_drawn(world, seed=8)[0] != drawn


def test_the_draw_leaves_an_image_to_train_with(world: Any) -> None:
    drawn, rest = validation_drawn(world, number=4)
    assert (len(drawn), len(rest)) == (3, 1)


def test_a_later_cycle_draws_no_validation_images(world: Any) -> None:
    project_id = world.project()
    ids = world.images(project_id, 10)
    run_cycle(world, project_id, ids)
    world.change(Project, project_id, validation_images=3)
    run_cycle(world, project_id, ids)
    assert {query.reason for query in world.all(Query)} == {"uncertainty"}


def test_a_project_that_has_validation_images_draws_none(world: Any) -> None:
    project_id = world.project(validation_images=3)
    world.images(project_id, 1, split="val")
    run_cycle(world, project_id, world.images(project_id, 10))
    assert {query.reason for query in world.all(Query)} == {"uncertainty"}


def test_a_first_cycle_that_failed_leaves_the_draw_to_the_next(world: Any) -> None:
    project_id = world.project(validation_images=3)
    ids = world.images(project_id, 10)
    world.cycle(project_id, state="failed")
    run_cycle(world, project_id, ids)
    reasons = [query.reason for query in world.all(Query, Query.rank)]
    assert reasons == ["uncertainty"] * 2 + ["validation"] * 3


def test_annotators_can_save_between_two_chunks(
    world: Any, sessions: sessionmaker[Session]
) -> None:
    project_id = world.project()
    ids = world.images(project_id, 4)
    world.cycle(project_id)

    def rows() -> Any:
        for rank, image_id in enumerate(ids, start=1):
            # On SQLite this would wait for the lock if the chunks were one transaction.
            world.label(image_id, [])
            yield image_id, rank, 0.5

    writeback.write_scores(sessions, world.claim(), rows(), chunk=1)
    assert len(world.all(Score)) == 4


def test_a_project_that_is_deleted_just_now_and_a_cycle_that_ends_do_not_wait_forever(
    world: Any, sessions: sessionmaker[Session]
) -> None:
    project_id = world.project()
    ids = world.images(project_id, 3)
    cycle_id = world.cycle(project_id)
    lease = world.claim()
    scored(world, lease, ids)
    failures: list[OperationalError] = []

    def publish() -> None:
        try:
            published(world, lease)
        except OperationalError as error:
            failures.append(error)

    publisher = threading.Thread(target=publish)
    # As a deletion does it: the project's row first, then its cycles.
    with sessions.begin() as session:
        session.get(Project, project_id, with_for_update={"key_share": True})
        publisher.start()
        publisher.join(0.5)
        queue.request_cancel(session, Cycle, cycle_id)
    publisher.join(20)
    assert not failures
    assert world.get(Cycle, cycle_id).state == "succeeded"
