"""The viewers of one show, told of its changes a few at a time.

Viewers that are all woken at once keep every other call waiting until the last one is told; and as gRPC takes one new
call a turn of the loop, holds of a show with 2,000 viewers took seconds. Told one after the other, each push waits for
gRPC's own thread to say that it is done, and that thread for the interpreter: three times the time and twice the CPU of
pushes of which another is always under way. So there are ``AT_ONCE`` under way, and between them is room for
everything else.

A change that comes while they are told goes to those whose turn is still to come, and after them to the others: with as
many viewers as can be told between two changes, nobody waits for more than one round.

A viewer that does not read keeps one of those who tell until the next round. When all are kept, the others wait for a
moment. Then they are told past these viewers, who get what they lack when they read again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from marquee.booking import v1 as booking_v1

AT_ONCE = 8
"""Pushes under way, but for those that an earlier round left."""
PATIENCE_SECONDS = 0.01
"""How long viewers who keep all tellers may keep the others waiting."""
LAST_WRITE_SECONDS = 0.5
"""How long the end of a stream waits for what is being sent."""
LOOKS = 5
"""How often quiet viewers are looked for within the time after which they get a heartbeat."""

Write = Callable[[bytes], Awaitable[None]]
"""Sends a message; comes back when the stream's window has taken it."""


class News(Protocol):
    """What viewers are told: the show's live map."""

    generation: int

    def flush(self) -> None:
        """Make one delta of all that changed since the last one."""

    def message_after(self, version: int, generation: int) -> tuple[bytes | None, int]:
        """What leads on from ``version``, and where to; None when there is nothing."""


class Viewer:
    """One stream, and what it was told.

    Args:
        busy: whether something is being sent; nobody else may send then. It begins so.
        here: whether the call is still open: gRPC must not be asked to send on one that is not.
        missed: whether its turn came while something was being sent.
        over: done when the stream is to end.
        idle: done when nothing is being sent any more, where somebody waits for it.
    """

    __slots__ = (
        "busy",
        "generation",
        "heartbeat_seconds",
        "here",
        "idle",
        "missed",
        "over",
        "told_at",
        "version",
        "write",
    )

    def __init__(self, write: Write, heartbeat_seconds: float) -> None:
        self.write = write
        self.heartbeat_seconds = heartbeat_seconds
        self.version = self.generation = 0
        self.told_at = time.monotonic()
        self.busy, self.here, self.missed = True, False, False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.idle: asyncio.Future[None] | None = None

    def end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    async def reads(self) -> bool:
        """Wait until nothing is being sent; False when that takes so long that the viewer does not read any more."""
        if self.busy:
            self.idle = asyncio.get_running_loop().create_future()
            await asyncio.wait((self.idle,), timeout=LAST_WRITE_SECONDS)
        return not self.busy

    def sent(self) -> None:
        self.busy = False
        if self.idle is not None and not self.idle.done():
            self.idle.set_result(None)


class Viewers:
    """All viewers of ``news``."""

    def __init__(self, news: News) -> None:
        self._news = news
        self._viewers: set[Viewer] = set()
        self._look_seconds = 1.0
        self._wake = asyncio.Event()
        self._changed = False
        self._begun = 0
        """Counts the rounds. What is known of one does not hold in the next."""
        self._looked_at = time.monotonic()
        self._telling: asyncio.Task[None] | None = None
        self._due: deque[Viewer] = deque()
        self._tellers: set[asyncio.Task[None]] = set()
        self._stuck: set[asyncio.Task[None]] = set()
        self._told = 0

    def __len__(self) -> int:
        return len(self._viewers)

    @contextmanager
    def entered(self, viewer: Viewer) -> Iterator[None]:
        """Have ``viewer`` told of changes, from the moment that it is not ``busy`` any more, while the block lasts."""
        viewer.here = True
        self._viewers.add(viewer)
        self._look_seconds = min(self._look_seconds, viewer.heartbeat_seconds / LOOKS)
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell_for_ever())
        try:
            yield
        finally:
            viewer.here = False
            self._viewers.discard(viewer)

    def tell(self) -> None:
        """Something changed. Soon after this the viewers are told; it does not wait."""
        self._changed = True
        self._wake.set()

    def tell_one(self, viewer: Viewer) -> None:
        """``viewer`` lacks what the others know. It is told in its turn; nobody else is on its account."""
        self._due.append(viewer)
        self._wake.set()

    def end(self) -> None:
        """End all streams."""
        for viewer in self._viewers:
            viewer.end()

    async def _tell_for_ever(self) -> None:
        """Until the last viewer goes."""
        try:
            while self._viewers:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._look_seconds):
                        await self._wake.wait()
                self._wake.clear()
                if self._changed or time.monotonic() - self._looked_at >= self._look_seconds:
                    self._begin_round()
                await self._tell_all()
        finally:
            self._telling = None

    def _begin_round(self) -> None:
        """What changed until now is told to all, beginning with those who still wait for their turn."""
        self._changed = False
        self._begun += 1
        self._looked_at = time.monotonic()
        self._news.flush()
        waiting = set(self._due)
        self._due.extend(viewer for viewer in self._viewers if viewer not in waiting)

    async def _tell_all(self) -> None:
        self._leave_tellers()  # one that is still kept must not be missed in each further round
        while self._due:
            told = self._told
            while len(self._tellers) < AT_ONCE:
                teller = asyncio.create_task(self._tell_those_due())
                self._tellers.add(teller)
                teller.add_done_callback(self._tellers.discard)
            done, _ = await asyncio.wait(self._tellers, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not done and self._told == told:
                self._leave_tellers()

    def _leave_tellers(self) -> None:
        """Those under way end with the viewer whom they tell, and others go on with the rest."""
        for teller in self._tellers:
            self._stuck.add(teller)
            teller.add_done_callback(self._stuck.discard)
        self._tellers.clear()

    async def _tell_those_due(self) -> None:
        me, news = asyncio.current_task(), self._news
        known: tuple[int, int, int] | None = None
        message: bytes | None = None
        version = generation = 0
        while self._due and me not in self._stuck:
            if self._changed:
                self._begin_round()
            viewer = self._due.popleft()
            if viewer.busy:
                viewer.missed = True
                continue
            if viewer.over.done():  # the end is what it gets next; it waits for the viewer not to be busy
                continue
            if known != (self._begun, viewer.version, viewer.generation):  # nearly all know the same
                known = (self._begun, viewer.version, viewer.generation)
                message, version = news.message_after(viewer.version, viewer.generation)
                generation = news.generation
            to_send = message
            if to_send is None:
                if time.monotonic() - viewer.told_at < viewer.heartbeat_seconds:
                    continue
                to_send = _heartbeat(version)
            viewer.busy = True
            try:
                if viewer.here:
                    await viewer.write(to_send)
            except Exception:  # whatever it is, it is this stream's; its own call meets it again
                viewer.end()
            viewer.version, viewer.generation, viewer.told_at = version, generation, time.monotonic()
            viewer.sent()
            self._told += 1
            if viewer.missed:
                viewer.missed = False
                self.tell_one(viewer)


def _heartbeat(version: int) -> bytes:
    now = Timestamp()
    now.GetCurrentTime()
    return booking_v1.SeatUpdate(heartbeat=booking_v1.Heartbeat(version=version, time=now)).SerializeToString()
