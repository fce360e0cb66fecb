"""Seats that the house keeps back. The show's row must be locked by the caller."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from services.booking.domain import SeatState
from services.booking.store.seats import Change
from services.kit.database import Connection


async def claimed_states(connection: Connection, show_id: UUID, seat_nos: Sequence[int]) -> dict[int, SeatState]:
    """The states of those seats that have a claim."""
    cursor = await connection.execute(
        "SELECT seat_no, status FROM seat_claims WHERE show_id = %s AND seat_no = ANY (%s)", (show_id, list(seat_nos))
    )
    return {row[0]: SeatState(row[1]) for row in await cursor.fetchall()}


async def write_blocks(connection: Connection, show_id: UUID, change: Change) -> None:
    """Unblock ``change.freed`` and block ``change.blocked``."""
    await connection.execute(
        "DELETE FROM seat_claims WHERE show_id = %s AND seat_no = ANY (%s)", (show_id, list(change.freed))
    )
    await connection.execute(
        """
        INSERT INTO seat_claims (show_id, seat_no, status, fence)
        SELECT %s, unnest(%s::int[]), 4, %s
        """,
        (show_id, list(change.blocked), change.version),
    )
