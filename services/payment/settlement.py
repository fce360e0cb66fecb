"""Taking in what the provider reports, from a webhook or because we asked: one way in for both.

Every function runs in its caller's transaction, locks payments first, and is right for reports that come twice, late
or in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import structlog

from marquee.payment import v1 as payment_v1
from services.kit import moments, money
from services.kit.database import Connection
from services.kit.outbox import Event, append
from services.payment.books import SettledAttempt, Settlement, settle
from services.payment.domain import (
    BY_PROVIDER,
    MOST_GENERATIONS,
    AttemptState,
    Payment,
    PaymentStatus,
    Refund,
    RefundStatus,
    automatic_refund_id,
    read_refund_key,
    retry_delay_seconds,
    status_after,
)
from services.payment.provider import AttemptReport, RefundReport, WebhookEvent
from services.payment.store.payments import lock_payment_of_capture, set_status, sums
from services.payment.store.refunds import add_refund, lock_refund, move_refund, refund_of_provider
from services.payment.store.settlements import Locked, lock_for_reports, settle_payments
from services.payment.store.unmatched import put_unmatched

log = structlog.get_logger()

PENDING_LOOK_SECONDS = 5.0
AMOUNT_MISMATCH = "amount_mismatch"


async def take_events(connection: Connection, provider: str, events: Sequence[WebhookEvent]) -> None:
    """Take in webhooks that came together, each once. Of refunds one at a time: its payment is found by its capture."""
    orders = {event.attempt.order_id for event in events if event.attempt is not None}
    locked = await lock_for_reports(connection, provider, orders=orders, events=events)
    new = [event for event in events if event.event_id in locked.new_events]
    await _settle(connection, provider, [event.attempt for event in new if event.attempt is not None], locked)
    for event in new:
        if event.refund is not None:
            await settle_refund(connection, provider, event.refund)


async def settle_attempts(connection: Connection, provider: str, reports: Sequence[AttemptReport]) -> frozenset[str]:
    """Take in what became of attempts; a capture leaves as one `payment.completed`, a failure as `payment.failed`.

    A capture of another amount than the order's is not told to booking but paid back.

    Returns:
        Which of the orders are ours. Reports of others wait for the reconciler.
    """
    locked = await lock_for_reports(connection, provider, orders={report.order_id for report in reports})
    await _settle(connection, provider, reports, locked)
    return frozenset(locked.books)


async def _settle(connection: Connection, provider: str, reports: Sequence[AttemptReport], locked: Locked) -> None:
    of_orders: dict[str, list[AttemptReport]] = {}
    for report in reports:
        of_orders.setdefault(report.order_id, []).append(report)
    settlements: list[Settlement] = []
    unknown: list[AttemptReport] = []
    for order_id, its_reports in of_orders.items():
        books = locked.books.get(order_id)
        if books is None:
            unknown += its_reports
        elif (settlement := settle(books, its_reports)) is not None:
            settlements.append(settlement)
    for report in sorted(unknown, key=lambda each: each.attempt_id):
        await put_unmatched(connection, provider, report)
    if not settlements:
        return
    events: list[Event] = []
    for settlement in settlements:
        for attempt in settlement.attempts:
            if attempt.mismatched:
                await _give_back(connection, provider, settlement.payment, attempt)
            elif attempt.state is AttemptState.CAPTURED:
                events.append(_completed(settlement.payment, attempt, locked.moment))
            elif attempt.state is AttemptState.FAILED and settlement.unpaid:
                events.append(_failed(settlement.payment, attempt))
    await settle_payments(connection, settlements, events, moment=locked.moment)


async def settle_refund(connection: Connection, provider: str, report: RefundReport) -> None:
    """Take in what became of a refund; one that is processed leaves as one `payment.refunded`.

    A refund that isn't ours (made by hand at the provider's) is kept too, so that our sums stay the provider's.
    """
    payment = await lock_payment_of_capture(connection, report.capture_id)
    refund = await _refund_of(connection, report)
    if refund is None:
        if report.status is RefundStatus.FAILED:
            return
        if payment is None:
            log.warning("refund_of_unknown_capture", capture_id=report.capture_id, refund=report.provider_refund_id)
            return
        refund_id = automatic_refund_id(report.capture_id, f"provider/{report.provider_refund_id}")
        await add_refund(
            connection,
            refund_id=refund_id,
            payment_id=payment.payment_id,
            provider=provider,
            capture_id=report.capture_id,
            amount=report.amount,
            reason="made at the provider",
            requested_by=BY_PROVIDER,
        )
        refund = await lock_refund(connection, refund_id)
        assert refund is not None
    if refund.status in (RefundStatus.PROCESSED, RefundStatus.FAILED):
        return
    named = read_refund_key(report.receipt)
    if named is not None and named[1] != refund.generation:
        return  # of an earlier try, which has had its end
    match report.status:
        case RefundStatus.PROCESSED:
            await _process(connection, payment, refund, report)
        case RefundStatus.FAILED:
            await _fail(connection, refund, report)
        case _:
            await move_refund(
                connection,
                refund.refund_id,
                RefundStatus.PENDING,
                generation=refund.generation,
                provider_refund_id=report.provider_refund_id,
                pause_seconds=max(PENDING_LOOK_SECONDS, retry_delay_seconds(refund.tries)),
            )


async def _process(connection: Connection, payment: Payment | None, refund: Refund, report: RefundReport) -> None:
    await move_refund(
        connection,
        refund.refund_id,
        RefundStatus.PROCESSED,
        generation=refund.generation,
        provider_refund_id=report.provider_refund_id,
    )
    if payment is None or refund.reason == AMOUNT_MISMATCH:
        return  # booking never heard of the capture
    refunded = payment_v1.PaymentRefunded(
        refund_id=str(refund.refund_id),
        payment_id=str(payment.payment_id),
        booking_id=str(payment.booking_id),
        capture_id=refund.capture_id,
        amount=money.to_proto(refund.amount),
    )
    await append(connection, [Event("payment.refunded", str(payment.booking_id), refunded)])
    await _refresh(connection, payment)


async def _fail(connection: Connection, refund: Refund, report: RefundReport) -> None:
    """The provider took the refund and gave it up: nothing was paid back, so a new one may be asked for."""
    last = refund.generation >= MOST_GENERATIONS or refund.requested_by == BY_PROVIDER
    log.error("refund_failed", refund_id=str(refund.refund_id), generation=refund.generation, for_good=last)
    await move_refund(
        connection,
        refund.refund_id,
        RefundStatus.FAILED if last else RefundStatus.REQUESTED,
        generation=refund.generation if last else refund.generation + 1,
        provider_refund_id=report.provider_refund_id if last else None,
        problem="the provider gave it up",
        pause_seconds=retry_delay_seconds(refund.generation),
    )


async def _refund_of(connection: Connection, report: RefundReport) -> Refund | None:
    known = await refund_of_provider(connection, report.provider_refund_id)
    named = read_refund_key(report.receipt)
    if known is not None:
        return await lock_refund(connection, known.refund_id)
    if named is None:
        return None
    refund = await lock_refund(connection, named[0])
    # A receipt is only a text that anybody with the provider's dashboard may type.
    return refund if refund is not None and refund.capture_id == report.capture_id else None


async def _refresh(connection: Connection, payment: Payment) -> None:
    captured, refunded = await sums(connection, payment.payment_id)
    status = status_after(payment.status, None, amount=payment.amount.minor, captured=captured, refunded=refunded)
    await set_status(connection, payment.payment_id, status, payment.failure if status is PaymentStatus.FAILED else "")


async def _give_back(connection: Connection, provider: str, payment: Payment, attempt: SettledAttempt) -> None:
    log.error(
        "captured_amount_mismatched",
        payment_id=str(payment.payment_id),
        capture_id=attempt.attempt_id,
        captured=attempt.amount.minor,
        owed=payment.amount.minor,
    )
    await add_refund(
        connection,
        refund_id=automatic_refund_id(attempt.attempt_id, AMOUNT_MISMATCH),
        payment_id=payment.payment_id,
        provider=provider,
        capture_id=attempt.attempt_id,
        amount=attempt.amount,
        reason=AMOUNT_MISMATCH,
        requested_by="payment",
    )


def _completed(payment: Payment, attempt: SettledAttempt, moment: datetime) -> Event:
    completed = payment_v1.PaymentCompleted(
        payment_id=str(payment.payment_id),
        booking_id=str(payment.booking_id),
        capture_id=attempt.attempt_id,
        amount=money.to_proto(attempt.amount),
        capture_time=moments.to_proto(moment),
    )
    return Event("payment.completed", completed.booking_id, completed)


def _failed(payment: Payment, attempt: SettledAttempt) -> Event:
    failed = payment_v1.PaymentFailed(
        payment_id=str(payment.payment_id), booking_id=str(payment.booking_id), failure=attempt.failure
    )
    return Event("payment.failed", failed.booking_id, failed)
