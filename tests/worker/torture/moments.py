"""Random moments of a cycle, and waiting for them.

A moment is a phase of the cycle and a time after the phase was seen to begin. Both are drawn, so
that a few moments reach what takes milliseconds as well as what takes most of the time.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from server.store.models import Cycle, Prediction, Score
from tests.worker.torture.worker_process import PATIENCE_SECONDS

# The pool that all this is done to.
LABELED, UNLABELED, VALIDATION = 8, 80, 8
# Predictions are made for the labeled ones, and for the budget of 3 with a reserve of 8.
NUM_PREDICTED = LABELED + VALIDATION + 3 + 8

SEED_VARIABLE = "MIAOD_TORTURE_SEED"

# In the order in which a cycle comes through them, and how often a moment is drawn from each.
PHASES = ("starting", "training", "scoring", "predicting", "publishing")
WEIGHTS = (3, 8, 4, 3, 2)
ENDED = "ended"


@dataclass(frozen=True)
class Moment:
    """So many seconds after a phase has begun, or at once if it is over by then."""

    phase: str
    seconds: float

    def __str__(self) -> str:
        """As it is printed."""
        return f"{self.phase} + {self.seconds:.2f} s"


@dataclass
class Timeline:
    """When a cycle's phases were first seen, in seconds since its claim."""

    seen_at: dict[str, float] = field(default_factory=dict)

    def duration(self, phase: str) -> float:
        """How long a phase took, in seconds."""
        later = [self.seen_at[name] for name in (*PHASES, ENDED)[PHASES.index(phase) + 1 :]]
        return max(0.02, min(later) - self.seen_at[phase])


def seeded() -> random.Random:
    """A source of moments; its seed is printed, and taken from `MIAOD_TORTURE_SEED` if given."""
    seed = int(os.environ.get(SEED_VARIABLE) or secrets.randbelow(10**6))
    print(f"\n{SEED_VARIABLE}={seed}")  # noqa: T201 (pytest shows it when the test fails)
    return random.Random(seed)


def draw_moments(rng: random.Random, number: int, undisturbed: Timeline) -> list[Moment]:
    """Moments in the order in which one cycle meets them; those of its start come anywhere."""
    phases = rng.choices(PHASES, WEIGHTS, k=number)
    later = sorted((p for p in phases if p != PHASES[0]), key=PHASES.index)
    for _ in range(number - len(later)):
        later.insert(rng.randint(0, len(later)), PHASES[0])
    # A phase that was cut off goes on where it was: of what is left each cut takes its part.
    return [
        Moment(phase, rng.uniform(0, 1.5 * undisturbed.duration(phase) / (1 + later.count(phase))))
        for phase in later
    ]


class Watch:
    """Looks at a cycle under one claim of it."""

    def __init__(
        self, readers: sessionmaker[Session], cycle_id: str, fence: int, *, is_new: bool = True
    ) -> None:
        """Watch the claim with this fence; `is_new` says that it has yet to be made."""
        self._readers = readers
        self._cycle_id = cycle_id
        self._fence = fence
        self._has_started = not is_new

    def row(self) -> Cycle:
        """The cycle's row as it is now."""
        with self._readers() as session:
            return session.get_one(Cycle, self._cycle_id)

    def wait_for_claim(self) -> bool:
        """Wait until the claim is made; False if the cycle has ended instead."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (row := self.row()).fence < self._fence:
            if row.state not in ("queued", "running"):
                return False
            assert time.monotonic() < deadline, f"nobody claimed it: {row.state}, {row.message}"
            time.sleep(0.01)
        return True

    def wait_for(self, moment: Moment) -> bool:
        """Wait for a moment; False if the cycle has ended before."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (phase := self.phase()) != ENDED:
            if PHASES.index(phase) >= PHASES.index(moment.phase):
                time.sleep(moment.seconds)
                return self.phase() != ENDED
            assert time.monotonic() < deadline, f"still {phase}, waiting for {moment}"
            time.sleep(0.005)
        return False

    def measure(self) -> Timeline:
        """Watch the whole of it."""
        timeline = Timeline()
        started = time.monotonic()
        while True:
            phase = self.phase()
            timeline.seen_at.setdefault(phase, time.monotonic() - started)
            if phase == ENDED:
                # One that was too short to be seen began with the next that was seen.
                for name, later in reversed(list(zip(PHASES, (*PHASES[1:], ENDED), strict=True))):
                    timeline.seen_at.setdefault(name, timeline.seen_at[later])
                return timeline
            assert time.monotonic() < started + PATIENCE_SECONDS, f"still {phase}"
            time.sleep(0.005)

    def phase(self) -> str:
        """Where the cycle is, by what its worker has written so far."""
        with self._readers() as session:
            row = session.get_one(Cycle, self._cycle_id)
            if row.state not in ("queued", "running"):
                return ENDED
            if row.fence != self._fence:
                return PHASES[0]
            # What an earlier claim has told stands there until the first heartbeat of this one.
            self._has_started |= row.stage == "start"
            if not self._has_started:
                return PHASES[0]
            written = {
                table: session.scalar(
                    select(func.count())
                    .select_from(table)
                    .where(table.cycle_id == self._cycle_id, table.fence == self._fence)
                )
                for table in (Score, Prediction)
            }
            if written[Prediction] == NUM_PREDICTED:
                return "publishing"
            if written[Score]:
                return "predicting"
        return {"start": "starting", "train": "training"}.get(str(row.stage), "scoring")
