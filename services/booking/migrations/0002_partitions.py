"""Partitions by the shows' days. A reservation is found by its show's prefix and the primary key."""

from typing import Any

from alembic import op

from services.booking.partitions import AHEAD, ALL
from services.kit.partitions import partition

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("DROP INDEX reservations_id")
    driver: Any = op.get_bind().connection.driver_connection
    for each in ALL:
        partition(driver, each, ahead=AHEAD)
