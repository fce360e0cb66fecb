"""One Envoy, one backend and one client of each kind, for the modules that ask every RPC in every protocol."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import edge_backend
import edge_calls
import edge_process
import grpc
import httpx
import pytest

import marquee.booking.v1
import marquee.catalog.v1
import marquee.payment.v1
import marquee.user.v1  # noqa: F401 (their messages must be known by name)
from gateway import contracts as contract_files
from gateway.contracts import Contracts, Rpc

CONTRACTS = contract_files.read()
RPCS = {rpc.name: rpc for rpc in CONTRACTS.rpcs}
EDGE_RPCS = CONTRACTS.edge_rpcs
INTERNAL_RPCS = tuple(rpc for rpc in CONTRACTS.rpcs if not rpc.at_edge)


@dataclass
class World:
    """The edge, what is behind it and who calls it."""

    edge: edge_process.RunningEdge
    backend: edge_backend.Backend
    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    server: grpc.aio.Server
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def address(self) -> str:
        """A client address that nobody had before, so that limits by address stay out of each other's way."""
        number = next(self._numbers)
        return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

    def signed_in(self, user: str | None = None) -> dict[str, str]:
        return bearer(self.edge.keys.token(user or f"user-{next(self._numbers)}"))

    async def call(
        self, protocol: str, rpc: Rpc, headers: dict[str, str] | None = None, request: bytes = b""
    ) -> edge_calls.Reply:
        """From a fresh address, unless ``headers`` say another."""
        sent = {"x-forwarded-for": self.address()} | (headers or {})
        return await edge_calls.call(protocol, rpc, http=self.http, channel=self.channel, headers=sent, request=request)

    async def rest(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"x-forwarded-for": self.address()} | options.pop("headers", {})
        return await self.http.request(method, path, headers=headers, **options)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def open_world(folder: Path, contracts: Contracts = CONTRACTS, **settings: Any) -> AsyncIterator[World]:
    backend, server = await edge_backend.start(contracts)
    try:
        async with (
            edge_process.running(folder, contracts, backend.port, **settings) as edge,
            httpx.AsyncClient(base_url=edge.url, timeout=10) as http,
            grpc.aio.insecure_channel(edge.address) as channel,
        ):
            yield World(edge, backend, http, channel, server)
    finally:
        await server.stop(0)


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async for world in open_world(tmp_path_factory.mktemp("edge")):
        yield world
