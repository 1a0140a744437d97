"""What the environment says to a worker. The server has settings of its own."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from server.store.database import default_database_url

SECRETS_DIR = Path("/run/secrets")


class WorkerSettings(BaseSettings):
    """A worker's environment variables, each with the prefix `MIAOD_`."""

    model_config = SettingsConfigDict(
        env_prefix="MIAOD_",
        env_ignore_empty=True,
        # A setting that is secret may come as a file of its name, as containers get them.
        secrets_dir=SECRETS_DIR if SECRETS_DIR.is_dir() else None,
    )

    data_dir: Path = Field(Path("data"), description="Folder of the blobs, as the server's.")
    database_url: SecretStr | None = Field(
        None, description="The server's database; unset: the SQLite file in the data folder."
    )
    device: str = Field(
        "auto",
        description="`auto` (the first CUDA device, else the CPU), `cpu`, `cuda` or `cuda:N`.",
    )
    weights_dir: Path | None = Field(
        None,
        description="Folder of the ResNets' ImageNet weights; unset: `weights` in the data folder.",
    )
    # Soon enough for people, rare enough for SQLite.
    poll_seconds: float = Field(1.0, gt=0, description="How often an idle worker asks for work.")
    # Its heartbeats come far more often, see `beat_seconds`.
    lease_seconds: float = Field(
        60.0, ge=1, description="After so many silent seconds another worker may take the cycle."
    )
    progress_timeout_seconds: float = Field(
        600.0,
        gt=0,
        description="A training process without progress for so long is stopped and tried again.",
    )

    checkpoint_seconds: float = Field(
        300.0,
        gt=0,
        description="A running cycle saves its state so often, and at the end of each stage that "
        "took a while.",
    )

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            raise ValueError(f"MIAOD_DEVICE is {value!r}: it must be auto, cpu, cuda or cuda:N")
        return value

    @property
    def resolved_database_url(self) -> str:
        """The database's URL; without one, the SQLite file inside the data folder."""
        if self.database_url is None:
            return default_database_url(self.data_dir)
        return self.database_url.get_secret_value()

    @property
    def resolved_weights_dir(self) -> Path:
        """The folder of ImageNet weights; without a setting, inside the data folder."""
        return self.weights_dir or self.data_dir / "weights"

    @property
    def beat_seconds(self) -> float:
        """Time between two heartbeats.

        A third of the lease at most, so that two may get lost; never more than two seconds, since
        each beat also carries the progress out and a wish to cancel in.
        """
        return min(self.lease_seconds / 3, 2.0)

    def as_environment(self) -> dict[str, str]:
        """The same settings as environment variables, for the training process."""
        return {
            "MIAOD_DATA_DIR": str(self.data_dir),
            "MIAOD_DATABASE_URL": self.resolved_database_url,
            "MIAOD_DEVICE": self.device,
            "MIAOD_WEIGHTS_DIR": str(self.resolved_weights_dir),
            "MIAOD_LEASE_SECONDS": str(self.lease_seconds),
            "MIAOD_CHECKPOINT_SECONDS": str(self.checkpoint_seconds),
        }
