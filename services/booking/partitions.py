"""Booking's partitioned tables: made ahead, and moved to the schema ``archive`` when their shows are long over.

Seats and their log are of use until the show is over; bookings are what their buyers look at for years, so there are
fewer partitions of them, each for four weeks. ``docs/decisions/partitions.md`` has the figures.
"""

from __future__ import annotations

from datetime import date, timedelta

from services.booking.settings import BookingSettings
from services.kit import partitions
from services.kit.database import Connection
from services.kit.leadership import lead
from services.kit.partitions import BUSINESS_DAYS, Partitioned

RESERVATIONS = Partitioned("reservations", "show_id", BUSINESS_DAYS, days=7)
CLAIMS = Partitioned("seat_claims", "show_id", BUSINESS_DAYS, days=7)
LOG = Partitioned("show_log", "show_id", BUSINESS_DAYS, days=7)
BOOKINGS = Partitioned("bookings", "show_id", BUSINESS_DAYS, days=28)
ITEMS = Partitioned("booking_items", "show_id", BUSINESS_DAYS, days=28)
CAPTURES = Partitioned("captures", "show_id", BUSINESS_DAYS, days=28)
ALL = (RESERVATIONS, CLAIMS, LOG, BOOKINGS, ITEMS, CAPTURES)

AHEAD = timedelta(days=28)
"""Days of shows for which partitions are made before they come. More of them cost every hold; what is sold further
ahead lies in the default partition until its days come into reach."""


async def tend(settings: BookingSettings, *, today: date | None = None) -> None:
    """Make and archive what is due on ``today`` (the database's day when None). One process at a time."""
    async with lead(settings.database_url.get_secret_value(), "partitions") as connection:
        today = today or await partitions.today(connection)
        for each in ALL:
            await partitions.make_ahead(connection, each, today=today, ahead=AHEAD)
        await _archive_seats(connection, today - timedelta(days=settings.seats_kept_days))
        if settings.bookings_kept_days is not None:
            await _archive_bookings(connection, today - timedelta(days=settings.bookings_kept_days))


async def _archive_seats(connection: Connection, before: date) -> None:
    """Claims go after their reservations: whoever still ends one that holds seats frees its claims, and writes that."""
    if not await partitions.archive(connection, RESERVATIONS, before=before, unless="holding"):
        await partitions.archive(connection, CLAIMS, before=before)
        await partitions.archive(connection, LOG, before=before)


async def _archive_bookings(connection: Connection, before: date) -> None:
    for span in await partitions.spans(connection, BOOKINGS):
        if span.end <= before:
            await connection.execute(
                f"""
                DELETE FROM user_bookings u
                USING {BOOKINGS.name(span)} b
                WHERE u.user_id = b.user_id
                  AND u.created_at = b.created_at
                  AND u.booking_id = b.booking_id
                """
            )
    if not await partitions.archive(connection, BOOKINGS, before=before, unless="status = 1"):
        await partitions.archive(connection, ITEMS, before=before)
        await partitions.archive(connection, CAPTURES, before=before)
