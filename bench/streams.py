"""Pushes to many viewers of one show, and a stream's memory, against a bare loop over as many streams.

The loop that writes to one stream after the other waits three times as long for each as several such loops do; so there
are two floors, and the second has as many writes under way as the product. All servers begin a round of pushes every
100 ms at the soonest, or when the one before has ended. Few viewers keep none of them busy, so with few only the pushes
a CPU second compare; with 5,000 all work without a pause. The product's deltas come of real commits, whose CPU counts
as its own. Envoy is left out. The viewers share eight connections, as behind an edge, so no limit of open files is
raised. Tokens are checked, and a customer has no more streams than shipped; only the limit of an address is wider, as
all viewers come from one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

from bench.machine import Spending
from bench.rounds import Ratio, Round
from bench.stage import Stage, client_core, floor
from bench.streams_changes import WatchedShow, changing, shows_to_watch
from bench.streams_crowd import Audience
from bench.streams_viewers import Viewers, open_viewers
from services.booking.viewers import AT_ONCE

ENVIRONMENT = {"booking": {"MARQUEE_MOST_STREAMS_AN_ADDRESS": "20000"}}
RATIOS = (
    Ratio("pushes / raw loop", "pushes", ("raw pushes",), 0.80),
    Ratio("pushes a CPU second / raw loop", "pushes a CPU second", ("raw pushes a CPU second",), 0.80),
    Ratio("pushes / raw loops, as many at once", "pushes", ("raw at once pushes",), 0.80),
    Ratio("the same a CPU second", "pushes a CPU second", ("raw at once pushes a CPU second",), 0.80),
    Ratio("streams a MiB / raw", "streams a MiB", ("raw streams a MiB",), round(1 / 1.5, 2)),
)
FIRST = 20
"""Streams that are open before memory is measured, so that it is a stream's and not the first call's."""
SETTLE_SECONDS = 2.0
MEASURED_SECONDS = 10.0
CHANGES_A_SECOND = 12.0
"""So that no round of pushes is without a change."""


@dataclass(frozen=True)
class Pushed:
    """What one server and its viewers did. CPU in seconds a push, memory in bytes a stream, times in seconds."""

    a_second: float
    server_cpu: float
    client_cpu: float
    memory: float
    opened_in: float
    wrong: str = ""


class Streams:
    """The subject ``streams``.

    Args:
        count: viewers.
    """

    def __init__(self, stage: Stage, show: WatchedShow, count: int) -> None:
        self._stage = stage
        self._show = show
        self._count = count

    @classmethod
    async def of(cls, stage: Stage, count: int) -> Streams:
        (show,) = await shows_to_watch(stage, 1)
        return cls(stage, show, count)

    async def round(self) -> Round:
        made = Round()
        for prefix, part, pushed in (
            ("raw ", "bare", await self.raw(self._count, at_once=1)),
            ("raw at once ", "bare", await self.raw(self._count, at_once=AT_ONCE)),
            ("", "booking", await self.product(self._count)),
        ):
            made.rates[f"{prefix}pushes"] = pushed.a_second
            made.spent[f"{prefix}pushes"] = {part: pushed.server_cpu, "client": pushed.client_cpu}
            made.rates[f"{prefix}pushes a CPU second"] = 1 / pushed.server_cpu
            made.rates[f"{prefix}streams a MiB"] = 2**20 / pushed.memory
            if pushed.wrong:
                names = ("pushes", "pushes a CPU second", "streams a MiB")
                made.void |= {f"{prefix}{name}": pushed.wrong for name in names}
        return made

    async def raw(self, count: int, *, at_once: int) -> Pushed:
        """``count`` viewers of ``at_once`` bare loops that share them, in a process that begins for them."""
        async with (
            floor(self._stage.stack, "bench.streams_raw", str(at_once)) as (address, pid),
            open_viewers(client_core()) as viewers,
        ):
            return await self._measure(viewers, address, pid, count)

    async def product(self, count: int) -> Pushed:
        """``count`` viewers of a show, in a service that was started anew for them."""
        await restarted(self._stage)
        async with self._changed(), open_viewers(client_core()) as viewers:
            return await self._measure(viewers, self._stage.stack.address("booking"), booking_pid(self._stage), count)

    @asynccontextmanager
    async def _changed(self) -> AsyncIterator[None]:
        async with changing(self._stage, [self._show], CHANGES_A_SECOND):
            yield

    async def _measure(self, viewers: Viewers, address: str, pid: int, count: int) -> Pushed:
        watching = Audience(address, [self._show.show_id], self._stage.users, FIRST)
        await viewers.add(watching)
        await asyncio.sleep(SETTLE_SECONDS)
        memory = resident(pid)
        opened_in = await viewers.add(Audience(address, [self._show.show_id], self._stage.users, count - FIRST))
        await asyncio.sleep(SETTLE_SECONDS)
        grown = resident(pid) - memory
        spending, before = Spending({"server": pid}), await viewers.count()
        await asyncio.sleep(MEASURED_SECONDS)
        after, spent = await viewers.count(), spending.so_far()["server"]
        seconds, pushes, cpu = after.at - before.at, after.pushes - before.pushes, after.cpu - before.cpu
        wrong = [
            *([f"{after.lost + after.refused} streams ended"] if after.lost + after.refused else []),
            *([f"{after.gaps} deltas did not fit"] if after.gaps else []),
            *([f"the viewers used {cpu / seconds:.0%} of their core"] if cpu / seconds > 0.85 else []),
        ]
        return Pushed(
            a_second=pushes / seconds,
            server_cpu=spent / pushes,
            client_cpu=cpu / pushes,
            memory=grown / (count - FIRST),
            opened_in=opened_in,
            wrong="; ".join(wrong),
        )


async def restarted(stage: Stage) -> None:
    """Have the booking service started anew: memory that was used once is not given back."""
    booking = stage.stack.part("booking")
    booking.stop_signal()
    await booking.ready(60)


def booking_pid(stage: Stage) -> int:
    pid = stage.stack.part("booking").pid
    assert pid is not None
    return pid


def resident(pid: int) -> int:
    """Bytes of memory that the process ``pid`` has."""
    return int(psutil.Process(pid).memory_info().rss)
