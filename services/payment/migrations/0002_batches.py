"""The reconciler walks through the provider's payments, where each payment had a turn of its own to be asked about.

What came with it, payments that are begun, answered and settled in batches, is in ``payment_functions.sql``.
"""

from alembic import op

revision = "payment_0002"
down_revision = "payment_0001"


def upgrade() -> None:
    """Walks for turns."""
    op.execute("""
        ALTER TABLE payments DROP COLUMN next_poll_at, DROP COLUMN polls;

        -- How far the reconciler has looked through the payments that the provider has, at each age of theirs.
        CREATE TABLE walks (
            provider     text        NOT NULL,
            age          interval    NOT NULL,
            walked_until timestamptz NOT NULL,
            next_at      timestamptz NOT NULL,
            PRIMARY KEY (provider, age)
        );
    """)
