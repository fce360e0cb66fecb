"""Calls that come whether or not earlier ones were answered, as people do, in a process of its own."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import uvloop

from bench.wire import connect, head, message

TICK_SECONDS = 0.001
PATIENCE_SECONDS = 20.0
"""How long answers are waited for when no more calls come."""


@dataclass(frozen=True)
class Arrivals:
    """What comes, and how fast.

    Args:
        address: ``host:port`` of a server that speaks h2c.
        method: the RPC's path.
        calls: (access token, serialized request) of each call. One that was refused comes again, behind the others.
        rate: calls a second, at random moments.
        seconds: how long.
        connections: how many connections share the calls.
        core: the processor to stay on; None for any.
    """

    address: str
    method: str
    calls: Sequence[tuple[str, bytes]]
    rate: float
    seconds: float
    connections: int = 4
    core: int | None = None


@dataclass
class Arrived:
    """What became of them. Times are seconds; a call's begin is the moment when it was due, not when it was sent."""

    sent: int = 0
    seconds: float = 0.0
    client_cpu: float = 0.0
    lack: int = 0
    """Calls that were due, but there were no more."""
    good_at: array[float] = field(default_factory=lambda: array("d"), repr=False)
    """When each call that was good was due, since the begin."""
    good: array[float] = field(default_factory=lambda: array("d"), repr=False)
    """What each of them took."""
    refused: array[float] = field(default_factory=lambda: array("d"), repr=False)
    """What each refusal took."""
    refused_at: array[float] = field(default_factory=lambda: array("d"), repr=False)
    """When each call that was refused was due."""

    @property
    def rate(self) -> float:
        """Calls sent a second."""
        return self.sent / self.seconds

    @property
    def unanswered(self) -> int:
        return self.sent - len(self.good) - len(self.refused)


def run(arrivals: Arrivals) -> Arrived:
    """Send ``arrivals`` and measure. Call it in a process of its own."""
    if arrivals.core is not None:
        os.sched_setaffinity(0, {arrivals.core})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(arrivals))


async def _run(arrivals: Arrivals) -> Arrived:
    heads = {token: head(arrivals.address, arrivals.method, token) for token, _ in arrivals.calls}
    source = deque((heads[token], message(body)) for token, body in arrivals.calls)
    links = [await connect(arrivals.address) for _ in range(arrivals.connections)]
    made, chance = Arrived(), random.Random(arrivals.rate)  # noqa: S311 - no secret
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()

    def answered(call: tuple[bytes, bytes], due: float, body: bytes | None) -> None:
        took = time.perf_counter() - started - due
        if body is None:
            made.refused.append(took)
            made.refused_at.append(due)
            source.append(call)
        else:
            made.good.append(took)
            made.good_at.append(due)

    due = chance.expovariate(arrivals.rate)
    while due < arrivals.seconds:
        now = time.perf_counter() - started
        while due <= now and due < arrivals.seconds:
            if source:
                call = source.popleft()
                links[made.sent % len(links)].call(*call, partial(answered, call, due))
                made.sent += 1
            else:
                made.lack += 1
            due += chance.expovariate(arrivals.rate)
        for link in links:
            link.flush()
        await asyncio.sleep(TICK_SECONDS)
    made.seconds = time.perf_counter() - started
    while made.unanswered and time.perf_counter() - started - made.seconds < PATIENCE_SECONDS:  # noqa: ASYNC110
        await asyncio.sleep(TICK_SECONDS)  # an event for each answer would cost the generator more
    after = resource.getrusage(resource.RUSAGE_SELF)
    made.client_cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    for link in links:
        link.close()
    return made
