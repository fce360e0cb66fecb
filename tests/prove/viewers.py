"""People who look at seat maps through all of it: they connect again when their stream ends, and must end up right."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import grpc

from marquee.booking import v1 as booking_v1
from tests.prove.clients import Client, GaveUp, Record, Refused
from tests.prove.history import Act, Moment, Sight, SightKind
from tests.prove.stage import Stage

AVAILABLE = int(booking_v1.SEAT_STATUS_AVAILABLE)
MAP_EVERY_S = 5.0


@dataclass
class Viewer:
    """A client of WatchSeats that does what the contract says: applies, skips what it has, asks anew after a gap."""

    stage: Stage
    record: Record
    name: str
    show_id: str
    version: int = -1
    epoch: str = ""
    connections: int = 0
    seats: bytearray = field(default_factory=bytearray)

    async def run(self) -> None:
        """For ever; cancel it to stop."""
        while True:
            request = booking_v1.WatchSeatsRequest(show_id=self.show_id, epoch=self.epoch)
            if self.version >= 0:
                request.after_version = self.version
            self.connections += 1
            with suppress(grpc.aio.AioRpcError):
                stream = self.stage.booking.WatchSeats(request)
                async for update in stream:
                    if not self._apply(update):
                        stream.cancel()
                        break
            await asyncio.sleep(self.stage.randomly.uniform(0.1, 0.4))

    def _apply(self, update: booking_v1.SeatUpdate) -> bool:
        """Whether to go on with this stream."""
        match update.WhichOneof("update"):
            case "snapshot":
                snapshot = update.snapshot
                self.version, self.epoch = snapshot.version, snapshot.epoch
                self.seats = bytearray([AVAILABLE]) * snapshot.capacity
                for status, bits in (
                    (booking_v1.SEAT_STATUS_HELD, snapshot.held),
                    (booking_v1.SEAT_STATUS_BOOKED, snapshot.booked),
                    (booking_v1.SEAT_STATUS_BLOCKED, snapshot.blocked),
                ):
                    for seat_no in range(len(bits) * 8):
                        if bits[seat_no // 8] >> (seat_no % 8) & 1:
                            self.seats[seat_no] = status
                self._write(SightKind.SNAPSHOT, snapshot.version)
            case "delta":
                delta = update.delta
                if delta.from_version > self.version:
                    return False
                if self.version < delta.to_version:
                    for change in delta.changes:
                        for seat_no in change.seat_nos:
                            self.seats[seat_no] = change.status
                    self.version = delta.to_version
                    self._write(SightKind.DELTA, delta.to_version)
            case "heartbeat":
                self._write(SightKind.HEARTBEAT, update.heartbeat.version)
            case "end":
                return False
        return True

    def _write(self, kind: SightKind, said_version: int) -> None:
        now, seats = Moment.now(), bytes(self.seats)
        seen = Sight(self.name, self.show_id, self.connections, kind, now, said_version, self.version, seats)
        self.record.history.sights.append(seen)

    async def until_current(self, patience_s: float) -> float:
        """Seconds until this viewer had all that PostgreSQL had at the beginning or later.

        Raises:
            AssertionError: it was behind after ``patience_s``; says how.
        """
        began = time.monotonic()
        target = await self.stage.version(self.show_id)
        while self.version < target:
            took = time.monotonic() - began
            behind = (
                f"a viewer of {self.show_id} is at version {self.version} after {took:.1f} s, PostgreSQL at {target}"
            )
            assert took < patience_s, behind
            await asyncio.sleep(0.1)
        return time.monotonic() - began


@dataclass
class MapReader:
    """Asks for whole maps now and then, as a page does that has no stream."""

    stage: Stage
    record: Record

    async def run(self) -> None:
        """For ever; cancel it to stop."""
        reader = Client("reader of maps", self.stage.somebody(), self.stage, self.record)
        while True:
            request = booking_v1.GetSeatMapRequest(show_id=self.stage.randomly.choice(self.stage.shows).show_id)
            with suppress(Refused, GaveUp):
                await reader.ask(Act.SEE_MAP, self.stage.booking.GetSeatMap, request, once=True)
            await asyncio.sleep(self.stage.randomly.uniform(0.5, 1.5) * MAP_EVERY_S)


@asynccontextmanager
async def watching(viewers: Sequence[Viewer]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(viewer.run(), name=viewer.name) for viewer in viewers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
