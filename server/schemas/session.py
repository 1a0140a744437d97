"""Signing a browser in, and who one is."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, Field, StringConstraints

from server.schemas.common import RequestModel
from server.schemas.keys import Role
from server.services.identity import Caller


class SignInIn(RequestModel):
    """A key, to be changed for a cookie."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=1000)] = Field(
        examples=["miaod_a1B2c3…"]
    )


class UserOut(BaseModel):
    """Who asks."""

    id: str | None = Field(
        description="Of the key. Null for `MIAOD_ADMIN_KEY` and on a server without keys."
    )
    name: str = Field(description="Stands as author beside what is done.")
    role: Role
    projects: list[str] | None = Field(description="Null: all projects.")


class SessionOut(BaseModel):
    """Who asks, and what their changes must carry."""

    user: UserOut
    csrf_token: str | None = Field(
        description=(
            "A page that uses the cookie sends it as `X-CSRF-Token` with every change. Null where "
            "no cookie was used."
        )
    )
    open: bool = Field(description="The server has no keys and is open to its machine's user.")

    @classmethod
    def of(cls, caller: Caller) -> Self:
        """From the caller."""
        projects = None if caller.projects is None else sorted(caller.projects)
        return cls(
            user=UserOut(id=caller.key_id, name=caller.name, role=caller.role, projects=projects),
            csrf_token=caller.csrf_token,
            open=caller.local,
        )
