"""The supervisor with a real database and real child processes that only pretend to train."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import Connection, Engine, event, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from server.store import queue
from server.store.database import now_seconds
from server.store.models import Cycle, CycleEvent, Worker
from worker.child_process import ChildProcess
from worker.loop import Supervisor
from worker.settings import WorkerSettings

ReadCycle = Callable[[str], Cycle]

# What every pretended training process does first, as the real one does.
PRELUDE = """
import argparse, os, signal, sys, time
from worker.child_process import tie_to_parent
from worker.progress import ProgressPipe
parser = argparse.ArgumentParser()
for name in ("cycle", "worker"): parser.add_argument("--" + name)
for name in ("fence", "parent", "progress-fd"): parser.add_argument("--" + name, type=int)
args = parser.parse_args()
tie_to_parent(args.parent)
pipe = ProgressPipe(args.progress_fd)
"""
FINISH = """
from server.store import queue
from server.store.database import make_engine, session_factory
from server.store.models import Cycle
lease = queue.Lease(Cycle, args.cycle, args.worker, args.fence)
with session_factory(make_engine(os.environ["MIAOD_DATABASE_URL"])).begin() as session:
    queue.finish(session, lease, num_selected=2)
"""


def child(body: str) -> Sequence[str]:
    return (sys.executable, "-c", PRELUDE + body)


@contextmanager
def running(
    settings: WorkerSettings, sessions: sessionmaker[Session], command: Sequence[str]
) -> Iterator[Supervisor]:
    supervisor = Supervisor(settings, sessions, command)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()
        thread.join(timeout=30)
        assert not thread.is_alive()


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def written(path: Path) -> int:
    """The number that a child wrote into a file, 0 as long as there is none."""
    return int(path.read_text() or 0) if path.exists() else 0


def alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_cycle_that_its_child_finished_is_left_as_the_child_wrote_it(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
) -> None:
    with running(settings, sessions, child(FINISH)):
        eventually(lambda: read_cycle(queued_cycle).state == "succeeded")
    cycle = read_cycle(queued_cycle)
    assert (cycle.num_selected, cycle.progress, cycle.attempts) == (2, 1.0, 0)


def test_a_child_that_has_published_but_not_ended_yet_has_lost_no_lease(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
) -> None:
    quick = settings.model_copy(update={"lease_seconds": 1})
    with (
        structlog.testing.capture_logs() as logs,
        running(quick, sessions, child(FINISH + "time.sleep(60)")),
    ):
        eventually(lambda: any(entry["action"] == "cycle_done" for entry in logs))
    assert read_cycle(queued_cycle).state == "succeeded"
    assert [entry["action"] for entry in logs] == ["cycle_claimed", "cycle_done"]


def test_what_the_child_reports_reaches_the_row_and_the_list_of_workers(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
) -> None:
    body = """
pipe.device("abacus (10 beads)")
pipe.report(0.25, "train", "label 1/3, step 5/20")
time.sleep(60)
"""

    def worker_row() -> Worker:
        with sessions() as session:
            return session.scalars(select(Worker)).one()

    with running(settings, sessions, child(body)):
        eventually(lambda: read_cycle(queued_cycle).progress == 0.25)
        cycle = read_cycle(queued_cycle)
        assert (cycle.state, cycle.stage) == ("running", "train")
        assert cycle.message == "label 1/3, step 5/20"
        row = worker_row()
        assert (row.device, row.cycle_id) == ("abacus (10 beads)", queued_cycle)
        assert row.id == cycle.worker_id


def test_what_the_child_reports_becomes_events_and_silence_becomes_none(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
) -> None:
    body = """
pipe.report(0.25, "train", "step 5/20", {"step": 5, "steps": 20, "losses": {"total": 0.5}})
time.sleep(1.5)
pipe.report(0.3, "score", "image 1/9", {"step": 1, "steps": 9})
time.sleep(1.5)
pipe.failed("on purpose")
time.sleep(60)
"""
    quick = settings.model_copy(update={"lease_seconds": 1})
    with running(quick, sessions, child(body)):
        eventually(lambda: read_cycle(queued_cycle).state == "failed")
    with sessions() as session:
        events = session.scalars(select(CycleEvent).order_by(CycleEvent.seq)).all()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    said = [event.data for event in events if event.kind == "progress"]
    # The first beat may come before the child has said a word.
    said = [data for data in said if data["stage"] != "start"]
    assert [(data["stage"], data["step"], data.get("losses")) for data in said] == [
        ("train", 5, {"total": 0.5}),
        ("score", 1, None),
    ]


def test_a_reported_failure_ends_the_cycle_at_once_and_the_worker_takes_the_next(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
) -> None:
    command = child("pipe.failed('the loss is nan at step 3')\ntime.sleep(60)")
    with running(settings, sessions, command):
        for _ in range(2):
            eventually(lambda: read_cycle(queued_cycle).state == "failed")
            cycle = read_cycle(queued_cycle)
            assert cycle.error == "the loss is nan at step 3"
            assert cycle.attempts == 0
            with sessions.begin() as session:
                session.execute(update(Cycle).values(state="queued", error=None))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL (the system kills so when memory"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os.kill(os.getpid(), 40)", "signal 40"),
        ("pipe.crashed('RuntimeError: the GPU fell off'); sys.exit(1)", "the GPU fell off"),
        (r"pipe.crashed('broken \udc80 and \0'); sys.exit(1)", "broken ? and ?"),
        ("sys.exit(3)", "exit code 3"),
        ("", "without a result"),
    ],
    ids=[
        "killed",
        "segfault",
        "nameless signal",
        "exception",
        "unstorable text",
        "exit code",
        "no result",
    ],
)
def test_a_crash_costs_an_attempt_and_the_third_fails_the_cycle_with_the_reason(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
    body: str,
    reason: str,
) -> None:
    with running(settings, sessions, child(body)):
        eventually(lambda: read_cycle(queued_cycle).state == "failed")
    cycle = read_cycle(queued_cycle)
    assert (cycle.attempts, cycle.fence) == (queue.MAX_ATTEMPTS, queue.MAX_ATTEMPTS)
    assert cycle.error is not None
    assert reason in cycle.error


def test_a_command_that_cannot_be_started_costs_attempts_and_not_the_worker(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
) -> None:
    with running(settings, sessions, ["/no/such/program"]):
        eventually(lambda: read_cycle(queued_cycle).state == "failed")
    assert "could not be started" in (read_cycle(queued_cycle).error or "")


def test_after_a_lost_attempt_the_worker_rests_and_stays_visible(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.loop.RETRY_SECONDS", (600.0,))
    monkeypatch.setattr("worker.loop.IDLE_BEAT_SECONDS", 0.05)

    def seen() -> float:
        with sessions() as session:
            return session.scalars(select(Worker.last_seen)).one()

    with running(settings, sessions, child("sys.exit(3)")):
        eventually(lambda: read_cycle(queued_cycle).attempts == 1)
        before = seen()
        eventually(lambda: seen() > before)
        eventually(lambda: seen() > before + 0.5)
        # Its next attempt comes here later, or at once on another worker.
        assert (read_cycle(queued_cycle).state, read_cycle(queued_cycle).attempts) == ("queued", 1)
        with running(settings, sessions, child(FINISH)):
            eventually(lambda: read_cycle(queued_cycle).state == "succeeded")


def test_a_machine_that_can_start_no_process_costs_attempts_and_not_the_worker(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_process(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("worker.loop.ChildProcess", no_process)
    with running(settings, sessions, child(FINISH)):
        eventually(lambda: read_cycle(queued_cycle).state == "failed")
        assert "could not be started: [Errno 11]" in (read_cycle(queued_cycle).error or "")
        monkeypatch.undo()
        with sessions.begin() as session:
            assert queue.resume(session, Cycle, queued_cycle)
        eventually(lambda: read_cycle(queued_cycle).state == "succeeded")


def test_a_child_that_waits_for_room_is_not_silent_and_says_so_in_the_row(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
    tmp_path: Path,
) -> None:
    room = tmp_path / "room"
    body = f"""
import errno
from pathlib import Path
from server.store.outage import Patience
def write():
    if not os.path.exists({str(room)!r}):
        raise OSError(errno.ENOSPC, "No space left on device")
pipe.report(0.5, "select", "image 1/2")
Patience(Path({str(tmp_path)!r}), check=lambda: None, say=pipe.waiting)(write)
while not os.path.exists({str(room)!r} + "y"):
    pipe.report(0.5, "select", "image 1/2")
    time.sleep(0.1)
{FINISH}"""
    patient = settings.model_copy(update={"progress_timeout_seconds": 3.0})

    def message() -> str:
        return read_cycle(queued_cycle).message or ""

    with running(patient, sessions, child(body)):
        eventually(lambda: message().startswith("waiting: the disk is full ("))
        time.sleep(4.0)  # longer than a silence may last
        cycle = read_cycle(queued_cycle)
        assert (cycle.state, cycle.stage, cycle.progress) == ("running", "select", 0.5)
        assert (cycle.attempts, cycle.fence) == (0, 1)
        room.touch()
        eventually(lambda: message() == "image 1/2")
        room.with_name("roomy").touch()
        eventually(lambda: read_cycle(queued_cycle).state == "succeeded")


def test_a_child_that_says_nothing_for_too_long_is_killed_even_if_it_ignores_sigterm(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.loop.GRACE_SECONDS", 0.2)
    pid_file = tmp_path / "pid"
    # Only the first attempt hangs: what it left behind can be looked at without a race.
    body = f"""
if not os.path.exists({str(pid_file)!r}):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open({str(pid_file)!r}, "w").write(str(os.getpid()))
    pipe.report(0.5, "train", "about to hang")
    time.sleep(60)
{FINISH}"""
    patient = settings.model_copy(update={"progress_timeout_seconds": 3.0})
    with structlog.testing.capture_logs() as logs, running(patient, sessions, child(body)):
        eventually(lambda: read_cycle(queued_cycle).state == "succeeded")
    reasons = [entry["reason"] for entry in logs if entry["action"] == "cycle_crashed"]
    # A child that starts slowly, on a busy machine, is taken for a hanging one too.
    assert set(reasons) == {"the training process made no progress for 3 s and was stopped"}
    assert read_cycle(queued_cycle).attempts == len(reasons)
    assert not alive(written(pid_file))


def test_a_worker_that_was_frozen_itself_does_not_take_its_child_for_hung(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class FrozenFor:
        """Time as it looks to a process that slept through some of it."""

        seconds = 0.0

        def monotonic(self) -> float:
            return time.monotonic() + self.seconds

    clock = FrozenFor()
    monkeypatch.setattr("worker.loop.time", clock)
    go_on = tmp_path / "go_on"
    body = f"""
pipe.report(0.5, "train", "step 1")
while not os.path.exists({str(go_on)!r}):
    time.sleep(0.05)
time.sleep(1)
{FINISH}"""
    with structlog.testing.capture_logs() as logs, running(settings, sessions, child(body)):
        eventually(lambda: read_cycle(queued_cycle).stage == "train")
        clock.seconds = 2 * settings.progress_timeout_seconds
        go_on.touch()
        eventually(lambda: read_cycle(queued_cycle).state == "succeeded")
    assert [entry["action"] for entry in logs] == ["cycle_claimed", "cycle_done"]


def test_a_cancelled_cycle_stops_within_seconds_with_all_that_its_child_started(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
    tmp_path: Path,
) -> None:
    pid_file = tmp_path / "pid"
    body = f"""
import subprocess
sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({str(pid_file)!r}, "w").write(str(sleeper.pid))
time.sleep(60)
"""
    with running(settings, sessions, child(body)):
        eventually(lambda: written(pid_file) > 0)
        with sessions.begin() as session:
            assert queue.request_cancel(session, Cycle, queued_cycle) == "running"
        eventually(lambda: read_cycle(queued_cycle).state == "cancelled", seconds=10)
        sleeper = written(pid_file)
        eventually(lambda: not alive(sleeper))
    assert read_cycle(queued_cycle).error is None


def test_who_reads_for_a_child_is_not_stopped_before_it(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
    tmp_path: Path,
) -> None:
    pid_file, seen_file = tmp_path / "pid", tmp_path / "seen"
    body = f"""
import subprocess
reader = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
def save_and_leave(*_):
    try:
        seen = reader.wait(1)
    except subprocess.TimeoutExpired:
        seen = "alive"
    open({str(seen_file)!r}, "w").write(str(seen))
    sys.exit(1)
signal.signal(signal.SIGTERM, save_and_leave)
open({str(pid_file)!r}, "w").write(str(reader.pid))
while True: time.sleep(1)
"""
    with running(settings, sessions, child(body)):
        eventually(lambda: written(pid_file) > 0)
    assert seen_file.read_text() == "alive"
    assert not alive(written(pid_file))
    assert read_cycle(queued_cycle).state == "queued"


def test_a_child_that_was_stopped_together_with_its_worker_has_lost_no_attempt(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
) -> None:
    class StoppedWithItsChild(Supervisor):
        def _watch(self, child: ChildProcess, lease: queue.Lease) -> Any:
            child.stop(0.0)
            self.stop()
            return super()._watch(child, lease)

    StoppedWithItsChild(settings, sessions, child("time.sleep(60)")).run()
    cycle = read_cycle(queued_cycle)
    assert (cycle.state, cycle.attempts) == ("queued", 0)


def test_what_a_crashed_child_leaves_behind_is_killed(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
    tmp_path: Path,
) -> None:
    pid_file = tmp_path / "pid"
    body = f"""
import subprocess
sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({str(pid_file)!r}, "w").write(str(sleeper.pid))
pipe.failed("cannot be done")
os.kill(os.getpid(), signal.SIGKILL)
"""
    with running(settings, sessions, child(body)):
        eventually(lambda: read_cycle(queued_cycle).state == "failed")
        eventually(lambda: not alive(written(pid_file)))


def test_a_worker_that_lost_its_lease_kills_its_child_and_writes_nothing(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
    tmp_path: Path,
) -> None:
    pid_file = tmp_path / "pid"
    body = f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    with running(settings, sessions, child(body)):
        eventually(lambda: written(pid_file) > 0)
        # Somebody else claims the cycle, as after a lapsed lease.
        with sessions.begin() as session:
            session.execute(
                update(Cycle).values(
                    fence=Cycle.fence + 1,
                    worker_id="somebody else",
                    progress=0.75,
                    lease_until=now_seconds() + 1000,
                )
            )
        eventually(lambda: not alive(written(pid_file)))
    cycle = read_cycle(queued_cycle)
    assert (cycle.state, cycle.worker_id) == ("running", "somebody else")
    assert (cycle.progress, cycle.attempts) == (0.75, 0)


def test_a_worker_that_is_told_to_stop_gives_its_cycle_back_without_counting_an_attempt(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
) -> None:
    with running(settings, sessions, child("time.sleep(60)")):
        eventually(lambda: read_cycle(queued_cycle).state == "running")
    cycle = read_cycle(queued_cycle)
    assert (cycle.state, cycle.attempts, cycle.worker_id) == ("queued", 0, None)


@contextmanager
def worker_process(settings: WorkerSettings, body: str) -> Iterator[subprocess.Popen[bytes]]:
    source = f"import sys; from worker.__main__ import main; sys.exit(main({child(body)!r}))"
    environment = {**os.environ, **settings.as_environment(), "MIAOD_POLL_SECONDS": "0.05"}
    process = subprocess.Popen([sys.executable, "-c", source], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_stops_the_child_gives_the_cycle_back_and_ends_the_worker_well(
    settings: WorkerSettings,
    queued_cycle: str,
    read_cycle: ReadCycle,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    pid_file = tmp_path / "pid"
    body = f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    with worker_process(settings, body) as process:
        eventually(lambda: written(pid_file) > 0)
        process.send_signal(number)
        assert process.wait(timeout=20) == 0
    assert not alive(written(pid_file))
    cycle = read_cycle(queued_cycle)
    assert (cycle.state, cycle.attempts) == ("queued", 0)


def test_a_killed_worker_takes_its_child_along_and_the_cycle_waits_for_its_lease_to_lapse(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
    tmp_path: Path,
) -> None:
    pid_file = tmp_path / "pid"
    body = f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    with worker_process(settings, body) as process:
        eventually(lambda: written(pid_file) > 0)
        process.kill()
        eventually(lambda: not alive(written(pid_file)), seconds=5)
    assert read_cycle(queued_cycle).state == "running"
    with sessions.begin() as session:
        session.execute(update(Cycle).values(lease_until=now_seconds() - 1))
    with running(settings, sessions, child(FINISH)):
        eventually(lambda: read_cycle(queued_cycle).state == "succeeded")
    assert read_cycle(queued_cycle).attempts == 1


def test_a_child_whose_supervisor_died_before_it_could_ask_the_kernel_leaves_at_once() -> None:
    source = "from worker.child_process import tie_to_parent; tie_to_parent(1); print('alive')"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_the_child_goes_on_and_the_worker_lives_on_while_the_database_is_away(
    settings: WorkerSettings,
    engine: Engine,
    sessions: sessionmaker[Session],
    queued_cycle: str,
    read_cycle: ReadCycle,
    tmp_path: Path,
) -> None:
    started, go_on = tmp_path / "started", tmp_path / "go_on"
    body = f"""
open({str(started)!r}, "a").write("1")
while not os.path.exists({str(go_on)!r}):
    time.sleep(0.05)
{FINISH}"""
    away = threading.Event()
    refused = threading.Event()

    def refuse(_: Connection) -> None:
        if away.is_set():
            refused.set()
            raise OperationalError("BEGIN", {}, ConnectionError("the database is away"))

    with running(settings, sessions, child(body)) as supervisor:
        eventually(started.exists)
        event.listen(engine, "begin", refuse)
        away.set()
        eventually(refused.is_set)
        go_on.touch()  # the child's own connection works, so that it finishes meanwhile
        time.sleep(1)
        away.clear()
        eventually(lambda: read_cycle(queued_cycle).state == "succeeded")
        # An idle worker knocks as well until the database is back.
        refused.clear()
        away.set()
        eventually(refused.is_set)
        away.clear()
        with sessions.begin() as session:
            session.execute(update(Cycle).values(state="queued"))
        eventually(lambda: read_cycle(queued_cycle).state == "succeeded")
        # And one that is told to stop does not wait for it.
        away.set()
        supervisor.stop()
    assert started.read_text() == "11"
    assert read_cycle_attempts(engine, away, queued_cycle) == 0


def read_cycle_attempts(engine: Engine, away: threading.Event, cycle_id: str) -> int:
    away.clear()
    with Session(engine) as session:
        return session.get_one(Cycle, cycle_id).attempts


def test_an_idle_worker_stays_visible_and_forgets_those_long_gone(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.loop.IDLE_BEAT_SECONDS", 0.1)
    with sessions.begin() as session:
        for name, age in (("ancient", 100_000), ("recent", 100)):
            session.add(
                Worker(id=name, name=name, device="cpu", version="1", last_seen=now_seconds() - age)
            )

    def last_seen() -> float:
        with sessions() as session:
            query = select(Worker.last_seen).where(Worker.device == "cpu", Worker.id != "recent")
            return session.scalars(query).one_or_none() or 0.0

    with running(settings, sessions, child("")):
        eventually(lambda: last_seen() > 0)
        before = last_seen()
        eventually(lambda: last_seen() > before)
    with sessions() as session:
        assert len(session.scalars(select(Worker)).all()) == 2
        assert session.get(Worker, "recent") is not None


def test_a_database_without_our_tables_is_refused_with_a_sentence(
    empty_database_url: str, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "MIAOD_DATABASE_URL": empty_database_url,
        "MIAOD_DATA_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "worker"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "python -m server migrate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("MIAOD_DEVICE", "abacus", "it must be auto, cpu, cuda or cuda:N"),
        ("MIAOD_DATABASE_URL", "mysql://host/name", "use sqlite:/// or postgresql+psycopg://"),
        ("MIAOD_DATABASE_URL", "a database", "MIAOD_DATABASE_URL is no database"),
        ("MIAOD_DATA_DIR", "/dev/null/data", "the data folder cannot be used"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_a_sentence(
    tmp_path: Path, setting: str, value: str, sentence: str
) -> None:
    environment = {**os.environ, "MIAOD_DATA_DIR": str(tmp_path), setting: value}
    done = subprocess.run(
        [sys.executable, "-m", "worker"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_the_supervisor_never_loads_torch() -> None:
    source = "import sys, worker.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0
