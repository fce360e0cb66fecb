"""Booking's tables (the ``.sql`` file beside this one)."""

from pathlib import Path
from typing import Any

from alembic import op

from services.kit.migrations import create_event_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_event_tables(op)
    driver: Any = op.get_bind().connection.driver_connection
    # The driver itself, because colons and percent signs in SQL are nobody's parameters here.
    driver.execute(Path(__file__).with_suffix(".sql").read_text())
