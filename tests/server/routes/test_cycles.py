from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from server.deps import Context
from server.store import queue
from server.store.models import Cycle

Pool = Any
Scribe = Any

NO_SUCH = "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e"

# What is refused before any table is asked need not be tried on both databases.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def start(client: TestClient, project: str, **body: Any) -> Any:
    return client.post("/cycles", json={"project": project, **body})


def test_without_labels_a_cycle_is_initial_and_queued(client: TestClient, pool: Pool) -> None:
    pool.upload(5)
    answer = start(client, pool.project, budget=2)
    assert answer.status_code == 202
    cycle = answer.json()
    assert answer.headers["location"] == f"/cycles/{cycle['id']}"
    assert (cycle["kind"], cycle["state"], cycle["number"]) == ("initial", "queued", 1)
    assert (cycle["progress"], cycle["budget"], cycle["min_labeled"]) == (0, 2, 1)
    assert cycle["strategy"] == {"name": "mi-aod"}
    assert cycle["training"]["preset"] == "cpu"
    assert cycle["training"]["num_threads"] >= 1
    assert "0 pool images have a box" in cycle["message"]
    assert client.get(f"/cycles/{cycle['id']}").json()["id"] == cycle["id"]


def test_a_cycle_trains_once_enough_pool_images_have_a_box(client: TestClient, pool: Pool) -> None:
    ids = pool.upload(5)
    pool.upload(1, split="val", start=10)
    pool.label(ids[0], [])
    pool.label(ids[1])
    few = start(client, pool.project, budget=1, min_labeled=2).json()
    assert few["kind"] == "initial"
    client.post(f"/cycles/{few['id']}/cancel")
    assert start(client, pool.project, budget=1).json()["kind"] == "trained"


def test_the_seed_is_drawn_and_stored_unless_given(client: TestClient, pool: Pool) -> None:
    pool.upload(3)
    drawn = start(client, pool.project, budget=1).json()
    assert 0 <= drawn["seed"] < 2**31
    assert client.get(f"/cycles/{drawn['id']}").json()["seed"] == drawn["seed"]
    client.post(f"/cycles/{drawn['id']}/cancel")
    assert start(client, pool.project, budget=1, seed=0).json()["seed"] == 0


@pytest.mark.parametrize(
    "strategy",
    [
        {"name": "entropy"},
        {"name": "core-set"},
        {"name": "mi-aod", "class_balance": 1.0},
        {"name": "entropy", "class_balance": 0.5, "diversity": 4.0},
    ],
)
def test_a_cycle_keeps_its_strategy_with_the_options_that_were_given(
    client: TestClient, pool: Pool, strategy: dict[str, Any]
) -> None:
    pool.upload(1)
    assert start(client, pool.project, budget=1, strategy=strategy).json()["strategy"] == strategy


def test_a_project_s_defaults_fill_what_the_request_leaves_out(
    client: TestClient, pool: Pool
) -> None:
    pool.upload(3)
    missing = start(client, pool.project)
    assert (missing.status_code, missing.json()["code"]) == (422, "budget_missing")
    defaults = {
        "budget": 2,
        "strategy": {"name": "random"},
        "training": {"preset": "default", "batch_size": 4},
        "min_labeled": 3,
    }
    client.patch(f"/projects/{pool.project}", json={"cycle_defaults": defaults})
    cycle = start(client, pool.project, training={"learning_rate": 1}).json()
    assert (cycle["budget"], cycle["min_labeled"]) == (2, 3)
    assert cycle["strategy"] == {"name": "random"}
    assert cycle["training"]["preset"] == "default"
    assert (cycle["training"]["batch_size"], cycle["training"]["learning_rate"]) == (4, 1.0)


def test_a_second_cycle_waits_for_the_first_and_the_refusal_names_it(
    client: TestClient, pool: Pool
) -> None:
    pool.upload(3)
    first = start(client, pool.project, budget=1).json()
    second = start(client, pool.project, budget=1)
    assert (second.status_code, second.json()["code"]) == (409, "cycle_active")
    assert first["id"] in second.json()["detail"]


def test_while_nothing_of_the_initial_selection_is_labeled_the_next_cycle_is_refused(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(6)
    scribe.run(pool.start_cycle(budget=3))
    refused = start(client, pool.project, budget=3)
    assert (refused.status_code, refused.json()["code"]) == (409, "initial_selection_waits")
    assert "3 images wait" in refused.json()["detail"]
    first, second, third = pool.queries()
    pool.label(first["image"]["id"], [])
    negative_only = start(client, pool.project, budget=3)
    assert negative_only.json()["kind"] == "initial"
    client.post(f"/cycles/{negative_only.json()['id']}/cancel")
    pool.label(second["image"]["id"])
    assert start(client, pool.project, budget=3).json()["kind"] == "trained"


def test_once_everything_of_the_initial_selection_is_skipped_another_one_may_start(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(3)
    scribe.run(pool.start_cycle(budget=1))
    (query,) = pool.queries()
    client.post(f"/queries/{query['id']}/skip", json={})
    assert start(client, pool.project, budget=1).status_code == 202


def test_an_empty_pool_is_a_conflict_that_says_where_the_images_are(
    client: TestClient, pool: Pool
) -> None:
    empty = start(client, pool.project, budget=1)
    assert (empty.status_code, empty.json()["code"]) == (409, "empty_pool")
    (image_id,) = pool.upload(1)
    pool.upload(2, split="val", start=5)
    pool.label(image_id, [])
    refused = start(client, pool.project, budget=1)
    assert refused.status_code == 409
    assert "1 are labeled" in refused.json()["detail"]
    assert "2 in val or test" in refused.json()["detail"]


def test_when_all_of_the_pool_is_labeled_a_cycle_trains_and_selects_nothing(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    client.patch(f"/projects/{pool.project}", json={"validation_images": 2})
    for image_id in pool.upload(2):
        pool.label(image_id)
    cycle = start(client, pool.project, budget=1).json()
    assert cycle["kind"] == "trained"
    assert cycle["message"].endswith(
        "no image is left to select: the cycle trains and evaluates only"
    )
    scribe.run(cycle["id"])
    done = client.get(f"/cycles/{cycle['id']}").json()
    assert (done["state"], done["num_selected"]) == ("succeeded", 0)
    assert done["model"] is not None
    assert pool.queries() == []


def test_a_budget_larger_than_the_pool_is_legal_and_the_message_says_so(
    client: TestClient, pool: Pool
) -> None:
    pool.upload(3)
    cycle = start(client, pool.project, budget=100).json()
    assert "the budget of 100 exceeds the pool: all 3 images" in cycle["message"]


def test_the_draw_for_validation_is_announced_and_leaves_less_to_select(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    client.patch(f"/projects/{pool.project}", json={"validation_images": 2})
    pool.upload(5)
    cycle = start(client, pool.project, budget=4).json()
    assert "2 images are drawn for validation" in cycle["message"]
    assert "all 3 images" in cycle["message"]
    scribe.run(cycle["id"])
    reasons = [query["reason"] for query in pool.queries()]
    assert reasons == ["random", "random", "random", "validation", "validation"]
    counts = client.get(f"/projects/{pool.project}").json()["counts"]
    assert (counts["val"], counts["unlabeled"]) == (2, 3)
    done = client.get(f"/cycles/{cycle['id']}").json()
    assert (done["state"], done["num_selected"], done["message"]) == ("succeeded", 5, "done")


@on_sqlite
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"budget": 0}, "greater than or equal to 1"),
        ({"budget": 2**40}, "less than or equal"),
        ({"budget": True}, "valid integer"),
        ({"budget": 1, "seed": -1}, "greater than or equal to 0"),
        ({"budget": 1, "strategy": {"name": "best"}}, "'mi-aod', 'entropy', 'core-set', 'random'"),
        ({"budget": 1, "strategy": {"name": "mi-aod", "diversity": 0.5}}, "greater than or equal"),
        ({"budget": 1, "strategy": {"name": "entropy", "class_balance": 0}}, "greater than 0"),
        ({"budget": 1, "strategy": {"name": "random", "diversity": 4}}, "Extra inputs"),
        ({"budget": 1, "strategy": "random"}, "dictionary"),
        ({"budget": 1, "training": {"preset": "huge"}}, "there are"),
        ({"budget": 1, "training": {"batch_size": "4"}}, "must be a whole number"),
        ({"budget": 1, "training": {"batch_size": 0}}, "between 1 and"),
        ({"budget": 1, "training": {"pretrained": 1}}, "true or false"),
        ({"budget": 1, "training": {"optimizer": "lion"}}, "one of sgd, adamw"),
        ({"budget": 1, "training": {"aspect_ratios": []}}, "list of 1 to"),
        ({"budget": 1, "training": {"aspect_ratios": [1.0, 100.0]}}, "aspect_ratios[1] is 100.0"),
        ({"budget": 1, "training": {"epochz": 1}}, "no field"),
        ({"budget": 1, "training": {"method": "plain"}}, "take strategy entropy"),
    ],
)
def test_a_cycle_that_cannot_be_is_refused_with_what_would_be_right(
    client: TestClient, pool: Pool, body: dict[str, Any], words: str
) -> None:
    pool.upload(1)
    answer = start(client, pool.project, **body)
    assert answer.status_code == 422
    assert words in str(answer.json()["detail"])
    assert client.get("/cycles").json()["items"] == []


def test_a_queued_cycle_says_why_it_waits(client: TestClient, pool: Pool, scribe: Scribe) -> None:
    pool.upload(2)
    path = f"/cycles/{pool.start_cycle(budget=1)}"
    assert client.get(path).json()["message"].startswith("no worker seen for ")
    scribe.report(seconds_ago=40)
    assert client.get(path).json()["message"].startswith("no worker seen for 40 s")
    scribe.report(cycle=NO_SUCH)
    assert "the worker is busy" in client.get(path).json()["message"]
    scribe.report(name="other")
    assert "worker" not in client.get(path).json()["message"]
    listed = client.get("/cycles").json()["items"][0]
    assert listed == client.get(path).json()


def test_a_queued_cycle_is_cancelled_at_once_and_stays_so(client: TestClient, pool: Pool) -> None:
    pool.upload(2)
    path = f"/cycles/{pool.start_cycle(budget=1)}"
    cancelled = client.post(f"{path}/cancel")
    assert cancelled.json()["state"] == "cancelled"
    assert cancelled.json()["finished_at"] is not None
    assert client.post(f"{path}/cancel").status_code == 200
    assert client.get(path).json()["state"] == "cancelled"


def test_a_running_cycle_is_told_to_stop_and_an_ended_one_cannot_be(
    client: TestClient, pool: Pool, scribe: Scribe, context: Context
) -> None:
    pool.upload(2)
    path = f"/cycles/{pool.start_cycle(budget=1)}"
    with context.sessions.begin() as session:
        lease = queue.claim(session, Cycle, "w", 60)
        assert lease is not None
    asked = client.post(f"{path}/cancel").json()
    assert (asked["state"], asked["cancel_requested"]) == ("running", True)
    with context.sessions.begin() as session:
        queue.cancelled(session, lease)
    ended = pool.start_cycle(budget=1)
    scribe.run(ended)
    refused = client.post(f"/cycles/{ended}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "cycle_ended")


def test_a_failed_or_cancelled_cycle_is_taken_up_where_it_was(
    client: TestClient, pool: Pool, context: Context
) -> None:
    pool.upload(2)
    cycle_id = pool.start_cycle(budget=1)
    path = f"/cycles/{cycle_id}"
    saved = {"checkpoint_sha256": "c" * 64, "snapshot_sha256": "d" * 64}
    for end in ("failed", "cancelled"):
        with context.sessions.begin() as session:
            lease = queue.claim(session, Cycle, "w", 60)
            assert lease is not None
            queue.record(session, lease, attempts=2, **saved)
            if end == "failed":
                queue.fail(session, lease, "the disk is full")
            else:
                queue.request_cancel(session, Cycle, cycle_id)
                queue.cancelled(session, lease)
        assert client.get(path).json()["state"] == end
        for _ in range(2):  # a request whose answer was lost may be repeated
            resumed = client.post(f"{path}/resume")
            assert (resumed.status_code, resumed.json()["state"]) == (202, "queued")
        cycle = resumed.json()
        assert (cycle["error"], cycle["finished_at"], cycle["cancel_requested"]) == (
            None,
            None,
            False,
        )
        with context.reading() as session:
            row = session.get_one(Cycle, cycle_id)
            assert (row.attempts, row.checkpoint_sha256) == (0, "c" * 64)


def test_a_cycle_whose_worker_died_before_it_could_cancel_it_can_be_resumed(
    client: TestClient, pool: Pool, context: Context
) -> None:
    pool.upload(3)
    cycle_id = pool.start_cycle(budget=1)
    with context.sessions.begin() as session:
        lease = queue.claim(session, Cycle, "w", 60)
        assert lease is not None
    assert client.post(f"/cycles/{cycle_id}/cancel").json()["state"] == "running"
    with context.sessions.begin() as session:
        queue.heartbeat(session, lease, -1.0)
    resumed = client.post(f"/cycles/{cycle_id}/resume")
    assert (resumed.status_code, resumed.json()["state"]) == (202, "queued")


def test_what_cannot_be_resumed_is_refused_with_the_reason(
    client: TestClient, pool: Pool, scribe: Scribe, context: Context
) -> None:
    pool.upload(3)
    first = pool.start_cycle(budget=1)
    with context.sessions.begin() as session:
        lease = queue.claim(session, Cycle, "w", 60)
        assert lease is not None
    client.post(f"/cycles/{first}/cancel")
    stopping = client.post(f"/cycles/{first}/resume")
    assert (stopping.status_code, stopping.json()["code"]) == (409, "cycle_active")
    with context.sessions.begin() as session:
        queue.cancelled(session, lease)
    second = pool.start_cycle(budget=1)
    older = client.post(f"/cycles/{first}/resume")
    assert (older.status_code, older.json()["code"]) == (409, "not_the_newest")
    scribe.run(second)
    done = client.post(f"/cycles/{second}/resume")
    assert (done.status_code, done.json()["code"]) == (409, "cycle_ended")
    assert client.post(f"/cycles/{NO_SUCH}/resume").status_code == 404


def test_deleting_a_project_cancels_its_cycle(
    client: TestClient, pool: Pool, context: Context
) -> None:
    pool.upload(2)
    cycle_id = pool.start_cycle(budget=1)
    client.delete(f"/projects/{pool.project}")
    assert client.get(f"/cycles/{cycle_id}").status_code == 404
    assert client.get("/cycles").json()["items"] == []
    with context.reading() as session:
        assert session.get_one(Cycle, cycle_id).state == "cancelled"


def test_cycles_are_listed_newest_first_and_filtered_by_state(
    client: TestClient, pool: Pool
) -> None:
    pool.upload(2)
    first = pool.start_cycle(budget=1)
    client.post(f"/cycles/{first}/cancel")
    second = pool.start_cycle(budget=1)

    def ids(**filters: str) -> list[str]:
        return [cycle["id"] for cycle in client.get("/cycles", params=filters).json()["items"]]

    assert sorted(ids(), reverse=True) == ids() == ids(project=pool.project)
    assert ids(state="cancelled") == [first]
    assert ids(state="queued") == [second]
    assert client.get("/cycles", params={"project": NO_SUCH}).status_code == 404


def test_a_trained_cycle_shows_metrics_scores_artifacts_and_its_model(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    ids = pool.upload(4)
    pool.label(ids[0])
    cycle_id = pool.start_cycle(budget=1)
    path = f"/cycles/{cycle_id}"
    early = client.get(f"{path}/scores")
    assert (early.status_code, early.json()["code"]) == (409, "not_succeeded")
    assert client.get(f"{path}/metrics").json()["metrics"] is None
    assert client.get(f"{path}/artifacts").json() == {
        "items": [],
        "next_cursor": None,
        "total": None,
    }
    per_class = [{"class": "car", "ap50": 0.5, "ap50_voc07": 0.4, "ap": 0.3, "num_boxes": 2}]
    scribe.run(cycle_id, {"map50": 0.5, "per_class": per_class, "validation_images": 1})
    metrics = client.get(f"{path}/metrics").json()
    assert metrics["metrics"]["map50"] == 0.5
    assert metrics["metrics"]["per_class"] == per_class
    cycle = client.get(path).json()
    assert cycle["metrics"] == metrics["metrics"]
    model = client.get(f"/models/{cycle['model']}").json()
    assert (model["cycle"], model["cycle_number"]) == (cycle_id, 1)
    scores = client.get(f"{path}/scores", params={"limit": 2, "count": True}).json()
    assert scores["total"] == 3
    assert [item["rank"] for item in scores["items"]] == [1, 2]
    assert scores["items"][0]["uncertainty"] == 1.0
    assert scores["items"][0]["image"] == {"id": ids[1], "name": "0001.png", "ordinal": 1}
    rest = client.get(f"{path}/scores", params={"limit": 2, "cursor": scores["next_cursor"]})
    assert [item["rank"] for item in rest.json()["items"]] == [3]
    artifacts = client.get(f"{path}/artifacts").json()["items"]
    names = ["config.json", "model.safetensors", "scores.npz"]
    assert [artifact["name"] for artifact in artifacts] == names
    config = client.get(artifacts[0]["url"])
    assert config.json() == {"cycle": cycle_id}
    assert config.headers["content-type"] == "application/json"
    assert config.headers["content-disposition"].startswith('attachment; filename="config.json"')
    assert config.headers["etag"] == f'"{artifacts[0]["sha256"]}"'
    part = client.get(artifacts[0]["url"], headers={"Range": "bytes=0-0"})
    assert (part.status_code, part.content) == (206, b"{")
    missing = client.get(f"{path}/artifacts/notes.txt")
    assert missing.status_code == 404
    assert "it has config.json, model.safetensors, scores.npz" in missing.json()["detail"]
    assert client.get(f"{path}/artifacts/..%2f..%2fmiaod.db").status_code in (404, 422)


def test_scores_of_a_superseded_cycle_are_in_its_artifact(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    ids = pool.upload(4)
    pool.label(ids[0])
    first, second = pool.start_cycle(budget=1), None
    scribe.run(first)
    second = pool.start_cycle(budget=1)
    scribe.run(second)
    old = client.get(f"/cycles/{first}/scores")
    assert (old.status_code, old.json()["code"]) == (404, "scores_superseded")
    assert "scores.npz" in old.json()["detail"]
    assert client.get(f"/cycles/{second}/scores").status_code == 200


def test_a_failed_cycle_tells_its_reason_and_the_next_one_may_start(
    client: TestClient, pool: Pool, context: Context
) -> None:
    pool.upload(2)
    cycle_id = pool.start_cycle(budget=1)
    with context.sessions.begin() as session:
        session.execute(
            update(Cycle).where(Cycle.id == cycle_id).values(state="failed", error="loss is NaN")
        )
    cycle = client.get(f"/cycles/{cycle_id}").json()
    assert (cycle["state"], cycle["error"]) == ("failed", "loss is NaN")
    assert start(client, pool.project, budget=1).json()["number"] == 2


def test_of_many_who_start_a_cycle_at_the_same_time_one_succeeds(
    client: TestClient, pool: Pool
) -> None:
    pool.upload(2)
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: start(client, pool.project, budget=1), range(6)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409, 409, 409]
