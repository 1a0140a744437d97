"""Cycles: one round of train, evaluate, score, select."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from miaod_client._downloads import DownloadProgress, download
from miaod_client._errors import CycleCancelledError, CycleFailedError
from miaod_client._following import follow
from miaod_client._paging import DEFAULT_PAGE_SIZE, Page, Pager
from miaod_client._resources.base import Resource, path_to, without_none
from miaod_client._types import (
    Artifact,
    Cycle,
    CycleEvent,
    CycleMetrics,
    CycleState,
    Histogram,
    Presets,
    Score,
)
from miaod_client._waiting import poll_until_final


class Cycles(Resource):
    """The rounds of the projects: `client.cycles`."""

    def create(
        self,
        *,
        project: str,
        budget: int | None = None,
        strategy: str | Mapping[str, Any] | None = None,
        preset: str | None = None,
        training: Mapping[str, Any] | None = None,
        seed: int | None = None,
        min_labeled: int | None = None,
    ) -> Cycle:
        """Queue a cycle; a worker takes it up, see `wait`.

        What is not given comes from the project's `cycle_defaults`, then from the server.

        Args:
            project: the project's id.
            budget: how many images to select.
            strategy: `"mi-aod"`, `"entropy"`, `"core-set"`, `"random"`, or `{"name": …}` with its
                options, as `{"name": "mi-aod", "class_balance": 1.0, "diversity": 4.0}`.
            preset: training preset, such as `cpu` or `default`; short for `training["preset"]`.
            training: overrides of the preset's fields.
            seed: of every random choice.
            min_labeled: fewer labeled images with a box than this make the cycle `initial`.

        Raises:
            ConflictError: the project has an active cycle, or its first queries wait unlabeled.
            UnprocessableError: a training field is unknown or out of range.
        """
        if isinstance(strategy, str):
            strategy = {"name": strategy}
        if preset is not None:
            training = {**(training or {}), "preset": preset}
        body = without_none(
            project=project,
            budget=budget,
            strategy=strategy,
            training=training,
            seed=seed,
            min_labeled=min_labeled,
        )
        return self._transport.post(Cycle, "/cycles", json=body, keyed=True)

    def list(
        self,
        *,
        project: str | None = None,
        state: CycleState | None = None,
        limit: int | None = None,
        page_size: int = DEFAULT_PAGE_SIZE,
    ) -> Pager[Cycle]:
        """Cycles, of one project or of all, newest first."""
        return Pager(
            self._transport,
            Cycle,
            "/cycles",
            params={"project": project, "state": state},
            limit=limit,
            page_size=page_size,
        )

    def get(self, cycle_id: str) -> Cycle:
        """One cycle as it is now."""
        return self._transport.get(Cycle, path_to("cycles", cycle_id))

    def cancel(self, cycle_id: str) -> Cycle:
        """Ask for a cycle to stop: a queued one does at once, a running one within seconds.

        Raises:
            ConflictError: it has ended already.
        """
        return self._transport.post(Cycle, path_to("cycles", cycle_id, "cancel"), repeatable=True)

    def resume(self, cycle_id: str) -> Cycle:
        """Take up a failed or cancelled cycle at its last checkpoint; an active one stays as it is.

        Raises:
            ConflictError: it has succeeded, or its project has a newer cycle.
        """
        return self._transport.post(Cycle, path_to("cycles", cycle_id, "resume"), repeatable=True)

    def wait(
        self,
        cycle_id: str,
        *,
        timeout: float | None = None,
        poll_seconds: float = 2.0,
        on_progress: Callable[[Cycle], None] | None = None,
    ) -> Cycle:
        """Wait until the cycle has ended. A server that restarts meanwhile is borne.

        Args:
            cycle_id: the cycle.
            timeout: seconds; `None` waits without end.
            poll_seconds: longest pause between two looks.
            on_progress: called with the cycle after each look.

        Returns:
            The cycle, `succeeded`.

        Raises:
            CycleFailedError, CycleCancelledError: it ended otherwise; `job` is the cycle.
            WaitTimeoutError: the time is over; the cycle goes on.
        """
        ended = poll_until_final(
            lambda: self.get(cycle_id),
            timeout=timeout,
            poll_seconds=poll_seconds,
            on_progress=on_progress,
        )
        if ended.state == "failed":
            raise CycleFailedError(f"cycle {ended.number} failed: {ended.error}", ended)
        if ended.state == "cancelled":
            raise CycleCancelledError(f"cycle {ended.number} was cancelled", ended)
        return ended

    def events(self, cycle_id: str, *, after: int = 0) -> Iterator[CycleEvent]:
        """What has happened to the cycle so far, then all as it happens, up to its end.

        The iterator comes back by itself where the connection breaks, and ends with the cycle.

        Args:
            cycle_id: the cycle.
            after: `seq` of the last event that you know; 0 begins at the beginning.

        Raises:
            NotFoundError: there is no such cycle, or it was deleted meanwhile.
            ConnectionFailedError, UnavailableError: the server cannot be reached, or stayed away
                for minutes.
        """
        return follow(self._transport, path_to("cycles", cycle_id, "events"), after)

    def metrics(self, cycle_id: str) -> CycleMetrics:
        """How good its model is, or in `message` why there is no metric."""
        return self._transport.get(CycleMetrics, path_to("cycles", cycle_id, "metrics"))

    def scores(
        self, cycle_id: str, *, limit: int | None = None, page_size: int = DEFAULT_PAGE_SIZE
    ) -> Pager[Score]:
        """What it thinks of the pool, most informative first; kept for the newest cycle."""
        return Pager(
            self._transport,
            Score,
            path_to("cycles", cycle_id, "scores"),
            params={},
            limit=limit,
            page_size=page_size,
        )

    def histogram(self, cycle_id: str, *, bins: int = 40) -> Histogram:
        """How the uncertainties of the pool are distributed, and where its selection lies in that.

        Raises:
            ConflictError: it has not succeeded.
        """
        return self._transport.get(
            Histogram, path_to("cycles", cycle_id, "histogram"), params={"bins": bins}
        )

    def presets(self) -> Presets:
        """The training presets, and every field that a cycle may override."""
        return self._transport.get(Presets, "/presets")

    def artifacts(self, cycle_id: str) -> Sequence[Artifact]:
        """The files it left behind."""
        return self._transport.get(Page[Artifact], path_to("cycles", cycle_id, "artifacts")).items

    def download_artifact(
        self,
        cycle_id: str,
        name: str,
        *,
        to: str | os.PathLike[str],
        on_progress: DownloadProgress | None = None,
    ) -> Path:
        """Write one of its files, such as `metrics.json`, into a file or folder here."""
        return download(
            self._transport,
            path_to("cycles", cycle_id, "artifacts", name),
            to=to,
            default_name=name,
            on_progress=on_progress,
        )
