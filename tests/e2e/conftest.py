"""One whole stack with demo data for all end-to-end tests: every process of ``make run``, reached through the edge.

It runs with EDGE_RATE_LIMITS=off, because ten calls a minute are not enough for a test; the limits have tests of their
own in ``tests/integration/test_edge_limits.py``.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import grpc
import httpx
import pytest
import pytest_asyncio
from e2e_protocols import Client
from e2e_system import House, System, open_house

from local import demo_data
from local.stack import Stack

PROTOCOLS = ("rest", "grpc", "grpc-web")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with Stack(tmp_path_factory.mktemp("stack"), rate_limits=False) as stack:
        await demo_data.load(stack)
        many = httpx.Limits(max_connections=100)
        async with (
            httpx.AsyncClient(base_url=stack.edge_url, timeout=20, limits=many) as http,
            httpx.AsyncClient(base_url=f"http://{stack.address('provider')}", timeout=20) as provider,
            grpc.aio.insecure_channel(stack.address("edge")) as channel,
        ):
            system = System(stack, http, channel, provider)
            system.admin_token = await system.sign_in("admin@demo.marquee.test")
            yield system
            assert system.log_lines("call_failed") == [], "something of ours broke, whatever it answered"
    # pytest keeps a few runs' folders, logs included, and forgets the oldest; root's PostgreSQL lies elsewhere.
    shutil.rmtree(stack.home.outside, ignore_errors=True)


@pytest.fixture(params=PROTOCOLS)
def client(request: pytest.FixtureRequest, system: System) -> Client:
    """Somebody anonymous, in each protocol."""
    return system.clients[request.param]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def house(system: System) -> House:
    """Where tests make shows of their own."""
    return await open_house(system, system.admin)
