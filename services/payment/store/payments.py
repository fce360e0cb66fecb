"""Payments: beginning them, answering their buyers, finding and locking them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.kit.database import Connection
from services.kit.idempotency import StoredAnswer
from services.kit.money import Money
from services.payment.domain import AttemptId, AttemptState, Capture, Method, Payment, PaymentStatus

PAYMENT = """
    payment_id, booking_id, user_id, amount_minor, currency, method, status, provider, provider_order_id, pay_by,
    failure, version, created_at, updated_at
"""


@dataclass(frozen=True, slots=True)
class OpenWish:
    """A buyer who wants to pay for a booking, and what booking says is owed."""

    user_id: UUID
    request_id: UUID
    booking_id: UUID
    amount: Money
    method: Method
    provider: str
    pay_by: datetime
    description: str


@dataclass(frozen=True, slots=True)
class Opened:
    """The booking's payment as it was at ``moment``, or what was answered to an earlier request with the same id."""

    payment: Payment | None
    earlier: StoredAnswer | None
    moment: datetime


@dataclass(frozen=True, slots=True)
class Initiation:
    """A payment at the checkout, ``after`` what it was ``before``, and what its buyer is answered."""

    before: Payment
    after: Payment
    caller: UUID
    request_id: UUID
    answer: StoredAnswer


def payment_of(row: Sequence[Any]) -> Payment:
    """The payment in a row of `PAYMENT`'s columns."""
    return Payment(
        payment_id=row[0],
        booking_id=row[1],
        user_id=row[2],
        amount=Money(row[3], row[4]),
        method=Method(row[5]),
        status=PaymentStatus(row[6]),
        provider=row[7],
        order_id=row[8],
        pay_by=row[9],
        failure=row[10],
        version=row[11],
        created_at=row[12],
        updated_at=row[13],
    )


async def open_payments(connection: Connection, wishes: Sequence[OpenWish]) -> list[Opened]:
    """The payment of each wish's booking, made where there is none, and kept that its order is about to be opened."""
    order = sorted(range(len(wishes)), key=lambda index: wishes[index].booking_id.int)
    ordered = [wishes[index] for index in order]
    cursor = await connection.execute(
        f"""
        SELECT place, message, content, answer, moment, {PAYMENT}
        FROM open_payments(
            %s::text[], %s::uuid[], %s::uuid[], %s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::text[],
            %s::timestamptz[], %s::text[]
        )
        """,
        (
            [str(wish.user_id) for wish in ordered],
            [wish.request_id for wish in ordered],
            [wish.booking_id for wish in ordered],
            [wish.user_id for wish in ordered],
            [wish.amount.minor for wish in ordered],
            [wish.amount.currency for wish in ordered],
            [wish.method.value for wish in ordered],
            [wish.provider for wish in ordered],
            [wish.pay_by for wish in ordered],
            [wish.description for wish in ordered],
        ),
        binary=True,
    )
    opened: dict[int, Opened] = {}
    for place, message, content, answer, moment, *row in await cursor.fetchall():
        opened[order[place - 1]] = Opened(
            payment=payment_of(row) if message is None else None,
            earlier=None if message is None else StoredAnswer(message, content, answer),
            moment=moment,
        )
    return [opened[index] for index in range(len(wishes))]


async def answer_initiations(connection: Connection, initiations: Sequence[Initiation]) -> list[bool]:
    """Keep each payment as it is ``after``, with its answer; False and nothing where something else came first."""
    order = sorted(range(len(initiations)), key=lambda index: initiations[index].before.booking_id.int)
    ordered = [initiations[index] for index in order]
    cursor = await connection.execute(
        """
        SELECT answer_initiations(
            %s::uuid[], %s::int[], %s::int[], %s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[],
            %s::text[], %s::uuid[], %s::text[], %s::bytea[], %s::bytea[]
        )
        """,
        (
            [each.before.payment_id for each in ordered],
            [each.before.version for each in ordered],
            [each.after.version for each in ordered],
            [each.after.order_id for each in ordered],
            [each.after.method.value for each in ordered],
            [each.after.status.value for each in ordered],
            [each.after.failure for each in ordered],
            [each.after.updated_at for each in ordered],
            [str(each.caller) for each in ordered],
            [each.request_id for each in ordered],
            [each.answer.method for each in ordered],
            [each.answer.content for each in ordered],
            [each.answer.answer for each in ordered],
        ),
    )
    done = {order[place - 1] for (place,) in await cursor.fetchall()}
    return [index in done for index in range(len(initiations))]


async def find_payment(connection: Connection, payment_id: UUID) -> Payment | None:
    """One payment, as it is now."""
    cursor = await connection.execute(f"SELECT {PAYMENT} FROM payments WHERE payment_id = %s", (payment_id,))
    row = await cursor.fetchone()
    return payment_of(row) if row else None


async def lock_payment(connection: Connection, payment_id: UUID) -> Payment | None:
    """One payment; nobody else changes it before this transaction ends."""
    cursor = await connection.execute(f"SELECT {PAYMENT} FROM payments WHERE payment_id = %s FOR UPDATE", (payment_id,))
    row = await cursor.fetchone()
    return payment_of(row) if row else None


async def lock_payment_of_capture(connection: Connection, capture_id: AttemptId) -> Payment | None:
    """The same, by a capture."""
    cursor = await connection.execute(
        f"""
        SELECT {PAYMENT}
        FROM payments
        WHERE payment_id = (
            SELECT payment_id
            FROM attempts
            WHERE attempt_id = %s
              AND state = %s
        )
        FOR UPDATE
        """,
        (capture_id, AttemptState.CAPTURED.value),
    )
    row = await cursor.fetchone()
    return payment_of(row) if row else None


async def set_order(connection: Connection, payment_id: UUID, order_id: str) -> None:
    """The provider's order of a payment; the first one stays."""
    await connection.execute(
        """
        UPDATE payments
        SET provider_order_id = %s, version = version + 1, updated_at = clock_timestamp()
        WHERE payment_id = %s
          AND provider_order_id IS NULL
        """,
        (order_id, payment_id),
    )


async def set_status(connection: Connection, payment_id: UUID, status: PaymentStatus, failure: str) -> None:
    """A payment's new status; also when it is the old one, because something under it changed."""
    await connection.execute(
        """
        UPDATE payments
        SET status = %s, failure = %s, version = version + 1, updated_at = clock_timestamp()
        WHERE payment_id = %s
        """,
        (status.value, failure, payment_id),
    )


async def sums(connection: Connection, payment_id: UUID) -> tuple[int, int]:
    """What was captured and what of it went back for good, of all attempts, in minor units.

    Without captures of a wrong amount: those pay for nothing.
    """
    cursor = await connection.execute(
        """
        SELECT (SELECT coalesce(sum(amount_minor), 0)
                FROM attempts
                WHERE payment_id = %(id)s
                  AND state = %(captured)s
                  AND NOT mismatched),
               (SELECT coalesce(sum(refunds.amount_minor), 0)
                FROM refunds
                JOIN attempts ON attempts.attempt_id = refunds.capture_id
                WHERE refunds.payment_id = %(id)s
                  AND refunds.status = 'PROCESSED'
                  AND NOT mismatched)
        """,
        {"id": payment_id, "captured": AttemptState.CAPTURED.value},
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


async def captures(connection: Connection, payment_id: UUID) -> list[Capture]:
    """A payment's captures, the oldest first, with what is promised back of each."""
    cursor = await connection.execute(
        """
        SELECT attempts.attempt_id, attempts.amount_minor, attempts.currency,
               (SELECT coalesce(sum(refunds.amount_minor), 0)
                FROM refunds
                WHERE refunds.capture_id = attempts.attempt_id
                  AND refunds.status <> 'FAILED')
        FROM attempts
        WHERE attempts.payment_id = %s
          AND attempts.state = %s
        ORDER BY attempts.captured_at, attempts.attempt_id
        """,
        (payment_id, AttemptState.CAPTURED.value),
    )
    return [
        Capture(attempt_id, Money(amount, currency), int(promised_back))
        for attempt_id, amount, currency, promised_back in await cursor.fetchall()
    ]
