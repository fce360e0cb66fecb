"""Reservations that become bookings, many in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services.booking.domain import QuoteItem
from services.booking.store.bookings import COLUMNS, BookingRow
from services.kit.database import Connection


@dataclass(frozen=True, slots=True)
class BookWish:
    """One user's wish to turn a reservation into a booking, whose id is already made. ``call_id`` is the RPC's."""

    reservation_id: UUID
    user_id: UUID
    request_id: UUID
    content: bytes
    booking_id: UUID
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What ``convert_reservation`` says; the fields after ``answer`` are set when the outcome is CONVERTED."""

    outcome: str
    answer: bytes | None
    show_id: UUID | None
    seat_nos: tuple[int, ...]
    quote: bytes
    total: int
    moment: datetime
    pay_by: datetime


@dataclass(frozen=True, slots=True)
class NewBooking:
    """A booking with what is written beside it: its items, the answer to its request, the event if it expires."""

    row: BookingRow
    items: Sequence[QuoteItem]
    wish: BookWish
    answer: bytes
    expired_event: bytes


async def convert(connection: Connection, wishes: Sequence[BookWish], pay_within: timedelta) -> list[Conversion]:
    """Let bookings take over reservations, one wish after the other.

    The caller gives the wishes in the order of their shows' ids, which is the order of the locks, and must ``add`` the
    bookings in the same transaction.
    """
    cursor = await connection.execute(
        """
        SELECT made.outcome, made.answer, made.show_id, made.seat_nos, made.quote, made.total, made.moment, made.pay_by
        FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::bytea[], %s::uuid[])
             WITH ORDINALITY AS wish (reservation_id, user_id, request_id, content, booking_id, place)
        CROSS JOIN LATERAL convert_reservation(
            wish.reservation_id, wish.user_id, wish.request_id, wish.content, wish.booking_id, %s
        ) AS made
        ORDER BY wish.place
        """,
        (
            [wish.reservation_id for wish in wishes],
            [wish.user_id for wish in wishes],
            [wish.request_id for wish in wishes],
            [wish.content for wish in wishes],
            [wish.booking_id for wish in wishes],
            pay_within,
        ),
    )
    return [
        Conversion(
            row[0], None if row[1] is None else bytes(row[1]), row[2], tuple(row[3] or ()), bytes(row[4] or b""),
            row[5] or 0, row[6], row[7],
        )
        for row in await cursor.fetchall()
    ]  # fmt: skip


async def add(connection: Connection, bookings: Sequence[NewBooking]) -> None:
    """Write new bookings, their items and the answers to their requests."""
    rows = [booking.row for booking in bookings]
    await connection.execute(
        f"""
        INSERT INTO bookings ({COLUMNS}, expired_event)
        SELECT show_id, booking_id, reservation_id, user_id, reference, status, seat_nos::integer[], quote, total,
               currency, pay_by, at, at, NULL, NULL, NULL, version, expired_event
        FROM unnest(
            %s::uuid[], %s::uuid[], %s::uuid[], %s::uuid[], %s::text[], %s::smallint[], %s::text[], %s::bytea[],
            %s::bigint[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::int[], %s::bytea[]
        ) AS made (
            show_id, booking_id, reservation_id, user_id, reference, status, seat_nos, quote,
            total, currency, pay_by, at, version, expired_event
        )
        """,
        (
            [row.show_id for row in rows],
            [row.booking_id for row in rows],
            [row.reservation_id for row in rows],
            [row.user_id for row in rows],
            [row.reference for row in rows],
            [int(row.status) for row in rows],
            [f"{{{','.join(map(str, row.seat_nos))}}}" for row in rows],
            [row.quote for row in rows],
            [row.total for row in rows],
            [row.currency for row in rows],
            [row.pay_by for row in rows],
            [row.created_at for row in rows],
            [row.version for row in rows],
            [booking.expired_event for booking in bookings],
        ),
    )
    items = [
        (booking.row, seat_no, item)
        for booking in bookings
        for seat_no, item in zip(booking.row.seat_nos, booking.items, strict=True)
    ]
    await connection.execute(
        """
        INSERT INTO booking_items (show_id, booking_id, seat_no, category, price, price_tax, fee, fee_tax)
        SELECT *
        FROM unnest(
            %s::uuid[], %s::uuid[], %s::int[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]
        )
        """,
        (
            [row.show_id for row, _, _ in items],
            [row.booking_id for row, _, _ in items],
            [seat_no for _, seat_no, _ in items],
            [item.category for _, _, item in items],
            [item.price for _, _, item in items],
            [item.price_tax for _, _, item in items],
            [item.fee for _, _, item in items],
            [item.fee_tax for _, _, item in items],
        ),
    )
    await connection.execute(
        """
        INSERT INTO requests (user_id, request_id, show_id, method, content, answer)
        SELECT user_id, request_id, show_id, 'book', content, answer
        FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::bytea[], %s::bytea[])
             AS made (user_id, request_id, show_id, content, answer)
        """,
        (
            [booking.wish.user_id for booking in bookings],
            [booking.wish.request_id for booking in bookings],
            [booking.row.show_id for booking in bookings],
            [booking.wish.content for booking in bookings],
            [booking.answer for booking in bookings],
        ),
    )
