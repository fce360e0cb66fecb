"""The crowd of viewers as a process of its own, and how it is told what to do."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from typing import Any

import uvloop

from bench import wire
from bench.streams_crowd import METHOD, Audience, Crowd, Knowledge
from bench.streams_wire import RedialledLine

PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Counted:
    """What the viewers received so far, and what receiving it cost.

    Args:
        at: Unix seconds.
        cpu: CPU seconds of the viewers' process.
        gaps: deltas that did not fit on what a viewer knew.
        lost: streams that ended after they had brought something.
        refused: streams that ended before.
    """

    at: float
    cpu: float
    pushes: int
    heartbeats: int
    gaps: int
    lost: int
    refused: int


@dataclass(frozen=True)
class Step:
    """A delta that led viewers from version ``since`` to ``version``, at these Unix seconds."""

    show_id: str
    since: int
    version: int
    reached: array[float] = field(repr=False)


@dataclass(frozen=True)
class Known:
    """What ``viewers`` viewers know of a show: the status of each seat that is not for sale."""

    show_id: str
    epoch: str
    version: int
    seats: dict[int, int] = field(repr=False)
    viewers: int


class Viewers:
    """The driver's end of the pipe. Use ``open_viewers``."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    async def add(self, audience: Audience) -> float:
        """Open the streams of ``audience``; the seconds until each had brought its first message."""
        seconds: float = await self._ask("add", audience)
        return seconds

    async def count(self) -> Counted:
        counted: Counted = await self._ask("count")
        return counted

    async def forget_times(self) -> None:
        """Begin anew to note when viewers come to know something."""
        await self._ask("forget_times")

    async def steps(self) -> list[Step]:
        """Every delta, and when viewers got it."""
        steps: list[Step] = await self._ask("steps")
        return steps

    async def known(self) -> list[Known]:
        """What the viewers that come back know now."""
        known: list[Known] = await self._ask("known")
        return known

    async def all_back(self, lost: int) -> list[tuple[float, float]]:
        """Wait until ``lost`` streams have been lost in all, and every viewer that comes back is there.

        When each had lost its stream, and when the next brought something (Unix seconds).
        """
        absences: list[tuple[float, float]] = await self._ask("all_back", lost)
        return absences

    async def leave(self) -> None:
        """End all streams."""
        await self._ask("leave")

    async def _ask(self, name: str, *arguments: Any) -> Any:
        self._pipe.send((name, arguments))
        async with asyncio.timeout(PATIENCE_SECONDS):
            answer = await asyncio.to_thread(self._pipe.recv)
        if isinstance(answer, BaseException):
            raise answer
        return answer


@asynccontextmanager
async def open_viewers(core: int | None) -> AsyncIterator[Viewers]:
    """A process for viewers, on the processor ``core``."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, core), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Viewers(ours)
    finally:
        process.terminate()
        process.join()
        ours.close()


def _run(pipe: Pipe, core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Orders(pipe).follow())


class _Orders:
    """The viewers' end of the pipe: a method for each thing that ``Viewers`` asks."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._crowd = Crowd()
        self._lines: list[RedialledLine] = []

    async def follow(self) -> None:
        while True:
            try:
                name, arguments = await asyncio.to_thread(self._pipe.recv)
            except EOFError:
                return
            try:
                answer = await getattr(self, f"_{name}")(*arguments)
            except Exception as error:
                answer = error
            self._pipe.send(answer)

    async def _add(self, audience: Audience) -> float:
        started = time.perf_counter()
        lines = [RedialledLine(self._crowd, audience) for _ in range(audience.connections)]
        self._lines += lines
        heads = [wire.head(audience.address, METHOD, token) for token in audience.tokens]
        self._crowd.enter(audience, lines, heads)
        await self._crowd.all_greeted()
        return time.perf_counter() - started

    async def _count(self) -> Counted:
        used = resource.getrusage(resource.RUSAGE_SELF)
        crowd = self._crowd
        return Counted(
            at=time.time(),
            cpu=used.ru_utime + used.ru_stime,
            pushes=crowd.pushes,
            heartbeats=crowd.heartbeats,
            gaps=crowd.gaps,
            lost=crowd.lost,
            refused=crowd.refused,
        )

    async def _forget_times(self) -> None:
        self._crowd.forget_times()

    async def _steps(self) -> list[Step]:
        return [
            Step(step.show_id, step.since, step.version, step.reached)
            for step in self._crowd.steps
            if step.since is not None
        ]

    async def _known(self) -> list[Known]:
        sharing: Counter[Knowledge] = Counter(viewer.knows for viewer in self._crowd.viewers if viewer.returning)
        return [Known(each.show_id, each.epoch, each.version, each.seats, count) for each, count in sharing.items()]

    async def _all_back(self, lost: int) -> list[tuple[float, float]]:
        await self._crowd.all_greeted(lost=lost)
        return [(viewer.lost_at, viewer.back_at) for viewer in self._crowd.viewers if viewer.returning]

    async def _leave(self) -> None:
        for line in self._lines:
            line.close()
        self._lines = []
        self._crowd = Crowd()
