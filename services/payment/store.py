"""All SQL of the payment service. Every function takes a connection: the caller decides what commits together.

Lock order: a payment's row first, then its refunds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from services.kit.database import Connection
from services.kit.money import Money
from services.payment.domain import (
    AttemptId,
    AttemptState,
    Capture,
    Method,
    Payment,
    PaymentStatus,
    Refund,
    RefundStatus,
)
from services.payment.provider import AttemptReport, WebhookEvent

PAYMENT = """
    payment_id, booking_id, user_id, amount_minor, currency, method, status, provider, provider_order_id, pay_by,
    failure, version, created_at, updated_at
"""
REFUND = """
    refund_id, payment_id, capture_id, amount_minor, currency, status, reason, generation, provider_refund_id,
    requested_by, tries, created_at
"""


Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer, and of which request: the full name of its message and a hash of its content."""

    method: str
    content: bytes
    answer: bytes


async def _rows(connection: Connection, query: str, **values: Any) -> Sequence[Row]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query, values)
        return await cursor.fetchall()


async def _row(connection: Connection, query: str, **values: Any) -> Row | None:
    rows = await _rows(connection, query, **values)
    return rows[0] if rows else None


async def _do(connection: Connection, statement: str, **values: Any) -> None:
    await connection.execute(statement, values)


def _payment(row: Row) -> Payment:
    return Payment(
        payment_id=row["payment_id"],
        booking_id=row["booking_id"],
        user_id=row["user_id"],
        amount=Money(row["amount_minor"], row["currency"]),
        method=Method(row["method"]),
        status=PaymentStatus(row["status"]),
        provider=row["provider"],
        order_id=row["provider_order_id"],
        pay_by=row["pay_by"],
        failure=row["failure"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _refund(row: Row) -> Refund:
    return Refund(
        refund_id=row["refund_id"],
        payment_id=row["payment_id"],
        capture_id=row["capture_id"],
        amount=Money(row["amount_minor"], row["currency"]),
        status=RefundStatus(row["status"]),
        reason=row["reason"],
        generation=row["generation"],
        provider_refund_id=row["provider_refund_id"],
        requested_by=row["requested_by"],
        tries=row["tries"],
        created_at=row["created_at"],
    )


# Payments


async def ensure_payment(
    connection: Connection,
    *,
    booking_id: UUID,
    user_id: UUID,
    amount: Money,
    method: Method,
    provider: str,
    pay_by: Any,
    description: str,
    first_poll_seconds: float,
) -> Payment:
    """The booking's one payment, made where there is none."""
    await _do(
        connection,
        """
            INSERT INTO payments (booking_id, user_id, amount_minor, currency, method, provider, pay_by, description,
                                  next_poll_at)
            VALUES (%(booking_id)s, %(user_id)s, %(amount)s, %(currency)s, %(method)s, %(provider)s, %(pay_by)s,
                    %(description)s, clock_timestamp() + %(first_poll)s)
            ON CONFLICT (booking_id) DO NOTHING
        """,
        booking_id=booking_id,
        user_id=user_id,
        amount=amount.minor,
        currency=amount.currency,
        method=method.value,
        provider=provider,
        pay_by=pay_by,
        description=description,
        first_poll=timedelta(seconds=first_poll_seconds),
    )
    row = await _row(
        connection, f"SELECT {PAYMENT} FROM payments WHERE booking_id = %(booking_id)s", booking_id=booking_id
    )
    assert row is not None
    return _payment(row)


async def find_payment(connection: Connection, payment_id: UUID) -> Payment | None:
    """One payment, as it is now."""
    row = await _row(connection, f"SELECT {PAYMENT} FROM payments WHERE payment_id = %(id)s", id=payment_id)
    return _payment(row) if row else None


async def lock_payment(connection: Connection, payment_id: UUID) -> Payment | None:
    """One payment; nobody else changes it before this transaction ends."""
    row = await _row(connection, f"SELECT {PAYMENT} FROM payments WHERE payment_id = %(id)s FOR UPDATE", id=payment_id)
    return _payment(row) if row else None


async def lock_payment_of_order(connection: Connection, provider: str, order_id: str) -> Payment | None:
    """The same, by the provider's order."""
    row = await _row(
        connection,
        f"SELECT {PAYMENT} FROM payments WHERE provider_order_id = %(order_id)s AND provider = %(provider)s FOR UPDATE",
        order_id=order_id,
        provider=provider,
    )
    return _payment(row) if row else None


async def lock_payment_of_capture(connection: Connection, capture_id: AttemptId) -> Payment | None:
    """The same, by a capture."""
    row = await _row(
        connection,
        f"""
        SELECT {PAYMENT} FROM payments
        WHERE payment_id = (SELECT payment_id FROM attempts WHERE attempt_id = %(capture_id)s AND state = %(captured)s)
        FOR UPDATE
        """,
        capture_id=capture_id,
        captured=AttemptState.CAPTURED.value,
    )
    return _payment(row) if row else None


async def set_order(connection: Connection, payment_id: UUID, order_id: str) -> None:
    """The provider's order of a payment; the first one stays."""
    await _do(
        connection,
        """
            UPDATE payments SET provider_order_id = %(order_id)s, version = version + 1, updated_at = clock_timestamp()
            WHERE payment_id = %(payment_id)s AND provider_order_id IS NULL
        """,
        payment_id=payment_id,
        order_id=order_id,
    )


async def restart_payment(
    connection: Connection, payment_id: UUID, method: Method, *, first_poll_seconds: float
) -> None:
    """The buyer goes to the checkout again: a failed attempt is over, and the provider is asked soon."""
    await _do(
        connection,
        """
            UPDATE payments
            SET method = %(method)s,
                status = CASE status WHEN 'FAILED' THEN 'CREATED' ELSE status END,
                failure = '',
                version = version + 1,
                updated_at = clock_timestamp(),
                polls = 0,
                next_poll_at = clock_timestamp() + %(first_poll)s
            WHERE payment_id = %(payment_id)s
        """,
        payment_id=payment_id,
        method=method.value,
        first_poll=timedelta(seconds=first_poll_seconds),
    )


async def set_status(connection: Connection, payment_id: UUID, status: PaymentStatus, failure: str) -> None:
    """A payment's new status; also when it is the old one, because something under it changed."""
    await _do(
        connection,
        """
            UPDATE payments
            SET status = %(status)s, failure = %(failure)s, version = version + 1, updated_at = clock_timestamp()
            WHERE payment_id = %(payment_id)s
        """,
        payment_id=payment_id,
        status=status.value,
        failure=failure,
    )


async def sums(connection: Connection, payment_id: UUID) -> tuple[int, int]:
    """What was captured and what of it went back for good, of all attempts, in minor units.

    Without captures of a wrong amount: those pay for nothing.
    """
    row = await _row(
        connection,
        """
        SELECT (SELECT coalesce(sum(amount_minor), 0) FROM attempts
                WHERE payment_id = %(id)s AND state = %(captured)s AND NOT mismatched) AS captured,
               (SELECT coalesce(sum(refunds.amount_minor), 0)
                FROM refunds JOIN attempts ON attempts.attempt_id = refunds.capture_id
                WHERE refunds.payment_id = %(id)s AND refunds.status = 'PROCESSED' AND NOT mismatched) AS refunded
        """,
        id=payment_id,
        captured=AttemptState.CAPTURED.value,
    )
    assert row is not None
    return int(row["captured"]), int(row["refunded"])


# Attempts


async def attempt_state(connection: Connection, attempt_id: AttemptId) -> AttemptState | None:
    """What we know of an attempt."""
    row = await _row(connection, "SELECT state FROM attempts WHERE attempt_id = %(id)s", id=attempt_id)
    return AttemptState(row["state"]) if row else None


async def put_attempt(
    connection: Connection, payment_id: UUID, report: AttemptReport, state: AttemptState, *, mismatched: bool
) -> Any:
    """Keep an attempt's new state; gives when it was captured (None when it isn't)."""
    row = await _row(
        connection,
        """
        INSERT INTO attempts AS known (attempt_id, payment_id, state, amount_minor, currency, failure, mismatched,
                                       captured_at)
        VALUES (%(attempt_id)s, %(payment_id)s, %(state)s, %(amount)s, %(currency)s, %(failure)s, %(mismatched)s,
                CASE WHEN %(is_captured)s THEN clock_timestamp() END)
        ON CONFLICT (attempt_id) DO UPDATE
        SET state = excluded.state,
            failure = excluded.failure,
            mismatched = excluded.mismatched,
            captured_at = coalesce(known.captured_at, excluded.captured_at)
        RETURNING captured_at
        """,
        attempt_id=report.attempt_id,
        payment_id=payment_id,
        state=state.value,
        amount=report.amount.minor,
        currency=report.amount.currency,
        failure=report.failure,
        mismatched=mismatched,
        is_captured=state is AttemptState.CAPTURED,
    )
    assert row is not None
    return row["captured_at"]


async def captures(connection: Connection, payment_id: UUID) -> Sequence[Capture]:
    """A payment's captures, the oldest first, with what is promised back of each."""
    rows = await _rows(
        connection,
        """
        SELECT attempts.attempt_id, attempts.amount_minor, attempts.currency,
               (SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
                WHERE refunds.capture_id = attempts.attempt_id AND refunds.status <> 'FAILED') AS promised_back
        FROM attempts
        WHERE attempts.payment_id = %(id)s AND attempts.state = %(captured)s
        ORDER BY attempts.captured_at, attempts.attempt_id
        """,
        id=payment_id,
        captured=AttemptState.CAPTURED.value,
    )
    return [
        Capture(row["attempt_id"], Money(row["amount_minor"], row["currency"]), int(row["promised_back"]))
        for row in rows
    ]


async def authorized_attempts(
    connection: Connection, payment_id: UUID, older_than_seconds: float
) -> Sequence[tuple[AttemptId, Money]]:
    """Attempts whose money has been authorized for a while and not taken."""
    rows = await _rows(
        connection,
        """
        SELECT attempt_id, amount_minor, currency FROM attempts
        WHERE payment_id = %(id)s
          AND state = %(authorized)s
          AND created_at < clock_timestamp() - CAST(%(age)s AS interval)
        """,
        id=payment_id,
        authorized=AttemptState.AUTHORIZED.value,
        age=timedelta(seconds=older_than_seconds),
    )
    return [(row["attempt_id"], Money(row["amount_minor"], row["currency"])) for row in rows]


# Reports of orders that we don't know


async def put_unmatched(connection: Connection, provider: str, report: AttemptReport) -> None:
    """Keep a report until somebody finds out whose it is. A further state than the known one opens it again."""
    await _do(
        connection,
        """
            INSERT INTO unmatched AS known (attempt_id, provider, order_id, state, amount_minor, currency)
            VALUES (%(attempt_id)s, %(provider)s, %(order_id)s, %(state)s, %(amount)s, %(currency)s)
            ON CONFLICT (attempt_id) DO UPDATE
            SET state = excluded.state, next_look_at = clock_timestamp(), outcome = ''
            WHERE known.state < excluded.state
        """,
        attempt_id=report.attempt_id,
        provider=provider,
        order_id=report.order_id,
        state=report.state.value,
        amount=report.amount.minor,
        currency=report.amount.currency,
    )


async def claim_unmatched(
    connection: Connection, *, limit: int, pause_seconds: float, grace_seconds: float
) -> Sequence[tuple[str, AttemptReport, bool]]:
    """Unmatched reports whose turn it is, each with its provider and whether its grace is over."""
    rows = await _rows(
        connection,
        """
        UPDATE unmatched
        SET looks = looks + 1, next_look_at = clock_timestamp() + CAST(%(pause)s AS interval)
        WHERE attempt_id IN (
            SELECT attempt_id FROM unmatched
            WHERE next_look_at <= clock_timestamp()
            ORDER BY next_look_at
            LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
        )
        RETURNING attempt_id, provider, order_id, state, amount_minor, currency,
                  first_seen_at < clock_timestamp() - CAST(%(grace)s AS interval) AS grace_is_over
        """,
        limit=limit,
        pause=timedelta(seconds=pause_seconds),
        grace=timedelta(seconds=grace_seconds),
    )
    return [
        (
            row["provider"],
            AttemptReport(
                row["attempt_id"],
                row["order_id"],
                Money(row["amount_minor"], row["currency"]),
                AttemptState(row["state"]),
            ),
            row["grace_is_over"],
        )
        for row in rows
    ]


async def close_unmatched(connection: Connection, report: AttemptReport, outcome: str) -> None:
    """It is found out, or paid back; unless a further state came while we looked, which is then looked at next."""
    await _do(
        connection,
        """
        UPDATE unmatched
        SET next_look_at = CASE WHEN state > %(state)s THEN clock_timestamp() END,
            outcome = CASE WHEN state > %(state)s THEN '' ELSE %(outcome)s END
        WHERE attempt_id = %(attempt_id)s
        """,
        attempt_id=report.attempt_id,
        state=report.state.value,
        outcome=outcome,
    )


# Refunds


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
) -> bool:
    """Ask for a refund, once for each id; False when it was asked for already. One that cannot be is kept as FAILED."""
    row = await _row(
        connection,
        """
        INSERT INTO refunds (refund_id, payment_id, provider, capture_id, amount_minor, currency, reason, requested_by,
                             status, problem)
        VALUES (%(refund_id)s, %(payment_id)s, %(provider)s, %(capture_id)s, %(amount)s, %(currency)s, %(reason)s,
                %(requested_by)s, %(status)s, %(problem)s)
        ON CONFLICT (refund_id) DO NOTHING
        RETURNING refund_id
        """,
        refund_id=refund_id,
        payment_id=payment_id,
        provider=provider,
        capture_id=capture_id,
        amount=amount.minor,
        currency=amount.currency,
        reason=reason,
        requested_by=requested_by,
        status=RefundStatus.FAILED.value if failed_because else RefundStatus.REQUESTED.value,
        problem=failed_because,
    )
    return row is not None


async def find_refund(connection: Connection, refund_id: UUID) -> Refund | None:
    """One refund, as it is now."""
    row = await _row(connection, f"SELECT {REFUND} FROM refunds WHERE refund_id = %(id)s", id=refund_id)
    return _refund(row) if row else None


async def lock_refund(connection: Connection, refund_id: UUID) -> Refund | None:
    """One refund; lock its payment first."""
    row = await _row(connection, f"SELECT {REFUND} FROM refunds WHERE refund_id = %(id)s FOR UPDATE", id=refund_id)
    return _refund(row) if row else None


async def refund_of_provider(connection: Connection, provider_refund_id: str) -> Refund | None:
    """A refund by the provider's id."""
    row = await _row(
        connection, f"SELECT {REFUND} FROM refunds WHERE provider_refund_id = %(id)s", id=provider_refund_id
    )
    return _refund(row) if row else None


async def refunds_of_payment(connection: Connection, payment_id: UUID) -> Sequence[Refund]:
    """A payment's refunds, the oldest first."""
    rows = await _rows(
        connection,
        f"SELECT {REFUND} FROM refunds WHERE payment_id = %(id)s ORDER BY created_at, refund_id",
        id=payment_id,
    )
    return [_refund(row) for row in rows]


async def claim_refunds(connection: Connection, provider: str, *, limit: int, lease_seconds: float) -> Sequence[Refund]:
    """Refunds whose turn it is. Nobody else gets them within the lease, in which the provider is asked."""
    rows = await _rows(
        connection,
        f"""
        UPDATE refunds
        SET next_try_at = clock_timestamp() + CAST(%(lease)s AS interval), tries = tries + 1
        WHERE refund_id IN (
            SELECT refund_id FROM refunds
            WHERE status IN ('REQUESTED', 'PENDING') AND provider = %(provider)s AND next_try_at <= clock_timestamp()
            ORDER BY next_try_at
            LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
        )
        RETURNING {REFUND}
        """,
        provider=provider,
        limit=limit,
        lease=timedelta(seconds=lease_seconds),
    )
    return [_refund(row) for row in rows]


async def postpone_refund(connection: Connection, refund_id: UUID, *, seconds: float, problem: str) -> None:
    """The call came to nothing; again later."""
    await _do(
        connection,
        """
            UPDATE refunds
            SET next_try_at = clock_timestamp() + CAST(%(pause)s AS interval),
                problem = %(problem)s,
                updated_at = clock_timestamp()
            WHERE refund_id = %(refund_id)s AND status IN ('REQUESTED', 'PENDING')
        """,
        refund_id=refund_id,
        pause=timedelta(seconds=seconds),
        problem=problem,
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
    await _do(
        connection,
        """
            UPDATE refunds
            SET status = %(status)s,
                generation = %(generation)s,
                provider_refund_id = %(provider_refund_id)s,
                problem = %(problem)s,
                next_try_at = clock_timestamp() + CAST(%(pause)s AS interval),
                updated_at = clock_timestamp()
            WHERE refund_id = %(refund_id)s
        """,
        refund_id=refund_id,
        status=status.value,
        generation=generation,
        provider_refund_id=provider_refund_id,
        problem=problem,
        pause=timedelta(seconds=pause_seconds),
    )


# What we hear and ask


async def add_webhook_event(connection: Connection, provider: str, event: WebhookEvent) -> bool:
    """Keep that an event came; False when it came before."""
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
    row = await _row(
        connection,
        """
        INSERT INTO webhook_events (provider, event_id, type, facts)
        VALUES (%(provider)s, %(event_id)s, %(type)s, CAST(%(facts)s AS jsonb))
        ON CONFLICT (provider, event_id) DO NOTHING
        RETURNING event_id
        """,
        provider=provider,
        event_id=event.event_id,
        type=event.type,
        facts=json.dumps(facts),
    )
    return row is not None


async def begin_call(connection: Connection, kind: str, key: str) -> None:
    """We are about to call the provider; commit this before the call."""
    await _do(
        connection,
        """
            INSERT INTO provider_calls AS known (key, kind, state) VALUES (%(key)s, %(kind)s, 'IN_PROGRESS')
            ON CONFLICT (key) DO UPDATE SET state = 'IN_PROGRESS', tries = known.tries + 1, ended_at = NULL
        """,
        key=key,
        kind=kind,
    )


async def end_call(connection: Connection, key: str, *, refused_because: str = "") -> None:
    """The provider answered."""
    await _do(
        connection,
        """
            UPDATE provider_calls
            SET state = %(state)s, problem = %(problem)s, ended_at = clock_timestamp()
            WHERE key = %(key)s
        """,
        key=key,
        state="REFUSED" if refused_because else "DONE",
        problem=refused_because,
    )


async def claim_polls(
    connection: Connection,
    provider: str,
    *,
    limit: int,
    first_seconds: float,
    longest_seconds: float,
    for_seconds: float,
) -> Sequence[Payment]:
    """Payments of which the provider should be asked again; each further time is twice as far away."""
    rows = await _rows(
        connection,
        f"""
        UPDATE payments
        SET polls = polls + 1,
            next_poll_at = CASE
                WHEN created_at < clock_timestamp() - CAST(%(for)s AS interval) THEN NULL
                ELSE clock_timestamp() + CAST(%(first)s AS interval) * least(power(2, least(polls + 1, 30)), %(most)s)
            END
        WHERE payment_id IN (
            SELECT payment_id FROM payments
            WHERE next_poll_at <= clock_timestamp() AND provider = %(provider)s
            ORDER BY next_poll_at
            LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
        )
        RETURNING {PAYMENT}
        """,
        provider=provider,
        limit=limit,
        first=timedelta(seconds=first_seconds),
        most=longest_seconds / first_seconds,
        **{"for": timedelta(seconds=for_seconds)},
    )
    return [_payment(row) for row in rows]


async def lock_request(connection: Connection, caller: str, request_id: str) -> None:
    """Calls with one request id wait for each other, until this transaction ends."""
    await _do(
        connection,
        "SELECT pg_advisory_xact_lock(hashtextextended(%(key)s, 0))",
        key=f"{caller}/{request_id.lower()}",
    )


async def stored_answer(connection: Connection, *, caller: str, request_id: str) -> StoredAnswer | None:
    """What was answered to an earlier request with this id."""
    row = await _row(
        connection,
        """
        SELECT method, content, answer FROM requests
        WHERE caller = %(caller)s AND request_id = CAST(%(request_id)s AS uuid)
        """,
        caller=caller,
        request_id=request_id,
    )
    return StoredAnswer(row["method"], bytes(row["content"]), bytes(row["answer"])) if row else None


async def store_answer(connection: Connection, *, caller: str, request_id: str, answer: StoredAnswer) -> None:
    """Keep what is answered, in the transaction of its effect."""
    await _do(
        connection,
        """
        INSERT INTO requests (caller, request_id, method, content, answer)
        VALUES (%(caller)s, CAST(%(request_id)s AS uuid), %(method)s, %(content)s, %(answer)s)
        """,
        caller=caller,
        request_id=request_id,
        method=answer.method,
        content=answer.content,
        answer=answer.answer,
    )
