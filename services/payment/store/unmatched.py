"""Reports of orders that we don't know."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from services.kit.database import Connection
from services.kit.money import Money
from services.payment.domain import AttemptState
from services.payment.provider import AttemptReport


async def put_unmatched(connection: Connection, provider: str, report: AttemptReport) -> None:
    """Keep a report until somebody finds out whose it is. A further state than the known one opens it again."""
    await connection.execute(
        """
        INSERT INTO unmatched AS known (attempt_id, provider, order_id, state, amount_minor, currency)
        VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (attempt_id) DO UPDATE
        SET state = excluded.state, next_look_at = clock_timestamp(), outcome = ''
        WHERE known.state < excluded.state
        """,
        (
            report.attempt_id,
            provider,
            report.order_id,
            report.state.value,
            report.amount.minor,
            report.amount.currency,
        ),
    )


async def claim_unmatched(
    connection: Connection, *, limit: int, pause_seconds: float, grace_seconds: float
) -> Sequence[tuple[str, AttemptReport, bool]]:
    """Unmatched reports whose turn it is, each with its provider and whether its grace is over."""
    cursor = await connection.execute(
        """
        UPDATE unmatched
        SET looks = looks + 1, next_look_at = clock_timestamp() + %s::interval
        WHERE attempt_id IN (
            SELECT attempt_id
            FROM unmatched
            WHERE next_look_at <= clock_timestamp()
            ORDER BY next_look_at
            LIMIT %s
            FOR UPDATE SKIP LOCKED
        )
        RETURNING provider, attempt_id, order_id, amount_minor, currency, state,
                  first_seen_at < clock_timestamp() - %s::interval
        """,
        (timedelta(seconds=pause_seconds), limit, timedelta(seconds=grace_seconds)),
    )
    return [
        (provider, AttemptReport(attempt_id, order_id, Money(amount, currency), AttemptState(state)), grace_is_over)
        for provider, attempt_id, order_id, amount, currency, state, grace_is_over in await cursor.fetchall()
    ]


async def close_unmatched(connection: Connection, report: AttemptReport, outcome: str) -> None:
    """It is found out, or paid back; unless a further state came while we looked, which is then looked at next."""
    await connection.execute(
        """
        UPDATE unmatched
        SET next_look_at = CASE WHEN state > %(state)s THEN clock_timestamp() END,
            outcome = CASE WHEN state > %(state)s THEN '' ELSE %(outcome)s END
        WHERE attempt_id = %(attempt_id)s
        """,
        {"attempt_id": report.attempt_id, "state": report.state.value, "outcome": outcome},
    )
