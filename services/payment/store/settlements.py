"""What the provider's reports do to payments: many at once, one lock and one write for all of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.kit.database import Connection
from services.kit.outbox import Event
from services.payment.books import Books, Settlement
from services.payment.domain import AttemptId, AttemptState
from services.payment.provider import WebhookEvent
from services.payment.store.payments import PAYMENT, payment_of


@dataclass(frozen=True, slots=True)
class Locked:
    """What reports may change, locked: payments by the provider's orders. ``moment`` was read after the locks.

    Args:
        new_events: ids of the webhooks that never came before.
    """

    moment: datetime
    new_events: frozenset[str]
    books: Mapping[str, Books]


async def lock_for_reports(
    connection: Connection, provider: str, *, orders: Collection[str], events: Sequence[WebhookEvent] = ()
) -> Locked:
    """Keep that ``events`` came, and lock the payments of ``orders``."""
    cursor = await connection.execute(
        f"""
        SELECT new_events, moment, attempt_ids, attempt_states, captured, refunded, {PAYMENT}
        FROM lock_for_reports(%s, %s::jsonb, %s::text[])
        """,
        (
            provider,
            json.dumps(
                [{"event_id": event.event_id, "type": event.type, "facts": _facts(event)} for event in events],
                separators=(",", ":"),
            ),
            list(orders),
        ),
        binary=True,
    )
    first, *rows = await cursor.fetchall()
    books: dict[str, Books] = {}
    for _, _, attempt_ids, attempt_states, captured, refunded, *row in rows:
        payment = payment_of(row)
        assert payment.order_id is not None
        known = zip(attempt_ids or (), map(AttemptState, attempt_states or ()), strict=True)
        books[payment.order_id] = Books(payment, dict(known), captured, refunded)
    return Locked(first[1], frozenset(first[0]), books)


async def settle_payments(
    connection: Connection, settlements: Sequence[Settlement], events: Sequence[Event], *, moment: datetime
) -> None:
    """Keep what became of locked payments, and the events that tell of it."""
    attempts = [(each.payment.payment_id, attempt) for each in settlements for attempt in each.attempts]
    await connection.execute(
        """
        SELECT settle_payments(
            %s, %s::uuid[], %s::text[], %s::text[],
            %s::text[], %s::uuid[], %s::smallint[], %s::bigint[], %s::text[], %s::text[], %s::boolean[],
            %s::text[], %s::text[], %s::text[], %s::bytea[]
        )
        """,
        (
            moment,
            [each.payment.payment_id for each in settlements],
            [each.payment.status.value for each in settlements],
            [each.payment.failure for each in settlements],
            [attempt.attempt_id for _, attempt in attempts],
            [payment_id for payment_id, _ in attempts],
            [attempt.state.value for _, attempt in attempts],
            [attempt.amount.minor for _, attempt in attempts],
            [attempt.amount.currency for _, attempt in attempts],
            [attempt.failure for _, attempt in attempts],
            [attempt.mismatched for _, attempt in attempts],
            [event.topic for event in events],
            [event.key for event in events],
            [event.payload.DESCRIPTOR.full_name for event in events],
            [event.payload.SerializeToString() for event in events],
        ),
    )


async def known_states(connection: Connection, attempt_ids: Sequence[AttemptId]) -> dict[AttemptId, AttemptState]:
    """What we know of attempts, without locks; those that we never heard of are left out."""
    cursor = await connection.execute(
        "SELECT attempt_id, state FROM attempts WHERE attempt_id = ANY (%s::text[])", (list(attempt_ids),)
    )
    return {attempt_id: AttemptState(state) for attempt_id, state in await cursor.fetchall()}


def _facts(event: WebhookEvent) -> dict[str, str | int]:
    facts: dict[str, str | int] = {}
    if event.attempt is not None:
        facts |= {
            "attempt_id": event.attempt.attempt_id,
            "order_id": event.attempt.order_id,
            "state": event.attempt.state.name,
            "amount_minor": event.attempt.amount.minor,
            "currency": event.attempt.amount.currency,
        }
    if event.refund is not None:
        facts |= {
            "provider_refund_id": event.refund.provider_refund_id,
            "receipt": event.refund.receipt,
            "status": event.refund.status.value,
            "refund_amount_minor": event.refund.amount.minor,
        }
    return facts
