"""Bookings: made from reservations, confirmed by captures, cancelled by owners or with their show."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services.booking.domain import BookingState
from services.booking.store.seats import Change, ShowChange
from services.kit.database import Connection, Pool
from services.kit.ids import shows_around


@dataclass(frozen=True, slots=True)
class BookingRow:
    """A row of ``bookings`` (without what only the database needs)."""

    show_id: UUID
    booking_id: UUID
    reservation_id: UUID
    user_id: UUID
    reference: str
    status: BookingState
    seat_nos: tuple[int, ...]
    quote: bytes
    total: int
    currency: str
    pay_by: datetime
    created_at: datetime
    updated_at: datetime
    payment_id: UUID | None
    capture_id: str | None
    refund: int | None
    version: int


COLUMNS = (
    "show_id, booking_id, reservation_id, user_id, reference, status, seat_nos, quote, total, currency, pay_by,"
    " created_at, updated_at, payment_id, capture_id, refund, version"
)
CONFIRMED_COLUMNS = ", ".join(f"(confirmed).{column}" for column in COLUMNS.split(", "))
"""The same of the booking that ``confirm_captures`` answers as one value."""


def read_booking(row: Sequence[Any]) -> BookingRow:
    values = list(row)
    values[5] = BookingState(values[5])
    values[6] = tuple(values[6])
    values[7] = bytes(values[7])
    return BookingRow(*values)


@dataclass(frozen=True, slots=True)
class Capture:
    """Money that a provider took for a booking."""

    booking_id: UUID
    payment_id: UUID
    capture_id: str
    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class CaptureOutcome:
    """What became of a capture: CONFIRMED, SEEN, or why it goes back.

    LATE, DUPLICATE, MISMATCH (of the amount), CANCELLED, NOT_FOUND. When CONFIRMED, with the booking as it is now.
    """

    capture: Capture
    outcome: str
    change: ShowChange | None
    booking: BookingRow | None


class BookingStore:
    def __init__(self, pool: Pool, *, pay_within: timedelta) -> None:
        self._pool = pool
        self.pay_within = pay_within

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction, which commits when the block ends well."""
        async with self._pool.connection() as connection, connection.transaction():
            yield connection

    async def closed_regions(self) -> set[int]:
        """Regions that this database does not sell any more."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute("SELECT region FROM closed_regions")
            return {row[0] for row in await cursor.fetchall()}

    async def find(self, booking_id: UUID, user_id: UUID) -> BookingRow | None:
        """A user's own booking; somebody else's is not found."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                f"SELECT {COLUMNS} FROM bookings WHERE booking_id = %s AND user_id = %s AND show_id BETWEEN %s AND %s",
                (booking_id, user_id, *shows_around([booking_id])),
            )
            row = await cursor.fetchone()
        return read_booking(row) if row else None

    async def payables(self, booking_ids: Sequence[UUID]) -> dict[UUID, tuple[BookingRow, bool]]:
        """Bookings by id, and whether their payment windows are still open by PostgreSQL's clock."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                f"SELECT {COLUMNS}, status = 1 AND pay_by > clock_timestamp() FROM bookings_of(%s::uuid[])",
                (list(booking_ids),),
            )
            found = [(read_booking(row[:-1]), bool(row[-1])) for row in await cursor.fetchall()]
        return {row.booking_id: (row, is_open) for row, is_open in found}

    async def list_of(self, user_id: UUID, before: tuple[datetime, UUID] | None, most: int) -> list[BookingRow]:
        """A user's bookings, the newest first, those before ``(created_at, booking_id)``."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                """
                SELECT booking_id
                FROM user_bookings
                WHERE user_id = %s
                  AND (%s::timestamptz IS NULL OR (created_at, booking_id) < (%s, %s))
                ORDER BY created_at DESC, booking_id DESC
                LIMIT %s
                """,
                (user_id, before and before[0], before and before[0], before and before[1], most),
            )
            listed = [row[0] for row in await cursor.fetchall()]
            rows = await self.find_many(connection, listed)
        return [rows[booking_id] for booking_id in listed if booking_id in rows]

    async def versions(self, booking_ids: Sequence[UUID]) -> dict[UUID, int]:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT booking_id, version FROM bookings WHERE booking_id = ANY (%s) AND show_id BETWEEN %s AND %s",
                (list(booking_ids), *shows_around(booking_ids)),
            )
            return {row[0]: row[1] for row in await cursor.fetchall()}

    async def shows_of(self, reservation_ids: Sequence[UUID]) -> dict[UUID, UUID]:
        """The show of each reservation that exists."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                """
                SELECT id, show_of_reservation(id)
                FROM unnest(%s::uuid[]) AS id
                """,
                (list(reservation_ids),),
            )
            return {row[0]: row[1] for row in await cursor.fetchall() if row[1] is not None}

    async def confirm(self, connection: Connection, captures: Sequence[Capture]) -> list[CaptureOutcome]:
        """Book what captures paid for, in the caller's transaction. Outcomes come in no particular order."""
        cursor = await connection.execute(
            f"""
            SELECT place, outcome, show_id, version, booked, {CONFIRMED_COLUMNS}
            FROM confirm_captures(%s::uuid[], %s::text[], %s::uuid[], %s::bigint[], %s::text[])
            """,
            (
                [capture.booking_id for capture in captures],
                [capture.capture_id for capture in captures],
                [capture.payment_id for capture in captures],
                [capture.amount for capture in captures],
                [capture.currency for capture in captures],
            ),
        )
        outcomes = []
        for place, outcome, show_id, version, booked, *row in await cursor.fetchall():
            confirmed = outcome == "CONFIRMED"
            change = ShowChange(show_id, Change(version, booked=tuple(booked))) if confirmed else None
            booking = read_booking(row) if confirmed else None
            outcomes.append(CaptureOutcome(captures[place - 1], outcome, change, booking))
        return outcomes

    async def find_many(self, connection: Connection, booking_ids: Sequence[UUID]) -> dict[UUID, BookingRow]:
        """Bookings by id, as the caller's transaction sees them."""
        cursor = await connection.execute(f"SELECT {COLUMNS} FROM bookings_of(%s::uuid[])", (list(booking_ids),))
        rows = [read_booking(row) for row in await cursor.fetchall()]
        return {row.booking_id: row for row in rows}


async def lock_show(connection: Connection, show_id: UUID) -> tuple[int, datetime] | None:
    """Take a show's row: its version, and the time read after the lock. None for an unknown show."""
    cursor = await connection.execute("SELECT version FROM show_versions WHERE show_id = %s FOR UPDATE", (show_id,))
    row = await cursor.fetchone()
    if row is None:
        return None
    moment = await (await connection.execute("SELECT clock_timestamp()")).fetchone()
    assert moment is not None
    return row[0], moment[0]


async def stored_answer(
    connection: Connection, *, user_id: UUID, request_id: UUID
) -> tuple[str, bytes, bytes | None] | None:
    """(method, content, answer) of an earlier request with this id. The show's row must be locked."""
    cursor = await connection.execute(
        "SELECT method, content, answer FROM requests WHERE user_id = %s AND request_id = %s", (user_id, request_id)
    )
    row = await cursor.fetchone()
    return (row[0], bytes(row[1]), None if row[2] is None else bytes(row[2])) if row else None


async def keep_answer(
    connection: Connection,
    *,
    user_id: UUID,
    request_id: UUID,
    show_id: UUID,
    method: str,
    content: bytes,
    answer: bytes,
) -> None:
    await connection.execute(
        """
        INSERT INTO requests (user_id, request_id, show_id, method, content, answer)
        VALUES (%s, %s, %s, %s, %s, %s)
        """,
        (user_id, request_id, show_id, method, content, answer),
    )


async def write_change(
    connection: Connection, show_id: UUID, change: Change, *, cause: str, actor: UUID | None, at: datetime, taken: int
) -> None:
    """Move a locked show to ``change.version``: its log row, and by how much the count of claims changes."""
    await connection.execute(
        "UPDATE show_versions SET version = %s, taken = taken + %s WHERE show_id = %s",
        (change.version, taken, show_id),
    )
    await connection.execute(
        """
        INSERT INTO show_log (show_id, version, freed, held, booked, blocked, cause, actor, at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            show_id, change.version, list(change.freed), list(change.held), list(change.booked), list(change.blocked),
            cause, actor, at,
        ),
    )  # fmt: skip


async def free_booking(connection: Connection, booking: BookingRow) -> tuple[int, ...]:
    """Delete the claims that a booking (or its hold) has; answers the freed seats. The show must be locked."""
    cursor = await connection.execute(
        """
        DELETE FROM seat_claims
        WHERE show_id = %s
          AND seat_no = ANY (%s)
          AND reservation_id = %s
        RETURNING seat_no
        """,
        (booking.show_id, list(booking.seat_nos), booking.reservation_id),
    )
    freed = tuple(sorted(row[0] for row in await cursor.fetchall()))
    await connection.execute(
        "UPDATE reservations SET holding = false WHERE show_id = %s AND reservation_id = %s",
        (booking.show_id, booking.reservation_id),
    )
    return freed


async def mark_cancelled(connection: Connection, booking: BookingRow, *, refund: int | None, at: datetime) -> None:
    await connection.execute(
        """
        UPDATE bookings
        SET status = 3, refund = %s, version = version + 1, updated_at = %s
        WHERE show_id = %s
          AND booking_id = %s
        """,
        (refund, at, booking.show_id, booking.booking_id),
    )


async def list_for_user(connection: Connection, bookings: Sequence[tuple[UUID, datetime, UUID]]) -> None:
    """Enter (user, created_at, booking) into the users' lists."""
    await connection.execute(
        """
        INSERT INTO user_bookings (user_id, created_at, booking_id)
        SELECT *
        FROM unnest(%s::uuid[], %s::timestamptz[], %s::uuid[])
        ON CONFLICT DO NOTHING
        """,
        ([each[0] for each in bookings], [each[1] for each in bookings], [each[2] for each in bookings]),
    )
