"""Asks the provider what it may have told us in vain: webhooks get lost, and so do answers.

It also gives a home to reports of orders that we didn't know, and pays back captures that belong to nothing of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from uuid import UUID

import structlog

from services.kit.database import Pool
from services.payment import store
from services.payment.domain import AttemptState, Payment, automatic_refund_id
from services.payment.provider import (
    AttemptReport,
    OrderReport,
    Provider,
    ProviderCallError,
    ProviderRefusedError,
)
from services.payment.settlement import settle_attempt

log = structlog.get_logger()

AT_ONCE = 8
UNMATCHED_PAUSE_SECONDS = 10.0
CAPTURE_AFTER_SECONDS = 30.0
"""The provider captures by itself; we do only when it hasn't for so long."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often the provider is asked about one payment (see `PaymentSettings`)."""

    first_seconds: float
    longest_seconds: float
    for_seconds: float
    unmatched_grace_seconds: float
    idle_seconds: float


class Reconciler:
    """Any number of processes may run it: a payment's turn is taken by one."""

    def __init__(self, pool: Pool, provider: Provider, rhythm: Rhythm, *, wake_refunds: asyncio.Event) -> None:
        self._pool = pool
        self._provider = provider
        self._rhythm = rhythm
        self._wake_refunds = wake_refunds

    async def run(self) -> None:
        """Work for ever; cancel it to stop."""
        while True:
            try:
                if await self.step():
                    continue
            except Exception as error:  # a database that is away; the loop must not end
                log.warning("reconciler_interrupted", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(self._rhythm.idle_seconds)

    async def step(self) -> int:
        """Ask about everything whose turn it is, a few at a time; tells how much there was."""
        return await self.poll_payments() + await self.match_reports()

    async def poll_payments(self) -> int:
        """Ask what became of payments' orders."""
        async with self._pool.connection() as connection:
            due = await store.claim_polls(
                connection,
                self._provider.name,
                limit=AT_ONCE,
                first_seconds=self._rhythm.first_seconds,
                longest_seconds=self._rhythm.longest_seconds,
                for_seconds=self._rhythm.for_seconds,
            )
        await asyncio.gather(*[self._guarded_poll(payment) for payment in due])
        return len(due)

    async def match_reports(self) -> int:
        """Find out whose the captures are that came for orders we didn't know."""
        async with self._pool.connection() as connection:
            due = await store.claim_unmatched(
                connection,
                limit=AT_ONCE,
                pause_seconds=UNMATCHED_PAUSE_SECONDS,
                grace_seconds=self._rhythm.unmatched_grace_seconds,
            )
        for provider_name, report, grace_is_over in due:
            if provider_name != self._provider.name:
                continue
            try:
                await self._match(report, grace_is_over=grace_is_over)
            except ProviderCallError as error:
                log.warning("report_not_matched", attempt_id=report.attempt_id, problem=str(error))
        return len(due)

    async def _guarded_poll(self, payment: Payment) -> None:
        try:
            await self._poll(payment)
        except ProviderCallError as error:
            log.warning("poll_failed", payment_id=str(payment.payment_id), problem=str(error))
        except Exception:  # one payment that nobody foresaw must not stop the others; its next turn comes
            log.exception("poll_not_understood", payment_id=str(payment.payment_id))

    async def _poll(self, payment: Payment) -> None:
        order_id = payment.order_id
        if order_id is None:
            # The order may have been opened although its answer never came.
            order = await self._provider.find_order(str(payment.payment_id))
            if order is None:
                return
            order_id = order.order_id
            await self._adopt(payment, order)
        for report in await self._provider.attempts(order_id):
            await self._settle(report)
        async with self._pool.connection() as connection:
            waiting = await store.authorized_attempts(connection, payment.payment_id, CAPTURE_AFTER_SECONDS)
            for attempt_id, _ in waiting:
                await store.begin_call(connection, "capture", f"capture/{attempt_id}")
        for attempt_id, amount in waiting:
            await self._settle(await self._provider.capture(attempt_id, amount))
            async with self._pool.connection() as connection:
                await store.end_call(connection, f"capture/{attempt_id}")

    async def _match(self, report: AttemptReport, *, grace_is_over: bool) -> None:
        if await self._settle(report):
            await self._close(report, "matched")
            return
        order: OrderReport | None = None
        with contextlib.suppress(ProviderRefusedError):
            order = await self._provider.order(report.order_id)
        if order is not None and await self._adopt_by_receipt(order):
            await self._settle(report)
            await self._close(report, "matched")
        elif grace_is_over:
            await self._give_back(report, order)

    async def _give_back(self, report: AttemptReport, order: OrderReport | None) -> None:
        """It is nobody's: what was captured of an order with our mark goes back. Others' orders are left alone."""
        if order is None or not order.ours:
            await self._close(report, "foreign")
            return
        if report.state is not AttemptState.CAPTURED:
            await self._close(report, "nothing captured")
            return
        log.error("unknown_capture_refunded", capture_id=report.attempt_id, order_id=report.order_id)
        async with self._pool.connection() as connection, connection.transaction():
            await store.add_refund(
                connection,
                refund_id=automatic_refund_id(report.attempt_id, "unknown_capture"),
                payment_id=None,
                provider=self._provider.name,
                capture_id=report.attempt_id,
                amount=report.amount,
                reason="unknown_capture",
                requested_by="payment",
            )
            await store.close_unmatched(connection, report, "refunded")
        self._wake_refunds.set()

    async def _adopt_by_receipt(self, order: OrderReport) -> bool:
        """Whether the order is a payment's of ours whose answer got lost."""
        try:
            payment_id = UUID(order.receipt)
        except ValueError:
            return False
        async with self._pool.connection() as connection:
            payment = await store.find_payment(connection, payment_id)
        if payment is None:
            return False
        await self._adopt(payment, order)
        return payment.order_id in (None, order.order_id)

    async def _adopt(self, payment: Payment, order: OrderReport) -> None:
        log.info("order_adopted", payment_id=str(payment.payment_id), order_id=order.order_id)
        async with self._pool.connection() as connection, connection.transaction():
            await store.set_order(connection, payment.payment_id, order.order_id)
            await store.end_call(connection, f"open_order/{payment.payment_id}")

    async def _settle(self, report: AttemptReport) -> bool:
        async with self._pool.connection() as connection, connection.transaction():
            return await settle_attempt(connection, self._provider.name, report)

    async def _close(self, report: AttemptReport, outcome: str) -> None:
        async with self._pool.connection() as connection:
            await store.close_unmatched(connection, report, outcome)
