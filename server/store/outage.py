"""What is away for a while, the database or the storage, and waiting for it.

A full disk, a read-only one, a network folder that does not answer, a database that restarts: none
of them is the fault of the work that meets it, and the same again goes well once they are back. Who
has hours to lose waits (`Patience`); a request is answered at once, and its client tries again.
"""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

T = TypeVar("T")

log = structlog.get_logger(__name__)

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
}
AWAY = {
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk fails to read or write",
    errno.ESTALE: "the network folder is gone",
    errno.ENOTCONN: "the network folder is not connected",
    errno.EHOSTDOWN: "the network folder's server is down",
    errno.ETIMEDOUT: "the network folder's server does not answer",
    errno.ENODEV: "the data folder is not there",
}
# Of the data folder these are an operator's slip, of any other path a mistake in what was asked.
_FORBIDDEN = {errno.EACCES, errno.EPERM}
# As SQLite and Postgres say it.
DATABASE_FULL = ("disk is full", "No space left on device")
# A Postgres that is just becoming the primary, or no longer is.
_READ_ONLY_TRANSACTION = "25006"

# Longer than a night in which nobody makes room; what has not been mended within a day is not going
# to mend itself, and a job that failed for it can be resumed.
LIMIT_SECONDS = 24 * 3600.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0
# Work that went well for so long before it met the next trouble has got on: the limit starts anew.
GOT_ON_SECONDS = 600.0
_SAY_SECONDS = 1.0


class StorageAway(Exception):
    """The storage cannot be used just now; the message says how that shows."""

    @property
    def sentence(self) -> str:
        """The message alone: a loader process puts its traceback before it."""
        return str(self).rpartition(f"{type(self).__name__}: ")[2].strip()


class StillAway(Exception):
    """What was waited for has not come back in time; the message says what and how long."""


def is_outage(error: BaseException) -> bool:
    """Whether the database is away, locked or full, so that the same again may go well later."""
    if isinstance(error, OperationalError | InterfaceError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    read_only = getattr(error.orig, "sqlstate", None) == _READ_ONLY_TRANSACTION
    return error.connection_invalidated or read_only


def cause(error: BaseException, data_dir: Path) -> str | None:
    """What is away, in words; None if the error is of another kind and would come again.

    Args:
        error: what the work has met.
        data_dir: the folder of the blobs; a permission that is missing elsewhere is no outage.
    """
    if isinstance(error, StorageAway):
        return error.sentence
    if isinstance(error, DBAPIError):
        if not is_outage(error):
            return None
        if is_database_full(error):
            return "the disk of the database is full"
        return "the database does not answer"
    if not isinstance(error, OSError):
        return None
    if error.errno in _FORBIDDEN:
        is_ours = Path(str(error.filename)).is_relative_to(data_dir)
        return f"{error.filename} may not be used ({error.strerror})" if is_ours else None
    return FULL.get(error.errno or 0) or AWAY.get(error.errno or 0)


def is_database_full(error: DBAPIError) -> bool:
    """Whether the database has no room left on its disk."""
    return any(words in str(error.orig) for words in DATABASE_FULL)


class Patience:
    """Does work over and over as long as what it needs is away, and says meanwhile that it waits.

    The pauses grow from half a second on. Waiting ends with the limit, or when `check` raises.
    A try that went well for a while before it met trouble has got on, and is no more waiting.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        check: Callable[[], None],
        say: Callable[[str], None],
        longest_pause_seconds: float = LONGEST_PAUSE_SECONDS,
    ) -> None:
        """Prepare.

        Args:
            data_dir: the folder of the blobs.
            check: asked every second of a pause; raises to stop the waiting.
            say: told every second of a pause what is waited for, and "" when it is over.
            longest_pause_seconds: between two tries.
        """
        self._data_dir = data_dir
        self._check, self._say = check, say
        self._longest = longest_pause_seconds

    def __call__(self, work: Callable[[], T]) -> T:
        """Do `work`, again and again if need be; it must bear being done twice.

        Raises:
            StillAway: it was away for `LIMIT_SECONDS` in a row.
            Exception: whatever `work` raises that is no outage, and what `check` raises.
        """
        waiting_since: float | None = None
        pause = FIRST_PAUSE_SECONDS
        while True:
            started = time.monotonic()
            try:
                result = work()
            except Exception as error:
                reason = cause(error, self._data_dir)
                if reason is None:
                    raise
                log.warning("waiting", action="waiting", reason=reason, error=str(error))
            else:
                if waiting_since is not None:
                    self._say("")
                return result
            # Out here, so that the error and all that its traceback holds are gone meanwhile.
            now = time.monotonic()
            if waiting_since is None or now - started > GOT_ON_SECONDS:
                waiting_since, pause = now, FIRST_PAUSE_SECONDS
            if now - waiting_since >= LIMIT_SECONDS:
                hours = LIMIT_SECONDS / 3600
                raise StillAway(f"{self._described(reason)}, and was still so after {hours:.3g} h")
            self._wait(reason, pause)
            pause = min(2 * pause, self._longest)

    def _wait(self, reason: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        is_full = reason in FULL.values() or "is full" in reason
        end = "there is room" if is_full else "that has ended"
        while (remaining := until - time.monotonic()) > 0:
            self._check()
            self._say(f"waiting: {self._described(reason)}; goes on by itself once {end}")
            time.sleep(min(remaining, _SAY_SECONDS))
        self._check()

    def _described(self, reason: str) -> str:
        """The reason with where to look; it changes while somebody makes room."""
        if reason in AWAY.values():
            return f"{reason} ({self._data_dir})"
        if reason not in FULL.values():
            return reason
        try:
            free = shutil.disk_usage(self._data_dir).free
        except OSError:
            return f"{reason} ({self._data_dir})"
        return f"{reason} ({self._data_dir}: {free / 1e6:.0f} MB free)"
