"""The supervisor: takes one cycle at a time, has a child run it, and holds the lease meanwhile.

It never computes anything itself and never imports torch. Whatever becomes of the child, the
cycle's row says so and the supervisor lives on:

    child ends well                 the child itself has published the result
    child reports `failed`          the cycle fails at once, with that sentence
    child crashes, hangs, is killed an attempt is lost, with the reason; a pause, then the next one
    child waits for room on a disk  its words become the cycle's message; nothing else happens
    somebody cancels                the child is stopped within seconds, the cycle is cancelled
    the lease is lost               the child is killed, nothing is written
    SIGTERM, SIGINT                 the child saves its state and stops, the cycle goes back to the
                                    queue
    the database is away            the child goes on, the supervisor keeps knocking
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import structlog
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from structlog.contextvars import bound_contextvars

from server.store import queue
from server.store.models import Cycle
from server.store.outage import is_outage
from server.store.queue import Lease, LeaseLost
from worker.child_process import ChildProcess
from worker.outage import patiently, transaction
from worker.presence import Presence, device_guess
from worker.settings import WorkerSettings

log = structlog.get_logger(__name__)

CYCLE_COMMAND = (sys.executable, "-m", "worker.cycle")
# What a child gets after SIGTERM to finish its step and save its state, before it is killed.
GRACE_SECONDS = 7.0
IDLE_BEAT_SECONDS = 5.0
_LISTEN_SECONDS = 0.2
# What of a child's lines is for the cycle's row.
_TOLD = ("progress", "stage", "message", "detail")
# Pauses after lost attempts in a row. What took memory, processes or a device away is given time to
# end, and a machine that is broken does not run through all that waits within seconds.
RETRY_SECONDS = (2.0, 10.0, 30.0)

T = TypeVar("T")


@dataclass(frozen=True)
class _Ending:
    """How the supervisor's watch over a child ended."""

    kind: Literal["ended", "failed", "crashed", "cancelled", "stopped", "lease lost"]
    reason: str = ""


class Supervisor:
    """Runs cycles until it is told to stop."""

    def __init__(
        self,
        settings: WorkerSettings,
        sessions: sessionmaker[Session],
        command: Sequence[str] = CYCLE_COMMAND,
    ) -> None:
        """Prepare; nothing happens before `run`.

        Args:
            settings: lease, poll and time-out lengths, and what the child needs to know.
            sessions: makes database sessions.
            command: what to start for a cycle; tests put something smaller here.
        """
        self._settings = settings
        self._sessions = sessions
        self._command = tuple(command)
        self._presence = Presence(device_guess(settings.device))
        self._stop = threading.Event()
        self._shown_at = 0.0
        self._lost_in_a_row = 0

    def stop(self) -> None:
        """Ask `run` to return soon; safe to call from a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Take cycles and run them, one after the other, until `stop` is called."""
        try:
            self._patiently(self._presence.forget_old_workers)
            while not self._stop.is_set():
                self._show_idle()
                lease = self._patiently(self._claim)
                if lease is None:
                    self._stop.wait(self._settings.poll_seconds)
                else:
                    with bound_contextvars(cycle=lease.job_id, fence=lease.fence):
                        self._run_cycle(lease)
            self._patiently(self._presence.show)
        except DBAPIError as error:
            if not is_outage(error):
                raise
            log.warning("stopped while the database was away", action="worker_stopped")

    def _run_cycle(self, lease: Lease) -> None:
        log.info("cycle claimed", action="cycle_claimed")
        self._presence.cycle_id = lease.job_id
        try:
            child = ChildProcess(
                [*self._command, "--cycle", lease.job_id, "--fence", str(lease.fence)]
                + ["--worker", lease.worker_id],
                self._settings.as_environment(),
            )
        except (OSError, MemoryError) as error:
            ending = _Ending("crashed", f"the training process could not be started: {error}")
        else:
            try:
                ending = self._watch(child, lease)
            finally:
                child.stop(GRACE_SECONDS)
                child.close()
        attempt_lost = self._settle(lease, ending)
        self._presence.cycle_id = None
        self._shown_at = 0.0
        if attempt_lost:
            self._rest()
        else:
            self._lost_in_a_row = 0

    def _rest(self) -> None:
        """Take nothing for a while after a lost attempt."""
        rest = RETRY_SECONDS[min(self._lost_in_a_row, len(RETRY_SECONDS) - 1)]
        self._lost_in_a_row += 1
        until = time.monotonic() + rest
        while (remaining := until - time.monotonic()) > 0 and not self._stop.is_set():
            self._show_idle()
            self._stop.wait(min(remaining, IDLE_BEAT_SECONDS))

    def _watch(self, child: ChildProcess, lease: Lease) -> _Ending:
        """Listen to the child and hold its lease until one of the two ends, or we must."""
        # What the child has said that is not in the cycle's row yet.
        news: dict[str, Any] = {"stage": "start", "message": "starting", "detail": {}}
        heard_at = looked_at = time.monotonic()
        beat_at = 0.0
        while True:
            was_running = child.is_running()
            for line in child.read(_LISTEN_SECONDS):
                heard_at = time.monotonic()
                if "failed" in line:
                    return _Ending("failed", str(line["failed"]))
                if "crashed" in line:
                    return _Ending("crashed", str(line["crashed"]))
                self._presence.device = str(line.get("device", self._presence.device))
                news.update((key, line[key]) for key in _TOLD if key in line)
            # First: whoever stopped us may have stopped the child as well, as systemd does.
            if self._stop.is_set():
                return _Ending("stopped")
            if not was_running:
                good = child.exit_code == 0
                return _Ending("ended") if good else _Ending("crashed", child.how_it_ended())
            now = time.monotonic()
            if now - looked_at > self._settings.lease_seconds:
                heard_at = now  # it was we who were frozen, most likely with the child
            looked_at = now
            if now - heard_at > self._settings.progress_timeout_seconds:
                silence = f"{self._settings.progress_timeout_seconds:g} s"
                return _Ending(
                    "crashed",
                    f"the training process made no progress for {silence} and was stopped",
                )
            if time.monotonic() - beat_at >= self._settings.beat_seconds:
                beat_at = time.monotonic()
                try:
                    if self._beat(lease, news):
                        return _Ending("cancelled")
                except LeaseLost:
                    child.stop(grace_seconds=0.0)
                    return _Ending("lease lost")

    def _beat(self, lease: Lease, news: dict[str, Any]) -> bool:
        """Renew the lease and hand the news out; whether somebody asked to cancel.

        While the database is away nothing is renewed and the child goes on: if another worker took
        the cycle meanwhile, the first beat that arrives again will say so.
        """
        try:
            with self._sessions.begin() as session:
                cancel = queue.heartbeat(session, lease, self._settings.lease_seconds, **news)
                self._presence.show(session)
        except DBAPIError as error:
            if not is_outage(error):
                raise
            log.warning(
                "heartbeat failed, the database seems away",
                action="heartbeat_failed",
                error=str(error.orig),
            )
            return False
        news.clear()
        return cancel

    def _settle(self, lease: Lease, ending: _Ending) -> bool:
        """Write into the cycle's row how it went; the child has ended by now.

        Returns:
            Whether an attempt was lost.
        """
        # However the watch ended: a child that did its work has finished the row itself.
        if self._patiently(lambda session: _has_succeeded(session, lease)):
            log.info("cycle done", action="cycle_done")
            return False
        if ending.kind == "lease lost":
            log.warning("lease lost, nothing was written", action="lease_lost")
            return False
        try:
            match ending.kind:
                case "failed":
                    self._patiently(lambda session: queue.fail(session, lease, ending.reason))
                case "cancelled":
                    self._patiently(lambda session: queue.cancelled(session, lease))
                case "stopped":
                    self._patiently(lambda session: queue.release(session, lease))
                case "crashed":
                    self._patiently(lambda session: queue.lose(session, lease, ending.reason))
                case "ended":
                    reason = "the training process ended without a result"
                    self._patiently(lambda session: queue.lose(session, lease, reason))
        except LeaseLost:
            log.warning(
                "the cycle had ended or is another worker's, nothing was written",
                action="lease_lost",
                ending=ending.kind,
            )
            return False
        event = f"cycle {ending.kind}"
        log.warning(event, action="cycle_" + ending.kind, reason=ending.reason)
        return ending.kind in ("crashed", "ended")

    def _claim(self, session: Session) -> Lease | None:
        return queue.claim(session, Cycle, self._presence.worker_id, self._settings.lease_seconds)

    def _show_idle(self) -> None:
        if time.monotonic() - self._shown_at >= IDLE_BEAT_SECONDS:
            self._patiently(self._presence.show)
            self._shown_at = time.monotonic()

    def _patiently(self, work: Callable[[Session], T]) -> T:
        """Do `work` however long the database is away, unless told to stop meanwhile."""
        return patiently(lambda: transaction(self._sessions, work), give_up=self._stop.is_set)


def _has_succeeded(session: Session, lease: Lease) -> bool:
    """Whether the cycle was published under this very lease."""
    found = session.scalar(
        select(Cycle.id).where(
            Cycle.id == lease.job_id, Cycle.fence == lease.fence, Cycle.state == "succeeded"
        )
    )
    return found is not None
