"""Ending what is due: holds whose time is over, and bookings that were not paid in theirs."""

from __future__ import annotations

from services.booking.desk import Desk

MOST_SHOWS = 100


async def sweep(desk: Desk) -> int:
    """End everything that is due now; answers in how many shows. Several processes may do so at once."""
    shows = 0
    while True:
        expiries = await desk.holds.expire_due(MOST_SHOWS)
        desk.tell([expiry.change for expiry in expiries])
        desk.signals.changed(booking_id for expiry in expiries for booking_id in expiry.booking_ids)
        shows += len(expiries)
        if len(expiries) < MOST_SHOWS:
            return shows
