"""The trouble that is made, and how long Marquee needs to serve again after each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import uuid4

import redis.asyncio as redis
from faults_buyers import Crowd
from faults_stage import GaveUp, Refused, ShowOnSale, Stage
from faults_viewers import Viewer

from marquee.booking import v1 as booking_v1
from marquee.payment import v1 as payment_v1

PROBE_PAUSE_S = 0.2
VIEWERS_RIGHT_WITHIN_S = 10.0
CAPTURES_IN_BETWEEN = 4


@dataclass(frozen=True)
class Trouble:
    """Something that is done to the running system.

    Args:
        served_within_s: how soon a hold and a payment must work again.
        viewers_right: whether viewers must be right again soon after it.
    """

    name: str
    strike: Callable[[Crowd], Awaitable[None]]
    served_within_s: float = 15.0
    viewers_right: bool = False


@dataclass(frozen=True)
class Recovery:
    """Seconds from a fault until something worked that was begun after it; None when it did not in time."""

    name: str
    served_within_s: float
    hold_s: float | None
    payment_s: float | None
    confirmed_s: float | None
    viewers_s: float | None
    viewers_problem: str = ""


def kill(part: str) -> Callable[[Crowd], Awaitable[None]]:
    """kill -9. What was killed is started again by its supervisor, as it would be in production."""

    async def strike(crowd: Crowd) -> None:
        crowd.stage.stack.part(part).kill()

    return strike


def flush(part: str) -> Callable[[Crowd], Awaitable[None]]:
    """FLUSHALL."""

    async def strike(crowd: Crowd) -> None:
        await _flush(crowd.stage, part)

    return strike


async def _flush(stage: Stage, part: str) -> None:
    async with redis.Redis.from_url(stage.stack.url(part), protocol=2) as client:
        await client.flushall()


async def flush_between_add_and_read(crowd: Crowd) -> None:
    """FLUSHALL of the bus after the relay added captures to it and before booking, which is frozen, has read them."""
    stage = crowd.stage
    booking_process = stage.stack.part("booking")
    async with stage.provider_mood, redis.Redis.from_url(stage.stack.url("bus"), protocol=2) as bus:
        await stage.provider_fault()  # so that they are reported at once
        payments: list[payment_v1.Payment] = []
        while len(payments) < CAPTURES_IN_BETWEEN:
            with suppress(GaveUp, Refused):
                buyer = await stage.new_buyer()
                booking = await crowd.book(buyer, await crowd.hold_some(buyer))
                payments.append(await crowd.initiate(buyer, booking))
        booking_process.freeze()
        try:
            await asyncio.sleep(1.3)  # the read that booking has under way ends empty after a second
            for payment in payments:
                await stage.pay(payment.provider_order_id)
            wanted = {payment.payment_id for payment in payments}
            async with asyncio.timeout(10):
                while not wanted <= await _payments_on(bus):
                    await asyncio.sleep(0.02)
            read = {group["name"]: group["lag"] for group in await bus.xinfo_groups("payment.completed")}
            assert read[b"booking"] >= len(wanted), f"booking has read what it should not have: {read}"
            await bus.flushall()
        finally:
            booking_process.thaw()


async def _payments_on(bus: redis.Redis) -> set[str]:
    entries = await bus.xrevrange("payment.completed", count=200)
    return {payment_v1.PaymentCompleted.FromString(fields[b"payload"]).payment_id for _, fields in entries}


TROUBLES: Sequence[Trouble] = (
    # Those that leave refunds leased for a minute come first, so that the end need not wait for them.
    Trouble("kill -9 of payment", kill("payment")),
    Trouble("kill -9 of PostgreSQL", kill("postgres"), served_within_s=30.0),
    Trouble("kill -9 of booking", kill("booking")),
    Trouble("FLUSHALL of the cache", flush("cache"), viewers_right=True),
    Trouble("kill -9 of the relay", kill("relay")),
    Trouble("FLUSHALL of the bus", flush("bus"), viewers_right=True),
    Trouble("kill -9 of the cache", kill("cache")),
    Trouble("kill -9 of the bus", kill("bus")),
    Trouble("FLUSHALL of the bus between add and read", flush_between_add_and_read, viewers_right=True),
)


@dataclass
class ProviderMoods:
    """What the provider does wrong while it goes on; which captures it never reported."""

    stage: Stage
    silent_ms: list[tuple[int, int]] = field(default_factory=list)
    MOODS = (
        {},
        {"webhook_repeat": 3, "webhook_shuffle_ms": 1500},
        {"webhook_drop_percent": 100},
        {"webhook_delay_ms": 800, "webhook_repeat": 2},
        {"api_error_percent": 10, "api_lost_answer_percent": 10},
        {"webhook_drop_percent": 50, "webhook_shuffle_ms": 2500, "refund_pending_ms": 700},
    )

    async def run(self, *, each_s: float = 2.5) -> None:
        """One mood after the other, in a random order; cancel it to stop."""
        while True:
            for mood in self.stage.randomly.sample(self.MOODS, len(self.MOODS)):
                async with self.stage.provider_mood:
                    await self.stage.provider_fault(**mood)
                    began = time.time_ns() // 1_000_000
                    try:
                        await asyncio.sleep(each_s)
                    finally:
                        if mood.get("webhook_drop_percent") == 100:
                            self.silent_ms.append((began, time.time_ns() // 1_000_000))

    def never_reported(self, at_ms: int) -> bool:
        return any(since <= at_ms <= until for since, until in self.silent_ms)


@dataclass
class Probe:
    """A buyer on a show of its own, who wants a seat, a payment and a confirmation right after a fault."""

    crowd: Crowd
    show: ShowOnSale

    async def recovery(self, trouble: Trouble, viewers: Sequence[Viewer]) -> Recovery:
        """Make ``trouble`` and time what works again."""
        await trouble.strike(self.crowd)
        began = time.monotonic()

        async def viewers_right() -> float:
            await asyncio.sleep(1.0)  # changes that came after the fault count too
            left = VIEWERS_RIGHT_WITHIN_S - 1.0
            return 1.0 + max(await asyncio.gather(*(viewer.until_right(left) for viewer in viewers)))

        looking = asyncio.create_task(viewers_right()) if trouble.viewers_right else None
        hold_s, (payment_s, confirmed_s) = await asyncio.gather(
            self._first_hold(began, trouble.served_within_s + 10), self._first_purchase(began, trouble)
        )
        viewers_s, problem = None, ""
        if looking is not None:
            try:
                viewers_s = await looking
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
        return Recovery(
            trouble.name, trouble.served_within_s, hold_s, payment_s, confirmed_s, viewers_s, viewers_problem=problem
        )

    async def _hold(self) -> tuple[object, booking_v1.Reservation]:
        stage = self.crowd.stage
        buyer = await stage.new_buyer()
        request = booking_v1.CreateReservationRequest(
            request_id=str(uuid4()), show_id=self.show.show_id, seats=[stage.randomly.choice(self.show.labels)]
        )
        return buyer, await stage.ask(stage.booking.CreateReservation, request, buyer, once=True)

    async def _first_hold(self, began: float, patience_s: float) -> float | None:
        while time.monotonic() - began < patience_s:
            with suppress(GaveUp, Refused):
                await self._hold()
                return time.monotonic() - began
            await asyncio.sleep(PROBE_PAUSE_S)
        return None

    async def _first_purchase(self, began: float, trouble: Trouble) -> tuple[float | None, float | None]:
        """When the first payment could be initiated, and when the first purchase was seen confirmed."""
        initiated: float | None = None
        crowd = self.crowd
        while time.monotonic() - began < trouble.served_within_s + 20:
            with suppress(GaveUp, Refused):
                buyer = await crowd.stage.new_buyer()
                held = await crowd.hold(buyer, self.show, crowd.stage.randomly.choice(self.show.labels))
                booking = await crowd.book(buyer, held)
                payment = await crowd.initiate(buyer, booking)
                initiated = initiated or time.monotonic() - began
                await crowd.stage.pay(payment.provider_order_id)
                if await crowd.confirmed(buyer, booking.booking_id, patience_s=12):
                    return initiated, time.monotonic() - began
        return initiated, None
