from __future__ import annotations

from starlette.testclient import TestClient

from server.store.models import Cycle
from server.store.pool import take_snapshot
from tests.server.conftest import Pool, Scribe


def test_the_scores_of_a_cycle_are_distributed_with_its_selection_among_them(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    images = pool.upload(9)
    pool.label(images[8])
    cycle = pool.start_cycle(budget=2)
    early = client.get(f"/cycles/{cycle}/histogram")
    assert (early.status_code, early.json()["code"]) == (409, "not_succeeded")
    scribe.run(cycle)
    found = client.get(f"/cycles/{cycle}/histogram", params={"bins": 7}).json()
    assert (found["cycle"], found["unscored"]) == (cycle, 0)
    bins = found["bins"]
    # Uncertainties are 1/1, 1/2 .. 1/8.
    assert [each["images"] for each in bins] == [4, 2, 0, 1, 0, 0, 1]
    assert [each["selected"] for each in bins] == [0, 0, 0, 1, 0, 0, 1]
    assert (bins[0]["low"], bins[-1]["high"]) == (0.125, 1.0)
    assert all(low["high"] == high["low"] for low, high in zip(bins, bins[1:], strict=False))


def test_a_cycle_keeps_its_distribution_when_a_newer_one_has_scored_the_pool(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    images = pool.upload(6)
    pool.label(images[5])
    first = pool.start_cycle(budget=1)
    scribe.run(first)
    before = client.get(f"/cycles/{first}/histogram").json()
    pool.label(images[0])
    scribe.run(pool.start_cycle(budget=1))
    assert client.get(f"/cycles/{first}/histogram").json() == before


def test_an_initial_cycle_has_scored_nothing(
    client: TestClient, pool: Pool, scribe: Scribe
) -> None:
    pool.upload(4)
    cycle = pool.start_cycle(budget=2)
    with scribe.sessions.begin() as session:
        # As the worker notes it at its start.
        counts = take_snapshot(session, pool.project).counts()
        session.get_one(Cycle, cycle).snapshot = counts
    scribe.run(cycle)
    found = client.get(f"/cycles/{cycle}/histogram").json()
    assert (found["bins"], found["unscored"]) == ([], 4)
