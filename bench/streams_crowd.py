"""Viewers of WatchSeats by the thousand, and what they know.

What a viewer knows of a show is shared with all who know the same: a message leads from one ``Knowledge`` to the next.
It is read by the first viewer that gets it, and costs each further one a look-up.
"""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bench import wire
from marquee.booking import v1 as booking_v1

METHOD = "/marquee.booking.v1.BookingService/WatchSeats"
JITTER_SECONDS = 0.3
"""A viewer whose stream ended comes again within this."""


@dataclass(frozen=True)
class Audience:
    """Who watches what.

    Args:
        shows: each viewer watches the next one.
        tokens: each viewer has the next one.
        connections: how many share the viewers, as an edge's few connections do.
        window: bytes that a stream may receive; it is never given more, so a small one makes viewers that stall.
        returning: whether viewers whose stream ends come back with what they know.
    """

    address: str
    shows: Sequence[str]
    tokens: Sequence[str]
    count: int
    connections: int = 8
    window: int = wire.LARGEST_WINDOW
    returning: bool = False


@dataclass(slots=True, eq=False)
class Knowledge:
    """What some viewers know of a show, and when each of them came to know it (Unix seconds).

    Args:
        seats: the status of each seat that is not for sale.
        since: the version from which a delta led here; None when it was a snapshot.
    """

    show_id: str
    epoch: str = ""
    version: int = -1
    seats: dict[int, int] = field(default_factory=dict, repr=False)
    since: int | None = None
    reached: array[float] = field(default_factory=lambda: array("d"), repr=False)
    leads_to: dict[bytes, Knowledge] = field(default_factory=dict, repr=False)

    def after(self, message: bytes) -> tuple[str, Knowledge]:
        """What kind of update ``message`` is, and what is known then; a ``gap`` is a delta that does not fit on."""
        update = booking_v1.SeatUpdate.FromString(message)
        kind = update.WhichOneof("update") or ""
        if kind == "snapshot":
            return kind, self._replaced(update.snapshot)
        if kind != "delta" or update.delta.to_version <= self.version:
            return kind, self
        if update.delta.from_version > self.version:
            return "gap", self
        seats = self.seats.copy()
        for change in update.delta.changes:
            seats.update(dict.fromkeys(change.seat_nos, change.status))
        seats = {seat_no: status for seat_no, status in seats.items() if status != booking_v1.SEAT_STATUS_AVAILABLE}
        return kind, Knowledge(self.show_id, self.epoch, update.delta.to_version, seats, self.version)

    def _replaced(self, snapshot: booking_v1.SeatSnapshot) -> Knowledge:
        seats = {
            seat_no: status
            for status, bits in (
                (booking_v1.SEAT_STATUS_HELD, snapshot.held),
                (booking_v1.SEAT_STATUS_BOOKED, snapshot.booked),
                (booking_v1.SEAT_STATUS_BLOCKED, snapshot.blocked),
            )
            for seat_no in range(len(bits) * 8)
            if bits[seat_no >> 3] >> (seat_no & 7) & 1
        }
        return Knowledge(self.show_id, snapshot.epoch, snapshot.version, seats)


class Line(Protocol):
    """Where viewers get their streams from: a connection that is made anew when it breaks."""

    def take(self, viewer: Viewer) -> None:
        """Open a stream for ``viewer``, as soon as there is a connection."""

    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class Viewer:
    """One person's streams, one after another.

    Args:
        head: the block of headers that opens a stream.
        greeted: whether the stream that is open now has brought something.
        partial: the beginning of a message.
        lost_at: when the last stream ended (Unix seconds), and ``back_at`` when the present one brought something.
    """

    head: bytes
    line: Line
    returning: bool
    knows: Knowledge
    greeted: bool = False
    partial: bytes = b""
    lost_at: float = 0.0
    back_at: float = 0.0

    def request(self) -> bytes:
        """A framed request that goes on from what is known."""
        request = booking_v1.WatchSeatsRequest(show_id=self.knows.show_id, epoch=self.knows.epoch)
        if self.knows.version >= 0:
            request.after_version = self.knows.version
        return wire.message(request.SerializeToString())


class Crowd:
    """All viewers, and what they count together."""

    def __init__(self) -> None:
        self.viewers: list[Viewer] = []
        self.pushes = self.heartbeats = self.gaps = self.lost = self.refused = 0
        self.steps: list[Knowledge] = []
        self._nothing: dict[str, Knowledge] = {}
        self._ungreeted = 0
        self._moved = asyncio.Event()

    def enter(self, audience: Audience, lines: Sequence[Line], heads: Sequence[bytes]) -> None:
        """Open a stream for each viewer of ``audience``."""
        for number in range(audience.count):
            show_id = audience.shows[number % len(audience.shows)]
            nothing = self._nothing.setdefault(show_id, Knowledge(show_id))
            line, head = lines[number % len(lines)], heads[number % len(heads)]
            viewer = Viewer(head, line, audience.returning, nothing)
            self.viewers.append(viewer)
            self._ungreeted += 1
            line.take(viewer)

    async def all_greeted(self, *, lost: int = 0) -> None:
        """Until ``lost`` streams have been lost, and every viewer's last one has brought something or was refused."""
        while self.lost < lost or self._ungreeted:
            self._moved.clear()
            await self._moved.wait()

    def greeted(self, viewer: Viewer) -> None:
        viewer.greeted, viewer.back_at = True, time.time()
        self._ungreeted -= 1
        self._moved.set()

    def ended(self, viewer: Viewer) -> None:
        """A stream is over; whoever returns asks for another."""
        viewer.partial = b""
        if viewer.greeted:
            viewer.greeted, viewer.lost_at = False, time.time()
            self.lost += 1
            self._ungreeted += viewer.returning
        else:
            self.refused += 1
            self._ungreeted -= not viewer.returning
        self._moved.set()
        if viewer.returning:
            pause = random.uniform(0, JITTER_SECONDS)  # noqa: S311 - no secret
            asyncio.get_running_loop().call_later(pause, viewer.line.take, viewer)

    def read(self, viewer: Viewer, received: bytes) -> None:
        """Take the next bytes of a stream that are not just one message which somebody read before."""
        viewer.partial += received
        while len(viewer.partial) >= 5:
            end = 5 + int.from_bytes(viewer.partial[1:5])
            if len(viewer.partial) < end:
                return
            framed, viewer.partial = viewer.partial[:end], viewer.partial[end:]
            known = viewer.knows.leads_to.get(framed)
            if known is None:
                kind, known = viewer.knows.after(framed[5:])
                self.heartbeats += kind == "heartbeat"
                self.gaps += kind == "gap"
                if kind not in ("snapshot", "delta"):
                    continue
                viewer.knows.leads_to[framed] = known
                if known is not viewer.knows:
                    self.steps.append(known)
            self.pushes += 1
            if known is not viewer.knows:
                known.reached.append(time.time())
                viewer.knows = known

    def forget_times(self) -> None:
        """Begin anew to note when viewers come to know something."""
        for step in self.steps:
            del step.reached[:]
