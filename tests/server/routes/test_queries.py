from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import update
from starlette.testclient import TestClient

from server.deps import Context
from server.store.models import Query

Pool = Any
Scribe = Any


def claim(client: TestClient, project: str, **body: Any) -> dict[str, Any]:
    answer = client.post("/queries/claim", json={"project": project, **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def let_lapse(context: Context) -> None:
    with context.sessions.begin() as session:
        session.execute(update(Query).where(Query.state == "claimed").values(claimed_until=1.0))


def test_queries_come_best_first_with_what_an_annotator_needs(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    ids = pool.upload(4)
    pool.label(ids[0])
    cycle_id = pool.start_cycle(budget=2)
    scribe.run(cycle_id)
    first, second = pool.queries()
    assert (first["rank"], second["rank"]) == (1, 2)
    assert (first["uncertainty"], second["uncertainty"]) == (1.0, 0.5)
    assert (first["cycle"], first["reason"], first["state"]) == (cycle_id, "uncertainty", "open")
    assert first["image"] == {
        "id": ids[1],
        "name": "0001.png",
        "width": 40,
        "height": 30,
        "annotation_version": 0,
        "content_url": f"/images/{ids[1]}/content",
        "thumbnail_url": f"/images/{ids[1]}/thumbnail",
    }
    best = first["predictions"][0]
    assert best == {"class": "car", "score": 0.75, "x1": 1, "y1": 2, "x2": 9, "y2": 9}
    heat = client.get(first["heatmap_url"])
    assert heat.headers["content-type"] == "image/png"
    assert heat.content.startswith(b"\x89PNG")
    assert client.get(f"/queries/{first['id']}").json() == first


def test_a_random_selection_has_neither_predictions_nor_heat_maps(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(2)
    scribe.run(pool.start_cycle(budget=1))
    (query,) = pool.queries()
    assert (query["reason"], query["uncertainty"], query["predictions"]) == ("random", None, [])
    assert query["heatmap_url"] is None
    answer = client.get(f"/queries/{query['id']}/heatmap")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_heatmap")


def test_before_the_first_selection_there_is_nothing_to_label(
    client: TestClient, pool: Pool
) -> None:
    pool.upload(2)
    assert pool.queries() == []
    assert pool.queries(count=True) == []
    assert claim(client, pool.project)["items"] == []
    assert client.get("/queries").status_code == 422


def test_queries_of_a_named_cycle_are_listed_in_pages(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(5)
    cycle_id = pool.start_cycle(budget=5)
    scribe.run(cycle_id)
    params = {"cycle": cycle_id, "limit": "3", "count": "true"}
    page = client.get("/queries", params=params).json()
    assert (page["total"], [q["rank"] for q in page["items"]]) == (5, [1, 2, 3])
    rest = client.get("/queries", params={**params, "cursor": page["next_cursor"]}).json()
    assert [q["rank"] for q in rest["items"]] == [4, 5]
    assert rest["next_cursor"] is None
    other = client.post("/projects", json={"name": "other", "classes": ["x"]}).json()["id"]
    wrong = client.get("/queries", params={"cycle": cycle_id, "project": other})
    assert wrong.status_code == 404


def test_a_claim_takes_the_best_and_hides_them_from_others(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(4)
    scribe.run(pool.start_cycle(budget=4))
    mine = claim(client, pool.project, limit=2, author="ana", seconds=60)
    assert [query["rank"] for query in mine["items"]] == [1, 2]
    assert {query["state"] for query in mine["items"]} == {"claimed"}
    assert mine["items"][0]["claimed_by"] == "ana"
    assert mine["expires_at"].endswith("Z")
    theirs = claim(client, pool.project, limit=10, author="ben")
    assert [query["rank"] for query in theirs["items"]] == [3, 4]
    assert mine["claim_token"] != theirs["claim_token"]
    assert claim(client, pool.project, limit=10)["items"] == []
    assert pool.queries() == []
    assert len(pool.queries(state="claimed")) == 4


def test_annotators_who_claim_at_the_same_time_never_get_the_same_image(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(40)
    scribe.run(pool.start_cycle(budget=40))

    def work(author: str) -> list[str]:
        held: list[str] = []
        while items := claim(client, pool.project, limit=3, author=author)["items"]:
            held += [query["image"]["id"] for query in items]
        return held

    with ThreadPoolExecutor(4) as threads:
        held = list(threads.map(work, ["ana", "ben", "cleo", "dan"]))
    everything = [image_id for each in held for image_id in each]
    assert len(everything) == 40
    assert len(set(everything)) == 40


def test_a_lapsed_claim_returns_to_the_queue_and_its_holder_is_told(
    client: TestClient, pool: Pool, scribe: Scribe, context: Context
) -> None:
    pool.upload(2)
    scribe.run(pool.start_cycle(budget=1))
    mine = claim(client, pool.project, author="ana")
    (query,) = mine["items"]
    let_lapse(context)
    (shown,) = pool.queries()
    assert (shown["state"], shown["claimed_by"]) == ("open", None)
    path, token = f"/queries/{query['id']}", {"claim_token": mine["claim_token"]}
    for action in ("heartbeat", "release", "skip"):
        stale = client.post(f"{path}/{action}", json=token)
        assert (stale.status_code, stale.json()["code"]) == (409, "stale_claim")
    theirs = claim(client, pool.project, author="ben")
    assert [again["id"] for again in theirs["items"]] == [query["id"]]
    late = client.put(
        f"/images/{query['image']['id']}/annotations", json={"version": 0, "boxes": [], **token}
    )
    assert (late.status_code, late.json()["code"]) == (409, "claimed")


def test_work_saved_after_its_claim_lapsed_counts_if_nobody_took_the_image(
    client: TestClient, pool: Pool, scribe: Scribe, context: Context
) -> None:
    pool.upload(1)
    scribe.run(pool.start_cycle(budget=1))
    mine = claim(client, pool.project)
    let_lapse(context)
    (query,) = mine["items"]
    saved = client.put(
        f"/images/{query['image']['id']}/annotations",
        json={"version": 0, "boxes": [], "claim_token": mine["claim_token"]},
    )
    assert saved.status_code == 200
    assert client.get(f"/queries/{query['id']}").json()["state"] == "labeled"


def test_a_heartbeat_prolongs_the_whole_batch(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(3)
    scribe.run(pool.start_cycle(budget=3))
    mine = claim(client, pool.project, limit=2, seconds=1)
    (other,) = claim(client, pool.project, seconds=60)["items"]
    token = mine["claim_token"]
    first, second = (query["id"] for query in mine["items"])
    beat = client.post(f"/queries/{first}/heartbeat", json={"claim_token": token, "seconds": 900})
    assert beat.json()["expires_at"] > mine["expires_at"]
    time.sleep(1.1)
    for query_id in (first, second):
        assert client.get(f"/queries/{query_id}").json()["state"] == "claimed"
    stranger = client.post(f"/queries/{other['id']}/heartbeat", json={"claim_token": token})
    assert stranger.status_code == 409


def test_a_released_query_is_open_again(client: TestClient, pool: Pool, scribe: Scribe) -> None:
    pool.upload(1)
    scribe.run(pool.start_cycle(budget=1))
    mine = claim(client, pool.project)
    (query,) = mine["items"]
    path, token = f"/queries/{query['id']}/release", {"claim_token": mine["claim_token"]}
    assert client.post(path, json={"claim_token": "wrong"}).status_code == 409
    assert client.post(path, json=token).json()["state"] == "open"
    assert client.post(path, json=token).status_code == 409
    assert len(claim(client, pool.project)["items"]) == 1


def test_a_skipped_image_is_not_selected_again_until_it_is_unskipped(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    ids = pool.upload(3)
    pool.label(ids[2])
    scribe.run(pool.start_cycle(budget=1))
    mine = claim(client, pool.project)
    (query,) = mine["items"]
    body = {"claim_token": mine["claim_token"], "reason": "too blurred"}
    path = f"/queries/{query['id']}/skip"
    skipped = client.post(path, json=body)
    assert (skipped.status_code, skipped.json()["state"]) == (200, "skipped")
    assert client.post(path, json=body).json() == skipped.json()
    image = client.get(f"/images/{query['image']['id']}").json()
    assert (image["skipped"], image["skip_reason"]) == (True, "too blurred")
    scribe.run(pool.start_cycle(budget=3))
    selected = [each["image"]["id"] for each in pool.queries()]
    assert selected == [ids[1]]
    unskipped = client.patch(f"/images/{image['id']}", json={"skipped": False}).json()
    assert (unskipped["skipped"], unskipped["skip_reason"]) == (False, None)
    scribe.run(pool.start_cycle(budget=3))
    assert {each["image"]["id"] for each in pool.queries()} == {ids[0], ids[1]}


def test_a_query_under_a_claim_is_skipped_only_with_its_token(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(1)
    scribe.run(pool.start_cycle(budget=1))
    (query,) = claim(client, pool.project)["items"]
    answer = client.post(f"/queries/{query['id']}/skip", json={"reason": "x"})
    assert (answer.status_code, answer.json()["code"]) == (409, "not_open")


def test_a_new_selection_withdraws_open_queries_but_not_claimed_ones(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    ids = pool.upload(5)
    pool.label(ids[4])
    old = pool.start_cycle(budget=3)
    scribe.run(old)
    mine = claim(client, pool.project)
    (held,) = mine["items"]
    new = pool.start_cycle(budget=2)
    scribe.run(new)
    states = {q["rank"]: q["state"] for q in pool.queries(cycle=old, state="all")}
    assert states == {1: "claimed", 2: "withdrawn", 3: "withdrawn"}
    assert held["image"]["id"] not in [q["image"]["id"] for q in pool.queries()]
    assert {q["cycle"] for q in pool.queries()} == {new}
    saved = client.put(
        f"/images/{held['image']['id']}/annotations",
        json={"version": 0, "boxes": [], "claim_token": mine["claim_token"]},
    )
    assert saved.status_code == 200


def test_a_claim_that_lapses_after_a_newer_selection_counts_as_withdrawn(
    client: TestClient, pool: Pool, scribe: Scribe, context: Context
) -> None:
    ids = pool.upload(4)
    pool.label(ids[3])
    old = pool.start_cycle(budget=1)
    scribe.run(old)
    (held,) = claim(client, pool.project)["items"]
    scribe.run(pool.start_cycle(budget=1))
    let_lapse(context)
    (shown,) = pool.queries(cycle=old, state="withdrawn")
    assert shown["id"] == held["id"]
    assert pool.queries(cycle=old) == []
    mine = claim(client, pool.project, limit=10)
    assert held["id"] not in [query["id"] for query in mine["items"]]


def test_a_claim_passes_over_images_that_were_labeled_meanwhile(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(3)
    scribe.run(pool.start_cycle(budget=3))
    first, second, third = pool.queries()
    pool.label(first["image"]["id"])
    client.delete(f"/images/{second['image']['id']}")
    mine = claim(client, pool.project, limit=10)
    assert [query["id"] for query in mine["items"]] == [third["id"]]


def test_heartbeats_of_one_batch_at_the_same_time_do_not_wait_for_each_other(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(8)
    scribe.run(pool.start_cycle(budget=8))
    mine = claim(client, pool.project, limit=8)

    def beat(query: dict[str, Any]) -> int:
        body = {"claim_token": mine["claim_token"]}
        return client.post(f"/queries/{query['id']}/heartbeat", json=body).status_code

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(beat, mine["items"])) == {200}
