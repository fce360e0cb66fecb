"""Booking's tables and the functions that write claims (the ``.sql`` files beside this one)."""

from pathlib import Path
from typing import Any

from alembic import op

from services.kit.migrations import create_event_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_event_tables(op)
    driver: Any = op.get_bind().connection.driver_connection
    here = Path(__file__).parent
    for name in ("0001_bookings.sql", "0001_functions.sql"):
        # The driver itself, because colons and percent signs in SQL are nobody's parameters here.
        driver.execute((here / name).read_text())
