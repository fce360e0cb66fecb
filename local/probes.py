"""Questions that tell whether a part is ready; each asks once and answers within a second."""

from __future__ import annotations

import asyncio
import os
import struct

import httpx

from local.part import Probe

# The supervisor forks while it has a channel open; the fork handlers of gRPC would only print that they do nothing.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

PATIENCE_S = 1.0


def postgres(port: int) -> Probe:
    """PostgreSQL lets clients in: it answers a start-up packet with anything but "starting up" (57P03).

    Spoken by hand, as ``pg_isready`` does, because a refused login is answer enough and needs no password.
    """
    parameters = b"user\0marquee\0database\0postgres\0\0"
    packet = struct.pack("!ii", 8 + len(parameters), 196608) + parameters

    async def ask() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(packet)
            await writer.drain()
            answer = await reader.read(1024)
        finally:
            writer.close()
        return answer.startswith(b"R") or (answer.startswith(b"E") and b"C57P03\0" not in answer)

    return ask


def valkey(port: int) -> Probe:
    """Valkey answers; "LOADING" while it still reads its file, "NOAUTH" otherwise, as this asks without a password."""

    async def ask() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"PING\r\n")
            await writer.drain()
            answer = await reader.readline()
        finally:
            writer.close()
        return answer.startswith((b"+PONG", b"-NOAUTH"))

    return ask


def grpc_health(address: str) -> Probe:
    """The service says SERVING of itself (grpc.health.v1)."""

    async def ask() -> bool:
        options = [("grpc.use_local_subchannel_pool", 1)]  # no back-off inherited from the try before
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]
                    health_pb2.HealthCheckRequest(service=""), timeout=PATIENCE_S
                )
            except grpc.aio.AioRpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return ask


def tcp(port: int) -> Probe:
    """Somebody listens."""

    async def ask() -> bool:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True

    return ask


def http(url: str) -> Probe:
    """The server answers, whatever it says, except that what stands behind it is missing (503)."""

    async def ask() -> bool:
        async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
            try:
                answer = await client.get(url)
            except httpx.HTTPError:
                return False
        return answer.status_code != httpx.codes.SERVICE_UNAVAILABLE

    return ask
