"""A service's gRPC server: start, health, reflection, and an end that no caller notices."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from typing import Any, cast

import grpc
import structlog
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from services.kit.door import Door
from services.kit.lifecycle import Lifecycle
from services.kit.policies import policies_of
from services.kit.settings import ServiceSettings
from services.kit.tokens import Issuer, KeyFile, TokenVerifier

log = structlog.get_logger()

OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.so_reuseport", 0),  # a second process on the port is a mistake that must be seen
    ("grpc.max_concurrent_streams", 20_000),
    # Otherwise gRPC cancels some calls when about 1,000 arrive before the event loop takes them.
    ("grpc.server.max_pending_requests", 10_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_metadata_size", 16 * 1024),
)

UNREAD_SECONDS = 0.5
"""How long a server that stops waits for answers to be read. A viewer who does not read must not keep the next process
waiting, and with it all others."""


def token_verifier(settings: ServiceSettings) -> TokenVerifier:
    return TokenVerifier(
        users=Issuer(settings.user_token_issuer, settings.user_token_audience, KeyFile(settings.user_jwks_file)),
        services=Issuer(
            settings.service_token_issuer, settings.service_token_audience, KeyFile(settings.service_jwks_file)
        ),
    )


class GuardedServer:
    """What generated code (``add_UserServiceServicer_to_server``, and nothing else) sees of a server.

    Every method that it adds is guarded.
    """

    def __init__(self, server: grpc.aio.Server, door: Door) -> None:
        self._server = server
        self._door = door
        self.services: set[str] = set()

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Adds nothing: they are the same handlers as those that are added by their names."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        self.services.add(service)
        guarded = {name: self._door.guard(f"/{service}/{name}", handler) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, guarded)


class GrpcServer:
    """One process's server. Servicers are added to ``grpc``; gRPC's own services carry no policy, and the edge does not
    route them.

    Args:
        settings: where to listen, how long to drain.
        services: full names of the services it answers (``marquee.user.v1.UserService``); their policies are enforced.
        lifecycle: told when the server drains.
    """

    def __init__(self, settings: ServiceSettings, services: Sequence[str], lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._services = services
        self._lifecycle = lifecycle
        self._door = Door(
            policies_of(map(descriptor_pool.Default().FindServiceByName, services)),
            token_verifier(settings),
            default_deadline_seconds=settings.default_deadline_seconds,
        )
        self._server = grpc.aio.server(
            options=[*OPTIONS, ("grpc.max_receive_message_length", settings.max_request_bytes)]
        )
        self._guarded = GuardedServer(self._server, self._door)
        self.grpc = cast(grpc.aio.Server, self._guarded)
        self._health = health_aio.HealthServicer()
        self.port = 0

    async def start(self) -> None:
        """Listen; ``port`` tells where. Health says SERVING from here on.

        Raises:
            LookupError: nobody was added who answers for a service that was named.
        """
        if missing := set(self._services) - self._guarded.services:
            raise LookupError(f"nobody answers for {', '.join(sorted(missing))}")
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            [*self._services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME],
            self._server,
        )
        self.port = self._server.add_insecure_port(self._settings.listen)
        await self._server.start()
        for name in ("", *self._services):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("serving", listen=self._settings.listen, port=self.port)

    async def stop(self, *, drain_seconds: float | None = None) -> None:
        """Say not ready, wait until the edge has noticed, tell streams to reconnect, finish what is in flight."""
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(self._settings.drain_seconds if drain_seconds is None else drain_seconds)
        self._lifecycle.draining.set()
        stopping = asyncio.ensure_future(self._server.stop(self._settings.stop_seconds))
        answered = asyncio.ensure_future(self._door.all_answered())
        await asyncio.wait((stopping, answered), return_when=asyncio.FIRST_COMPLETED)
        answered.cancel()
        await self._server.stop(UNREAD_SECONDS)
        await stopping
        log.info("stopped")

    async def serve_until_signal(self) -> None:
        """Start, and stop on SIGTERM or SIGINT."""
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked.set)
        await self.start()
        await asked.wait()
        log.info("draining", seconds=self._settings.drain_seconds)
        await self.stop()
