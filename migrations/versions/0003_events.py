"""What happened to a cycle, in order, for those who watch it."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Adds the events; those of earlier days stay unknown."""
    with op.batch_alter_table("cycles") as cycles:
        cycles.add_column(sa.Column("event_seq", sa.Integer(), nullable=False, server_default="0"))
        cycles.add_column(sa.Column("detail", sa.JSON(none_as_null=True), nullable=True))
    # New rows say it themselves.
    with op.batch_alter_table("cycles") as cycles:
        cycles.alter_column("event_seq", server_default=None)
    op.create_table(
        "cycle_events",
        sa.Column("cycle_id", sa.String(length=36), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('state', 'progress')", name=op.f("ck_cycle_events_kind")),
        sa.ForeignKeyConstraint(
            ["cycle_id"],
            ["cycles.id"],
            name=op.f("fk_cycle_events_cycle_id_cycles"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("cycle_id", "seq", name=op.f("pk_cycle_events")),
    )


def downgrade() -> None:
    """Takes them away."""
    op.drop_table("cycle_events")
    with op.batch_alter_table("cycles") as cycles:
        cycles.drop_column("detail")
        cycles.drop_column("event_seq")
