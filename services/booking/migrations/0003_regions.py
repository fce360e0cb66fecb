"""Regions that this database does not sell any more, because they are being moved, or were."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE closed_regions (
            region    integer     NOT NULL PRIMARY KEY,
            closed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            moved_at  timestamptz  -- when another database had it all; what remains here must not be sold again
        )
    """)
