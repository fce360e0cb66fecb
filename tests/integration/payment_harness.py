"""The payment service in this process, with a real PostgreSQL, the provider simulator and a small booking service.

The simulator's webhooks come over HTTP; a bridge turns them into `HandleCallback` as Envoy does.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import grpc
import psycopg
from google.api import httpbody_pb2
from google.protobuf.message import Message
from provider_process import KEY, SECRET, Merchant, Simulator, free_port, merchant_on, running
from psycopg.rows import dict_row
from pydantic import SecretStr
from service_harness import Served, TestKeys, serving

from marquee.booking import v1 as booking_v1
from marquee.payment import v1 as payment_v1
from services.kit import money
from services.kit.bus import ReceivedEvent
from services.kit.channels import open_channel
from services.kit.errors import NotFound, to_status
from services.kit.outbox import Event
from services.kit.valkey_bus import fields_of, open_client
from services.payment.__main__ import SERVICE, PaymentApp, open_app, working
from services.payment.clients import BookingClient
from services.payment.domain import BookingNotPayable
from services.payment.settings import PaymentSettings
from services.payment.usecases import request_refund

PRICE = money.Money(50_000)
Found = TypeVar("Found")


@dataclass
class BookingFake(booking_v1.BookingInternalServiceServicer):
    """Knows whose bookings are, and which can be paid."""

    owners: dict[str, str] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)

    def book(self, user_id: str) -> str:
        booking_id = str(uuid.uuid4())
        self.owners[booking_id] = user_id
        return booking_id

    async def GetPayables(self, request: booking_v1.GetPayablesRequest, context: Any) -> booking_v1.GetPayablesResponse:
        return booking_v1.GetPayablesResponse(answers=[self._answer(wanted) for wanted in request.wanted])

    def _answer(self, wanted: booking_v1.PayableWanted) -> booking_v1.PayableAnswer:
        if self.owners.get(wanted.booking_id) != wanted.user_id:
            return booking_v1.PayableAnswer(refusal=to_status(NotFound("there is no such booking")))
        if wanted.booking_id in self.closed:
            return booking_v1.PayableAnswer(refusal=to_status(BookingNotPayable("the booking is over")))
        payable = booking_v1.Payable(
            booking_id=wanted.booking_id, amount=money.to_proto(PRICE), description="Inception, 2 seats"
        )
        payable.pay_by_time.FromSeconds(int(time.time()) + 600)
        return booking_v1.PayableAnswer(payable=payable)


@dataclass
class WebhookBridge(Merchant):
    """Takes the simulator's webhooks to the service; with ``closed`` it drops them like a dead edge."""

    stub: Any = None
    closed: bool = False

    async def take(self, headers: dict[str, str], body: bytes) -> int:
        self.received.append((headers, body))
        if self.closed:
            return 503
        return await self.hand_over(headers, body)

    async def hand_over(self, headers: dict[str, str], body: bytes, provider: str = "razorpay") -> int:
        metadata = tuple((key, value) for key, value in headers.items() if key.startswith("x-razorpay-"))
        request = payment_v1.HandleCallbackRequest(
            provider=provider, payload=httpbody_pb2.HttpBody(content_type="application/json", data=body)
        )
        try:
            await self.stub.HandleCallback(request, metadata=metadata, timeout=10)
        except grpc.aio.AioRpcError as error:
            return {grpc.StatusCode.UNAUTHENTICATED: 401, grpc.StatusCode.NOT_FOUND: 404}.get(error.code(), 503)
        return 200


@dataclass
class PaymentStack:
    """All of it, and what tests ask of it."""

    served: Served
    app: PaymentApp
    stub: Any
    simulator: Simulator
    bridge: WebhookBridge
    bookings: BookingFake
    database_url: str
    user: str = field(default_factory=lambda: str(uuid.uuid4()))
    admin: str = field(default_factory=lambda: str(uuid.uuid4()))

    def as_user(self, user_id: str | None = None) -> Any:
        return self.served.as_user(user_id or self.user)

    def as_admin(self) -> Any:
        return self.served.as_user(self.admin, roles=("admin",))

    async def initiate(self, booking_id: str | None = None, **how: Any) -> payment_v1.Payment:
        user = how.pop("user", self.user)
        request = payment_v1.InitiatePaymentRequest(
            request_id=how.get("request_id") or str(uuid.uuid4()),
            booking_id=booking_id or self.bookings.book(user),
            method=how.get("method", payment_v1.PAYMENT_METHOD_UPI),
        )
        answer: payment_v1.Payment = await self.stub.InitiatePayment(request, metadata=self.as_user(user), timeout=20)
        return answer

    async def status(self, payment_id: str, user: str | None = None) -> payment_v1.Payment:
        request = payment_v1.GetPaymentStatusRequest(payment_id=payment_id)
        answer: payment_v1.Payment = await self.stub.GetPaymentStatus(request, metadata=self.as_user(user))
        return answer

    async def refund(self, payment_id: str, minor: int | None = None, **how: Any) -> payment_v1.Refund:
        request = payment_v1.RefundPaymentRequest(
            request_id=how.get("request_id") or str(uuid.uuid4()),
            payment_id=payment_id,
            amount=None if minor is None else money.to_proto(money.Money(minor)),
            reason=how.get("reason", "by hand"),
        )
        metadata = how.get("metadata") or self.as_admin()
        answer: payment_v1.Refund = await self.stub.RefundPayment(request, metadata=metadata)
        return answer

    async def request_refund(self, capture_id: str, minor: int, refund_id: str | None = None) -> str:
        """What the consumer does when booking asks."""
        refund_id = refund_id or str(uuid.uuid4())
        async with await psycopg.AsyncConnection.connect(self.database_url) as connection:
            await request_refund(
                connection,
                refund_id=uuid.UUID(refund_id),
                capture_id=capture_id,
                amount=money.Money(minor),
                reason="late",
            )
        return refund_id

    async def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        async with await psycopg.AsyncConnection.connect(self.database_url, row_factory=dict_row) as connection:
            return await (await connection.execute(query, values)).fetchall()

    async def change(self, statement: str) -> None:
        async with await psycopg.AsyncConnection.connect(self.database_url) as connection:
            await connection.execute(statement)

    async def publish(self, bus_url: str, event: Event) -> None:
        """Put an event on the bus, as the relay does with another service's outbox."""
        received = ReceivedEvent(
            event_id=uuid.uuid4(),
            topic=event.topic,
            key=event.key,
            type=event.payload.DESCRIPTOR.full_name,
            payload=event.payload.SerializeToString(),
            headers={},
            created_at=datetime.now(UTC),
        )
        async with open_client(bus_url) as client:
            await client.xadd(received.topic, fields_of(received))

    async def events(self, topic: str, booking_id: str, kind: Callable[[], Message]) -> list[Any]:
        """Payloads of the outbox."""
        found = await self.rows(
            "SELECT payload FROM outbox WHERE aggregatetype = %s AND aggregateid = %s ORDER BY id", topic, booking_id
        )
        return [type(kind()).FromString(row["payload"]) for row in found]

    async def completed(self, booking_id: str) -> list[payment_v1.PaymentCompleted]:
        return await self.events("payment.completed", booking_id, payment_v1.PaymentCompleted)

    async def refunded(self, booking_id: str) -> list[payment_v1.PaymentRefunded]:
        return await self.events("payment.refunded", booking_id, payment_v1.PaymentRefunded)

    async def reaches(self, payment_id: str, status: int) -> payment_v1.Payment:
        """Wait until the payment has this status."""

        async def look() -> payment_v1.Payment | None:
            row = await self.rows("SELECT user_id FROM payments WHERE payment_id = %s", payment_id)
            found = await self.status(payment_id, user=str(row[0]["user_id"]))
            return found if found.status == status else None

        return await eventually(look)

    async def ledger(self) -> dict[str, Any]:
        return dict((await self.simulator.http.get("/control/ledger")).json())

    async def webhooks_settled(self) -> None:
        async def look() -> bool:
            summary = (await self.simulator.http.get("/control/ledger/summary")).json()
            return bool(summary["webhooks"]["pending"] == 0)

        await eventually(look)


async def eventually(look: Callable[[], Awaitable[Found | None]], seconds: float = 20) -> Found:
    """What ``look`` finds, once it finds something."""
    deadline = time.monotonic() + seconds
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < deadline, "it never came"
        await asyncio.sleep(0.03)


@asynccontextmanager
async def payment_stack(folder: Path, database_url: str, **settings: Any) -> AsyncIterator[PaymentStack]:
    """Everything runs while the block lasts."""
    keys = TestKeys.make(folder / "keys")
    bridge = WebhookBridge(free_port())
    bookings = BookingFake()
    provider_port = free_port()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(merchant_on(bridge.port, bridge))
        simulator = stack.enter_context(running(folder / "provider", provider_port, bridge.url))
        booking = await stack.enter_async_context(
            serving(
                PaymentSettings(**keys.settings()),
                ["marquee.booking.v1.BookingInternalService"],
                lambda server: booking_v1.add_BookingInternalServiceServicer_to_server(bookings, server),
                keys,
            )
        )
        channel = await stack.enter_async_context(
            open_channel(f"127.0.0.1:{booking.port}", keys.folder / "service.token")
        )
        service_settings = PaymentSettings(
            **{
                **keys.settings(database_url),
                "razorpay_url": f"http://127.0.0.1:{provider_port}",
                "razorpay_key_id": KEY[0],
                "razorpay_key_secret": SecretStr(KEY[1]),
                "razorpay_webhook_secrets": SecretStr(f"newer-secret,{SECRET}"),
                "checkout_url": f"http://127.0.0.1:{provider_port}/checkout/{{order_id}}?method={{method}}",
                "poll_first_seconds": 600.0,
                "worker_idle_seconds": 0.05,
                **settings,
            }
        )
        client = BookingClient(channel, most=32, gather_seconds=0.005)
        app = await stack.enter_async_context(open_app(service_settings, client))
        await stack.enter_async_context(working(app))
        served = await stack.enter_async_context(
            serving(
                service_settings,
                [SERVICE],
                lambda server: payment_v1.add_PaymentServiceServicer_to_server(app.servicer, server),
                keys,
            )
        )
        bridge.stub = payment_v1.PaymentServiceStub(served.channel)
        yield PaymentStack(served, app, bridge.stub, simulator, bridge, bookings, database_url)
        bridge.closed = True
        await simulator.http.aclose()
