"""Calls of the provider, recorded before they are made: each may have had its effect although its answer never came."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from services.kit.database import Connection
from services.payment.domain import AttemptId

OPEN_ORDER = "open_order/"
"""Of an order; the payment's id follows. `open_payments` records it."""


async def begin_calls(connection: Connection, kind: str, keys: Sequence[str]) -> None:
    """We are about to call the provider; commit this before the calls."""
    await connection.execute(
        """
        INSERT INTO provider_calls AS known (key, kind, state)
        SELECT key, %s, 'IN_PROGRESS'
        FROM unnest(%s::text[]) AS key
        ON CONFLICT (key) DO UPDATE
        SET state = 'IN_PROGRESS', tries = known.tries + 1, started_at = clock_timestamp(), ended_at = NULL
        """,
        (kind, sorted(keys)),
    )


async def end_call(connection: Connection, key: str, *, refused_because: str = "") -> None:
    """The provider answered."""
    await connection.execute(
        """
        UPDATE provider_calls
        SET state = %s, problem = %s, ended_at = clock_timestamp()
        WHERE key = %s
        """,
        ("REFUSED" if refused_because else "DONE", refused_because, key),
    )


async def orders_in_doubt(
    connection: Connection, provider: str, *, older_than_seconds: float, limit: int
) -> list[UUID]:
    """Payments whose order may have been opened by a call that nobody waits for any more."""
    cursor = await connection.execute(
        """
        SELECT payments.payment_id
        FROM provider_calls
        JOIN payments ON payments.payment_id = substr(provider_calls.key, %s)::uuid
        WHERE provider_calls.state = 'IN_PROGRESS'
          AND provider_calls.kind = 'open_order'
          AND provider_calls.started_at < clock_timestamp() - %s::interval
          AND payments.provider = %s
        ORDER BY provider_calls.started_at
        LIMIT %s
        """,
        (len(OPEN_ORDER) + 1, timedelta(seconds=older_than_seconds), provider, limit),
    )
    return [payment_id for (payment_id,) in await cursor.fetchall()]


def order_call(payment_id: UUID) -> str:
    """The key under which opening a payment's order is recorded."""
    return f"{OPEN_ORDER}{payment_id}"


def capture_call(attempt_id: AttemptId) -> str:
    """The key under which taking authorized money is recorded."""
    return f"capture/{attempt_id}"
