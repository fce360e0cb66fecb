"""The provider simulator as a process of its own, and somebody who takes its webhooks."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
KEY = ("rzp_test_key", "rzp-test-secret")
SECRET = "first-webhook-secret"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Merchant:
    """Takes webhooks, and answers what the test wants it to answer."""

    port: int
    status: int = 200
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/callback"

    def events(self) -> list[str]:
        return [json.loads(body)["event"] for _, body in self.received]

    def event_ids(self) -> list[str]:
        return [headers["x-razorpay-event-id"] for headers, _ in self.received]

    async def take(self, headers: dict[str, str], body: bytes) -> int:
        """The status to answer a webhook with."""
        self.received.append((headers, body))
        return self.status

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(15):
            while len(self.received) < count:
                await asyncio.sleep(0.02)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
                }
                body = await reader.readexactly(int(headers["content-length"]))
                status = await self.take(headers, body)
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\n{{}}".encode())
        except (asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.close()


@asynccontextmanager
async def merchant_on(port: int, merchant: Merchant | None = None) -> AsyncIterator[Merchant]:
    merchant = merchant or Merchant(port)
    server = await asyncio.start_server(merchant.answer, "127.0.0.1", port)
    try:
        yield merchant
    finally:
        server.close()


@dataclass
class Simulator:
    """The process and how to speak to it."""

    process: subprocess.Popen[bytes]
    http: httpx.AsyncClient

    async def order(self, **wish: Any) -> dict[str, Any]:
        answer = await self.http.post("/v1/orders", json={"amount": 50_000, "currency": "INR", **wish})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def pay(self, order_id: str, **how: Any) -> list[dict[str, Any]]:
        answer = await self.http.post(f"/control/pay/{order_id}", json=how)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["payments"])

    async def faults(self, **faults: Any) -> None:
        (await self.http.put("/control/faults", json=faults)).raise_for_status()


@contextmanager
def running(data_dir: Path, port: int, webhook_url: str, *, events: str = "") -> Iterator[Simulator]:
    environment = {
        **os.environ,
        "PROVIDER_LISTEN": f"127.0.0.1:{port}",
        "PROVIDER_DATA_DIR": str(data_dir),
        "PROVIDER_KEY_ID": KEY[0],
        "PROVIDER_KEY_SECRET": KEY[1],
        "PROVIDER_WEBHOOK_URL": webhook_url,
        "PROVIDER_WEBHOOK_SECRET": SECRET,
        "PROVIDER_WEBHOOK_EVENTS": events,
    }
    process = subprocess.Popen([sys.executable, "-m", "local.provider"], cwd=ROOT, env=environment)
    http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", auth=KEY, trust_env=False)
    try:
        deadline = time.monotonic() + 15
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=0.2):
                    break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, "the simulator does not start"
                time.sleep(0.03)
        yield Simulator(process, http)
    finally:
        process.terminate()
        process.wait(10)
