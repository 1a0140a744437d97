"""The worker's row in the database: who is there, on what device, busy with which cycle."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from server import __version__
from server.store.database import now_seconds
from server.store.ids import new_id
from server.store.models import Worker

# Rows of workers unseen for so long are cleared away when another one starts.
FORGET_AFTER_SECONDS = 24 * 3600.0

# A worker shows itself every few seconds; the rest is patience with a slow database.
HEALTHY_SECONDS = 60.0


class Presence:
    """A worker as others see it. A worker that starts anew is a new one, with a new id."""

    def __init__(self, device: str) -> None:
        """Take a fresh id; nothing is written yet."""
        self.worker_id = new_id()
        self.name = socket.gethostname()
        self.device = device
        self.cycle_id: str | None = None

    def forget_old_workers(self, session: Session) -> None:
        """Delete the rows of workers that are long gone."""
        session.execute(
            delete(Worker).where(Worker.last_seen < now_seconds() - FORGET_AFTER_SECONDS)
        )

    def show(self, session: Session) -> None:
        """Write the row as things are now, with the database's time as `last_seen`."""
        values = {"device": self.device, "cycle_id": self.cycle_id, "last_seen": now_seconds()}
        known = session.execute(
            update(Worker).where(Worker.id == self.worker_id).values(values).returning(Worker.id)
        )
        if known.one_or_none() is None:
            row = Worker(id=self.worker_id, name=self.name, version=__version__, **values)
            session.add(row)


def is_seen(session: Session) -> bool:
    """Whether a worker on this host has shown itself lately: its health."""
    found = session.scalar(
        select(Worker.id).where(
            Worker.name == socket.gethostname(),
            Worker.last_seen >= now_seconds() - HEALTHY_SECONDS,
        )
    )
    return found is not None


def device_guess(setting: str, exists: Callable[[Path], bool] = Path.exists) -> str:
    """What to show as the device until a training process says what it found.

    The supervisor never loads torch, which alone knows for sure; a driver's device file is a fair
    sign of a GPU.
    """
    if setting != "auto":
        return setting
    return "cuda" if exists(Path("/dev/nvidia0")) else "cpu"
