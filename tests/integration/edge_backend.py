"""A gRPC server that answers every RPC of every service, and tells what reached it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status

from gateway.contracts import Contracts, Rpc

Context = grpc.aio.ServicerContext[bytes, bytes]
Answer = Callable[[Message, Context], Awaitable[Message]]


@dataclass(frozen=True)
class Arrival:
    """One call as the service saw it."""

    path: str
    request: Message
    metadata: dict[str, str | bytes]
    seconds_left: float | None


@dataclass
class Backend:
    """What arrived, and what is answered instead of an empty message."""

    port: int
    arrivals: list[Arrival] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)

    def last(self, path: str) -> Arrival:
        return next(arrival for arrival in reversed(self.arrivals) if arrival.path == path)


class _EveryRpc(grpc.GenericRpcHandler):
    def __init__(self, contracts: Contracts, backend: Backend) -> None:
        self._rpcs = {rpc.path: rpc for rpc in contracts.rpcs}
        self._backend = backend

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        path = str(details.method)
        if path == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(_healthy)
        rpc = self._rpcs.get(path)
        if rpc is None:
            return None
        if rpc.server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._stream(rpc))
        return grpc.unary_unary_rpc_method_handler(self._unary(rpc))

    def _unary(self, rpc: Rpc) -> Any:
        async def handle(data: bytes, context: Context) -> bytes:
            return (await self._answer(rpc, data, context)).SerializeToString()

        return handle

    def _stream(self, rpc: Rpc) -> Any:
        async def handle(data: bytes, context: Context) -> AsyncIterator[bytes]:
            for _ in range(3):
                yield (await self._answer(rpc, data, context)).SerializeToString()

        return handle

    async def _answer(self, rpc: Rpc, data: bytes, context: Context) -> Message:
        request = message_class(rpc.request).FromString(data)
        metadata = dict(context.invocation_metadata() or ())
        self._backend.arrivals.append(Arrival(rpc.path, request, metadata, context.time_remaining()))
        answer = self._backend.answers.get(rpc.path)
        return await answer(request, context) if answer else message_class(rpc.response)()


async def _healthy(_: bytes, __: Context) -> bytes:
    serving = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
    return serving.SerializeToString()


def message_class(name: str) -> type[Message]:
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))


async def start(contracts: Contracts) -> tuple[Backend, grpc.aio.Server]:
    backend = Backend(port=0)
    # gRPC's own default cancels some of more than 1,000 calls that arrive before the event loop takes them.
    pending = [("grpc.server.max_pending_requests", 10_000), ("grpc.server.max_pending_requests_hard_limit", 20_000)]
    server = grpc.aio.server(options=pending)
    server.add_generic_rpc_handlers((_EveryRpc(contracts, backend),))
    backend.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return backend, server


def refusing(code: int, reason: str, message: str, field: str = "") -> Answer:
    """An answer as the services' door gives it."""

    async def refuse(_: Message, context: Context) -> Message:
        status = status_pb2.Status(code=code, message=message)
        info = error_details_pb2.ErrorInfo(reason=reason, domain="marquee", metadata={"seats": "C7"})
        status.details.add().Pack(info)
        if field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
            status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        await context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("abort raises")

    return refuse


def sleeping(seconds: float) -> Answer:
    async def sleep(_: Message, context: Context) -> Message:
        await asyncio.sleep(seconds)
        await context.abort(grpc.StatusCode.INTERNAL, "nobody should wait for this")
        raise AssertionError("abort raises")

    return sleep
