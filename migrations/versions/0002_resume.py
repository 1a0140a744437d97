"""What a cycle can go on from."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Adds the blobs of snapshot and checkpoint to cycles."""
    with op.batch_alter_table("cycles") as cycles:
        for name in ("snapshot_sha256", "checkpoint_sha256"):
            cycles.add_column(sa.Column(name, sa.String(length=64), nullable=True))
            cycles.create_index(f"ix_cycles_{name}", [name])


def downgrade() -> None:
    """Takes them away; running cycles then start anew."""
    with op.batch_alter_table("cycles") as cycles:
        for name in ("snapshot_sha256", "checkpoint_sha256"):
            cycles.drop_index(f"ix_cycles_{name}")
            cycles.drop_column(name)
