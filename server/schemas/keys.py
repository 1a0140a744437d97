"""Keys: who may use the service, and in which role."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from server.schemas.common import EXAMPLE_ID, EntityId, Name, RequestModel
from server.services.keys import KeyView

Role = Literal["viewer", "annotator", "engineer", "admin"]

Projects = Annotated[list[EntityId], Field(min_length=1, max_length=1000)]


class KeyIn(RequestModel):
    """A new key."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "ana", "role": "annotator", "projects": [EXAMPLE_ID]}]
        }
    )

    name: Name = Field(
        description="Of the person or program that gets it; the author of what they do."
    )
    role: Role = Field(
        description=(
            "`viewer` reads. `annotator` also claims and annotates. `engineer` also changes "
            "everything in its projects and takes data and models out. `admin` also manages keys."
        )
    )
    projects: Projects | None = Field(
        default=None, description="The projects that exist for the key."
    )
    all_projects: bool = Field(
        default=False, description="All projects, coming ones too; always so for `admin`."
    )
    # JSON has no times, so this one field takes text.
    expires_at: AwareDatetime | None = Field(
        default=None, strict=False, description="When it ends by itself; null: never."
    )

    @model_validator(mode="after")
    def _says_which_projects(self) -> Self:
        if self.projects is not None and self.all_projects:
            raise ValueError("give projects or all_projects, not both")
        if self.role != "admin" and self.projects is None and not self.all_projects:
            raise ValueError("say which projects it is for: a list of ids, or all_projects: true")
        return self


class KeyPatch(RequestModel):
    """Changes of a key; what is absent stays. Its role is fixed: make another key for another."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"projects": [EXAMPLE_ID]}]})

    name: Name | None = None
    projects: Projects | None = Field(
        default=None, description="The projects that exist for it from now on, all of them."
    )
    all_projects: Literal[True] | None = Field(default=None, description="All projects.")

    @model_validator(mode="after")
    def _says_which_projects(self) -> Self:
        if self.projects is not None and self.all_projects:
            raise ValueError("give projects or all_projects, not both")
        return self


class KeyOut(BaseModel):
    """A key, as far as it is ever told again."""

    id: str
    name: str
    role: Role
    projects: list[str] | None = Field(description="Null: all projects.")
    prefix: str = Field(
        description="The first characters of the key, to recognise it.", examples=["miaod_a1B2c3"]
    )
    created_at: datetime
    created_by: str
    last_used_at: datetime | None = Field(description="To the minute.")
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, view: KeyView) -> Self:
        """From the service's view."""
        return cls(**_fields(view))


class KeyCreatedOut(KeyOut):
    """A new key. This answer is the only one that ever holds it."""

    key: str = Field(
        description="Keep it: only its hash is stored.",
        examples=["miaod_a1B2c3…"],
    )

    @classmethod
    def with_secret(cls, view: KeyView, secret: str) -> Self:
        """From the service's view, and the key itself."""
        return cls(key=secret, **_fields(view))


def _fields(view: KeyView) -> dict[str, object]:
    key = view.key
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "projects": None if view.projects is None else list(view.projects),
        "prefix": key.prefix,
        "created_at": key.created_at,
        "created_by": key.created_by,
        "last_used_at": key.last_used_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }
