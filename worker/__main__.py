"""`python -m worker` runs cycles until SIGTERM or Ctrl-C; `python -m worker check` is its health.

The check exits with 0 if a worker on this host showed itself within the last minute, else with 1.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence

import stamina
import structlog
from pydantic import ValidationError
from pydantic_settings import SettingsError
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from server import logs
from server.store.database import WrongRevision, check_revision, make_engine, session_factory
from worker.loop import CYCLE_COMMAND, Supervisor
from worker.presence import is_seen
from worker.settings import WorkerSettings

log = structlog.get_logger("worker")

# Less than the ten seconds that a container's health check is given.
CHECK_SECONDS = 6.0


def main(command: Sequence[str] = CYCLE_COMMAND) -> int:
    """Start the supervisor.

    Args:
        command: what it starts for a cycle.

    Returns:
        The exit status: 0 after a signal, 1 when this worker cannot work here.
    """
    logs.configure()
    try:
        settings = WorkerSettings()
    except ValidationError as error:
        for problem in error.errors():
            log.error(problem["msg"], action="bad_setting", setting=problem["loc"])
        return 1
    except SettingsError as error:
        sentence = f"a setting cannot be read: {error}: {error.__cause__}"
        log.error(sentence, action="bad_setting")
        return 1
    try:
        engine = make_engine(
            settings.resolved_database_url, idle_transaction_seconds=settings.lease_seconds
        )
        # The database may still be starting, as under compose.
        stamina.RetryingCaller(attempts=None, timeout=60.0)(
            OperationalError, check_revision, engine
        )
    except WrongRevision as error:
        log.error(str(error), action="wrong_revision")
        return 1
    except OperationalError as error:
        log.error("the database cannot be reached", action="no_database", error=str(error.orig))
        return 1
    except (ArgumentError, ValueError) as error:
        log.error("MIAOD_DATABASE_URL is no database", action="bad_setting", error=str(error))
        return 1
    except OSError as error:
        log.error("the data folder cannot be used", action="no_data_dir", error=str(error))
        return 1
    supervisor = Supervisor(settings, session_factory(engine), command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    log.info("worker started", action="worker_started", device=settings.device)
    supervisor.run()
    log.info("worker stopped", action="worker_stopped")
    return 0


def check() -> int:
    """Tell this host's worker's health, within `CHECK_SECONDS` even if the database hangs.

    Returns:
        The exit status: 0 if one showed itself within the last minute, else 1.
    """
    logs.configure()
    healthy: list[bool] = []
    # In a thread that may be left behind: a database hangs in more ways than a time-out covers.
    asking = threading.Thread(target=lambda: healthy.append(_is_seen()), daemon=True)
    asking.start()
    asking.join(CHECK_SECONDS)
    if asking.is_alive():
        log.error("the database does not answer", action="no_database", seconds=CHECK_SECONDS)
    return 0 if healthy == [True] else 1


def _is_seen() -> bool:
    try:
        engine = make_engine(WorkerSettings().resolved_database_url)
        with session_factory(engine, read_only=True)() as session:
            healthy = is_seen(session)
    except (ValidationError, ValueError, SQLAlchemyError, OSError) as error:
        log.error("the database cannot be asked", action="no_database", error=str(error))
        return False
    if not healthy:
        log.error("no worker on this host was seen in the last minute", action="worker_not_seen")
    return healthy


if __name__ == "__main__":
    if sys.argv[1:] == ["check"]:
        sys.exit(check())
    if sys.argv[1:]:
        sys.exit(f"python -m worker takes no argument but `check`, not {' '.join(sys.argv[1:])!r}")
    sys.exit(main())
