"""Selling for long: whether the promised rate holds, how long each step takes meanwhile, and whether memory stays.

Bookings at the rate, and seat maps 20 times a second; or as many bookings as go. What buyers meet is measured by their
own process; what was confirmed is counted in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence

import psutil  # type: ignore[import-untyped]
import psycopg
from rich.console import Console

from bench import bookings, buyers, machine
from bench.buyers import LOOK, Sale, Sold
from bench.findings import Finding, table
from bench.holds import HoldCalls
from bench.percentiles import percentile
from bench.stage import Stage, client_core, open_stage
from local import demo
from marquee.booking import v1 as booking_v1

PROMISED_A_SECOND = 167.0
MOST_A_SECOND = 1_000.0
"""No more buyers than that are made ready for a sale that goes as fast as it can."""
KEPT = 0.99
"""The rate was kept when so much of it was confirmed: the last bookings take a moment after the last buyer came."""
P99_AIM_SECONDS = 0.5
LOOKS_A_SECOND = 20.0
LOOKED_AT = 200
"""Shows whose seat maps are read."""
WARM_UP_BUYERS = 500
MOST_SHOWS = 20_000
"""As many as booking keeps in memory."""
SEATS_A_SEEDED_SHOW = 200
"""At least, of which each pair is one buyer's."""
NEWS_SECONDS = 180.0
SAMPLES = 10
GROWTH, SLACK_MIB = 0.05, 8.0
RULE = f"in the second half no Python part grew by more than {GROWTH:.0%} and {SLACK_MIB:.0f} MiB"
NOT_PYTHON = frozenset({"postgres", "cache", "bus", "edge"})
MIB = 2**20


async def run(minutes: float, rate: float | None, *, by_edge: bool) -> None:
    """Sell for ``minutes`` to ``rate`` buyers a second (None: as fast as it goes), and print what was found.

    Args:
        by_edge: whether buyers come through Envoy, rather than to the services themselves.
    """
    console = Console(width=150)
    console.print(f"machine: {machine.describe()}")
    async with open_stage() as stage:
        count = int(minutes * 60 * (rate or MOST_A_SECOND))
        calls = await _enough_calls(stage, count + WARM_UP_BUYERS, console.print)
        found = await _Sale(stage, calls, console.print, by_edge=by_edge).sustain(minutes * 60, rate)
        console.print(table(found, f"sustained, {minutes:g} minutes, {'by the edge' if by_edge else 'direct'}"))
    console.print(f"machine: {machine.describe()}")


async def _enough_calls(stage: Stage, count: int, say: Callable[[str], None]) -> HoldCalls:
    """Calls for ``count`` pairs of seats, of load-test shows too when the demo's are too few."""
    calls = await HoldCalls.of(stage.stack, stage.users, shows=MOST_SHOWS)
    if calls.count >= count:
        return calls
    more = (count - calls.count) * 2 // SEATS_A_SEEDED_SHOW + 1
    say(f"the demo's shows have {calls.count:,} pairs of seats; {more:,} load-test shows are added")
    await demo.seed_shows(stage.stack.database_url("catalog"), more)
    deadline = time.monotonic() + NEWS_SECONDS
    while await _shows(stage, "booking") < await _shows(stage, "catalog"):
        if time.monotonic() > deadline:
            raise SystemExit("bench: booking does not learn of the load-test shows")
        await asyncio.sleep(0.5)
    return await HoldCalls.of(stage.stack, stage.users, shows=MOST_SHOWS)


async def _shows(stage: Stage, service: str) -> int:
    async with await psycopg.AsyncConnection.connect(stage.stack.database_url(service)) as connection:
        row = await (await connection.execute("SELECT count(*) FROM shows WHERE start_time > now()")).fetchone()
    return row[0] if row else 0


class _Sale:
    """The subject ``sustained``."""

    def __init__(self, stage: Stage, calls: HoldCalls, say: Callable[[str], None], *, by_edge: bool) -> None:
        self._stage = stage
        self._calls = calls
        self._say = say
        stack = stage.stack
        self._booking = stage.edge if by_edge else stack.address("booking")
        self._payment = stage.edge if by_edge else stack.address("payment")

    async def sustain(self, seconds: float, rate: float | None) -> list[Finding]:
        await bookings.sell(self._stage, self._sale(WARM_UP_BUYERS, None, seconds))
        memory = Memory(self._stage, self._say)
        watching = asyncio.create_task(memory.watch(seconds / SAMPLES))
        spending, count = self._stage.spending(), int(seconds * (rate or MOST_A_SECOND))
        try:
            sold, confirmed, took = await bookings.sell(self._stage, self._sale(count, rate, seconds))
        finally:
            watching.cancel()
            await asyncio.wait((watching,))
        spent = {part: cpu * 1e3 / max(confirmed, 1) for part, cpu in spending.so_far().items()}
        told = ", ".join(f"{part} {each:.2f}" for part, each in spent.items() if each >= 0.005)
        return [
            *_reached(sold, confirmed, took, rate),
            *_steps(sold),
            Finding("CPU a booking by part, ms", f"{told}, buyers {sold.client_cpu * 1e3 / max(confirmed, 1):.2f}"),
            memory.finding(),
        ]

    def _sale(self, count: int, rate: float | None, seconds: float) -> Sale:
        calls = self._calls.take(count)
        shows = {booking_v1.CreateReservationRequest.FromString(raw).show_id for _, raw in calls[:LOOKED_AT]}
        users = itertools.cycle(self._stage.users)
        return Sale(
            self._booking,
            self._payment,
            calls,
            rate=rate,
            in_flight=48 if rate is None else 400,
            core=client_core(),
            begin_seconds=seconds if rate is None else None,
            give_up_seconds=seconds * 2 + 60,
            looks=[
                (next(users), booking_v1.GetSeatMapRequest(show_id=show_id).SerializeToString())
                for show_id in sorted(shows)
            ],
            looks_rate=LOOKS_A_SECOND,
        )


def _reached(sold: Sold, confirmed: int, took: float, rate: float | None) -> list[Finding]:
    a_second = confirmed / took if took else 0.0
    aimed = PROMISED_A_SECOND if rate is None else rate
    refused = ", ".join(f"{count} at {step}" for step, count in sold.refused.items()) or "none"
    busy = sold.client_cpu / sold.seconds
    return [
        Finding(
            "confirmed a second" + ("" if rate is None else f", of {rate:g} buyers"),
            f"{a_second:,.1f} ({confirmed:,} over {took:.0f} s)",
            f">= {aimed:g} ({KEPT:.0%} of it)",
            a_second >= KEPT * aimed,
        ),
        Finding(
            "came; paid; paid and not confirmed",
            f"{sold.begun:,}; {sold.paid:,}; {sold.paid - confirmed:,}",
            "none lost",
            sold.paid == confirmed,
        ),
        Finding("refused", refused, "none", not sold.refused),
        Finding("turned away, as too many were under way", f"{sold.turned_away:,}", "none", not sold.turned_away),
        Finding("the buyers' share of their core", f"{busy:.0%}", "<= 85 %", busy <= bookings.MOST_OF_A_CORE),
    ]


def _steps(sold: Sold) -> list[Finding]:
    """The provider's page is somebody else's, so it has no aim, nor has all together, of which it is a part."""
    found = []
    for step in (*buyers.STEPS, LOOK):
        p50, p99 = (sold.percentile(step, share) for share in (0.5, 0.99))
        figure = f"{p50 * 1e3:.1f} ms; {p99 * 1e3:.1f} ms ({len(sold.latencies[step]):,})"
        aim = "" if step == "checkout" else f"p99 < {P99_AIM_SECONDS * 1e3:.0f} ms"
        found.append(Finding(f"{step}, p50; p99", figure, aim, p99 < P99_AIM_SECONDS))
    p50, p99 = (percentile(sold.whole, share) for share in (0.5, 0.99))
    return [*found, Finding("all steps of a buyer, p50; p99", f"{p50 * 1e3:.1f} ms; {p99 * 1e3:.1f} ms")]


class Memory:
    """What the parts keep resident, with their children, looked at again and again."""

    def __init__(self, stage: Stage, say: Callable[[str], None]) -> None:
        self._stage = stage
        self._say = say
        self.samples: list[dict[str, float]] = []

    async def watch(self, every_seconds: float) -> None:
        """Look until cancelled, and once more then."""
        began = time.monotonic()
        try:
            for number in itertools.count(1):
                self._look(began)
                await asyncio.sleep(began + number * every_seconds - time.monotonic())
        finally:
            self._look(began)

    def _look(self, began: float) -> None:
        sizes = {process.part.name: _resident(process.pid) for process in self._stage.stack.parts if process.pid}
        self.samples.append(sizes)
        told = ", ".join(f"{name} {size:.0f}" for name, size in sizes.items())
        self._say(f"  after {time.monotonic() - began:4.0f} s, RSS in MiB: {told}")

    def finding(self) -> Finding:
        grown = {
            name: (self.samples[len(self.samples) // 2].get(name, 0.0), last)
            for name, last in self.samples[-1].items()
            if name not in NOT_PYTHON
        }
        told = ", ".join(f"{name} {half:.0f} to {last:.0f}" for name, (half, last) in grown.items())
        return Finding("RSS at half-time to the end, MiB", told, RULE, is_flat(list(grown.values())))


def is_flat(halves: Sequence[tuple[float, float]]) -> bool:
    """Whether none of (MiB at half-time, MiB at the end) grew by more than the rule allows."""
    return all(last <= half * (1 + GROWTH) + SLACK_MIB for half, last in halves)


def _resident(pid: int) -> float:
    """MiB of a process and its children; what these share is counted for each."""
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / MIB
