"""Asks the provider what it may have told us in vain: webhooks get lost, and so do answers.

It walks through all payments that the provider has, once when they are some seconds old and again each time their age
has grown fourfold, because money may come late. One call asks about a hundred of them, so that a sold-out evening costs
little more than a quiet one. It also gives a home to reports of orders that we didn't know, pays back captures that
belong to nothing of ours, and ends calls of which nobody knows what became.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import structlog

from services.kit.database import Pool
from services.kit.transient import is_transient
from services.payment.domain import AttemptState, Payment, automatic_refund_id
from services.payment.provider import (
    AttemptReport,
    OrderReport,
    Provider,
    ProviderCallError,
    ProviderRefusedError,
)
from services.payment.settlement import settle_attempts
from services.payment.store.calls import begin_calls, capture_call, end_call, order_call, orders_in_doubt
from services.payment.store.payments import find_payment, set_order
from services.payment.store.refunds import add_refund
from services.payment.store.settlements import known_states
from services.payment.store.unmatched import claim_unmatched, close_unmatched
from services.payment.store.walks import Walk, claim_walk, end_walk

log = structlog.get_logger()

AT_ONCE = 8
UNMATCHED_PAUSE_SECONDS = 10.0
AGE_GROWTH = 4
RESTS_AN_AGE = 3
"""How often a walk's part comes while its payments grow as old as they are."""
DOUBT_SECONDS = 60.0
"""After so long nobody waits for the answer to a call any more."""
LEASE_SECONDS = 60.0
"""A process that is killed during a walk leaves it to others after it."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often the provider is asked (see `PaymentSettings`)."""

    first_seconds: float
    for_seconds: float
    capture_after_seconds: float
    unmatched_grace_seconds: float
    idle_seconds: float

    def ages(self) -> list[timedelta]:
        """The ages at which the provider's payments are looked at; the last one is the oldest that matters."""
        ages: list[timedelta] = []
        seconds = self.first_seconds
        while seconds < self.for_seconds:
            ages.append(timedelta(seconds=seconds))
            seconds *= AGE_GROWTH
        return [*ages, timedelta(seconds=self.for_seconds)]


class Reconciler:
    """Any number of processes may run it: a walk is taken by one."""

    def __init__(self, pool: Pool, provider: Provider, rhythm: Rhythm, *, wake_refunds: asyncio.Event) -> None:
        self._pool = pool
        self._provider = provider
        self._rhythm = rhythm
        self._ages = rhythm.ages()
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

    async def step(self) -> bool:
        """Do everything whose turn it is, a few at a time; tells whether more may wait."""
        walked = await self.walk()
        matched = await self.match_reports()
        await self.resolve_orders()
        return walked or matched == AT_ONCE

    async def walk(self) -> bool:
        """Look through the part of the provider's payments whose turn it is; False when there is none, or it failed."""
        async with self._pool.connection() as connection:
            walk = await claim_walk(connection, self._provider.name, self._ages, lease_seconds=LEASE_SECONDS)
        if walk is None:
            return False
        rest = walk.age / RESTS_AN_AGE
        try:
            async with contextlib.aclosing(self._provider.attempts(walk.since, walk.until)) as pages:
                async for reports in pages:
                    await self._settle_page(reports, walk)
        except ProviderCallError as error:
            log.warning("walk_failed", age_seconds=walk.age.total_seconds(), problem=str(error))
            await self._end(Walk(walk.age, walk.since, walk.since), rest)  # the same part again
            return False
        await self._end(walk, rest)
        return True

    async def match_reports(self) -> int:
        """Find out whose the captures are that came for orders we didn't know."""
        async with self._pool.connection() as connection:
            due = await claim_unmatched(
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

    async def resolve_orders(self) -> None:
        """Find the orders whose answers were lost, and end the calls that opened none."""
        async with self._pool.connection() as connection:
            doubtful = await orders_in_doubt(
                connection, self._provider.name, older_than_seconds=DOUBT_SECONDS, limit=AT_ONCE
            )
        for payment_id in doubtful:
            try:
                order = await self._provider.find_order(str(payment_id))
            except ProviderCallError as error:
                log.warning("order_still_in_doubt", payment_id=str(payment_id), problem=str(error))
                return
            if order is not None:
                await self._adopt(payment_id, order)
                continue
            async with self._pool.connection() as connection:
                await end_call(connection, order_call(payment_id), refused_because="the provider never opened it")

    async def _settle_page(self, reports: Sequence[AttemptReport], walk: Walk) -> None:
        async with self._pool.connection() as connection:
            known = await known_states(connection, [report.attempt_id for report in reports])
        # Nearly all of them were told in time.
        news = [report for report in reports if report.state > known.get(report.attempt_id, 0)]
        ours = await self._settle_apart(news) if news else frozenset()
        if walk.age.total_seconds() < self._rhythm.capture_after_seconds:
            return
        waiting = [
            report
            for report in reports
            if report.state is AttemptState.AUTHORIZED
            and (known.get(report.attempt_id) is AttemptState.AUTHORIZED or report.order_id in ours)
        ]
        if not waiting:
            return
        async with self._pool.connection() as connection:
            await begin_calls(connection, "capture", [capture_call(report.attempt_id) for report in waiting])
        for report in waiting:
            await self._capture(report)

    async def _settle_apart(self, reports: Sequence[AttemptReport]) -> frozenset[str]:
        """Settle all at once; where one cannot be, each for itself, so that it does not hide the others."""
        try:
            return await self._settle(reports)
        except Exception as error:
            if is_transient(error):
                raise
            ours: set[str] = set()
            for report in reports:
                try:
                    ours |= await self._settle([report])
                except Exception as problem:
                    if is_transient(problem):
                        raise
                    log.exception("report_not_settled", attempt_id=report.attempt_id)
            return frozenset(ours)

    async def _capture(self, report: AttemptReport) -> None:
        """Take money that the provider has only authorized."""
        call = capture_call(report.attempt_id)
        try:
            captured = await self._provider.capture(report.attempt_id, report.amount)
        except ProviderRefusedError as error:
            log.warning("capture_refused", attempt_id=report.attempt_id, problem=str(error))
            async with self._pool.connection() as connection:
                await end_call(connection, call, refused_because=str(error)[:300])
            return
        async with self._pool.connection() as connection, connection.transaction():
            await settle_attempts(connection, self._provider.name, [captured])
            await end_call(connection, call)

    async def _match(self, report: AttemptReport, *, grace_is_over: bool) -> None:
        if await self._settle([report]):
            await self._close(report, "matched")
            return
        order: OrderReport | None = None
        with contextlib.suppress(ProviderRefusedError):
            order = await self._provider.order(report.order_id)
        if order is not None and await self._adopt_by_receipt(order):
            await self._settle([report])
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
            await add_refund(
                connection,
                refund_id=automatic_refund_id(report.attempt_id, "unknown_capture"),
                payment_id=None,
                provider=self._provider.name,
                capture_id=report.attempt_id,
                amount=report.amount,
                reason="unknown_capture",
                requested_by="payment",
            )
            await close_unmatched(connection, report, "refunded")
        self._wake_refunds.set()

    async def _adopt_by_receipt(self, order: OrderReport) -> bool:
        """Whether the order is a payment's of ours whose answer got lost."""
        try:
            payment_id = UUID(order.receipt)
        except ValueError:
            return False
        async with self._pool.connection() as connection:
            payment: Payment | None = await find_payment(connection, payment_id)
        if payment is None:
            return False
        await self._adopt(payment_id, order)
        return payment.order_id in (None, order.order_id)

    async def _adopt(self, payment_id: UUID, order: OrderReport) -> None:
        log.info("order_adopted", payment_id=str(payment_id), order_id=order.order_id)
        async with self._pool.connection() as connection, connection.transaction():
            await set_order(connection, payment_id, order.order_id)
            await end_call(connection, order_call(payment_id))

    async def _settle(self, reports: Sequence[AttemptReport]) -> frozenset[str]:
        async with self._pool.connection() as connection, connection.transaction():
            return await settle_attempts(connection, self._provider.name, reports)

    async def _end(self, walk: Walk, rest: timedelta) -> None:
        async with self._pool.connection() as connection:
            await end_walk(connection, self._provider.name, walk, rest=rest)

    async def _close(self, report: AttemptReport, outcome: str) -> None:
        async with self._pool.connection() as connection:
            await close_unmatched(connection, report, outcome)
