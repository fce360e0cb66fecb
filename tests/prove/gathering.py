"""Gathers the evidence at the end: waits until nothing is open any more, looks at everything once more as its owner,
and reads what is stored."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import psycopg

from marquee.booking import v1 as booking_v1
from marquee.payment import v1 as payment_v1
from services.booking.domain import BookingState, ReservationState, SeatState
from tests.prove import ledger
from tests.prove.clients import Client, GaveUp, Record, Refused
from tests.prove.evidence import (
    Announced,
    BookingRow,
    CaptureRow,
    Claim,
    Evidence,
    Kept,
    LogRow,
    ReservationRow,
    ShowRecord,
)
from tests.prove.history import Act, Operation
from tests.prove.ledger import read_ledger
from tests.prove.stage import Stage

AT_ONCE = 16
OUTBOXES = ("booking", "payment")
OPEN = """
    SELECT (SELECT count(*) FROM bookings WHERE show_id = ANY (%s) AND status = 1),
           (SELECT count(*) FROM reservations WHERE show_id = ANY (%s) AND (holding OR status = 1))
"""
UNSENT = "SELECT count(*) FROM outbox WHERE NOT EXISTS (SELECT FROM outbox_sent s WHERE s.id = outbox.id)"


async def settled(stage: Stage, *, patience_s: float, calm_s: float) -> float:
    """Wait until nothing is open, and a little longer; how many seconds it took.

    What is still open after ``patience_s`` the checker will say.
    """
    began = time.monotonic()
    while True:
        is_open = await _open(stage)
        took = time.monotonic() - began
        if not is_open or took > patience_s:
            break
        await asyncio.sleep(0.7)
    await asyncio.sleep(calm_s)  # a refund too many would come now
    return took


async def _open(stage: Stage) -> bool:
    shows = list(stage.halls)
    counts = (await stage.rows(OPEN, shows, shows))[0]
    if any(counts) or any([(await stage.rows(UNSENT, database=name))[0][0] for name in OUTBOXES]):
        return True
    evidence = await gather(stage)
    unlisted = any(
        (row.user_id, row.booking_id) not in evidence.listed
        for show in evidence.shows.values()
        for row in show.bookings.values()
    )
    return unlisted or bool(ledger.misplaced_captures(evidence.captures, evidence.seen_bookings))


async def gather(stage: Stage) -> Evidence:
    """What is stored now, of all shows of this stage."""
    async with stage.database("booking") as booking, stage.database("payment") as payment:
        shows = await _shows(booking, list(stage.halls), {show: len(labels) for show, labels in stage.halls.items()})
        events = [*await _events(booking), *await _events(payment)]
        unsent = dead = 0
        for connection in (booking, payment):
            unsent += (await _rows(connection, UNSENT))[0][0]
            dead += (await _rows(connection, "SELECT count(*) FROM inbox WHERE failure IS NOT NULL"))[0][0]
        kept = await _rows(booking, "SELECT user_id, request_id::text, method, answer_id FROM requests")
        listed = await _rows(booking, "SELECT user_id, booking_id FROM user_bookings")
    return Evidence(
        shows=shows,
        events=events,
        captures=read_ledger(await stage.books()),
        kept=[Kept(*row) for row in kept],
        listed=frozenset((row[0], row[1]) for row in listed),
        unsent=unsent,
        dead=dead,
    )


async def _rows(connection: psycopg.AsyncConnection[Any], query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query.encode(), parameters)).fetchall()


async def _events(connection: psycopg.AsyncConnection[Any]) -> list[Announced]:
    rows = await _rows(connection, "SELECT aggregatetype, aggregateid, payload FROM outbox")
    return [Announced(topic, key, bytes(payload)) for topic, key, payload in rows]


async def _shows(
    connection: psycopg.AsyncConnection[Any], ids: Sequence[str], capacities: Mapping[str, int]
) -> dict[str, ShowRecord]:
    """In one transaction, so that all tables are of one moment."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")

        async def by_show(columns: str, table: str, make: Callable[..., Any], order: str = "1") -> dict[str, list[Any]]:
            found: dict[str, list[Any]] = defaultdict(list)
            query = f"SELECT show_id::text, {columns} FROM {table} WHERE show_id = ANY (%s) ORDER BY {order}"
            for show_id, *row in await _rows(connection, query, list(ids)):
                found[show_id].append(make(*row))
            return found

        versions = await by_show("version, taken", "show_versions", lambda *row: row)
        claims = await by_show(
            "seat_no, status, reservation_id, fence",
            "seat_claims",
            lambda seat_no, state, *row: Claim(seat_no, SeatState(state), *row),
        )
        log = await by_show(
            "version, freed, held, booked, blocked, cause, actor, at",
            "show_log",
            lambda version, freed, held, booked, blocked, *row: LogRow(
                version, tuple(freed), tuple(held), tuple(booked), tuple(blocked), *row
            ),
            order="1, version",
        )
        reservations = await by_show(
            "reservation_id, user_id, status, holding, seat_nos, total, fence, created_at, expires_at, booking_id",
            "reservations",
            lambda key, user, status, holding, seats, *row: ReservationRow(
                key, user, ReservationState(status), holding, tuple(seats), *row
            ),
        )
        bookings = await by_show(
            "booking_id, reservation_id, user_id, reference, status, seat_nos, total, pay_by, payment_id, capture_id,"
            " coalesce(refund, 0), version",
            "bookings",
            lambda key, reservation, user, reference, status, seats, *row: BookingRow(
                key, reservation, user, reference, BookingState(status), tuple(seats), *row
            ),
        )
        captures = await by_show("booking_id, capture_id, amount, outcome, at", "captures", CaptureRow)
    return {
        show_id: ShowRecord(
            show_id=show_id,
            capacity=capacities[show_id],
            version=versions[show_id][0][0],
            taken=versions[show_id][0][1],
            claims=claims[show_id],
            log=log[show_id],
            reservations={row.reservation_id: row for row in reservations[show_id]},
            bookings={row.booking_id: row for row in bookings[show_id]},
            captures=captures[show_id],
        )
        for show_id in ids
    }


async def look_at_everything(stage: Stage, record: Record) -> None:
    """Everybody asks once more for all that was acknowledged to them, and for the maps; it goes into the history."""
    history = record.history
    looks: list[tuple[Operation, Act, Any, Any]] = []
    for each in _once(history.answered(Act.HOLD), lambda answer: answer.reservation_id):
        reservation = booking_v1.GetReservationRequest(reservation_id=each.answer.reservation_id)
        looks.append((each, Act.SEE_RESERVATION, "GetReservation", reservation))
    for each in _once(history.answered(Act.BOOK), lambda answer: answer.booking_id):
        booking = booking_v1.GetBookingRequest(booking_id=each.answer.booking_id)
        looks.append((each, Act.SEE_BOOKING, "GetBooking", booking))
    for each in _once(history.answered(Act.INITIATE), lambda answer: answer.payment_id):
        payment = payment_v1.GetPaymentStatusRequest(payment_id=each.answer.payment_id)
        looks.append((each, Act.SEE_PAYMENT, "GetPaymentStatus", payment))
    room = asyncio.Semaphore(AT_ONCE)

    async def look(each: Operation, act: Act, method: str, request: Any) -> None:
        client = Client(f"{each.client}, at the end", stage.met[each.user_id], stage, record)
        service = stage.payment if act is Act.SEE_PAYMENT else stage.booking
        async with room:
            try:
                await client.ask(act, getattr(service, method), request)
            except (Refused, GaveUp):
                return  # the checker misses it

    await asyncio.gather(*(look(*each) for each in looks))
    reader = Client("reader of maps, at the end", stage.somebody(), stage, record)
    for show_id in stage.halls:
        request = booking_v1.GetSeatMapRequest(show_id=show_id)
        await reader.ask(Act.SEE_MAP, stage.booking.GetSeatMap, request)


def _once(operations: Iterable[Operation], key: Callable[[Any], str]) -> Iterable[Operation]:
    return {key(each.answer): each for each in operations}.values()
