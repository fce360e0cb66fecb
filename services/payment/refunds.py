"""Keeps the promise of refunds: asks the provider, with the same key each time, until it is processed or cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from services.kit.database import Pool
from services.payment.domain import Refund, RefundStatus, refund_key, retry_delay_seconds
from services.payment.provider import Provider, ProviderInDoubtError, ProviderRefusedError, RefundReport
from services.payment.settlement import settle_refund
from services.payment.store.calls import begin_calls, end_call
from services.payment.store.refunds import claim_refunds, lock_refund, move_refund, postpone_refund

log = structlog.get_logger()

AT_ONCE = 8
LEASE_SECONDS = 60.0
"""Longer than all tries of one HTTP call. A process that is killed meanwhile leaves the refund to others after it."""


class RefundWorker:
    """Any number of processes may run it: a refund is leased to one at a time."""

    def __init__(
        self, pool: Pool, providers: Mapping[str, Provider], *, wake: asyncio.Event, idle_seconds: float
    ) -> None:
        self._pool = pool
        self._providers = providers
        self._wake = wake
        self._idle_seconds = idle_seconds

    async def run(self) -> None:
        """Work for ever; cancel it to stop."""
        while True:
            self._wake.clear()
            try:
                if await self.step():
                    continue
            except Exception as error:  # a database that is away; the loop must not end
                log.warning("refunds_interrupted", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(self._idle_seconds)
            try:
                await asyncio.wait_for(self._wake.wait(), self._idle_seconds)
            except TimeoutError:
                continue

    async def step(self) -> int:
        """Ask for the refunds that are due; tells how many there were."""
        done = 0
        for provider in self._providers.values():
            async with self._pool.connection() as connection, connection.transaction():
                due = await claim_refunds(connection, provider.name, limit=AT_ONCE, lease_seconds=LEASE_SECONDS)
                calls = [_call_key(refund) for refund in due if refund.status is RefundStatus.REQUESTED]
                if calls:
                    await begin_calls(connection, "refund", calls)
            await asyncio.gather(*[self._ask(provider, refund) for refund in due])
            done += len(due)
        return done

    async def _ask(self, provider: Provider, refund: Refund) -> None:
        try:
            report = await self._report(provider, refund)
        except ProviderInDoubtError as error:
            await self._postpone(refund, str(error))
        except ProviderRefusedError as error:
            await self._refused(refund, str(error))
        except Exception as error:  # an answer that nobody foresaw must not stop the other refunds
            log.exception("refund_not_understood", refund_id=str(refund.refund_id))
            await self._postpone(refund, f"{type(error).__name__}: {error}")
        else:
            async with self._pool.connection() as connection, connection.transaction():
                await settle_refund(connection, provider.name, report)
                if refund.status is RefundStatus.REQUESTED:
                    await end_call(connection, _call_key(refund))

    async def _report(self, provider: Provider, refund: Refund) -> RefundReport:
        if refund.status is RefundStatus.PENDING and refund.provider_refund_id is not None:
            return await provider.refund_status(refund.provider_refund_id)
        key = refund_key(refund.refund_id, refund.generation)
        try:
            return await provider.refund(refund.capture_id, refund.amount, key)
        except ProviderRefusedError:
            # Providers forget idempotency keys after a while, and then say that nothing is left to refund.
            found = await provider.find_refund(refund.capture_id, key)
            if found is None:
                raise
            return found

    async def _postpone(self, refund: Refund, problem: str) -> None:
        log.warning("refund_in_doubt", refund_id=str(refund.refund_id), tries=refund.tries, problem=problem)
        async with self._pool.connection() as connection:
            await postpone_refund(
                connection, refund.refund_id, seconds=retry_delay_seconds(refund.tries), problem=problem[:300]
            )

    async def _refused(self, refund: Refund, problem: str) -> None:
        log.error("refund_refused", refund_id=str(refund.refund_id), problem=problem)
        async with self._pool.connection() as connection, connection.transaction():
            now = await lock_refund(connection, refund.refund_id)
            if now is None or (now.status, now.generation) != (refund.status, refund.generation):
                return  # a webhook told us better meanwhile
            await move_refund(
                connection,
                refund.refund_id,
                RefundStatus.FAILED,
                generation=refund.generation,
                provider_refund_id=refund.provider_refund_id,
                problem=problem[:300],
            )
            await end_call(connection, _call_key(refund), refused_because=problem[:300])


def _call_key(refund: Refund) -> str:
    return f"refund/{refund_key(refund.refund_id, refund.generation)}"
