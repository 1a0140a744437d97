"""Imports: asking for one, looking how far it is, and the thread of a server that does them."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from uuid import uuid4

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from structlog.contextvars import bound_contextvars

from server.errors import NotFound, ServiceError
from server.formats.archive import ArchiveRefused
from server.formats.boxes import LabelsRefused
from server.formats.dataset import LayoutRefused
from server.services import audit, projects
from server.services.import_job import ImportJob, Lifeline, unpacked_folders
from server.services.import_paths import below_a_root
from server.services.paging import PageOf, PageRequest, SortKey, paginate
from server.settings import Settings
from server.store import queue
from server.store.blobs import BlobStore
from server.store.models import Import, ImportRefusal, Json, Project
from server.store.outage import Patience, StillAway

log = structlog.get_logger(__name__)

LEASE_SECONDS = 60.0
HEARTBEAT_SECONDS = 15.0
POLL_SECONDS = 1.0
# How long to leave a database alone that does not answer.
AWAY_SECONDS = 5.0
# Between two tries where the disk is full. Each unpacks an archive anew and may fill the disk with
# it for a moment, which annotators would feel.
LONGEST_PAUSE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class ImportView:
    """An import with a page of what it refused."""

    job: Import
    refused: PageOf[ImportRefusal]


def create(
    session: Session,
    project_id: str,
    options: Json,
    settings: Settings,
    *,
    path: str | None = None,
    archive_sha256: str | None = None,
) -> Import:
    """Ask for an import; some server's runner takes it up within seconds.

    Args:
        session: writes.
        project_id: where the images go.
        options: `format split splits corners empty labels add_classes author`.
        settings: name the import roots.
        path: a folder or archive below an import root, or
        archive_sha256: the blob of an uploaded archive.

    Raises:
        NotFound: there is no such project.
        Unprocessable: the path is not below an import root.
    """
    projects.get(session, project_id)
    if path is not None:
        path = str(below_a_root(path, settings.import_roots))
    job = Import(project_id=project_id, path=path, archive_sha256=archive_sha256, options=options)
    session.add(job)
    session.flush()
    source = "archive" if path is None else "folder"
    audit.record(session, "import_created", project=project_id, subject=job.id, source=source)
    return job


def view(session: Session, import_id: str, page: PageRequest) -> ImportView:
    """How far an import is; NotFound if there is none, or its project is deleted."""
    job = session.scalar(
        select(Import)
        .join(Project, Project.id == Import.project_id)
        .where(Import.id == import_id, Project.deleted_at.is_(None))
    )
    if job is None:
        raise NotFound(f"no import {import_id}")
    refused = paginate(
        session,
        select(ImportRefusal).where(ImportRefusal.import_id == import_id),
        [SortKey(ImportRefusal.seq.expression, int)],
        page,
        order_name="refused",
    )
    return ImportView(job, refused)


class _Stopped(Exception):
    """The server is going down."""


class _Cancelled(Exception):
    """Somebody asked for the import to be cancelled."""


class _Keeper:
    """Renews the lease in a thread of its own: unpacking an archive may take minutes."""

    def __init__(
        self, sessions: sessionmaker[Session], lease: queue.Lease, stopping: threading.Event
    ) -> None:
        self._sessions, self._lease, self._stopping = sessions, lease, stopping
        self._done = threading.Event()
        self._lost: queue.LeaseLost | None = None
        self._cancel = False
        self._said = ""

    def check(self) -> None:
        """Raise if the job must stop."""
        if self._lost is not None:
            raise self._lost
        if self._cancel:
            raise _Cancelled
        if self._stopping.is_set():
            raise _Stopped

    def say(self, message: str) -> None:
        """Show what the import waits for, at once if that is news; "" when it goes on."""
        if message != self._said:
            self._said = message
            self._beat(message or "going on")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep the lease as long as this lasts."""
        self._beat()
        # With the context of this thread, so that its log lines name the import as well.
        run = copy_context().run
        thread = threading.Thread(target=run, args=[self._run], name="import-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def _run(self) -> None:
        while not self._done.wait(HEARTBEAT_SECONDS) and self._lost is None:
            self._beat()

    def _beat(self, message: str | None = None) -> None:
        try:
            with self._sessions.begin() as session:
                self._cancel = queue.heartbeat(session, self._lease, LEASE_SECONDS, message=message)
        except queue.LeaseLost as error:
            self._lost = error
        except SQLAlchemyError:
            log.warning("import heartbeat failed", action="import_heartbeat_failed", exc_info=True)


class ImportRunner:
    """Does the imports of a database, one at a time, in a thread of this process.

    Any number of processes may run one: an import belongs to whoever holds its lease, and one that
    was cut off is taken up again by the next claim.
    """

    def __init__(
        self, sessions: sessionmaker[Session], blobs: BlobStore, settings: Settings
    ) -> None:
        """Makes a runner; `start` starts it."""
        self._sessions, self._blobs, self._settings = sessions, blobs, settings
        self._id = str(uuid4())
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="imports", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Give the running import back to the queue, at the next picture, and end the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def run_one(self) -> bool:
        """Claim an import and do it here and now; False if none waits."""
        with self._sessions.begin() as session:
            lease = queue.claim(session, Import, self._id, LEASE_SECONDS)
        if lease is None:
            return False
        with bound_contextvars(**{"import": lease.job_id}):
            self._do(lease)
        return True

    def _run(self) -> None:
        try:
            self._remove_leftovers()
        except (OSError, SQLAlchemyError):
            log.warning("leftovers of imports stay", action="import_leftovers", exc_info=True)
        while not self._stopping.is_set():
            try:
                busy = self.run_one()
            except SQLAlchemyError:
                log.warning("no import claimed", action="import_claim_failed", exc_info=True)
                self._stopping.wait(AWAY_SECONDS)
                continue
            if not busy:
                self._stopping.wait(POLL_SECONDS)

    def _do(self, lease: queue.Lease) -> None:
        keeper = _Keeper(self._sessions, lease, self._stopping)
        patiently = Patience(
            self._settings.data_dir,
            check=keeper.check,
            say=keeper.say,
            longest_pause_seconds=LONGEST_PAUSE_SECONDS,
        )
        try:
            with keeper.running():
                keeper.check()
                patiently(lambda: self._work(lease, keeper))
        except queue.LeaseLost:
            log.warning("import lost its lease", action="import_lease_lost", job=lease.job_id)
        except _Cancelled:
            self._end(lease, queue.cancelled)
        except _Stopped:
            self._end(lease, queue.release)
        except ServiceError as error:
            self._end(lease, queue.fail, error.detail)
        except (LayoutRefused, ArchiveRefused, LabelsRefused) as error:
            self._end(lease, queue.fail, str(error))
        except StillAway as error:
            self._end(lease, queue.fail, f"{error}: mend that, then import again")
        except OSError as error:
            self._end(lease, queue.fail, f"the storage or the folder failed: {error}")
        except Exception as error:  # noqa: BLE001 (a bug must not end the thread; it is tried again)
            log.exception("import crashed", action="import_crashed", job=lease.job_id)
            self._end(lease, queue.lose, f"{type(error).__name__}: {error}")

    def _work(self, lease: queue.Lease, lifeline: Lifeline) -> None:
        """Do the import from behind its last chunk on."""
        ImportJob(self._sessions, self._blobs, self._settings, lease, lifeline).run()

    def _end(self, lease: queue.Lease, how: Callable[..., None], *reason: str) -> None:
        action = f"import_{how.__name__}"
        log.info("import ended early", action=action, job=lease.job_id, reason=" ".join(reason))
        try:
            with self._sessions.begin() as session:
                how(session, lease, *reason)
        except (queue.LeaseLost, SQLAlchemyError):
            log.warning("import not ended", action="import_not_ended", job=lease.job_id)

    def _remove_leftovers(self) -> None:
        """Remove what imports unpacked whose process was killed."""
        # Looked at first: an import that begins in between is active by the time of the question.
        folders = unpacked_folders(self._blobs)
        with self._sessions.begin() as session:
            active = set(session.scalars(select(Import.id).where(Import.state.in_(queue.ACTIVE))))
        for folder in folders:
            if folder.name[len("import-") :].rpartition("-")[0] not in active:
                shutil.rmtree(folder, ignore_errors=True)
