"""One call at a time, many at once: floors, holds, the edge, REST, and a crowd before a show that is sold out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from bench.holds import METHOD, HoldCalls
from bench.rounds import Ratio, Round
from bench.stage import Stage, client_core
from bench.wire import Load
from marquee.booking import v1 as booking_v1

SHOWS = 1_500
RATIOS = (
    Ratio("hold / bare echo", "hold", ("bare echo",), 0.45),
    Ratio("hold / echo behind the door", "hold", ("echo",), 0.45),
    Ratio("door / bare echo", "echo", ("bare echo",), 0.75),
    Ratio("hold by the edge / direct", "hold by the edge", ("hold", "hold again"), 0.60),
    Ratio("REST / gRPC, both by the edge", "hold by REST", ("hold by the edge",), 0.70),
    Ratio("refusals / wins, of one show", "refused", ("won of one show",), 3.0),
)


class Calls:
    """The subject ``calls``."""

    def __init__(self, stage: Stage, calls: HoldCalls, count: int) -> None:
        self._stage = stage
        self._calls = calls
        self._count = count
        self._for_floors = calls.take(count)
        """Nobody holds anything there, so these do for all rounds; seats are many, but not without end."""

    @classmethod
    async def of(cls, stage: Stage, count: int) -> Calls:
        return cls(stage, await HoldCalls.of(stage.stack, stage.users, shows=SHOWS), count)

    async def round(self) -> Round:
        made = Round()
        fire, booking = self._stage.fire, self._stage.stack.address("booking")
        for name, floor in (("bare echo", "bare"), ("echo", "echo")):
            address, _ = self._stage.floors[floor]
            await fire(made, name, Load(address, METHOD, self._for_floors, core=client_core()))
        await fire(made, "hold", self._load(booking))
        await fire(made, "hold by the edge", self._load(self._stage.edge))
        await fire(made, "hold again", self._load(booking))
        rest = self._calls.take_rest(self._count)
        await fire(
            made, "hold by REST", Load(self._stage.edge, "/api/v1/reservations", rest, core=client_core(), rest=True)
        )
        await self._crowd(made, booking)
        return made

    def _load(self, address: str) -> Load:
        return Load(address, METHOD, self._calls.take(self._count), core=client_core())

    async def _crowd(self, made: Round, booking: str) -> None:
        """A watched show is sold out, and the rest of the crowd is turned away."""
        show_id, labels, calls = self._calls.sell_out()
        async with _watched(booking, show_id):
            await self._stage.fire(made, "won of one show", Load(booking, METHOD, calls, core=client_core()))
            vain = self._calls.in_vain(show_id, labels, self._count)
            await self._stage.fire(made, "refused", Load(booking, METHOD, vain, core=client_core()), refusals=True)


@asynccontextmanager
async def _watched(address: str, show_id: str) -> AsyncIterator[None]:
    async def watch() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            async for _ in booking_v1.BookingServiceStub(channel).WatchSeats(
                booking_v1.WatchSeatsRequest(show_id=show_id)
            ):
                begun.set()

    begun = asyncio.Event()
    watching = asyncio.create_task(watch())
    try:
        await asyncio.wait_for(begun.wait(), 10)
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
