"""Disturbing cycles at random moments, and comparing what becomes of them."""

from __future__ import annotations

from random import Random

from tests.worker.small_pools import Pool
from tests.worker.torture.moments import Moment, draw_moments
from tests.worker.torture.world import World


class Attack:
    """Disturbs cycles at so many moments, one cycle after another if one ends too early."""

    def __init__(self, world: World, rng: Random, number: int) -> None:
        """Order the first cycle."""
        self.world = world
        self.rng = rng
        self.number = number
        self.moments: list[Moment] = []
        self.pool: Pool
        self.cycle_id = ""
        self.fence = 0
        self.landed = 0
        self.cycles = 0
        self._is_new = True
        self._next_cycle()

    def next_moment(self) -> bool:
        """Wait for the next moment at which the cycle runs; False if there was the last one."""
        while self.landed < self.number:
            watch = self.world.claim_again(self.cycle_id, self.fence + 1, is_new=self._is_new)
            self._is_new = True
            if watch is not None:
                self.fence += 1
                if watch.wait_for(self.moments[0]):
                    row = watch.row()
                    print(  # noqa: T201
                        f"{self.landed + 1:3}. {self.moments.pop(0)}: claim {row.fence}, attempt "
                        f"{row.attempts + 1}, {row.message}"
                    )
                    self.landed += 1
                    return True
            else:
                self._compare()
                self._next_cycle()
        return False

    def same_claim_again(self) -> None:
        """The next moment is one of the claim that there is now, whichever that is."""
        self.fence = self.world.row(self.cycle_id).fence - 1
        self._is_new = False

    def finish(self) -> None:
        """Let the last cycle end, and compare."""
        self.world.wait_for_success(self.cycle_id)
        self.fence = self.world.row(self.cycle_id).fence
        self._compare()
        print(  # noqa: T201
            f"{self.landed} moments, {self.cycles} cycles, given up and resumed "
            f"{self.world.given_up} times"
        )

    def _compare(self) -> None:
        self.world.assert_as_undisturbed(self.pool, self.cycle_id)

    def _next_cycle(self) -> None:
        self.pool, self.cycle_id = self.world.order()
        self.fence = 0
        self.cycles += 1
        self.moments = draw_moments(
            self.rng, self.number - self.landed, self.world.undisturbed().timeline
        )
