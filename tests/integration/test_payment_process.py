"""The payment service as a process of its own, killed while money moves."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from payment_harness import BookingFake, PaymentStack, WebhookBridge, eventually
from provider_process import KEY, SECRET, free_port, merchant_on, running
from service_harness import Served, TestKeys, serving

from marquee.booking import v1 as booking_v1
from marquee.payment import v1 as payment_v1
from services.payment.settings import PaymentSettings

ROOT = Path(__file__).parents[2]
PAYMENTS = 60


@dataclass
class PaymentProcess:
    """`python -m services.payment`, again and again on one port."""

    environment: dict[str, str]
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "services.payment"], cwd=ROOT, env=self.environment)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(5)

    @contextmanager
    def alive(self) -> Iterator[None]:
        self.start()
        try:
            yield
        finally:
            assert self.process is not None
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()


async def pay_one(stack: PaymentStack, number: int) -> str:
    """One buyer, who tries again until the service answers. Every third one pays twice."""
    booking_id = stack.bookings.book(stack.user)
    deadline = time.monotonic() + 30
    request_id = str(uuid.uuid4())
    while True:
        try:
            payment = await stack.initiate(booking_id, request_id=request_id)
            break
        except grpc.aio.AioRpcError:
            assert time.monotonic() < deadline, "the service does not come back"
            await asyncio.sleep(0.1)
    outcome = "failure_then_success" if number % 3 == 1 else "success"
    await stack.simulator.pay(payment.provider_order_id, outcome=outcome, count=2 if number % 3 == 2 else 1)
    return booking_id


async def test_killed_while_money_moves_it_loses_and_doubles_nothing(
    tmp_path: Path, migrated_database_url: Callable[[str], str], valkey_bus: str
) -> None:
    url = migrated_database_url("payment")
    keys = TestKeys.make(tmp_path / "keys")
    bridge, bookings = WebhookBridge(free_port()), BookingFake()
    provider_port, port = free_port(), free_port()
    async with AsyncExitStack() as things:
        await things.enter_async_context(merchant_on(bridge.port, bridge))
        simulator = things.enter_context(running(tmp_path / "provider", provider_port, bridge.url))
        booking = await things.enter_async_context(
            serving(
                PaymentSettings(**keys.settings()),
                ["marquee.booking.v1.BookingInternalService"],
                lambda server: booking_v1.add_BookingInternalServiceServicer_to_server(bookings, server),
                keys,
            )
        )
        environment = {
            **os.environ,
            "MARQUEE_LISTEN": f"127.0.0.1:{port}",
            "MARQUEE_DATABASE_URL": url,
            "MARQUEE_BUS_URL": valkey_bus,
            "MARQUEE_USER_JWKS_FILE": str(keys.users.jwks),
            "MARQUEE_SERVICE_JWKS_FILE": str(keys.services.jwks),
            "MARQUEE_SERVICE_TOKEN_FILE": str(keys.folder / "service.token"),
            "MARQUEE_BOOKING_ADDRESS": f"127.0.0.1:{booking.port}",
            "MARQUEE_RAZORPAY_URL": f"http://127.0.0.1:{provider_port}",
            "MARQUEE_RAZORPAY_KEY_ID": KEY[0],
            "MARQUEE_RAZORPAY_KEY_SECRET": KEY[1],
            "MARQUEE_RAZORPAY_WEBHOOK_SECRETS": SECRET,
            "MARQUEE_CHECKOUT_URL": f"http://127.0.0.1:{provider_port}/checkout/{{order_id}}",
            "MARQUEE_DRAIN_SECONDS": "0",
            "MARQUEE_POLL_FIRST_SECONDS": "1",
            "MARQUEE_LOG_LEVEL": "error",
        }
        payment = PaymentProcess(environment, port)
        channel = await things.enter_async_context(
            grpc.aio.insecure_channel(
                f"127.0.0.1:{port}",
                options=[("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 300)],
            )
        )
        bridge.stub = payment_v1.PaymentServiceStub(channel)
        things.enter_context(payment.alive())
        served = Served(channel, port, keys, booking.server)
        app: Any = None
        stack = PaymentStack(served, app, bridge.stub, simulator, bridge, bookings, url)
        await simulator.faults(webhook_drop_percent=20, webhook_repeat=2, webhook_shuffle_ms=200)

        async def kill_twice() -> None:
            for _ in range(2):
                await asyncio.sleep(1.5)
                payment.kill()
                payment.start()

        async def all_buyers() -> list[str]:
            paid: list[str] = []
            for batch in range(0, PAYMENTS, 6):
                paid += await asyncio.gather(*[pay_one(stack, batch + number) for number in range(6)])
                await asyncio.sleep(0.2)
            return paid

        booking_ids, _ = await asyncio.gather(all_buyers(), kill_twice())

        async def every_capture_is_told() -> bool:
            captured = {each["id"] for each in (await stack.ledger())["payments"] if each["captured"]}
            told = [each.capture_id for booking_id in booking_ids for each in await stack.completed(booking_id)]
            assert len(told) == len(set(told))
            return set(told) == captured

        await eventually(every_capture_is_told, seconds=40)
        summary = (await simulator.http.get("/control/ledger/summary")).json()
        assert summary["captures"] == PAYMENTS + summary["double_captures"] == PAYMENTS + PAYMENTS // 3
        assert summary["orders"] == PAYMENTS
        bridge.closed = True
        await simulator.http.aclose()
