"""The floor of a push: grpcio alone, and a loop that writes the same bytes to every open stream.

``python -m bench.streams_raw`` listens where ``MARQUEE_LISTEN`` says. A round of pushes begins each 100 ms, as the
product's, or when the one before it has ended.
"""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import grpc
import uvloop

from marquee.booking import v1 as booking_v1
from services.kit.server import OPTIONS
from services.kit.settings import ServiceSettings

PAUSE_SECONDS = 0.1
CHANGED = (17, 18)


def snapshot() -> bytes:
    return booking_v1.SeatUpdate(
        snapshot=booking_v1.SeatSnapshot(epoch="raw", version=1_000, layout_version=1, held=b"\xff" * 25, capacity=200)
    ).SerializeToString()


def delta() -> bytes:
    """Two seats are held, as by most holds."""
    held = booking_v1.SeatChange(status=booking_v1.SEAT_STATUS_HELD, seat_nos=CHANGED)
    return booking_v1.SeatUpdate(
        delta=booking_v1.SeatDelta(from_version=1_000, to_version=1_001, changes=[held])
    ).SerializeToString()


class RawStreams:
    """Whoever asks for ``WatchSeats`` gets a snapshot, and then every push."""

    def __init__(self) -> None:
        self._streams: set[grpc.aio.ServicerContext[Any, Any]] = set()
        self._snapshot = snapshot()

    async def watch(self, request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.write(self._snapshot)
        self._streams.add(context)
        try:
            await asyncio.get_running_loop().create_future()  # until the client goes
        finally:
            self._streams.discard(context)

    async def push(self, message: bytes) -> None:
        for stream in tuple(self._streams):
            if stream in self._streams:  # it may have gone since the round began
                try:
                    await stream.write(message)
                except grpc.aio.BaseError:
                    self._streams.discard(stream)


async def serve() -> None:
    raw = RawStreams()
    server = grpc.aio.server(options=OPTIONS)
    watch = grpc.unary_stream_rpc_method_handler(raw.watch)
    handler = grpc.method_handlers_generic_handler("marquee.booking.v1.BookingService", {"WatchSeats": watch})
    server.add_generic_rpc_handlers([handler])
    server.add_insecure_port(ServiceSettings().listen)
    await server.start()
    pushing = asyncio.create_task(_push_for_ever(raw, delta()))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    pushing.cancel()
    await server.stop(None)


async def _push_for_ever(raw: RawStreams, message: bytes) -> None:
    while True:
        began = time.monotonic()
        await raw.push(message)
        await asyncio.sleep(max(0.0, began + PAUSE_SECONDS - time.monotonic()))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
