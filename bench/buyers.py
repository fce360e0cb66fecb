"""Buyers who do everything a customer does: hold, book, begin to pay, pay at the provider's page. A process of its own.

Others only look at seat maps meanwhile.

gRPC goes over ``bench.wire``'s links, the checkout page over plain HTTP/1.1, as a browser's form would post it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.percentiles import percentile
from bench.wire import Link, connect, head, message
from marquee.booking import v1 as booking_v1
from marquee.payment import v1 as payment_v1

HOLD = "/marquee.booking.v1.BookingService/CreateReservation"
BOOK = "/marquee.booking.v1.BookingService/CreateBooking"
PAY = "/marquee.payment.v1.PaymentService/InitiatePayment"
SEAT_MAP = "/marquee.booking.v1.BookingService/GetSeatMap"
STEPS = ("hold", "book", "pay", "checkout")
LOOK = "seat map"
PAGES = 16
"""Connections to the provider's page."""
TICK_SECONDS = 0.01


@dataclass(frozen=True)
class Sale:
    """Whom to buy from, and how fast.

    Args:
        calls: (access token, serialized CreateReservationRequest) of each buyer.
        in_flight: buyers under way at most.
        rate: buyers who begin a second; None for as many as ``in_flight`` lets through.
        core: the processor to stay on; None for any.
        give_up_seconds: when to stop whatever is under way.
        begin_seconds: how long buyers begin; None until there are no more.
        looks: (access token, serialized GetSeatMapRequest) of those who look at seat maps, again and again in turn.
        looks_rate: of these a second, while there are buyers.
    """

    booking: str
    payment: str
    calls: Sequence[tuple[str, bytes]]
    in_flight: int = 48
    rate: float | None = None
    core: int | None = None
    give_up_seconds: float = 900.0
    begin_seconds: float | None = None
    looks: Sequence[tuple[str, bytes]] = ()
    looks_rate: float = 20.0


@dataclass
class Sold:
    """What came of a sale. Times are seconds; ``refused`` counts by step, ``whole`` is all of a buyer's steps."""

    begun: int = 0
    paid: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    turned_away: int = 0
    seconds: float = 0.0
    client_cpu: float = 0.0
    latencies: dict[str, list[float]] = field(default_factory=lambda: {step: [] for step in (*STEPS, LOOK)})
    whole: list[float] = field(default_factory=list)

    def percentile(self, step: str, share: float) -> float:
        return percentile(self.latencies[step], share)


def sell(sale: Sale) -> Sold:
    """Send the buyers. Call it in a process of its own."""
    if sale.core is not None:
        os.sched_setaffinity(0, {sale.core})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_sell(sale))


async def _sell(sale: Sale) -> Sold:
    booking = [await connect(sale.booking) for _ in range(4)]
    payment = [await connect(sale.payment) for _ in range(4)]
    sold = Sold()
    crowd = Crowd(sale, booking, payment, sold)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    await asyncio.wait_for(crowd.run(), sale.give_up_seconds)
    after = resource.getrusage(resource.RUSAGE_SELF)
    sold.seconds = time.perf_counter() - started
    sold.client_cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    for link in (*booking, *payment):
        link.close()
    crowd.page.close()
    return sold


class Crowd:
    """Buyers under way."""

    def __init__(self, sale: Sale, booking: Sequence[Link], payment: Sequence[Link], sold: Sold) -> None:
        self._sale = sale
        self._booking = booking
        self._payment = payment
        self._sold = sold
        self._source: Iterator[tuple[str, bytes]] = iter(sale.calls)
        self._heads: dict[tuple[str, str], bytes] = {}
        self._number = 0
        self._under_way = 0
        self._exhausted = False
        self._opened = time.perf_counter()
        self._done = asyncio.get_running_loop().create_future()
        self.page = CheckoutPage()

    async def run(self) -> None:
        """Until every buyer came and went."""
        looking = asyncio.create_task(self._look_around())
        try:
            await self._sell()
        finally:
            looking.cancel()
            await asyncio.wait((looking,))

    async def _sell(self) -> None:
        if self._sale.rate is None:
            for _ in range(self._sale.in_flight):
                self._begin()
            self._flush()
            await self._done
            return
        started, begun = time.perf_counter(), 0
        while not self._exhausted:
            due = int((time.perf_counter() - started) * self._sale.rate) - begun
            for _ in range(due):
                if self._under_way < self._sale.in_flight:
                    self._begin()
                elif next(self._source, None) is not None:
                    self._sold.turned_away += 1  # came while too many were under way: the rate was not kept
            begun += due
            self._flush()
            await asyncio.sleep(TICK_SECONDS)
        await self._done

    async def _look_around(self) -> None:
        """Ask for seat maps, one after the other at the rate."""
        if not self._sale.looks:
            return
        started = time.perf_counter()
        for number, (token, request) in enumerate(itertools.cycle(self._sale.looks)):
            await asyncio.sleep(started + number / self._sale.looks_rate - time.perf_counter())
            self._ask(self._booking[number % len(self._booking)], SEAT_MAP, token, request, lambda _: None)

    def _flush(self) -> None:
        for link in (*self._booking, *self._payment):
            link.flush()

    def _is_over(self) -> bool:
        limit = self._sale.begin_seconds
        return limit is not None and time.perf_counter() - self._opened > limit

    def _begin(self) -> None:
        buyer = None if self._is_over() else next(self._source, None)
        if buyer is None:
            self._exhausted = True
            if not self._under_way and not self._done.done():
                self._done.set_result(None)
            return
        self._number += 1
        self._sold.begun += 1
        self._under_way += 1
        token, request = buyer
        links = self._booking[self._number % len(self._booking)], self._payment[self._number % len(self._payment)]
        self._ask(links[0], HOLD, token, request, partial(self._held, token, links, time.perf_counter()))

    def _ask(self, link: Link, method: str, token: str, request: bytes, then: Callable[[bytes], None]) -> None:
        known = self._heads.get((method, token))
        if known is None:
            known = self._heads[method, token] = head("marquee", method, token)
        step = {HOLD: "hold", BOOK: "book", PAY: "pay", SEAT_MAP: LOOK}[method]
        link.call(known, message(request), partial(self._answered, step, time.perf_counter(), then))
        link.flush()

    def _answered(self, step: str, asked: float, then: Callable[[bytes], None], answer: bytes | None) -> None:
        if answer is None:
            self._sold.refused[step] = self._sold.refused.get(step, 0) + 1
            if step != LOOK:
                self._leave()
            return
        self._sold.latencies[step].append(time.perf_counter() - asked)
        then(answer)

    def _held(self, token: str, links: tuple[Link, Link], came: float, answer: bytes) -> None:
        request = booking_v1.CreateBookingRequest(
            request_id=str(uuid.uuid4()), reservation_id=booking_v1.Reservation.FromString(answer).reservation_id
        )
        self._ask(links[0], BOOK, token, request.SerializeToString(), partial(self._booked, token, links, came))

    def _booked(self, token: str, links: tuple[Link, Link], came: float, answer: bytes) -> None:
        request = payment_v1.InitiatePaymentRequest(
            request_id=str(uuid.uuid4()),
            booking_id=booking_v1.Booking.FromString(answer).booking_id,
            method=payment_v1.PAYMENT_METHOD_UPI,
        )
        self._ask(links[1], PAY, token, request.SerializeToString(), partial(self._initiated, came))

    def _initiated(self, came: float, answer: bytes) -> None:
        url = payment_v1.Payment.FromString(answer).checkout_url
        self.page.post(url, partial(self._answered, "checkout", time.perf_counter(), partial(self._paid, came)))

    def _paid(self, came: float, _: bytes) -> None:
        self._sold.paid += 1
        self._sold.whole.append(time.perf_counter() - came)
        self._leave()

    def _leave(self) -> None:
        self._under_way -= 1
        if self._sale.rate is None or self._exhausted:
            self._begin()


class CheckoutPage:
    """Posts ``outcome=success`` to checkout pages, over a few connections that stay open."""

    def __init__(self) -> None:
        self._idle: list[Page] = []
        self._waiting: deque[tuple[str, Callable[[bytes | None], None]]] = deque()
        self._open = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def post(self, url: str, done: Callable[[bytes | None], None]) -> None:
        self._waiting.append((url, done))
        if self._idle:
            self._serve(self._idle.pop())
        elif self._open < PAGES:
            self._open += 1
            task = asyncio.create_task(self._connect(urlsplit(url).netloc))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for page in self._idle:
            page.transport.close()

    async def _connect(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        _, page = await asyncio.get_running_loop().create_connection(lambda: Page(self._serve), host, int(port))
        self._serve(page)

    def _serve(self, page: Page) -> None:
        if self._waiting:
            page.post(*self._waiting.popleft())
        else:
            self._idle.append(page)


class Page(asyncio.Protocol):
    """One HTTP/1.1 connection, a request at a time; ``free`` is told when it can take another."""

    def __init__(self, free: Callable[[Page], None]) -> None:
        self._free = free
        self._buffer = b""
        self._done: Callable[[bytes | None], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None:
            self._done(None)

    def post(self, url: str, done: Callable[[bytes | None], None]) -> None:
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        self._done = done
        self.transport.write(
            f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/x-www-form-urlencoded\r\n"
            f"content-length: 15\r\n\r\noutcome=success".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        top, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lines = top.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        done, self._done = self._done, None
        if done is not None:
            done(rest[:length] if lines[0].split(b" ")[1][:1] in (b"2", b"3") else None)
        self._free(self)
