"""A booking service on real PostgreSQL and Valkey, in this process, with shows to sell.

async with booking_house(database_url, cache_url, keys) as house:
    show_id = await house.add_show(rows=10, seats=10)
    reservation = await house.hold(user_id, show_id, "A1", "A2")
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from service_harness import Served, TestKeys, serving

from marquee.booking import v1 as booking_v1
from marquee.catalog import v1 as catalog_v1
from marquee.payment import v1 as payment_v1
from services.booking.__main__ import SERVICES, background, open_desks
from services.booking.consumers import handlers
from services.booking.desk import Desk
from services.booking.desks import Desks
from services.booking.messages import money
from services.booking.servicer import BookingInternalServicer, BookingServicer
from services.booking.settings import BookingSettings
from services.booking.streams import StreamLimits
from services.kit.bus import ReceivedEvent
from services.kit.ids import new_show_id
from services.kit.lifecycle import Lifecycle
from services.kit.paging import PageTokens
from services.kit.repeating import repeating

PRICES = {"REGULAR": 20_000, "STANDING": 9_000}


def event(topic: str, key: str, message: Any) -> ReceivedEvent:
    return ReceivedEvent(
        uuid4(), topic, key, message.DESCRIPTOR.full_name, message.SerializeToString(), {}, datetime.now(UTC)
    )


@dataclass
class House:
    """The service, and what a test does with it."""

    desks: Desks
    served: Served
    settings: BookingSettings
    database_url: str
    lifecycle: Lifecycle
    desk: Desk = field(init=False)
    stub: booking_v1.BookingServiceStub = field(init=False)
    internal: booking_v1.BookingInternalServiceStub = field(init=False)

    def __post_init__(self) -> None:
        self.desk = self.desks.home
        self.stub = booking_v1.BookingServiceStub(self.served.channel)
        self.internal = booking_v1.BookingInternalServiceStub(self.served.channel)

    async def add_show(
        self,
        *,
        rows: int = 10,
        seats: int = 10,
        standing: int = 0,
        starts_in: timedelta = timedelta(days=2),
        on_sale_in: timedelta = timedelta(days=-1),
        region: int = 7,
        tiers: Sequence[tuple[int, int]] = ((24 * 60, 100), (60, 50)),
    ) -> UUID:
        """A new show in a hall of ``rows`` x ``seats``; what the catalogue would tell of it."""
        layout = catalog_v1.Layout(layout_id=str(uuid4()), layout_version=1, capacity=rows * seats + standing)
        for row in range(rows):
            for number in range(1, seats + 1):
                name = chr(ord("A") + row % 26) * (1 + row // 26)
                layout.seats.add(
                    seat_no=row * seats + number - 1,
                    label=f"{name}{number}",
                    row=name,
                    number=number,
                    category="REGULAR",
                    x=number,
                    y=row,
                )
        if standing:
            layout.standing_areas.add(name="Floor", category="STANDING", first_seat_no=rows * seats, capacity=standing)
        start = datetime.now(UTC) + starts_in
        show_id = new_show_id(start.date(), region)
        store = self.desks.of(show_id).shows._store
        await store.keep_layout(UUID(layout.layout_id), layout.SerializeToString())
        show = catalog_v1.Show(
            show_id=str(show_id),
            title="Inception",
            venue_id=str(uuid4()),
            venue_name="Regal",
            screen_name="Screen 1",
            city_id="mumbai",
            time_zone="Asia/Kolkata",
            layout_id=layout.layout_id,
            layout_version=1,
            capacity=layout.capacity,
            state=catalog_v1.SHOW_STATE_SCHEDULED,
            version=1,
            prices=[
                catalog_v1.CategoryPrice(category=category, price=money(price, "INR"))
                for category, price in PRICES.items()
            ],
            refund_policy=catalog_v1.RefundPolicy(
                tiers=[catalog_v1.RefundTier(minutes_before=minutes, percent=percent) for minutes, percent in tiers]
            ),
        )
        show.start_time.FromDatetime(start)
        show.off_sale_time.FromDatetime(start)
        show.on_sale_time.FromDatetime(datetime.now(UTC) + on_sale_in)
        await self.catalog_says(show)
        return UUID(show.show_id)

    async def catalog_says(self, show: catalog_v1.Show, reason: str = "") -> None:
        changed = event("catalog.changed", show.show_id, catalog_v1.CatalogChanged(show=show, reason=reason))
        await self.take(changed)

    async def hold(
        self, user_id: UUID, show_id: UUID, *seats: str, request_id: str = "", standing: int = 0
    ) -> booking_v1.Reservation:
        request = booking_v1.CreateReservationRequest(
            request_id=request_id or str(uuid4()), show_id=str(show_id), seats=seats
        )
        if standing:
            request.standing.add(area="Floor", quantity=standing)
        return await self.stub.CreateReservation(request, metadata=self.served.as_user(user_id))

    async def release(self, user_id: UUID, reservation_id: str) -> booking_v1.Reservation:
        return await self.stub.ReleaseReservation(
            booking_v1.ReleaseReservationRequest(reservation_id=reservation_id),
            metadata=self.served.as_user(user_id),
        )

    async def book(self, user_id: UUID, reservation_id: str, request_id: str = "") -> booking_v1.Booking:
        return await self.stub.CreateBooking(
            booking_v1.CreateBookingRequest(request_id=request_id or str(uuid4()), reservation_id=reservation_id),
            metadata=self.served.as_user(user_id),
        )

    async def cancel(self, user_id: UUID, booking_id: str, request_id: str = "") -> booking_v1.Booking:
        return await self.stub.CancelBooking(
            booking_v1.CancelBookingRequest(request_id=request_id or str(uuid4()), booking_id=booking_id),
            metadata=self.served.as_user(user_id),
        )

    async def booking(self, user_id: UUID, booking_id: str) -> booking_v1.Booking:
        return await self.stub.GetBooking(
            booking_v1.GetBookingRequest(booking_id=booking_id), metadata=self.served.as_user(user_id)
        )

    async def payable(
        self, booking_id: str, user_id: UUID, metadata: Sequence[tuple[str, str]] | None = None
    ) -> booking_v1.PayableAnswer:
        """What another service is told that a user owes for a booking."""
        wanted = booking_v1.PayableWanted(booking_id=booking_id, user_id=str(user_id))
        response = await self.internal.GetPayables(
            booking_v1.GetPayablesRequest(wanted=[wanted]),
            metadata=self.served.as_service("payment") if metadata is None else metadata,
        )
        return response.answers[0]

    async def seat_map(self, show_id: UUID) -> booking_v1.SeatMap:
        return await self.stub.GetSeatMap(booking_v1.GetSeatMapRequest(show_id=str(show_id)))

    async def money_comes(
        self, booking: booking_v1.Booking, *, capture_id: str = "", amount: int | None = None
    ) -> ReceivedEvent:
        """What payment would announce of a capture, and booking's answer to it."""
        total = booking.quote.total
        completed = payment_v1.PaymentCompleted(
            payment_id=str(uuid.uuid5(uuid.NAMESPACE_URL, booking.booking_id)),
            booking_id=booking.booking_id,
            capture_id=capture_id or f"pay_{uuid4().hex[:14]}",
            amount=total if amount is None else money(amount, "INR"),
        )
        received = event("payment.completed", booking.booking_id, completed)
        await self.take(received)
        return received

    async def take(self, *received: ReceivedEvent) -> None:
        """Let booking handle events of one topic, without an inbox before it."""
        async with self.desk.bookings.transaction() as connection:
            after = await handlers(self.desks)[received[0].topic](connection, received)
        if after is not None:
            await after()

    async def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What PostgreSQL itself says."""
        async with self.desk.bookings.transaction() as connection:
            return await (await connection.execute(query, parameters)).fetchall()

    async def execute(self, statement: str, *parameters: Any) -> None:
        async with self.desk.bookings.transaction() as connection:
            await connection.execute(statement, parameters)

    async def outbox(self, topic: str, key: str) -> list[bytes]:
        rows = await self.rows(
            "SELECT payload FROM outbox WHERE aggregatetype = %s AND aggregateid = %s ORDER BY id", topic, key
        )
        return [bytes(row[0]) for row in rows]


@asynccontextmanager
async def booking_house(
    database_url: str, cache_url: str, keys: TestKeys, *, sweep: bool = True, **settings: Any
) -> AsyncIterator[House]:
    """A booking service of its own. ``settings`` are ``BookingSettings``'s."""
    values: dict[str, Any] = keys.settings(database_url, cache_url=cache_url, catalog_address="127.0.0.1:9", **settings)
    booking_settings = BookingSettings(**values)
    lifecycle = Lifecycle()
    async with AsyncExitStack() as stack:
        desks = await open_desks(booking_settings, stack)
        await stack.enter_async_context(repeating("look", desks.look, booking_settings.poll_seconds))
        for desk in desks.all():
            comparing, announcing, sweeping = background(desk, booking_settings)
            for work in (comparing, announcing, *([sweeping] if sweep else [])):
                await stack.enter_async_context(work)
        limits = StreamLimits(
            most_a_user=booking_settings.most_streams_a_user,
            most_an_address=booking_settings.most_streams_an_address,
        )
        pages = PageTokens(booking_settings.page_key.get_secret_value())

        def add(server: Any) -> None:
            booking_v1.add_BookingServiceServicer_to_server(
                BookingServicer(desks, lifecycle, limits, pages, booking_settings), server
            )
            booking_v1.add_BookingInternalServiceServicer_to_server(BookingInternalServicer(desks), server)

        served = await stack.enter_async_context(serving(booking_settings, SERVICES, add, keys, lifecycle=lifecycle))
        yield House(desks, served, booking_settings, database_url, lifecycle)


__all__ = ["PRICES", "House", "booking_house", "event", "handlers"]
