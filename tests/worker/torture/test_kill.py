"""Workers that are killed, told to stop and frozen at random moments of a cycle."""

from __future__ import annotations

import signal
import time

import pytest

from tests.worker.small_pools import wait_for_end
from tests.worker.torture.attack import Attack
from tests.worker.torture.moments import draw_moments, seeded
from tests.worker.torture.worker_process import WorkerProcess, eventually, send
from tests.worker.torture.world import World

# Much of it is waiting for processes to start: long on a busy machine.
pytestmark = pytest.mark.timeout(900)

# One database each in `make test`, both in `make torture`.
LONG = [
    pytest.param(database, 20, marks=[pytest.mark.torture, pytest.mark.timeout(3600)])
    for database in ("sqlite", "postgres")
]


def on(database: str, number: int) -> pytest.MarkDecorator:
    """So many moments on one database, and many on both."""
    return pytest.mark.parametrize(
        ("database_url", "number"), [(database, number), *LONG], indirect=["database_url"]
    )


@on("sqlite", 2)
def test_a_cycle_whose_worker_is_killed_at_random_moments_ends_as_an_undisturbed_one(
    world: World, number: int
) -> None:
    rng = seeded()
    world.undisturbed()
    attack = Attack(world, rng, number)
    worker = world.start_worker()
    while attack.next_moment():
        child = worker.child_pid()
        who = rng.choice(("supervisor", "child", "both"))
        print(f"     kill -9 {who}")  # noqa: T201
        if who in ("child", "both") and child is not None:
            send(child, signal.SIGKILL)
        if who in ("supervisor", "both"):
            worker.process.kill()
            worker.process.wait()
            # Nobody is left to kill it: the kernel does.
            world.assert_no_child_is_left(child)
            worker = world.start_worker()
    attack.finish()
    world.assert_nothing_else_is_left()


@on("postgres", 1)
def test_a_worker_that_is_told_to_stop_leaves_within_ten_seconds_and_another_goes_on_at_once(
    world: World, number: int
) -> None:
    # A goodbye is also said while pictures are being loaded, by processes that hear of it too.
    world.num_loaders = 1 if number > 1 else 0
    world.undisturbed()
    attack = Attack(world, seeded(), number)
    # No lease lapses here: what another worker takes up has been given back.
    worker = world.start_worker(lease_seconds=600)
    longest = 0.0
    while attack.next_moment():
        child = worker.child_pid()
        asked_at = time.monotonic()
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(timeout=60) == 0
        longest = max(longest, time.monotonic() - asked_at)
        row = world.row(attack.cycle_id)
        assert row.state in ("queued", "succeeded")
        assert (row.attempts, row.lease_until) == (0, None)
        world.assert_no_child_is_left(child)
        worker = world.start_worker(lease_seconds=600)
    print(f"     the longest goodbye took {longest:.1f} s")  # noqa: T201
    attack.finish()
    world.assert_nothing_else_is_left()
    assert world.given_up == 0
    # Of the ten the child has seven, whatever the machine does; the rest is one transaction.
    if number > 1:
        assert longest < 10


@on("sqlite", 1)
def test_a_worker_that_was_frozen_past_its_lease_writes_nothing_and_goes_on_with_other_work(
    world: World, number: int
) -> None:
    rng = seeded()
    world.undisturbed()
    attack = Attack(world, rng, number)
    workers = [world.start_worker(), world.start_worker()]
    frozen = workers[0]
    while attack.next_moment():
        if (holder := world.holder(attack.cycle_id)) is None:
            continue  # it has just ended
        frozen = holder
        child = frozen.child_pid()
        world.freeze(frozen)
        watch = world.claim_again(attack.cycle_id, attack.fence + 1)
        # It wakes up while the other one works, or when all is done.
        if watch is not None and rng.random() < 0.7:
            watch.wait_for(draw_moments(rng, 1, world.undisturbed().timeline)[0])
        else:
            world.wait_for_success(attack.cycle_id)
        # Frozen behind its last commit it has nothing to lose.
        lost = world.row(attack.cycle_id).fence > attack.fence
        before = frozen.actions().count("lease_lost")
        frozen.signal_both(signal.SIGCONT)
        world.assert_no_child_is_left(child)
        if lost:
            says_so(frozen, before)
        attack.same_claim_again()
    attack.finish()

    others = [worker for worker in workers if worker is not frozen]
    for worker in others:
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(timeout=60) == 0
    pool, cycle_id = world.order(kind="initial")
    assert wait_for_end(pool, cycle_id).state == "succeeded"
    world.assert_nothing_else_is_left()


def says_so(worker: WorkerProcess, before: int) -> None:
    """Wait until the worker says once more that it has lost its lease."""
    eventually(lambda: worker.actions().count("lease_lost") > before)
