"""Settings of the server, read from environment variables with the prefix `MIAOD_`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from server.store.database import default_database_url

_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:\d{1,5})?")
SECRETS_DIR = Path("/run/secrets")
# Shorter ones are found by trying, however slowly that goes; an empty one is found at once.
MIN_ADMIN_KEY_CHARACTERS = 16


class Settings(BaseSettings):
    """What an operator may set; the README's table names each variable."""

    model_config = SettingsConfigDict(
        env_prefix="MIAOD_",
        env_ignore_empty=True,
        # A setting that is secret may come as a file of its name, as containers get them.
        secrets_dir=SECRETS_DIR if SECRETS_DIR.is_dir() else None,
        hide_input_in_errors=True,  # it may be a key
    )

    data_dir: Path = Field(
        Path("data"), description="Folder of the blobs, and of the SQLite database if that is used."
    )
    database_url: str | None = Field(
        None,
        repr=False,  # may hold a password
        description="`postgresql+psycopg://…` or `sqlite:///…`; unset: a file in the data folder.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    admin_key: SecretStr | None = Field(
        None,
        description=(
            "A key with the role admin, beside those in the database. Unset: on loopback the "
            "server is open until there is a key; elsewhere the first start makes one. It has "
            "at least 16 characters."
        ),
    )
    cors_origins: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Origins of other pages that may use the API with a key; default none.",
    )
    trusted_proxies: str = Field(
        "127.0.0.1",
        description="Addresses whose X-Forwarded-For and X-Forwarded-Proto are believed.",
    )
    import_roots: Annotated[list[Path], NoDecode] = Field(
        default_factory=list,
        description="Folders that server-side imports may read, separated like PATH; default none.",
    )
    default_preset: str = Field(
        "cpu", description="Training preset of a cycle that names none: `cpu`, `default`, …"
    )
    max_image_pixels: int = Field(
        100_000_000, gt=0, description="A picture with more pixels is refused."
    )
    max_upload_bytes: int = Field(
        50_000_000, gt=0, description="An uploaded picture with more bytes is refused."
    )
    max_archive_bytes: int = Field(
        20_000_000_000,
        gt=0,
        description="An uploaded archive, packed or unpacked, may be this big.",
    )
    max_upload_files: int = Field(1000, gt=0, description="Files in one upload request.")
    max_project_images: int = Field(1_000_000, gt=0, description="Images that a project may hold.")

    @field_validator("admin_key")
    @classmethod
    def _is_hard_to_guess(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        # A header cannot tell blanks around a key, so none are part of it.
        key = value.get_secret_value().strip()
        if len(key) < MIN_ADMIN_KEY_CHARACTERS:
            raise ValueError(
                f"the key has {len(key)} characters, and at least {MIN_ADMIN_KEY_CHARACTERS} are "
                "due, such as `openssl rand -hex 32` makes; with neither variable nor file a first "
                "key is made"
            )
        return SecretStr(key)

    @field_validator("import_roots", mode="before")
    @classmethod
    def _split_like_path(cls, value: object) -> object:
        if isinstance(value, str):
            return [part for part in value.split(os.pathsep) if part]
        return value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_at_blanks(cls, value: object) -> object:
        return value.replace(",", " ").split() if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: list[str]) -> list[str]:
        for origin in value:
            if _ORIGIN.fullmatch(origin) is None:
                raise ValueError(
                    f"{origin!r} is no origin: one looks like https://label.example.org, in small "
                    "letters, without path, and never *"
                )
        return value

    @property
    def resolved_database_url(self) -> str:
        """The database's URL, the default one if none is set."""
        return self.database_url or default_database_url(self.data_dir)
