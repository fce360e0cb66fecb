"""Taking in what the provider reports, from a webhook or because we asked: one way in for both.

Every function runs in its caller's transaction, locks the payment first, and is right for reports that come twice, late
or in any order.
"""

from __future__ import annotations

import structlog

from marquee.payment import v1 as payment_v1
from services.kit import money
from services.kit.database import Connection
from services.kit.outbox import Event, append
from services.payment import store
from services.payment.domain import (
    BY_PROVIDER,
    MOST_GENERATIONS,
    AttemptState,
    Payment,
    Refund,
    RefundStatus,
    advance,
    automatic_refund_id,
    read_refund_key,
    retry_delay_seconds,
    status_after,
)
from services.payment.provider import AttemptReport, RefundReport

log = structlog.get_logger()

PENDING_LOOK_SECONDS = 5.0
AMOUNT_MISMATCH = "amount_mismatch"


async def settle_attempt(connection: Connection, provider: str, report: AttemptReport) -> bool:
    """Take in what became of an attempt; a capture leaves as one `payment.completed`, a failure as `payment.failed`.

    A capture of another amount than the order's is not told to booking but paid back.

    Returns:
        Whether the order is one of ours. If not, the report waits for the reconciler.
    """
    payment = await store.lock_payment_of_order(connection, provider, report.order_id)
    if payment is None:
        await store.put_unmatched(connection, provider, report)
        return False
    known = await store.attempt_state(connection, report.attempt_id)
    state = advance(known, report.state)
    if state is known:
        return True
    mismatched = state is AttemptState.CAPTURED and report.amount != payment.amount
    captured_at = await store.put_attempt(connection, payment.payment_id, report, state, mismatched=mismatched)
    captured, _ = await store.sums(connection, payment.payment_id)
    if mismatched:
        log.error(
            "captured_amount_mismatched",
            payment_id=str(payment.payment_id),
            capture_id=report.attempt_id,
            captured=report.amount.minor,
            owed=payment.amount.minor,
        )
        await store.add_refund(
            connection,
            refund_id=automatic_refund_id(report.attempt_id, AMOUNT_MISMATCH),
            payment_id=payment.payment_id,
            provider=provider,
            capture_id=report.attempt_id,
            amount=report.amount,
            reason=AMOUNT_MISMATCH,
            requested_by="payment",
        )
    elif state is AttemptState.CAPTURED:
        completed = payment_v1.PaymentCompleted(
            payment_id=str(payment.payment_id),
            booking_id=str(payment.booking_id),
            capture_id=report.attempt_id,
            amount=money.to_proto(report.amount),
        )
        completed.capture_time.FromDatetime(captured_at)
        await append(connection, [Event("payment.completed", str(payment.booking_id), completed)])
    elif state is AttemptState.FAILED and not captured:
        failed = payment_v1.PaymentFailed(
            payment_id=str(payment.payment_id), booking_id=str(payment.booking_id), failure=report.failure
        )
        await append(connection, [Event("payment.failed", str(payment.booking_id), failed)])
    await _refresh(connection, payment, newest=state, failure=report.failure)
    return True


async def settle_refund(connection: Connection, provider: str, report: RefundReport) -> None:
    """Take in what became of a refund; one that is processed leaves as one `payment.refunded`.

    A refund that isn't ours (made by hand at the provider's) is kept too, so that our sums stay the provider's.
    """
    payment = await store.lock_payment_of_capture(connection, report.capture_id)
    refund = await _refund_of(connection, report)
    if refund is None:
        if report.status is RefundStatus.FAILED:
            return
        if payment is None:
            log.warning("refund_of_unknown_capture", capture_id=report.capture_id, refund=report.provider_refund_id)
            return
        refund_id = automatic_refund_id(report.capture_id, f"provider/{report.provider_refund_id}")
        await store.add_refund(
            connection,
            refund_id=refund_id,
            payment_id=payment.payment_id,
            provider=provider,
            capture_id=report.capture_id,
            amount=report.amount,
            reason="made at the provider",
            requested_by=BY_PROVIDER,
        )
        refund = await store.lock_refund(connection, refund_id)
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
            await store.move_refund(
                connection,
                refund.refund_id,
                RefundStatus.PENDING,
                generation=refund.generation,
                provider_refund_id=report.provider_refund_id,
                pause_seconds=max(PENDING_LOOK_SECONDS, retry_delay_seconds(refund.tries)),
            )


async def _process(connection: Connection, payment: Payment | None, refund: Refund, report: RefundReport) -> None:
    await store.move_refund(
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
    await _refresh(connection, payment, newest=None, failure=payment.failure)


async def _fail(connection: Connection, refund: Refund, report: RefundReport) -> None:
    """The provider took the refund and gave it up: nothing was paid back, so a new one may be asked for."""
    last = refund.generation >= MOST_GENERATIONS or refund.requested_by == BY_PROVIDER
    log.error("refund_failed", refund_id=str(refund.refund_id), generation=refund.generation, for_good=last)
    await store.move_refund(
        connection,
        refund.refund_id,
        RefundStatus.FAILED if last else RefundStatus.REQUESTED,
        generation=refund.generation if last else refund.generation + 1,
        provider_refund_id=report.provider_refund_id if last else None,
        problem="the provider gave it up",
        pause_seconds=retry_delay_seconds(refund.generation),
    )


async def _refund_of(connection: Connection, report: RefundReport) -> Refund | None:
    known = await store.refund_of_provider(connection, report.provider_refund_id)
    named = read_refund_key(report.receipt)
    if known is not None:
        return await store.lock_refund(connection, known.refund_id)
    if named is None:
        return None
    refund = await store.lock_refund(connection, named[0])
    # A receipt is only a text that anybody with the provider's dashboard may type.
    return refund if refund is not None and refund.capture_id == report.capture_id else None


async def _refresh(connection: Connection, payment: Payment, *, newest: AttemptState | None, failure: str) -> None:
    captured, refunded = await store.sums(connection, payment.payment_id)
    status = status_after(payment.status, newest, amount=payment.amount.minor, captured=captured, refunded=refunded)
    await store.set_status(connection, payment.payment_id, status, failure if status.value == "FAILED" else "")
