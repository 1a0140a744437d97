"""What a running cycle saves of itself, so that another attempt goes on where this one ended.

A checkpoint is one blob that the cycle's row names: a dictionary of tensors, numbers and bytes,
with the name of its format. It is written when enough time has passed, at the end of each stage
that was worth it, and when the worker is told to stop; always between two steps, where the state is
whole.
"""

from __future__ import annotations

import io
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
import torch
from sqlalchemy.exc import DBAPIError

from server.store.outage import cause
from worker.failures import CycleStopped
from worker.records import CycleRecords

FORMAT = "miaod-checkpoint-1"

# At the end of a stage nothing is saved until so many times the cost of a checkpoint has passed
# since the last one: short stages would spend their time on saving what takes seconds to do again.
BORDER_WORTH = 100

log = structlog.get_logger("worker.cycle")

State = dict[str, Any]


class Checkpoints:
    """Saves and finds the state of one cycle."""

    def __init__(
        self,
        records: CycleRecords,
        latest: str | None,
        *,
        every_seconds: float,
        stop: threading.Event,
    ) -> None:
        """Prepare.

        Args:
            records: of the cycle.
            latest: blob of the state that an earlier attempt saved.
            every_seconds: between two checkpoints.
            stop: set when the cycle is to stop as soon as its state is saved.
        """
        self._records = records
        self._latest = latest
        self._every_seconds = every_seconds
        self._stop = stop
        self._saved_at = time.monotonic()
        self._cost = 0.0
        # Gives the state as of the last pause, where that was not saved.
        self._unsaved: Callable[[], State] | None = None
        self.seconds_spent = 0.0
        self.remark = ""

    def load(self) -> State | None:
        """The state that an earlier attempt saved; None starts from the beginning.

        A state that cannot be used is as good as none: the cycle starts anew, and `remark` says
        why.
        """
        if self._latest is None:
            return None
        try:
            content = self._records.read_checkpoint(self._latest)
            # No code is run: tensors and plain values only.
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (FileNotFoundError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
            self._refuse(f"cannot be read ({error})")
            return None
        found = state.get("format") if isinstance(state, dict) else None
        if found != FORMAT:
            self._refuse(f"is of format {found!r}, and this worker's is {FORMAT!r}")
            return None
        log.info("going on from a checkpoint", action="checkpoint_loaded", phase=state["phase"])
        loaded: State = state
        return loaded

    def pause(self, make_state: Callable[[], State], *, is_border: bool = False) -> None:
        """A place between two steps: save if it is time to, and stop here if asked to.

        Args:
            make_state: gives the state; called only if it is saved.
            is_border: a stage ends here, which is a better place than any within a stage.

        Raises:
            CycleStopped: the worker was told to stop.
            LeaseLost: the cycle is somebody else's by now.
        """
        enough = self._cost * BORDER_WORTH if is_border else self._every_seconds
        self._unsaved = make_state
        self._pause(min(enough, self._every_seconds))

    def pause_unchanged(self) -> None:
        """A place where the state is as it was at the last `pause`, which may have put it off.

        Raises:
            CycleStopped: the worker was told to stop.
            LeaseLost: the cycle is somebody else's by now.
        """
        self._pause(self._every_seconds)

    def _pause(self, enough_seconds: float) -> None:
        stop = self._stop.is_set()
        waited = time.monotonic() - self._saved_at
        if self._unsaved is not None and (stop or waited >= enough_seconds):
            self._save(self._unsaved)
        if stop:
            raise CycleStopped

    def _save(self, make_state: Callable[[], State]) -> None:
        started = time.monotonic()
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **make_state()}, buffer)
        try:
            self._latest = self._records.save_checkpoint(buffer.getvalue(), self._latest)
            self._unsaved = None
        except (OSError, DBAPIError) as error:
            if cause(error, self._records.data_dir) is None:
                raise
            # The one before still stands, and the cycle goes on: it needs no room for that.
            log.warning("checkpoint not saved", action="checkpoint_failed", error=str(error))
            self._records.count_failed_checkpoint()
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - started
        self.seconds_spent += self._cost

    def _refuse(self, why: str) -> None:
        self.remark = f"started anew, as the checkpoint {why}"
        log.warning("checkpoint refused", action="checkpoint_refused", reason=why)
