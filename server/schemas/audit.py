"""The audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from server.store.models import AuditEntry


class AuditEntryOut(BaseModel):
    """Who did what."""

    id: str
    at: datetime
    key: str | None = Field(
        description="Id of the key. Null for `MIAOD_ADMIN_KEY`, the local user and the server."
    )
    actor: str = Field(description="The key's name when it was done.")
    action: str = Field(examples=["project_created"])
    project: str | None
    object: str | None = Field(description="Id of what was changed or read.")
    request_id: str | None = Field(description="As in the log and in `X-Request-ID`.")
    detail: dict[str, Any] = Field(description="Counts and names; never content or a secret.")

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        """From the row."""
        return cls(
            id=entry.id,
            at=entry.at,
            key=entry.key_id,
            actor=entry.actor,
            action=entry.action,
            project=entry.project_id,
            object=entry.object_id,
            request_id=entry.request_id,
            detail=entry.detail,
        )
