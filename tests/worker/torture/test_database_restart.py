"""Postgres that goes away in the middle of a cycle, and comes back soon or late."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from server.store.database import make_engine, upgrade
from tests.worker.torture.attack import Attack
from tests.worker.torture.moments import seeded
from tests.worker.torture.own_postgres import OwnPostgres, own_postgres
from tests.worker.torture.world import World

# Much of it is waiting for processes to start: long on a busy machine.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def server() -> Iterator[OwnPostgres]:
    with own_postgres() as server:
        yield server


@pytest.fixture
def database_url(server: OwnPostgres) -> str:
    engine = make_engine(server.url)
    upgrade(engine)
    engine.dispose()
    return server.url


@pytest.mark.parametrize(
    "number", [1, pytest.param(20, marks=[pytest.mark.torture, pytest.mark.timeout(3600)])]
)
def test_a_cycle_whose_database_restarts_in_the_middle_ends_as_an_undisturbed_one(
    world: World, server: OwnPostgres, number: int
) -> None:
    rng = seeded()
    attack = Attack(world, rng, number)
    # The second one takes the cycle over if it is the first to be heard after a long absence.
    for _ in range(2):
        world.start_worker()
    while attack.next_moment():
        seconds = rng.choice((0.0, 0.5, 2 * world.settings.lease_seconds))
        print(f"     Postgres crashes and is away for {seconds:g} s")  # noqa: T201
        server.crash()
        time.sleep(seconds)
        server.start()
        attack.same_claim_again()
    attack.finish()
    world.assert_nothing_else_is_left()
