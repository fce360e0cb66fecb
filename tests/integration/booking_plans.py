"""What PostgreSQL did with each statement: weeks of sales to choose plans for, a show's whole life, and its plans.

They come from ``auto_explain``, which writes plans to the server's log as they were carried out, also within functions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from booking_house import House, event
from psycopg import sql

from marquee.booking import v1 as booking_v1
from marquee.catalog import v1 as catalog_v1
from marquee.payment import v1 as payment_v1
from services.booking.consumers import confirm, copy_shows
from services.booking.store.bookings import list_for_user
from services.booking.sweeper import sweep
from services.booking.usecases import block_seats
from services.kit import inbox
from services.kit.bus import ReceivedEvent
from services.kit.call import UserId
from services.kit.database import Connection
from services.kit.leadership import lead

SEATS = 120
"""Sold in each show of `fill`."""
SETTINGS = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_parameter_max_length": "0",
}
SALES = f"""
    CREATE TEMPORARY TABLE sold AS
    SELECT show_id, seat_no, gen_random_uuid() AS user_id,
           (left(show_id::text, 14) || right(gen_random_uuid()::text, 22))::uuid AS reservation_id,
           (left(show_id::text, 14) || right(gen_random_uuid()::text, 22))::uuid AS booking_id
    FROM shows_sold
    CROSS JOIN generate_series(1, {SEATS}) AS seat_no;

    INSERT INTO shows
    SELECT show_id, 1, 'old', 'c', 'v', 'v', 's', 'UTC', now(), now(), now(), gen_random_uuid(), 1, {SEATS}, 'INR',
           '{{}}', '[]', false
    FROM shows_sold;
    INSERT INTO show_versions
    SELECT show_id, {SEATS}, {SEATS}
    FROM shows_sold;
    INSERT INTO seat_claims
    SELECT show_id, seat_no, 3, reservation_id, user_id, NULL, seat_no
    FROM sold;
    INSERT INTO show_log (show_id, version, booked, cause, at)
    SELECT show_id, seat_no, ARRAY[seat_no], 'confirm', now()
    FROM sold;
    INSERT INTO reservations
    SELECT show_id, reservation_id, user_id, 2, false, ARRAY[seat_no], '', 1, 1, now(), now(), booking_id
    FROM sold;
    INSERT INTO bookings
    SELECT show_id, booking_id, reservation_id, user_id, 'R', 2, ARRAY[seat_no], '', 1, 'INR', now(), now(), now(),
           NULL, NULL, NULL, 2, ''
    FROM sold;
    INSERT INTO booking_items
    SELECT show_id, booking_id, seat_no, 'REGULAR', 1, 1, 1, 1
    FROM sold;
    INSERT INTO captures
    SELECT show_id, booking_id, 'pay', user_id, 1, 'CONFIRMED', now()
    FROM sold;
    INSERT INTO requests
    SELECT user_id, gen_random_uuid(), show_id, 'hold', '', '', NULL, NULL, now()
    FROM sold;
    INSERT INTO user_bookings
    SELECT user_id, now(), booking_id
    FROM sold;
    INSERT INTO inbox
    SELECT 'booking', gen_random_uuid(), now()
    FROM sold;
    INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, created_at)
    SELECT uuidv7(make_interval(hours => -n)), 't', n::text, 'x', '', now() - make_interval(hours => n)
    FROM generate_series(1, 48) AS n
    CROSS JOIN generate_series(1, 100);
    INSERT INTO outbox_sent
    SELECT id, now()
    FROM outbox
"""


@dataclass(frozen=True)
class Statement:
    """A statement that was carried out: its text, and the nodes of its plan."""

    text: str
    nodes: tuple[dict[str, Any], ...]

    @property
    def relations(self) -> set[str]:
        """The tables and partitions that it opened."""
        return {node["Relation Name"] for node in self.nodes if "Relation Name" in node}

    @property
    def operation(self) -> str:
        return next((node["Operation"] for node in self.nodes if node.get("Node Type") == "ModifyTable"), "Select")


def explain_everything(url: str) -> None:
    """Let all later sessions of the database write their plans to the server's log."""
    with psycopg.connect(url, autocommit=True) as connection:
        for name, value in SETTINGS.items():
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                    sql.Identifier(connection.info.dbname),
                    sql.SQL(name),
                    sql.Literal(value),  # type: ignore[arg-type]
                )
            )


def fill(url: str, shows: Sequence[UUID]) -> None:
    """Shows that are sold out, and two days of events that were sent."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TEMPORARY TABLE shows_sold AS SELECT unnest(%s::uuid[]) AS show_id", (list(shows),))
        connection.execute(SALES)  # type: ignore[call-overload]
        connection.execute("VACUUM ANALYZE")


def statements(log: str, url: str) -> Iterator[Statement]:
    """The statements in a server's log that were carried out in the database."""
    database = url.rpartition("/")[2]
    for entry in re.split(r"^(?=\S)", log, flags=re.MULTILINE):
        head, found, plan = entry.partition(" plan:\n")
        if found and f"] {database} LOG:" in head:
            explained = json.loads(plan)
            yield Statement(" ".join(explained["Query Text"].split()), tuple(_nodes(explained["Plan"])))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in [*plan.get("Plans", []), *plan.get("Target Tables", [])]:
        yield from _nodes(child)


class Life:
    """Everything that is ever done with a show's seats, bookings and money. The house does not sweep by itself."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._user = uuid4()

    async def live(self) -> None:
        house, user = self._house, self._user
        self._show = await house.add_show(standing=20)
        await self._holds()
        booking = await house.book(user, (await house.hold(user, self._show, "B1", "B2")).reservation_id)
        async with lead(house.database_url, "consumer/booking") as connection:
            await self._lists(connection, booking)
            await self._pays(connection, booking)
            await self._looks(booking)
            await house.cancel(user, booking.booking_id)
            await self._is_late(connection)
            await self._blocks()
            await self._closes(connection)
        await house.desk.announcer.announce()
        await house.desk.live.compare()

    async def _holds(self) -> None:
        house, user, request = self._house, self._user, str(uuid4())
        for _ in range(2):
            held = await house.hold(user, self._show, "A1", request_id=request)
        await house.stub.GetReservation(
            booking_v1.GetReservationRequest(reservation_id=held.reservation_id), metadata=house.served.as_user(user)
        )
        house.desk.live._maps.clear()  # PostgreSQL shall refuse, not what the process remembers
        with pytest.raises(grpc.aio.AioRpcError, match="no longer available"):
            await house.hold(uuid4(), self._show, "A1")
        await house.hold(uuid4(), self._show, standing=3)
        await self._ages(held.reservation_id)
        taken_over = uuid4()
        again = await house.hold(taken_over, self._show, "A1")
        await house.release(taken_over, again.reservation_id)

    async def _pays(self, connection: Connection, booking: booking_v1.Booking) -> None:
        house = self._house
        await house.payable(booking.booking_id, self._user)
        await self._comes(connection, confirm, self._money(booking), self._money(booking))  # the second goes back

    async def _is_late(self, connection: Connection) -> None:
        """Of two bookings whose time is over, the seats of one are still free when its money comes."""
        house = self._house
        for seat, taken in (("C1", False), ("C2", True)):
            held = await house.hold(self._user, self._show, seat)
            booking = await house.book(self._user, held.reservation_id)
            await self._ages(held.reservation_id)
            assert await sweep(house.desk) == 1
            if taken:
                await house.hold(uuid4(), self._show, seat)
            await self._comes(connection, confirm, self._money(booking))

    async def _looks(self, booking: booking_v1.Booking) -> None:
        house, booking_id = self._house, UUID(booking.booking_id)
        await house.booking(self._user, booking.booking_id)
        assert [row.booking_id for row in await house.desk.bookings.list_of(self._user, None, 10)] == [booking_id]
        assert set(await house.desk.bookings.versions([booking_id])) == {booking_id}
        house.desk.live._maps.clear()
        await house.seat_map(self._show)
        assert await house.desk.seats.changes(self._show, 2, 100)
        assert await house.desk.seats.available([self._show])

    async def _blocks(self) -> None:
        for block, unblock in ((["J1", "J2"], []), ([], ["J1"])):
            request = booking_v1.BlockSeatsRequest(
                request_id=str(uuid4()), show_id=str(self._show), block=block, unblock=unblock
            )
            await block_seats(request, UserId(str(self._user)), desk=self._house.desk)

    async def _closes(self, connection: Connection) -> None:
        show = catalog_v1.Show(show_id=str(self._show), version=9, state=catalog_v1.SHOW_STATE_CANCELLED)
        show.layout_id = str(uuid4())
        for instant in (show.start_time, show.on_sale_time, show.off_sale_time):
            instant.GetCurrentTime()
        await self._comes(
            connection, copy_shows, event("catalog.changed", show.show_id, catalog_v1.CatalogChanged(show=show))
        )

    async def _lists(self, connection: Connection, booking: booking_v1.Booking) -> None:
        made = booking.create_time.ToDatetime(tzinfo=UTC)
        await list_for_user(connection, [(self._user, made, UUID(booking.booking_id))])

    async def _comes(self, connection: Connection, handle: Any, *events: ReceivedEvent) -> None:
        """What the consumer does with events: in its own session, which plans as it does."""
        async with connection.transaction():
            new = await inbox.take(connection, "booking", events)
            after = await handle(connection, new, desk=self._house.desk)
        await after()

    def _money(self, booking: booking_v1.Booking) -> ReceivedEvent:
        completed = payment_v1.PaymentCompleted(
            payment_id=str(uuid4()), booking_id=booking.booking_id, capture_id=uuid4().hex, amount=booking.quote.total
        )
        return event("payment.completed", booking.booking_id, completed)

    async def _ages(self, reservation_id: str) -> None:
        """A hold's time is over now."""
        for table in ("seat_claims", "reservations"):
            await self._house.execute(
                f"UPDATE {table} SET expires_at = now() WHERE show_id = %s AND reservation_id = %s",
                self._show,
                reservation_id,
            )
        self._house.desk.live._maps.clear()
