"""What operators look at: workers and health."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from server.services.health import Check
from server.services.workers import WorkerView


class WorkerOut(BaseModel):
    """A worker as it last reported itself."""

    id: str
    name: str
    device: str = Field(examples=["cuda:0 NVIDIA H200"])
    version: str
    started_at: datetime
    last_seen: datetime
    seconds_since_seen: float
    live: bool = Field(description="Seen lately; a worker reports itself every few seconds.")
    cycle: str | None = Field(description="The cycle that it runs.")

    @classmethod
    def of(cls, view: WorkerView) -> Self:
        """From the service's view."""
        worker = view.worker
        return cls(
            id=worker.id,
            name=worker.name,
            device=worker.device,
            version=worker.version,
            started_at=worker.started_at,
            last_seen=view.last_seen,
            seconds_since_seen=view.seconds_since_seen,
            live=view.live,
            cycle=view.cycle_id,
        )


class HealthOut(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str


class CheckOut(BaseModel):
    """One thing that the server needs."""

    ok: bool
    detail: str

    @classmethod
    def of(cls, check: Check) -> Self:
        """From the service's check."""
        return cls(ok=check.ok, detail=check.detail)


class ReadinessOut(BaseModel):
    """Whether the server can do its work, and what is amiss."""

    ready: bool
    checks: dict[str, CheckOut] = Field(
        description="`database`, `schema`, `storage` and `free_space`."
    )
