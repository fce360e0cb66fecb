"""Those who do not buy: bots, who grab, repeat themselves and talk nonsense; staff, who keep seats back; and
successors, who take over what another's hold has just let go."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from marquee.booking import v1 as booking_v1
from marquee.payment import v1 as payment_v1
from tests.prove.buyers import Buyer
from tests.prove.clients import Client, GaveUp, Record, Refused
from tests.prove.history import Act
from tests.prove.stage import ShowOnSale, Stage

PAUSE_S = 0.5
MAP_LINGERS_S = 30.0
"""As long is a live map kept that nobody asks for (``linger_seconds`` of booking's settings)."""
SUCCESSION_S = 0.02
"""After the end of a hold; much less than the time between two sweeps."""


@dataclass
class Bot:
    """Grabs baskets and never pays; sends each request again, at once and much later, also with other content."""

    stage: Stage
    record: Record
    name: str

    async def run(self) -> None:
        """For ever; cancel it to stop."""
        while True:
            bot = Buyer(self.name, self.stage.somebody(), self.stage, self.record)
            with suppress(Refused, GaveUp):
                await self.stage.randomly.choice((self._grab, self._repeat, self._repeat_purchase, self._nonsense))(bot)
            await asyncio.sleep(self.stage.randomly.uniform(0.5, 1.5) * PAUSE_S)

    async def _grab(self, bot: Buyer) -> None:
        """As much as one may hold, and more."""
        show = self.stage.randomly.choice(self.stage.shows)
        for _ in range(4):
            first = self.stage.randomly.randrange(len(show.labels) - 4)
            with suppress(Refused):
                await bot.hold(show, *show.labels[first : first + 4], patience_s=5.0)

    async def _repeat(self, bot: Buyer) -> None:
        """One hold, asked for three times at once, once with other seats, and again when it is long over."""
        show = self.stage.randomly.choice(self.stage.shows)
        seats = self.stage.randomly.sample(show.labels, 3)
        request = booking_v1.CreateReservationRequest(request_id=str(uuid4()), show_id=show.show_id, seats=seats[:1])
        other = booking_v1.CreateReservationRequest(
            request_id=request.request_id, show_id=show.show_id, seats=seats[1:]
        )
        hold = self.stage.booking.CreateReservation
        await asyncio.gather(*(bot.ask(Act.HOLD, hold, request) for _ in range(3)), return_exceptions=True)
        for again in (other, request):
            with suppress(Refused):
                await bot.ask(Act.HOLD, hold, again)
        await asyncio.sleep(self.stage.pace.hold_s + self.stage.randomly.uniform(0, 2))
        await bot.ask(Act.HOLD, hold, request)

    async def _repeat_purchase(self, bot: Buyer) -> None:
        """Every further step of a purchase twice: booking, payment, cancellation."""
        held = await bot.hold_some()
        book = booking_v1.CreateBookingRequest(request_id=str(uuid4()), reservation_id=held.reservation_id)
        for _ in range(2):
            booking = await bot.ask(Act.BOOK, self.stage.booking.CreateBooking, book)
        pay = payment_v1.InitiatePaymentRequest(
            request_id=str(uuid4()), booking_id=booking.booking_id, method=payment_v1.PAYMENT_METHOD_WALLET
        )
        for _ in range(2):
            await bot.ask(Act.INITIATE, self.stage.payment.InitiatePayment, pay)
        cancel = booking_v1.CancelBookingRequest(request_id=str(uuid4()), booking_id=booking.booking_id)
        for _ in range(2):
            await bot.ask(Act.CANCEL, self.stage.booking.CancelBooking, cancel)
        with suppress(Refused):
            await bot.ask(Act.BOOK, self.stage.booking.CreateBooking, book)

    async def _nonsense(self, bot: Buyer) -> None:
        """Seats that no hall has, holds of nobody, bookings of others."""
        show = self.stage.randomly.choice(self.stage.shows)
        with suppress(Refused):
            await bot.hold(show, "ZZ99")
        with suppress(Refused):
            await bot.hold(ShowOnSale(str(uuid4()), ()), "A1")
        with suppress(Refused):
            await bot.book(booking_v1.Reservation(reservation_id=str(uuid4())))
        others = list(self.record.history.answered(Act.BOOK))[-50:]
        if others:
            with suppress(Refused):
                await bot.cancel(self.stage.randomly.choice(others).answer)


@dataclass
class Staff:
    """Keeps free seats back, and gives them back to sale."""

    stage: Stage
    record: Record
    name: str = "staff"

    async def run(self) -> None:
        """For ever; cancel it to stop."""
        member = Client(self.name, self.stage.staff, self.stage, self.record)
        blocked: list[tuple[str, str]] = []
        dice = self.stage.randomly
        while True:
            show = dice.choice(self.stage.shows)
            wish = booking_v1.BlockSeatsRequest(request_id=str(uuid4()), show_id=show.show_id)
            wish.block.append(dice.choice(show.labels))
            mine = [label for show_id, label in blocked if show_id == show.show_id]
            if mine and dice.random() < 0.7:
                wish.unblock.append(mine[0])
            if set(wish.block) & set(wish.unblock):
                continue
            with suppress(Refused, GaveUp):
                await member.ask(Act.BLOCK, self.stage.booking.BlockSeats, wish)
                blocked += [(show.show_id, label) for label in wish.block]
                blocked = [each for each in blocked if each not in [(show.show_id, seat) for seat in wish.unblock]]
            await asyncio.sleep(dice.uniform(0.5, 1.5) * PAUSE_S)


@dataclass
class Successors:
    """Hold a seat one after the other, each as soon as the hold before is over and before a sweep has ended it.

    Of a show that nobody watches or reads: where this process has a live map, the map refuses them until the sweep.
    """

    stage: Stage
    record: Record
    show: ShowOnSale
    label: str

    async def run(self) -> None:
        """For ever; cancel it to stop."""
        while True:
            successor = Buyer("successor", self.stage.somebody(), self.stage, self.record)
            try:
                held = await successor.hold(self.show, self.label, patience_s=5.0)
            except (Refused, GaveUp):
                # Somebody has the seat whose answer was lost; and whoever is refused makes the process open a map.
                await asyncio.sleep(self.stage.pace.hold_s + MAP_LINGERS_S)
            else:
                await successor.wait_until(held.expire_time.ToNanoseconds() / 1e9 + SUCCESSION_S)
