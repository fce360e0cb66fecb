"""The trouble that is made, and how long Marquee needs to serve again after each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

import psutil  # type: ignore[import-untyped]
import psycopg
import redis.asyncio as redis
from redis.exceptions import ResponseError

from marquee.payment import v1 as payment_v1
from tests.prove.buyers import Crowd
from tests.prove.clients import GaveUp, Refused
from tests.prove.stage import ShowOnSale, Stage
from tests.prove.viewers import Viewer

PROBE_PAUSE_S = 0.2
VIEWERS_RIGHT_WITHIN_S = 10.0
CAPTURES_IN_BETWEEN = 4
AIM_S = 5.0


End = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Trouble:
    """Something that is done to the running system.

    Args:
        strike: does it; what it answers, if anything, ends it.
        served_within_s: how soon a hold and a payment must work again, counted from the strike, not from its end.
        viewers_right: whether viewers must be right again soon after it.
        lasts_s: until it is ended.
    """

    name: str
    strike: Callable[[Crowd], Awaitable[End | None]]
    served_within_s: float = 15.0
    viewers_right: bool = False
    lasts_s: float = 0.0


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

    @property
    def problem(self) -> str:
        """Empty when all worked again in time."""
        if self.hold_s is None or self.payment_s is None or self.confirmed_s is None:
            return f"{self.name}: no hold, payment or confirmation for long after it: {self}"
        if max(self.hold_s, self.payment_s) > self.served_within_s:
            return (
                f"{self.name}: served again after {max(self.hold_s, self.payment_s):.1f} s, not {self.served_within_s}"
            )
        return self.viewers_problem

    def line(self) -> str:
        def seconds(value: float | None) -> str:
            return "   -  " if value is None else f"{value:5.1f}s"

        viewers = f"  viewers right {seconds(self.viewers_s)}" if self.viewers_s or self.viewers_problem else ""
        return (
            f"{self.name:<48} hold {seconds(self.hold_s)}  payment {seconds(self.payment_s)}"
            f"  confirmed {seconds(self.confirmed_s)}{viewers}"
        )


def kill(part: str) -> Callable[[Crowd], Awaitable[None]]:
    """kill -9. What was killed is started again by its supervisor, as it would be in production."""

    async def strike(crowd: Crowd) -> None:
        crowd.stage.stack.part(part).kill()

    return strike


def kill_after(part: str, changed: str) -> Callable[[Crowd], Awaitable[None]]:
    """kill -9 in the very moment in which a commit becomes visible: what should have been in it, and is done after it
    instead, is then lost.

    Args:
        changed: SQL over booking's database, whose answer changes with the commit that is aimed at.
    """

    def aim(stage: Stage) -> None:
        with (
            suppress(psycopg.Error),
            psycopg.connect(stage.stack.database_url("booking"), autocommit=True) as connection,
        ):
            before, deadline = connection.execute(changed.encode()).fetchone(), time.monotonic() + AIM_S
            while connection.execute(changed.encode()).fetchone() == before and time.monotonic() < deadline:
                pass
            stage.stack.part(part).kill()

    async def strike(crowd: Crowd) -> None:
        await crowd.stage.stack.part(part).ready()
        await asyncio.to_thread(aim, crowd.stage)

    return strike


def flush(part: str) -> Callable[[Crowd], Awaitable[None]]:
    """FLUSHALL."""

    async def strike(crowd: Crowd) -> None:
        async with redis.Redis.from_url(crowd.stage.stack.url(part), protocol=2) as client:
            await client.flushall()

    return strike


async def flush_between_add_and_read(crowd: Crowd) -> None:
    """FLUSHALL of the bus after the relay added captures to it and before booking, which is frozen, has read them."""
    stage = crowd.stage
    booking_process = stage.stack.part("booking")
    async with stage.provider_mood, redis.Redis.from_url(stage.stack.url("bus"), protocol=2) as bus:
        await stage.provider_fault()  # so that they are reported at once
        payments: list[payment_v1.Payment] = []
        while len(payments) < CAPTURES_IN_BETWEEN:
            with suppress(GaveUp, Refused):
                buyer = crowd.new("pays into a bus that forgets")
                payments.append(await buyer.initiate(await buyer.book(await buyer.hold_some())))
        booking_process.freeze()
        try:
            await asyncio.sleep(1.3)  # the read that booking has under way ends empty after a second
            for payment in payments:
                await buyer.pay(payment.provider_order_id)
            wanted = {payment.payment_id for payment in payments}
            async with asyncio.timeout(10):
                while not wanted <= await _payments_on(bus):
                    await asyncio.sleep(0.02)
            groups: Any = await bus.xinfo_groups("payment.completed")
            read = {group["name"]: group["lag"] for group in groups}
            assert read[b"booking"] >= len(wanted), f"booking has read what it should not have: {read}"
            await bus.flushall()
        finally:
            booking_process.thaw()


async def _payments_on(bus: redis.Redis) -> set[str]:
    entries: Any = await bus.xrevrange("payment.completed", count=200)
    return {payment_v1.PaymentCompleted.FromString(fields[b"payload"]).payment_id for _, fields in entries}


def stopped(part: str) -> Callable[[Crowd], Awaitable[End]]:
    """SIGSTOP, with all its own processes: it keeps its connections and answers nothing, until it goes on."""

    async def strike(crowd: Crowd) -> End:
        main = psutil.Process(crowd.stage.stack.part(part).pid)
        processes = [main, *main.children(recursive=True)]
        for process in processes:
            process.suspend()

        async def end() -> None:
            for process in processes:
                process.resume()

        return end

    return strike


def full(part: str) -> Callable[[Crowd], Awaitable[End]]:
    """A Valkey whose memory is used up, and which then refuses to write (``noeviction``) all that needs more."""

    async def strike(crowd: Crowd) -> End:
        url = crowd.stage.stack.url(part)
        async with redis.Redis.from_url(url, protocol=2) as client:
            policy: Any = await client.config_get("maxmemory*")
            used: Any = await client.info("memory")
            await client.config_set("maxmemory-policy", "noeviction")
            await client.config_set("maxmemory", int(used["used_memory"]) // 2)
            with suppress(ResponseError):  # OOM command not allowed when used memory > 'maxmemory'
                await client.set("one more", "thing")
                raise AssertionError(f"the {part} is not full")

        async def end() -> None:
            async with redis.Redis.from_url(url, protocol=2) as client:
                await client.config_set("maxmemory", policy["maxmemory"])
                await client.config_set("maxmemory-policy", policy["maxmemory-policy"])

        return end

    return strike


def restarted(part: str) -> Callable[[Crowd], Awaitable[None]]:
    """Asked to stop, as for an upgrade, and started again by its supervisor."""

    async def strike(crowd: Crowd) -> None:
        crowd.stage.stack.part(part).stop_signal()

    return strike


LAST_CAPTURE = "SELECT count(*) FROM captures"
LAST_BOOKING = "SELECT count(*) FROM bookings"

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
    Trouble("kill -9 of booking just after a capture's commit", kill_after("booking", LAST_CAPTURE)),
    Trouble("FLUSHALL of the bus between add and read", flush_between_add_and_read, viewers_right=True),
)
MORE_TROUBLES: Sequence[Trouble] = (
    *TROUBLES,
    Trouble("kill -9 of booking just after a booking's commit", kill_after("booking", LAST_BOOKING)),
    Trouble("kill -9 of the edge", kill("edge")),
    Trouble("kill -9 of the catalogue", kill("catalog")),
    Trouble("kill -9 of the user service", kill("user")),
)
"""Every part in turn. The provider is somebody else's: it errs in other ways."""


@dataclass
class ProviderMoods:
    """What the provider does wrong while it goes on; which captures it never reported."""

    stage: Stage
    silent_ms: list[tuple[int, int]] = field(default_factory=list)
    MOODS: ClassVar[Sequence[Mapping[str, int]]] = (
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
    """Somebody on a show of its own, who wants a seat, a payment and a confirmation right after a fault."""

    crowd: Crowd
    show: ShowOnSale

    async def recovery(self, trouble: Trouble, viewers: Sequence[Viewer]) -> Recovery:
        """Make ``trouble`` and time what works again."""
        end = await trouble.strike(self.crowd)
        began = time.monotonic()

        async def end_it() -> None:
            if end is not None:
                await asyncio.sleep(trouble.lasts_s)
                await end()

        ending = asyncio.create_task(end_it())

        async def viewers_right() -> float:
            await asyncio.sleep(1.0)  # changes that came after the fault count too
            left = VIEWERS_RIGHT_WITHIN_S - 1.0
            return 1.0 + max(await asyncio.gather(*(viewer.until_current(left) for viewer in viewers)))

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
        await ending
        return Recovery(
            trouble.name, trouble.served_within_s, hold_s, payment_s, confirmed_s, viewers_s, viewers_problem=problem
        )

    async def _first_hold(self, began: float, patience_s: float) -> float | None:
        dice = self.crowd.stage.randomly
        while time.monotonic() - began < patience_s:
            with suppress(GaveUp, Refused):
                await self.crowd.new("probe").hold(self.show, dice.choice(self.show.labels), patience_s=0.0)
                return time.monotonic() - began
            await asyncio.sleep(PROBE_PAUSE_S)
        return None

    async def _first_purchase(self, began: float, trouble: Trouble) -> tuple[float | None, float | None]:
        """When the first payment could be initiated, and when the first purchase was seen confirmed."""
        initiated: float | None = None
        dice = self.crowd.stage.randomly
        while time.monotonic() - began < trouble.served_within_s + 20:
            with suppress(GaveUp, Refused):
                buyer = self.crowd.new("probe")
                booking = await buyer.book(await buyer.hold(self.show, dice.choice(self.show.labels)))
                payment = await buyer.initiate(booking)
                initiated = initiated or time.monotonic() - began
                await buyer.pay(payment.provider_order_id)
                if await buyer.sees_confirmed(booking.booking_id, patience_s=12):
                    return initiated, time.monotonic() - began
        return initiated, None


STORE_TROUBLES: Sequence[Trouble] = (
    Trouble("the cache flushed", flush("cache"), viewers_right=True),
    Trouble("the cache stopped for 8 s", stopped("cache"), viewers_right=True, lasts_s=8.0),
    Trouble("the cache full for 8 s", full("cache"), viewers_right=True, lasts_s=8.0),
    Trouble("the cache killed", kill("cache"), viewers_right=True),
    Trouble("the bus stopped for 6 s", stopped("bus"), served_within_s=20.0, lasts_s=6.0),
    Trouble("the bus full for 6 s", full("bus"), served_within_s=20.0, lasts_s=6.0),
    Trouble("PostgreSQL restarted", restarted("postgres"), served_within_s=30.0),
    Trouble("PostgreSQL stopped for 5 s", stopped("postgres"), served_within_s=30.0, lasts_s=5.0),
)
