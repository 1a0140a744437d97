"""What Prometheus is told: this process's own figures, and those of the whole service.

The workers' figures come through the database, so they are the same whichever server is asked.
Nothing here counts images, annotations or scores one by one: a scrape costs some milliseconds,
whatever the pool's size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector
from sqlalchemy import case, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from server.services.health import Space, space
from server.services.watched import Watched
from server.services.workers import LIVE_SECONDS
from server.store import counters, queue
from server.store.blobs import BlobStore
from server.store.counters import Counts
from server.store.database import now_seconds
from server.store.models import Cycle, Import, Model, Project, Query, Worker

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 5.0
# Older rows are of workers that have been replaced long since.
WORKER_SECONDS = 24 * 3600.0


class Figures:
    """The figures of one application."""

    def __init__(
        self, own: CollectorRegistry, reading: sessionmaker[Session], blobs: BlobStore
    ) -> None:
        """Prepare.

        Args:
            own: the process's own figures.
            reading: makes read-only sessions.
            blobs: of the same service.
        """
        self._own = own
        self._database = Watched(lambda: _read(reading), "the database's figures")
        self._space = Watched(lambda: space(blobs), "the storage's figures")

    async def exposition(self) -> bytes:
        """All figures in Prometheus' text format; without those whose source does not answer."""
        families = await asyncio.gather(self._of_database(), self._of_space())
        return generate_latest(_Joined(self._own, *families))

    async def _of_database(self) -> list[Metric]:
        up = GaugeMetricFamily("miaod_database_up", "Whether the database answered this scrape.")
        try:
            found = await self._database.ask(ANSWER_SECONDS)
        except (SQLAlchemyError, TimeoutError) as error:
            log.warning("no figures", action="figures_failed", error=type(error).__name__)
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        return [up, *found]

    async def _of_space(self) -> list[Metric]:
        try:
            found = await self._space.ask(ANSWER_SECONDS)
        except (OSError, TimeoutError) as error:
            log.warning("no figures", action="figures_failed", error=type(error).__name__)
            return []
        return _room(found)


class _Joined(Collector):
    def __init__(self, own: CollectorRegistry, *families: list[Metric]) -> None:
        self._own, self._families = own, families

    def collect(self) -> Iterable[Metric]:
        yield from self._own.collect()
        for family in self._families:
            yield from family


def _room(found: Space) -> list[Metric]:
    free = GaugeMetricFamily("miaod_data_free_bytes", "Room on the data folder's disk.")
    free.add_metric([], found.free_bytes)
    total = GaugeMetricFamily("miaod_data_size_bytes", "Size of the data folder's disk.")
    total.add_metric([], found.total_bytes)
    files = GaugeMetricFamily("miaod_data_free_files", "More files that fit on that disk.")
    if found.free_files is not None:
        files.add_metric([], found.free_files)
    return [free, total, files]


def _read(reading: sessionmaker[Session]) -> list[Metric]:
    with reading() as session, session.begin():
        return [
            *_jobs(session),
            *_workers(session),
            *_stock(session),
            *_risen(counters.read_all(session)),
        ]


def _jobs(session: Session) -> Iterator[Metric]:
    jobs = GaugeMetricFamily(
        "miaod_jobs", "Cycles and imports that have not ended.", labels=["queue", "state"]
    )
    oldest = GaugeMetricFamily(
        "miaod_oldest_queued_seconds",
        "Age of the oldest job that waits, since it was asked for; 0 if none waits.",
        labels=["queue"],
    )
    lapsed = GaugeMetricFamily(
        "miaod_lapsed_leases",
        "Jobs whose holder is silent for longer than its lease, and that nobody has taken over.",
        labels=["queue"],
    )
    for table in (Cycle, Import):
        name = table.__tablename__
        rows = {
            row.state: row
            for row in session.execute(
                select(
                    table.state,
                    func.count().label("number"),
                    func.min(table.created_at).label("oldest"),
                    func.sum(case((table.lease_until < now_seconds(), 1), else_=0)).label("lapsed"),
                    now_seconds().label("now"),
                )
                .where(table.state.in_(queue.ACTIVE))
                .group_by(table.state)
            )
        }
        for state in queue.ACTIVE:
            jobs.add_metric([name, state], rows[state].number if state in rows else 0)
        waiting, running = rows.get("queued"), rows.get("running")
        age = max(0.0, waiting.now - waiting.oldest.timestamp()) if waiting else 0.0
        oldest.add_metric([name], age)
        lapsed.add_metric([name], running.lapsed if running else 0)
    yield from (jobs, oldest, lapsed)


def _workers(session: Session) -> Iterator[Metric]:
    number = GaugeMetricFamily(
        "miaod_workers", "Workers seen within half a minute.", labels=["state"]
    )
    silent = GaugeMetricFamily(
        "miaod_worker_silent_seconds",
        "Since a worker last showed itself; a worker that starts anew is another one.",
        labels=["worker", "name", "device"],
    )
    live = {"idle": 0, "busy": 0}
    seconds = now_seconds() - Worker.last_seen
    rows = session.execute(
        select(Worker.id, Worker.name, Worker.device, Worker.cycle_id, seconds.label("silent"))
        .where(seconds < WORKER_SECONDS)
        .order_by(Worker.id)
    )
    for row in rows:
        silent.add_metric([row.id, row.name, row.device], max(0.0, row.silent))
        if row.silent <= LIVE_SECONDS:
            live["idle" if row.cycle_id is None else "busy"] += 1
    for state, count in live.items():
        number.add_metric([state], count)
    yield from (number, silent)


def _stock(session: Session) -> Iterator[Metric]:
    projects = session.execute(
        select(func.count(), func.sum(Project.next_ordinal)).where(Project.deleted_at.is_(None))
    ).one()
    yield _gauge("miaod_projects", "Projects.", projects[0])
    yield _gauge(
        "miaod_images", "Images ever added to these projects, deleted ones included.", projects[1]
    )
    queries = GaugeMetricFamily("miaod_queries", "Queries to be answered.", labels=["state"])
    for state in ("open", "claimed"):
        # By project, since the index of the queries begins with it.
        number = session.scalar(
            select(func.count())
            .select_from(Project)
            .join(Query, Query.project_id == Project.id)
            .where(Project.deleted_at.is_(None), Query.state == state)
        )
        queries.add_metric([state], number or 0)
    yield queries
    models = session.scalar(
        select(func.count())
        .select_from(Model)
        .where(Model.deleted_at.is_(None), Model.sha256.is_not(None))
    )
    yield _gauge("miaod_models", "Models whose weights are kept.", models)
    is_postgres = session.get_bind().dialect.name == "postgresql"
    size = session.scalar(
        text(
            "SELECT pg_database_size(current_database())"
            if is_postgres
            else "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        )
    )
    yield _gauge("miaod_database_size_bytes", "Size of the database.", size)


def _gauge(name: str, meaning: str, value: float | None) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, meaning)
    family.add_metric([], value or 0)
    return family


def _risen(counts: Counts) -> Iterator[Metric]:
    yield _counter(
        "miaod_attempts_lost",
        "Claims of a job that came to nothing: its holder fell silent, or its process crashed.",
        ["queue", "kind"],
        {
            (table, kind): counts.get((f"{table}_lost", kind), 0)
            for table in ("cycles", "imports")
            for kind in ("lapsed", "crashed")
        },
    )
    yield _counter(
        "miaod_jobs_ended",
        "Cycles and imports that have ended.",
        ["queue", "state"],
        {
            (table, state): counts.get((f"{table}_ended", state), 0)
            for table in ("cycles", "imports")
            for state in ("succeeded", "failed", "cancelled")
        },
    )
    stages = SummaryMetricFamily(
        "miaod_cycle_stage_seconds",
        "Time that cycles have spent in a stage, counted when the stage ends.",
        labels=["stage"],
    )
    for (name, stage), number in sorted(counts.items()):
        if name == "stages":
            spent = counts.get(("stage_seconds", stage), 0)
            stages.add_metric([stage], count_value=int(number), sum_value=spent)
    yield stages
    for name, meaning in (
        ("images_scored", "Images that cycles have scored; their time is that of the stage score."),
        ("checkpoints_saved", "States of running cycles that were saved."),
        ("checkpoints_failed", "States of running cycles that could not be saved."),
        ("checkpoint_seconds", "Time that cycles have spent on writing their states to the disk."),
    ):
        yield _counter(f"miaod_{name}", meaning, [], {(): counts.get((name, ""), 0)})


def _counter(
    name: str, meaning: str, labels: list[str], values: Mapping[tuple[str, ...], float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, meaning, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family
