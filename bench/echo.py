"""The floors of an RPC: the contract's CreateReservation, answered at once, empty.

``python -m bench.echo echo`` answers behind the kit's whole door, ``bare`` by grpcio alone.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc

from marquee.booking import v1 as booking_v1
from services.kit import command
from services.kit.lifecycle import Lifecycle
from services.kit.logs import configure_logs
from services.kit.server import OPTIONS, GrpcServer
from services.kit.settings import ServiceSettings


class EmptyBookings(booking_v1.BookingServiceServicer):
    async def CreateReservation(  # noqa: N802 - gRPC names it
        self, request: booking_v1.CreateReservationRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> booking_v1.Reservation:
        return booking_v1.Reservation()


async def bare() -> None:
    server = grpc.aio.server(options=OPTIONS)
    booking_v1.add_BookingServiceServicer_to_server(EmptyBookings(), server)
    server.add_insecure_port(ServiceSettings().listen)
    await server.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop(None)


async def echo() -> None:
    settings = ServiceSettings()
    configure_logs("echo", style=settings.log_format, level=settings.log_level)
    server = GrpcServer(settings, ["marquee.booking.v1.BookingService"], Lifecycle())
    booking_v1.add_BookingServiceServicer_to_server(EmptyBookings(), server.grpc)
    await server.serve_until_signal()


if __name__ == "__main__":
    command.run(bare() if sys.argv[1:] == ["bare"] else echo())
