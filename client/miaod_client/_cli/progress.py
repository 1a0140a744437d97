"""Progress on stderr: bars on a terminal, a line now and then in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from miaod_client._cli.output import note, percent, plain, stderr
from miaod_client._types import Cycle, CycleEvent, Import
from miaod_client._uploads import UploadProgress

# In a log, messages that only count on are told no more often.
LINE_SECONDS = 10.0

JobT = TypeVar("JobT", Cycle, CycleEvent, Import)


@contextmanager
def upload_bar() -> Iterator[Callable[[UploadProgress], None]]:
    """A bar over the bytes of many files."""
    files = TextColumn("{task.fields[files]}")
    with _bytes_bar(files) as bar:
        task = bar.add_task("uploading", total=None, files="")

        def show(progress: UploadProgress) -> None:
            bar.update(
                task,
                completed=progress.bytes_sent,
                total=progress.bytes_total,
                files=f"{progress.files_done}/{progress.files_total} files",
            )

        yield show


@contextmanager
def bytes_bar(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar over the bytes of one file, in either direction."""
    with _bytes_bar() as bar:
        task = bar.add_task(plain(what), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _bytes_bar(*more: TextColumn) -> Progress:
    console = stderr()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        *more,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def job_bar(what: str) -> Iterator[Callable[[JobT], None]]:
    """A bar over a running cycle or import, or in a log a line whenever what it does changes."""
    console = stderr()
    if not console.is_terminal:
        yield _lines(what)
        return
    with _job_progress(console) as bar:
        task = bar.add_task(plain(what), total=1.0, doing="")
        yield lambda job: bar.update(task, completed=job.progress, doing=plain(doing(job)))


@contextmanager
def watch_bar(what: str) -> Iterator[Callable[[CycleEvent], None]]:
    """As `job_bar`, from the events of a cycle, with its losses on a line of their own."""
    console = stderr()
    if not console.is_terminal:
        yield _lines(what)
        return
    bar = _job_progress(console)
    task = bar.add_task(plain(what), total=1.0, doing="")
    with Live(bar, console=console, transient=True) as live:

        def show(event: CycleEvent) -> None:
            bar.update(task, completed=event.progress, doing=plain(doing(event)))
            live.update(Group(bar, Text(plain(losses_of(event)), style="dim")))

        yield show


def _job_progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}", markup=False),
        console=console,
        transient=True,
    )


def _lines(what: str) -> Callable[[JobT], None]:
    said: tuple[str, ...] = ()
    said_at = 0.0

    def show(job: JobT) -> None:
        nonlocal said, said_at
        now = (job.state, stage_of(job), job.message)
        # Steps are counted in the message; a new state or stage is told at once, those at times.
        due = now[:2] != said[:2] or time.monotonic() - said_at >= LINE_SECONDS
        if now != said and due:
            note(f"{what}: {percent(job.progress)} {doing(job)}")
            said, said_at = now, time.monotonic()

    return show


def doing(job: Cycle | CycleEvent | Import) -> str:
    """What a job is at: its state, its stage, what it says of itself, and how long it will take."""
    parts = (job.state, stage_of(job), job.message, time_left(job))
    return ", ".join(part for part in parts if part)


def stage_of(job: Cycle | CycleEvent | Import) -> str:
    """The stage of a running cycle; imports have none."""
    return "" if isinstance(job, Import) else job.stage or ""


def time_left(job: Cycle | CycleEvent | Import) -> str:
    """How long a cycle will still take, in words; nothing where that is not known."""
    if isinstance(job, Import) or job.seconds_left is None:
        return ""
    seconds = round(job.seconds_left)
    if seconds < 60:
        return f"{seconds} s left"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min left"
    return f"{minutes // 60} h {minutes % 60} min left"


def losses_of(event: CycleEvent) -> str:
    """A cycle's losses in words; nothing where there are none."""
    return ", ".join(f"{name} {value:.4g}" for name, value in (event.losses or {}).items())
