"""How far a cycle is and how long it will take, as its process tells the supervisor.

All stages lie on one scale of work, whose unit is a picture that goes through the network once. How
long a unit takes is measured in the stage that runs, and what is left of the scale, later stages
included, is reckoned with it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

from worker.progress import ProgressPipe

# Forward once, and backward, which costs about twice as much.
TRAINED_IMAGE = 3.0
# The rest of the progress is for storing the results.
SHARE_OF_STAGES = 0.99
# A speed is known after so long a time; a shorter one tells little.
MIN_SECONDS = 2.0
# Training steps whose losses are averaged.
STEPS_AVERAGED = 20


class Pace:
    """Tells of one attempt at a cycle; `plan` comes before the first `step`."""

    def __init__(self, pipe: ProgressPipe, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare.

        Args:
            pipe: to the supervisor.
            clock: gives seconds; tests put one of their own here.
        """
        self._pipe = pipe
        self._clock = clock
        self._spans: dict[str, tuple[float, float]] = {}
        self._total = 0.0
        self._reached = 0.0
        # Where and when the present stage was first heard of.
        self._stage = ""
        self._began_at = 0.0
        self._began_with = 0.0
        self._seconds_per_unit: float | None = None

    def device(self, name: str) -> None:
        """Say what the cycle is computed on."""
        self._pipe.device(name)

    def plan(self, work: Mapping[str, float]) -> None:
        """Lay out the scale: the stages in their order, each with its work."""
        for stage, units in work.items():
            self._spans[stage] = (self._total, self._total + units)
            self._total += units

    def say(self, stage: str, message: str) -> None:
        """Tell what is done just now, where steps cannot be counted."""
        start, _ = self._spans.get(stage, (self._reached, self._reached))
        self._reached = max(self._reached, start)
        self._pipe.report(self._progress(), stage, message)

    def step(
        self,
        stage: str,
        message: str,
        *,
        done: float,
        step: int,
        steps: int,
        losses: Mapping[str, float] | None = None,
    ) -> None:
        """Tell of a step that is done.

        Args:
            stage: one of the plan.
            message: a sentence.
            done: the stage's work so far, what an earlier attempt did included.
            step: how many steps that are.
            steps: of so many.
            losses: by name.
        """
        now = self._clock()
        start, end = self._spans[stage]
        if stage != self._stage:
            # The first step has waited for the start of loaders and the like: not counted.
            self._stage, self._began_at, self._began_with = stage, now, done
        seconds, units = now - self._began_at, done - self._began_with
        if seconds >= MIN_SECONDS and units > 0:
            self._seconds_per_unit = seconds / units
        self._reached = max(self._reached, min(start + done, end))
        left = None
        if self._seconds_per_unit is not None:
            left = round((self._total - self._reached) * self._seconds_per_unit, 1)
        self._pipe.report(
            self._progress(),
            stage,
            message,
            {
                "step": step,
                "steps": steps,
                "losses": None if losses is None else dict(losses),
                "seconds_left": left,
            },
        )

    def _progress(self) -> float:
        return SHARE_OF_STAGES * self._reached / self._total if self._total else 0.0


class LossMeans:
    """The losses of the last steps, averaged: single ones jump."""

    def __init__(self) -> None:
        """Begin with no step."""
        self._stage = ""
        self._steps: deque[Mapping[str, float]] = deque(maxlen=STEPS_AVERAGED)

    def add(self, stage: str, losses: Mapping[str, float]) -> dict[str, float]:
        """Take in a step; each loss's mean over the last ones of the same training stage.

        Args:
            stage: as "label 1/3": other stages have other losses.
            losses: by name.
        """
        if stage != self._stage:
            self._stage = stage
            self._steps.clear()
        self._steps.append(losses)
        return {
            name: float(f"{sum(step[name] for step in self._steps) / len(self._steps):.4g}")
            for name in losses
        }
