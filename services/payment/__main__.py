"""The composition root: ``python -m services.payment [serve|migrate]``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc

from marquee.payment import v1 as payment_v1
from services.kit.channels import open_channel
from services.kit.command import service_command
from services.kit.consumers import Consumer
from services.kit.database import open_pool
from services.kit.lifecycle import Lifecycle
from services.kit.server import GrpcServer
from services.payment.clients import BookingClient, Bookings, open_transport
from services.payment.consumers import CONSUMER, REFUND_REQUESTED, RefundRequests
from services.payment.desk import Desk, answer_batches, opening_batches, webhook_batches
from services.payment.orders import Orders
from services.payment.providers.razorpay import Razorpay
from services.payment.reconciler import Reconciler, Rhythm
from services.payment.refunds import RefundWorker
from services.payment.servicer import PaymentServicer
from services.payment.settings import PaymentSettings

SERVICE = "marquee.payment.v1.PaymentService"


@dataclass(frozen=True, slots=True)
class PaymentApp:
    """Everything of the service but its server and its bus."""

    servicer: PaymentServicer
    refunds: RefundWorker
    reconciler: Reconciler
    refund_requests: RefundRequests


@asynccontextmanager
async def open_app(settings: PaymentSettings, bookings: Bookings) -> AsyncIterator[PaymentApp]:
    """Pools and adapters, put together."""
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            open_pool(
                settings.database_url.get_secret_value(),
                size=settings.database_pool_size,
                wait_seconds=settings.database_pool_wait_seconds,
                name="payment",
            )
        )
        transport = await stack.enter_async_context(
            open_transport(
                settings.razorpay_url,
                key_id=settings.razorpay_key_id,
                key_secret=settings.razorpay_key_secret.get_secret_value(),
                timeout_seconds=settings.provider_timeout_seconds,
                tries=settings.provider_tries,
            )
        )
        razorpay = Razorpay(transport, settings.webhook_secrets())
        providers = {razorpay.name: razorpay}
        wake_refunds = asyncio.Event()
        rhythm = Rhythm(
            first_seconds=settings.poll_first_seconds,
            for_seconds=settings.poll_for_seconds,
            capture_after_seconds=settings.capture_after_seconds,
            unmatched_grace_seconds=settings.unmatched_grace_seconds,
            idle_seconds=settings.worker_idle_seconds,
        )
        most, gather_seconds = settings.batch_most, settings.batch_gather_seconds
        desk = Desk(
            pool=pool,
            bookings=bookings,
            orders=Orders(pool, razorpay),
            provider=razorpay,
            providers=providers,
            openings=opening_batches(pool, most=most, gather_seconds=gather_seconds),
            answers=answer_batches(pool, most=most, gather_seconds=gather_seconds),
            webhooks={
                name: webhook_batches(pool, name, most=most, gather_seconds=gather_seconds) for name in providers
            },
            wake_refunds=wake_refunds,
        )
        yield PaymentApp(
            servicer=PaymentServicer(desk, checkout_url=settings.checkout_url),
            refunds=RefundWorker(pool, providers, wake=wake_refunds, idle_seconds=settings.worker_idle_seconds),
            reconciler=Reconciler(pool, razorpay, rhythm, wake_refunds=wake_refunds),
            refund_requests=RefundRequests(wake_refunds),
        )


@asynccontextmanager
async def working(app: PaymentApp) -> AsyncIterator[None]:
    """The workers, beside the block."""
    tasks = [asyncio.create_task(app.refunds.run()), asyncio.create_task(app.reconciler.run())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def booking_client(settings: PaymentSettings, channel: grpc.aio.Channel) -> BookingClient:
    return BookingClient(channel, most=settings.batch_most, gather_seconds=settings.batch_gather_seconds)


async def serve(settings: PaymentSettings) -> None:
    """Answer calls until told to stop."""
    async with (
        open_channel(settings.booking_address, settings.service_token_file) as channel,
        open_app(settings, booking_client(settings, channel)) as app,
    ):
        server = GrpcServer(settings, [SERVICE], Lifecycle())
        payment_v1.add_PaymentServiceServicer_to_server(app.servicer, server.grpc)
        consumer = Consumer.on_valkey(
            CONSUMER,
            {REFUND_REQUESTED: app.refund_requests},
            database_url=settings.database_url.get_secret_value(),
            bus_url=settings.bus_url.get_secret_value(),
        )
        async with working(app), consumer.running():
            await server.serve_until_signal()


app = service_command("payment", PaymentSettings, serve)

if __name__ == "__main__":
    app()
