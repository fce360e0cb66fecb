"""Refunds: promised, asked for, ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from services.kit.database import Connection
from services.kit.money import Money
from services.payment.domain import AttemptId, Refund, RefundStatus

REFUND = """
    refund_id, payment_id, capture_id, amount_minor, currency, status, reason, generation, provider_refund_id,
    requested_by, tries, created_at
"""


async def add_refund(
    connection: Connection,
    *,
    refund_id: UUID,
    payment_id: UUID | None,
    provider: str,
    capture_id: AttemptId,
    amount: Money,
    reason: str,
    requested_by: str,
    failed_because: str = "",
) -> None:
    """Ask for a refund, once for each id. One that cannot be is kept as FAILED."""
    await connection.execute(
        """
        INSERT INTO refunds (
            refund_id, payment_id, provider, capture_id, amount_minor, currency, reason, requested_by, status, problem
        )
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (refund_id) DO NOTHING
        """,
        (
            refund_id,
            payment_id,
            provider,
            capture_id,
            amount.minor,
            amount.currency,
            reason,
            requested_by,
            RefundStatus.FAILED.value if failed_because else RefundStatus.REQUESTED.value,
            failed_because,
        ),
    )


async def find_refund(connection: Connection, refund_id: UUID) -> Refund | None:
    """One refund, as it is now."""
    cursor = await connection.execute(f"SELECT {REFUND} FROM refunds WHERE refund_id = %s", (refund_id,))
    row = await cursor.fetchone()
    return _refund(row) if row else None


async def lock_refund(connection: Connection, refund_id: UUID) -> Refund | None:
    """One refund; lock its payment first."""
    cursor = await connection.execute(f"SELECT {REFUND} FROM refunds WHERE refund_id = %s FOR UPDATE", (refund_id,))
    row = await cursor.fetchone()
    return _refund(row) if row else None


async def refund_of_provider(connection: Connection, provider_refund_id: str) -> Refund | None:
    """A refund by the provider's id."""
    cursor = await connection.execute(
        f"SELECT {REFUND} FROM refunds WHERE provider_refund_id = %s", (provider_refund_id,)
    )
    row = await cursor.fetchone()
    return _refund(row) if row else None


async def refunds_of_payment(connection: Connection, payment_id: UUID) -> list[Refund]:
    """A payment's refunds, the oldest first."""
    cursor = await connection.execute(
        f"SELECT {REFUND} FROM refunds WHERE payment_id = %s ORDER BY created_at, refund_id", (payment_id,)
    )
    return [_refund(row) for row in await cursor.fetchall()]


async def claim_refunds(connection: Connection, provider: str, *, limit: int, lease_seconds: float) -> list[Refund]:
    """Refunds whose turn it is. Nobody else gets them within the lease, in which the provider is asked."""
    cursor = await connection.execute(
        f"""
        UPDATE refunds
        SET next_try_at = clock_timestamp() + %s::interval, tries = tries + 1
        WHERE refund_id IN (
            SELECT refund_id
            FROM refunds
            WHERE status IN ('REQUESTED', 'PENDING')
              AND provider = %s
              AND next_try_at <= clock_timestamp()
            ORDER BY next_try_at
            LIMIT %s
            FOR UPDATE SKIP LOCKED
        )
        RETURNING {REFUND}
        """,
        (timedelta(seconds=lease_seconds), provider, limit),
    )
    return [_refund(row) for row in await cursor.fetchall()]


async def postpone_refund(connection: Connection, refund_id: UUID, *, seconds: float, problem: str) -> None:
    """The call came to nothing; again later."""
    await connection.execute(
        """
        UPDATE refunds
        SET next_try_at = clock_timestamp() + %s::interval, problem = %s, updated_at = clock_timestamp()
        WHERE refund_id = %s
          AND status IN ('REQUESTED', 'PENDING')
        """,
        (timedelta(seconds=seconds), problem, refund_id),
    )


async def move_refund(
    connection: Connection,
    refund_id: UUID,
    status: RefundStatus,
    *,
    generation: int,
    provider_refund_id: str | None,
    problem: str = "",
    pause_seconds: float = 0.0,
) -> None:
    """A refund's new status."""
    await connection.execute(
        """
        UPDATE refunds
        SET status = %s,
            generation = %s,
            provider_refund_id = %s,
            problem = %s,
            next_try_at = clock_timestamp() + %s::interval,
            updated_at = clock_timestamp()
        WHERE refund_id = %s
        """,
        (status.value, generation, provider_refund_id, problem, timedelta(seconds=pause_seconds), refund_id),
    )


def _refund(row: Sequence[Any]) -> Refund:
    return Refund(
        refund_id=row[0],
        payment_id=row[1],
        capture_id=row[2],
        amount=Money(row[3], row[4]),
        status=RefundStatus(row[5]),
        reason=row[6],
        generation=row[7],
        provider_refund_id=row[8],
        requested_by=row[9],
        tries=row[10],
        created_at=row[11],
    )
