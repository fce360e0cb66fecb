"""What a use case of payment works with, put together once in ``__main__.py``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from services.kit.batcher import Batcher
from services.kit.database import Pool
from services.payment.clients import Bookings
from services.payment.orders import Orders
from services.payment.provider import Provider, WebhookEvent
from services.payment.settlement import take_events
from services.payment.store.payments import Initiation, Opened, OpenWish, answer_initiations, open_payments

log = structlog.get_logger()

Openings = Batcher[OpenWish, Opened]
Answers = Batcher[Initiation, bool]
Webhooks = Batcher[WebhookEvent, None]


@dataclass(frozen=True, slots=True)
class Desk:
    """Batches and the outside world.

    Args:
        provider: the one that new payments use; webhooks are taken from all of ``providers``.
        webhooks: by provider. Of refunds none: their payments are locked in another order.
    """

    pool: Pool
    bookings: Bookings
    orders: Orders
    provider: Provider
    providers: Mapping[str, Provider]
    openings: Openings
    answers: Answers
    webhooks: Mapping[str, Webhooks]
    wake_refunds: asyncio.Event


def opening_batches(pool: Pool, *, most: int, gather_seconds: float) -> Openings:
    """Payments that are begun together share a call and a commit."""

    async def flush(wishes: Sequence[OpenWish]) -> Sequence[Opened]:
        async with pool.connection() as connection:
            return await open_payments(connection, wishes)

    return Batcher(flush, lane=lambda wish: wish.booking_id, most=most, gather_seconds=gather_seconds)


def answer_batches(pool: Pool, *, most: int, gather_seconds: float) -> Answers:
    """So do their answers."""

    async def flush(initiations: Sequence[Initiation]) -> Sequence[bool]:
        async with pool.connection() as connection:
            return await answer_initiations(connection, initiations)

    return Batcher(flush, lane=lambda each: each.before.booking_id, most=most, gather_seconds=gather_seconds)


def webhook_batches(pool: Pool, provider: str, *, most: int, gather_seconds: float) -> Webhooks:
    """And a provider's webhooks: the two or three that tell of one capture mostly come together, and change it once."""

    async def flush(events: Sequence[WebhookEvent]) -> Sequence[None]:
        async with pool.connection() as connection, connection.transaction():
            await take_events(connection, provider, events)
        log.info("webhooks_taken", provider=provider, event_ids=[event.event_id for event in events])
        return [None] * len(events)

    def lane(event: WebhookEvent) -> str:
        return event.attempt.order_id if event.attempt is not None else ""

    return Batcher(flush, lane=lane, most=most, gather_seconds=gather_seconds)
