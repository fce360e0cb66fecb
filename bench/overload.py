"""Three times more than there is room for: what is still done for each second of CPU, and what those who get in notice.

What a hold costs at capacity is told by a closed loop of calls by the edge, before and after. A short overload may do
more than it (batches are fuller), and the better of the two is the capacity. Then holds come at three times that rate,
at random moments and whatever the answers. A call that was refused comes again behind the others.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from rich.console import Console

from bench import machine, overload_arrivals, wire
from bench.findings import Finding, table
from bench.holds import METHOD, HoldCalls
from bench.overload_arrivals import Arrivals, Arrived
from bench.percentiles import percentile
from bench.stage import Stage, client_core, open_stage
from bench.wire import Load, Measured

TIMES = 3.0
SHOWS = 5_000
CAPACITY_CALLS = 10_000
PILOT_SECONDS = 5.0
WARM_UP_CALLS = 3_000
PROBE_RATE = 50.0
"""Calls a second of normal traffic: a twentieth of the capacity, so that it waits for nothing of its own."""
PROBE_SECONDS = 15.0
AFTER_SECONDS = 15.0
ENOUGH_OFFERED = 0.95
BLOCKED = "adaptive_concurrency.gradient_controller.rq_blocked"

GOODPUT_AIM, P99_AIM_SECONDS, RECOVERY_AIM_SECONDS = 0.80, 0.5, 10.0


@dataclass(frozen=True)
class Spent:
    """What was done and what it cost: good calls a second, and server CPU seconds a second by part."""

    rate: float
    cpu: Mapping[str, float]

    @property
    def per_cpu_second(self) -> float:
        return self.rate / sum(self.cpu.values())


async def run(minutes: float) -> None:
    """Capacity, quiet, ``minutes`` of overload, quiet, capacity; and the table."""
    console = Console(width=140)
    console.print(f"machine: {machine.describe()}")
    async with open_stage() as stage:
        subject = Overload(stage, await HoldCalls.of(stage.stack, stage.users, shows=SHOWS), console)
        console.print(table(await subject.measure(minutes * 60), "overload"))
    console.print(f"machine: {machine.describe()}")


class Overload:
    """The subject ``overload``."""

    def __init__(self, stage: Stage, calls: HoldCalls, console: Console) -> None:
        self._stage = stage
        self._calls = calls
        self._console = console

    async def measure(self, seconds: float) -> list[Finding]:
        """Everything, in turn, with ``seconds`` of overload."""
        await self._closed(WARM_UP_CALLS)
        before = await self._capacity()
        pilot = await self._arrive(TIMES * before.rate, PILOT_SECONDS)
        capacity = max(before.rate, len(pilot.good) / pilot.seconds)
        await self._arrive(PROBE_RATE, 2)  # what the closed loop left behind
        quiet = await self._arrive(PROBE_RATE, PROBE_SECONDS)

        rate = TIMES * capacity
        supply = self._calls.take(int(capacity * seconds * 1.3 + rate * 2))
        blocked, spending = await self._blocked(), self._stage.spending()
        crowd = await self._fire(Arrivals(self._stage.edge, METHOD, supply, rate, seconds, core=client_core()))
        cpu, by_edge = spending.so_far(), await self._blocked() - blocked
        after_crowd = await self._arrive(PROBE_RATE, AFTER_SECONDS)
        after = await self._capacity()

        under = Spent(len(crowd.good) / crowd.seconds, self._of_servers(cpu, crowd.seconds))
        self._say("capacity", before)
        self._say("overload", under)
        self._say("capacity again", after)
        return [
            *_offered(crowd, max(capacity, after.rate)),
            *_goodput(before, under, after),
            *_latencies(crowd),
            *_refused(crowd, by_edge),
            _recovery(quiet, after_crowd),
        ]

    async def _capacity(self) -> Spent:
        spending = self._stage.spending()
        measured = await self._closed(CAPACITY_CALLS)
        if measured.bad:
            raise SystemExit(f"bench: {measured.bad} calls were refused below capacity")
        return Spent(measured.rate, self._of_servers(spending.so_far(), measured.seconds))

    async def _closed(self, count: int) -> Measured:
        load = Load(self._stage.edge, METHOD, self._calls.take(count), core=client_core())
        return await asyncio.get_running_loop().run_in_executor(self._stage.generators, wire.run, load)

    async def _arrive(self, rate: float, seconds: float) -> Arrived:
        calls = self._calls.take(int(rate * seconds * 1.5))
        return await self._fire(Arrivals(self._stage.edge, METHOD, calls, rate, seconds, core=client_core()))

    async def _fire(self, arrivals: Arrivals) -> Arrived:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._stage.generators, overload_arrivals.run, arrivals)

    def _of_servers(self, cpu: Mapping[str, float], seconds: float) -> dict[str, float]:
        return {part: spent / seconds for part, spent in cpu.items() if part not in self._stage.floors}

    async def _blocked(self) -> int:
        """Calls that the edge's adaptive limits refused so far."""
        address = self._stage.stack.address("edge_admin")
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://{address}/stats", params={"filter": BLOCKED})
        return sum(int(line.rpartition(" ")[2]) for line in answer.text.splitlines())

    def _say(self, name: str, spent: Spent) -> None:
        parts = ", ".join(f"{part} {cpu:.2f}" for part, cpu in spent.cpu.items() if cpu > 0.005)
        self._console.print(f"{name}: {spent.rate:,.0f} good/s, CPU seconds a second: {parts}")


def _offered(crowd: Arrived, capacity: float) -> list[Finding]:
    """Whether the generator kept its word, without which nothing else means much."""
    times = crowd.rate / capacity
    used = crowd.client_cpu / crowd.seconds
    found = [
        Finding(
            "offered / capacity",
            f"{times:.2f} ({crowd.rate:,.0f}/s of {capacity:,.0f}/s, for {crowd.seconds:.0f} s; the generator used"
            f" {used:.0%} of its core)",
            f">= {TIMES * ENOUGH_OFFERED:.2f}",
            times >= TIMES * ENOUGH_OFFERED,
        )
    ]
    if crowd.lack or crowd.unanswered:
        figure = f"{crowd.lack} calls too few in store, {crowd.unanswered} without an answer"
        found.append(Finding("void", figure, "none", reached=False))
    return found


def _goodput(before: Spent, under: Spent, after: Spent) -> list[Finding]:
    capacity = statistics.mean((before.per_cpu_second, after.per_cpu_second))
    ratio = under.per_cpu_second / capacity
    return [
        Finding(
            "good holds a second", f"{under.rate:,.0f} (closed loop {before.rate:,.0f}, after it {after.rate:,.0f})"
        ),
        Finding(
            "good holds a server CPU second / at capacity",
            f"{ratio:.2f} ({under.per_cpu_second:,.0f} / {before.per_cpu_second:,.0f} before,"
            f" {after.per_cpu_second:,.0f} after)",
            f">= {GOODPUT_AIM:.2f}",
            ratio >= GOODPUT_AIM,
        ),
    ]


def _latencies(crowd: Arrived) -> list[Finding]:
    admitted = percentile(crowd.good, 0.99)
    p50, longest = percentile(crowd.good, 0.5), percentile(crowd.good, 1.0)
    refused = percentile(crowd.refused, 0.5), percentile(crowd.refused, 0.99)
    return [
        Finding(
            "p99 of those admitted",
            f"{admitted * 1e3:,.0f} ms (p50 {p50 * 1e3:,.0f}, longest {longest * 1e3:,.0f})",
            f"< {P99_AIM_SECONDS * 1e3:.0f} ms",
            admitted < P99_AIM_SECONDS,
        ),
        Finding("refusals, p50 and p99", f"{refused[0] * 1e3:,.1f} and {refused[1] * 1e3:,.0f} ms"),
    ]


def _refused(crowd: Arrived, by_edge: int) -> list[Finding]:
    share = len(crowd.refused) / crowd.sent
    rest = len(crowd.refused) - by_edge
    return [Finding("refused", f"{share:.0%} of {crowd.sent:,}: {by_edge:,} by the edge's limit, {rest:,} otherwise")]


def _recovery(quiet: Arrived, after: Arrived) -> Finding:
    """The first second from which normal calls are as fast as before, and none is refused."""
    normal = percentile(quiet.good, 0.99)
    windows = [_slowest(after, second) for second in range(int(AFTER_SECONDS))]
    slow = [second for second, p99 in enumerate(windows) if p99 > 2 * normal]
    back = slow[-1] + 1 if slow else 0
    first = ", ".join(f"{p99 * 1e3:,.0f}" for p99 in windows[:5])
    figure = "not within the probe" if back == len(windows) else f"from second {back + 1} on"
    return Finding(
        "normal again (p99 within twice that of before)",
        f"{figure} (before {normal * 1e3:,.0f} ms; then by second {first}; {len(after.refused)} refused)",
        f"<= {RECOVERY_AIM_SECONDS:.0f} s",
        back < len(windows) and back + 1 <= RECOVERY_AIM_SECONDS,
    )


def _slowest(arrived: Arrived, second: int) -> float:
    """The p99 of the calls that were due in one second; infinite when one of them was refused."""
    if any(second <= at < second + 1 for at in arrived.refused_at):
        return float("inf")
    calls = zip(arrived.good_at, arrived.good, strict=True)
    return percentile([took for at, took in calls if second <= at < second + 1], 0.99)
