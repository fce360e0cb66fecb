"""Buyers who pay at once, in the second attempt, twice, too late or not at all; and the diary of all answers.

Only what Marquee acknowledged goes into the diary, with the answer: that is what must not be lost.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar
from uuid import uuid4

from faults_stage import Buyer, GaveUp, Refused, ShowOnSale, Stage

from marquee.booking import v1 as booking_v1
from marquee.payment import v1 as payment_v1

PAST_THE_WINDOW_S = 0.4
SEAT_TRIES = 6


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
    NEVER_PAYS = "books and never pays"
    RELEASES = "gives the seats back"


WEIGHTS: Mapping[Kind, int] = {
    Kind.PAYS: 26,
    Kind.FAILS_THEN_PAYS: 8,
    Kind.FAILED_THEN_CAPTURED: 14,
    Kind.PAYS_TWICE: 14,
    Kind.PAYS_LATE: 8,
    Kind.PAYS_LATE_TO_A_RIVAL: 8,
    Kind.PAYS_TWICE_LATE: 4,
    Kind.REPORTED_LATE: 6,
    Kind.CANCELS: 5,
    Kind.NEVER_PAYS: 4,
    Kind.RELEASES: 3,
}


Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Kept(Generic[Answer]):
    """An answer that its buyer got."""

    buyer: Buyer
    answer: Answer


@dataclass
class Diary:
    """Everything that was acknowledged, by id."""

    reservations: dict[str, Kept[booking_v1.Reservation]] = field(default_factory=dict)
    bookings: dict[str, Kept[booking_v1.Booking]] = field(default_factory=dict)
    payments: dict[str, Kept[payment_v1.Payment]] = field(default_factory=dict)
    cancelled: dict[str, Kept[booking_v1.Booking]] = field(default_factory=dict)
    released: dict[str, Kept[booking_v1.Reservation]] = field(default_factory=dict)
    begun: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)


@dataclass
class Crowd:
    """Sends buyers, about ``rate`` a second, until told to stop; fewer while ``at_once`` are on their way.

    What is tested is trouble, not speed: a machine that is slow gets less to do.
    """

    stage: Stage
    diary: Diary = field(default_factory=Diary)
    rate: float = 9.0
    at_once: int = 90
    _going: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set and every buyer went home."""
        kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
        while not stop.is_set():
            (kind,) = self.stage.randomly.choices(kinds, weights)
            if len(self._going) < self.at_once:
                task = asyncio.create_task(self.send(kind))
                self._going.add(task)
                task.add_done_callback(self._going.discard)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self.stage.randomly.expovariate(self.rate))
        await asyncio.gather(*self._going)

    async def send(self, kind: Kind) -> None:
        """One buyer, from the first click to the end."""
        self.diary.begun[kind] += 1
        try:
            await self._buy(kind)
            self.diary.ended["as meant"] += 1
        except Refused as refused:
            self.diary.ended[refused.reason] += 1
        except GaveUp as gave_up:
            self.diary.ended[f"no answer to {gave_up}"] += 1

    # --- the steps ----------------------------------------------------------------------------------------------------

    async def hold(self, buyer: Buyer, show: ShowOnSale, *seats: str) -> booking_v1.Reservation:
        request = booking_v1.CreateReservationRequest(request_id=str(uuid4()), show_id=show.show_id, seats=seats)
        answer = await self.stage.ask(self.stage.booking.CreateReservation, request, buyer)
        self.diary.reservations[answer.reservation_id] = Kept(buyer, answer)
        return answer

    async def hold_some(self, buyer: Buyer) -> booking_v1.Reservation:
        """One to three seats side by side, of a show that has some."""
        for turn in range(SEAT_TRIES):
            show = self.stage.randomly.choice(self.stage.shows)
            count = self.stage.randomly.randint(1, 3)
            first = self.stage.randomly.randrange(len(show.labels) - count)
            try:
                held = await self.hold(buyer, show, *show.labels[first : first + count])
            except Refused as refused:
                if refused.reason != "SEAT_TAKEN" or turn == SEAT_TRIES - 1:
                    raise
            else:
                show.asked += count
                return held
        raise AssertionError

    async def book(self, buyer: Buyer, held: booking_v1.Reservation) -> booking_v1.Booking:
        request = booking_v1.CreateBookingRequest(request_id=str(uuid4()), reservation_id=held.reservation_id)
        answer = await self.stage.ask(self.stage.booking.CreateBooking, request, buyer)
        self.diary.bookings[answer.booking_id] = Kept(buyer, answer)
        return answer

    async def initiate(self, buyer: Buyer, booking: booking_v1.Booking) -> payment_v1.Payment:
        request = payment_v1.InitiatePaymentRequest(
            request_id=str(uuid4()), booking_id=booking.booking_id, method=payment_v1.PAYMENT_METHOD_UPI
        )
        answer = await self.stage.ask(self.stage.payment.InitiatePayment, request, buyer)
        self.diary.payments[answer.payment_id] = Kept(buyer, answer)
        return answer

    async def see(self, buyer: Buyer, booking_id: str) -> booking_v1.Booking:
        request = booking_v1.GetBookingRequest(booking_id=booking_id)
        return await self.stage.ask(self.stage.booking.GetBooking, request, buyer)

    async def confirmed(self, buyer: Buyer, booking_id: str, patience_s: float = 25.0) -> bool:
        """Whether the buyer sees the booking confirmed within that time."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if (await self.see(buyer, booking_id)).status == booking_v1.BOOKING_STATUS_CONFIRMED:
                return True
            await asyncio.sleep(0.5)
        return False

    # --- the kinds ----------------------------------------------------------------------------------------------------

    async def _buy(self, kind: Kind) -> None:
        buyer = await self.stage.new_buyer()
        held = await self.hold_some(buyer)
        if kind is Kind.RELEASES:
            request = booking_v1.ReleaseReservationRequest(reservation_id=held.reservation_id)
            answer = await self.stage.ask(self.stage.booking.ReleaseReservation, request, buyer)
            self.diary.released[held.reservation_id] = Kept(buyer, answer)
            return
        booking = await self.book(buyer, held)
        if kind is Kind.NEVER_PAYS:
            return
        payment = await self.initiate(buyer, booking)
        order = payment.provider_order_id
        stage = self.stage
        match kind:
            case Kind.PAYS:
                await stage.pay(order)
                await self.confirmed(buyer, booking.booking_id)
            case Kind.FAILS_THEN_PAYS:
                await stage.pay(order, outcome="failure")
                await asyncio.sleep(stage.randomly.uniform(0, 1.5))
                with suppress(Refused):  # paid or over meanwhile: the provider's page is still open all the same
                    await self.initiate(buyer, booking)
                await stage.pay(order)
            case Kind.FAILED_THEN_CAPTURED:
                await stage.pay(order, outcome="failure_then_success")
            case Kind.PAYS_TWICE:
                await stage.pay(order, count=2)
            case Kind.PAYS_LATE:
                await self._wait_out(booking)
                await stage.pay(order)
            case Kind.PAYS_TWICE_LATE:
                await self._wait_out(booking)
                await stage.pay(order, count=2)
            case Kind.PAYS_LATE_TO_A_RIVAL:
                await self._wait_out(booking)
                await self._rival(booking)
                await stage.pay(order)
            case Kind.REPORTED_LATE:
                delay_ms = int((booking.pay_by_time.seconds - time.time() + 1.5) * 1000)
                await stage.pay(order, webhook_delay_ms=max(0, delay_ms))
            case Kind.CANCELS:
                await stage.pay(order)
                if await self.confirmed(buyer, booking.booking_id):
                    cancel = booking_v1.CancelBookingRequest(request_id=str(uuid4()), booking_id=booking.booking_id)
                    answer = await stage.ask(stage.booking.CancelBooking, cancel, buyer)
                    self.diary.cancelled[booking.booking_id] = Kept(buyer, answer)

    async def _wait_out(self, booking: booking_v1.Booking) -> None:
        over = booking.pay_by_time.ToNanoseconds() / 1e9
        await asyncio.sleep(max(0.0, over - time.time()) + self.stage.randomly.uniform(0.05, 2.0) + PAST_THE_WINDOW_S)

    async def _rival(self, lost: booking_v1.Booking) -> None:
        """Somebody else takes one of the seats that became free, and mostly buys it."""
        rival = await self.stage.new_buyer()
        show = ShowOnSale(lost.show_id, ())
        with suppress(Refused, GaveUp):
            held = await self.hold(rival, show, self.stage.randomly.choice(list(lost.seats)))
            if self.stage.randomly.random() < 0.7:
                booking = await self.book(rival, held)
                await self.stage.pay((await self.initiate(rival, booking)).provider_order_id)
