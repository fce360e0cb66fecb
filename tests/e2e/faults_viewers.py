"""People who look at seat maps through all of it: they connect again when their stream ends, and must end up right."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import grpc
from faults_stage import Stage

from marquee.booking import v1 as booking_v1

AVAILABLE = booking_v1.SEAT_STATUS_AVAILABLE


@dataclass
class Viewer:
    """A client of WatchSeats that does what the contract says: applies, skips what it has, asks anew after a gap."""

    stage: Stage
    show_id: str
    version: int = -1
    epoch: str = ""
    states: dict[int, int] = field(default_factory=dict)
    connections: int = 0

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
                self.states = {
                    seat_no: status
                    for status, bits in (
                        (booking_v1.SEAT_STATUS_HELD, snapshot.held),
                        (booking_v1.SEAT_STATUS_BOOKED, snapshot.booked),
                        (booking_v1.SEAT_STATUS_BLOCKED, snapshot.blocked),
                    )
                    for seat_no in range(len(bits) * 8)
                    if bits[seat_no // 8] >> (seat_no % 8) & 1
                }
            case "delta":
                if update.delta.from_version > self.version:
                    return False
                if self.version < update.delta.to_version:
                    for change in update.delta.changes:
                        self.states.update(dict.fromkeys(change.seat_nos, change.status))
                    self.version = update.delta.to_version
            case "end":
                return False
        return True

    def seen(self) -> tuple[int, dict[int, int]]:
        """The version, and the states of seats that are not for sale."""
        return self.version, {seat_no: state for seat_no, state in self.states.items() if state != AVAILABLE}

    async def until_right(self, patience_s: float) -> float:
        """Seconds until this viewer had all that PostgreSQL had at the beginning or later, and had it right.

        Raises:
            AssertionError: it was behind or wrong after ``patience_s``; says how.
        """
        began = time.monotonic()
        target, _ = await self.stage.seats_in_postgres(self.show_id)
        while True:
            version, seen = self.seen()
            took = time.monotonic() - began
            if version >= target:
                there = await self.stage.seats_at_version(self.show_id, version)
                if seen == there:
                    return took
                problem = f"at version {version} it shows {sorted(set(seen.items()) ^ set(there.items()))[:6]} wrong"
            else:
                problem = f"it is at version {version}, PostgreSQL was at {target}"
            assert took < patience_s, f"a viewer of {self.show_id} after {took:.1f} s: {problem}"
            await asyncio.sleep(0.1)


@asynccontextmanager
async def watching(viewers: Sequence[Viewer]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(viewer.run()) for viewer in viewers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
