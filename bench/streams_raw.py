"""The floor of a push: grpcio alone, and a loop that writes the same bytes to every open stream.

``python -m bench.streams_raw N`` listens where ``MARQUEE_LISTEN`` says, and has ``N`` writes under way: with 1 it is
the loop that one would write first; with more, each write overlaps others. A round of pushes begins each 100 ms, as the
product's, or when the one before it has ended.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc
import uvloop

from marquee.booking import v1 as booking_v1
from services.kit.server import OPTIONS
from services.kit.settings import ServiceSettings

PAUSE_SECONDS = 0.1
CHANGED = (17, 18)

Stream = grpc.aio.ServicerContext[Any, Any]


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
        self._streams: set[Stream] = set()
        self._snapshot = snapshot()

    async def watch(self, request: bytes, context: Stream) -> None:
        await context.write(self._snapshot)
        self._streams.add(context)
        try:
            await asyncio.get_running_loop().create_future()  # until the client goes
        finally:
            self._streams.discard(context)

    async def push(self, message: bytes, at_once: int) -> None:
        streams = iter(tuple(self._streams))
        async with asyncio.TaskGroup() as loops:
            for _ in range(at_once):
                loops.create_task(self._write_to_all(streams, message))

    async def _write_to_all(self, streams: Iterator[Stream], message: bytes) -> None:
        for stream in streams:
            if stream in self._streams:  # it may have gone since the round began
                try:
                    await stream.write(message)
                except grpc.aio.BaseError:
                    self._streams.discard(stream)


async def serve(at_once: int) -> None:
    raw = RawStreams()
    server = grpc.aio.server(options=OPTIONS)
    watch = grpc.unary_stream_rpc_method_handler(raw.watch)
    handler = grpc.method_handlers_generic_handler("marquee.booking.v1.BookingService", {"WatchSeats": watch})
    server.add_generic_rpc_handlers([handler])
    server.add_insecure_port(ServiceSettings().listen)
    await server.start()
    pushing = asyncio.create_task(_push_for_ever(raw, delta(), at_once))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    pushing.cancel()
    await server.stop(None)


async def _push_for_ever(raw: RawStreams, message: bytes, at_once: int) -> None:
    while True:
        began = time.monotonic()
        await raw.push(message, at_once)
        await asyncio.sleep(max(0.0, began + PAUSE_SECONDS - time.monotonic()))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
