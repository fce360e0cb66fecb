"""Buyers who pay at once, in a second attempt, twice, too late or not at all; dawdlers and those who wait for them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import uuid4

from marquee.booking import v1 as booking_v1
from marquee.payment import v1 as payment_v1
from tests.prove.clients import Client, GaveUp, Record, Refused
from tests.prove.history import Act
from tests.prove.stage import ShowOnSale, Stage

PAST_THE_WINDOW_S = 0.4
SEAT_TRIES = 6
TAKEOVER_TRIES = 12
TAKEOVER_PAUSE_S = 0.05


class Kind(StrEnum):
    """What a buyer does once the seats are held."""

    PAYS = "pays"
    FAILS_THEN_PAYS = "an attempt fails, the next one succeeds"
    FAILED_THEN_CAPTURED = "the attempt reported failed is captured after all"
    PAYS_TWICE = "pays twice"
    PAYS_LATE = "pays after the window, the seats are free"
    PAYS_LATE_TO_A_RIVAL = "pays after the window, a rival has a seat"
    PAYS_TWICE_LATE = "pays twice, after the window"
    REPORTED_LATE = "pays in time, reported after the window"
    CANCELS = "pays, then cancels"
    CANCELS_UNPAID = "cancels while the payment is on its way"
    NEVER_PAYS = "books and never pays"
    RELEASES = "gives the seats back"
    DAWDLES = "lets the hold end, somebody waits for it"


WEIGHTS: Mapping[Kind, int] = {
    Kind.PAYS: 24,
    Kind.FAILS_THEN_PAYS: 7,
    Kind.FAILED_THEN_CAPTURED: 14,
    Kind.PAYS_TWICE: 14,
    Kind.PAYS_LATE: 8,
    Kind.PAYS_LATE_TO_A_RIVAL: 8,
    Kind.PAYS_TWICE_LATE: 4,
    Kind.REPORTED_LATE: 6,
    Kind.CANCELS: 5,
    Kind.CANCELS_UNPAID: 2,
    Kind.NEVER_PAYS: 3,
    Kind.RELEASES: 4,
    Kind.DAWDLES: 5,
}


def hold_wish(show_id: str, *seats: str) -> booking_v1.CreateReservationRequest:
    return booking_v1.CreateReservationRequest(request_id=str(uuid4()), show_id=show_id, seats=seats)


class Buyer(Client):
    """A client with the steps of a purchase."""

    async def hold(self, show: ShowOnSale, *seats: str, patience_s: float = 45.0) -> booking_v1.Reservation:
        held: booking_v1.Reservation = await self.ask(
            Act.HOLD, self.stage.booking.CreateReservation, hold_wish(show.show_id, *seats), patience_s=patience_s
        )
        return held

    async def hold_some(self) -> booking_v1.Reservation:
        """One to three seats side by side, of a show that has some."""
        dice = self.stage.randomly
        for turn in range(SEAT_TRIES):
            show = dice.choice(self.stage.shows)
            count = dice.randint(1, 3)
            first = dice.randrange(len(show.labels) - count)
            try:
                held = await self.hold(show, *show.labels[first : first + count])
            except Refused as refused:
                if refused.reason != "SEAT_TAKEN" or turn == SEAT_TRIES - 1:
                    raise
            else:
                show.asked += count
                return held
        raise AssertionError

    async def release(self, held: booking_v1.Reservation) -> booking_v1.Reservation:
        request = booking_v1.ReleaseReservationRequest(reservation_id=held.reservation_id)
        now: booking_v1.Reservation = await self.ask(Act.RELEASE, self.stage.booking.ReleaseReservation, request)
        return now

    async def book(self, held: booking_v1.Reservation) -> booking_v1.Booking:
        request = booking_v1.CreateBookingRequest(request_id=str(uuid4()), reservation_id=held.reservation_id)
        booking: booking_v1.Booking = await self.ask(Act.BOOK, self.stage.booking.CreateBooking, request)
        return booking

    async def initiate(self, booking: booking_v1.Booking) -> payment_v1.Payment:
        request = payment_v1.InitiatePaymentRequest(
            request_id=str(uuid4()), booking_id=booking.booking_id, method=payment_v1.PAYMENT_METHOD_UPI
        )
        payment: payment_v1.Payment = await self.ask(Act.INITIATE, self.stage.payment.InitiatePayment, request)
        return payment

    async def cancel(self, booking: booking_v1.Booking) -> booking_v1.Booking:
        request = booking_v1.CancelBookingRequest(request_id=str(uuid4()), booking_id=booking.booking_id)
        now: booking_v1.Booking = await self.ask(Act.CANCEL, self.stage.booking.CancelBooking, request)
        return now

    async def see(self, booking_id: str) -> booking_v1.Booking:
        request = booking_v1.GetBookingRequest(booking_id=booking_id)
        now: booking_v1.Booking = await self.ask(Act.SEE_BOOKING, self.stage.booking.GetBooking, request)
        return now

    async def sees_confirmed(self, booking_id: str, patience_s: float = 25.0) -> bool:
        """Whether the buyer sees the booking confirmed within that time."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if (await self.see(booking_id)).status == booking_v1.BOOKING_STATUS_CONFIRMED:
                return True
            await asyncio.sleep(0.5)
        return False

    async def wait_until(self, moment: float) -> None:
        """Until that second of the clock on the wall."""
        await asyncio.sleep(max(0.0, moment - time.time()))


@dataclass
class Crowd:
    """Sends buyers, about ``rate`` a second, until told to stop; fewer while ``at_once`` are on their way.

    What is tested is trouble, not speed: a machine that is slow gets less to do.
    """

    stage: Stage
    record: Record
    rate: float = 9.0
    at_once: int = 90
    weights: Mapping[Kind, int] = field(default_factory=lambda: WEIGHTS)
    begun: Counter[Kind] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _going: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set and every buyer went home."""
        kinds, weights = list(self.weights), list(self.weights.values())
        while not stop.is_set():
            (kind,) = self.stage.randomly.choices(kinds, weights)
            if len(self._going) < self.at_once:
                task = asyncio.create_task(self.send(kind))
                self._going.add(task)
                task.add_done_callback(self._going.discard)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self.stage.randomly.expovariate(self.rate))
        await asyncio.gather(*self._going)

    def new(self, name: str) -> Buyer:
        return Buyer(f"{name} {next(self._numbers)}", self.stage.somebody(), self.stage, self.record)

    async def send(self, kind: Kind) -> None:
        """One buyer, from the first click to the end."""
        self.begun[kind] += 1
        try:
            await self._buy(kind, self.new(kind.name.lower().replace("_", " ")))
            self.ended["as meant"] += 1
        except Refused as refused:
            self.ended[refused.reason] += 1
        except GaveUp as gave_up:
            self.ended[f"no answer to {gave_up}"] += 1

    async def _buy(self, kind: Kind, buyer: Buyer) -> None:
        if kind is Kind.DAWDLES:
            await self._dawdle(buyer)
            return
        held = await buyer.hold_some()
        if kind is Kind.RELEASES:
            await buyer.release(held)
            return
        booking = await buyer.book(held)
        if kind is Kind.NEVER_PAYS:
            return
        order = (await buyer.initiate(booking)).provider_order_id
        dice = self.stage.randomly
        match kind:
            case Kind.PAYS:
                await buyer.pay(order)
                await buyer.sees_confirmed(booking.booking_id)
            case Kind.FAILS_THEN_PAYS:
                await buyer.pay(order, outcome="failure")
                await asyncio.sleep(dice.uniform(0, 1.5))
                with suppress(Refused):  # paid or over meanwhile: the provider's page is still open all the same
                    await buyer.initiate(booking)
                await buyer.pay(order)
            case Kind.FAILED_THEN_CAPTURED:
                await buyer.pay(order, outcome="failure_then_success")
            case Kind.PAYS_TWICE:
                await buyer.pay(order, count=2)
            case Kind.PAYS_LATE:
                await self._wait_out(buyer, booking)
                await buyer.pay(order)
            case Kind.PAYS_TWICE_LATE:
                await self._wait_out(buyer, booking)
                await buyer.pay(order, count=2)
            case Kind.PAYS_LATE_TO_A_RIVAL:
                await self._wait_out(buyer, booking)
                await self._rival(booking)
                await buyer.pay(order)
            case Kind.REPORTED_LATE:
                delay_ms = int((booking.pay_by_time.seconds - time.time() + 1.5) * 1000)
                await buyer.pay(order, webhook_delay_ms=max(0, delay_ms))
            case Kind.CANCELS:
                await buyer.pay(order)
                if await buyer.sees_confirmed(booking.booking_id):
                    await buyer.cancel(booking)
            case Kind.CANCELS_UNPAID:
                await buyer.pay(order, webhook_delay_ms=dice.randrange(0, 300))
                await buyer.cancel(booking)

    async def _dawdle(self, buyer: Buyer) -> None:
        """Nothing comes of the hold. Somebody else asks for a seat of it until the moment that it is free; after that
        the first one sends the old request once more."""
        show = self.stage.randomly.choice(self.stage.shows)
        wish = hold_wish(show.show_id, *self.stage.randomly.sample(show.labels, 2))
        held = await buyer.ask(Act.HOLD, self.stage.booking.CreateReservation, wish)
        end = held.expire_time.ToNanoseconds() / 1e9
        rival = self.new("waits for a hold to end")
        seat = self.stage.randomly.choice(list(held.seats))

        async def wait_for_it() -> None:
            await rival.wait_until(end - 2 * TAKEOVER_PAUSE_S)
            for _ in range(TAKEOVER_TRIES):
                with suppress(Refused, GaveUp):
                    await rival.hold(ShowOnSale(held.show_id, ()), seat, patience_s=5.0)
                    return
                await asyncio.sleep(TAKEOVER_PAUSE_S)

        waiting = asyncio.create_task(wait_for_it())
        try:
            await buyer.wait_until(end + self.stage.randomly.uniform(-0.1, 0.3))
            with suppress(Refused):  # mostly: too late
                await buyer.book(held)
        finally:
            await waiting
        await buyer.ask(Act.HOLD, self.stage.booking.CreateReservation, wish)

    async def _wait_out(self, buyer: Buyer, booking: booking_v1.Booking) -> None:
        over = booking.pay_by_time.ToNanoseconds() / 1e9
        await buyer.wait_until(over + self.stage.randomly.uniform(0.05, 2.0) + PAST_THE_WINDOW_S)

    async def _rival(self, lost: booking_v1.Booking) -> None:
        """Somebody else takes one of the seats that became free, and mostly buys it."""
        rival = self.new("rival")
        with suppress(Refused, GaveUp):
            held = await rival.hold(ShowOnSale(lost.show_id, ()), self.stage.randomly.choice(list(lost.seats)))
            if self.stage.randomly.random() < 0.7:
                await rival.pay((await rival.initiate(await rival.book(held))).provider_order_id)
