"""Ending everything that a cancelled show sold."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from services.booking.store.bookings import COLUMNS as BOOKING_COLUMNS
from services.booking.store.bookings import BookingRow, read_booking, write_change
from services.booking.store.seats import Change
from services.kit.database import Connection


async def close_show(
    connection: Connection, show_id: UUID, *, version: int, moment: datetime
) -> tuple[Change, list[BookingRow]]:
    """Free all held and booked seats of a locked show and cancel its bookings, the paid ones with all their money.

    Answers the change and the bookings as they are now; those with a ``payment_id`` are to be paid back.
    """
    cursor = await connection.execute(
        """
        DELETE FROM seat_claims
        WHERE show_id = %s
          AND status IN (2, 3)
        RETURNING seat_no
        """,
        (show_id,),
    )
    freed = tuple(sorted(row[0] for row in await cursor.fetchall()))
    await connection.execute(
        """
        UPDATE reservations
        SET holding = false,
            status = CASE WHEN status = 1 THEN 3 ELSE status END
        WHERE show_id = %s
          AND holding
        """,
        (show_id,),
    )
    cursor = await connection.execute(
        f"""
        UPDATE bookings
        SET status = 3,
            refund = CASE WHEN status = 2 THEN total END,
            version = version + 1,
            updated_at = %s
        WHERE show_id = %s
          AND status IN (1, 2)
        RETURNING {BOOKING_COLUMNS}
        """,
        (moment, show_id),
    )
    bookings = [read_booking(row) for row in await cursor.fetchall()]
    change = Change(version + 1, freed=freed)
    await write_change(connection, show_id, change, cause="show_cancelled", actor=None, at=moment, taken=-len(freed))
    return change, bookings
