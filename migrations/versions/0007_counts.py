"""Counts of a project's images from an index alone."""

from __future__ import annotations

from collections.abc import Sequence

from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

NAME = "ix_images_counts"


def upgrade() -> None:
    """Makes the index."""
    op.create_index(
        NAME,
        "images",
        ["project_id", "deleted_at", "split", "state", "skipped_at", "num_boxes"],
    )


def downgrade() -> None:
    """Takes it away."""
    op.drop_index(NAME, "images")
