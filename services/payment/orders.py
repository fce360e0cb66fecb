"""Opening a payment's order at the provider: once, however many ask at a time and whatever becomes of the answer."""

from __future__ import annotations

import asyncio
from uuid import UUID

import structlog

from services.kit.database import Pool
from services.payment.domain import Payment, ProviderUnavailable
from services.payment.provider import OrderWish, Provider, ProviderInDoubtError, ProviderRefusedError
from services.payment.store.calls import end_call, order_call

log = structlog.get_logger()


class Orders:
    """Shares one call among those of this process who want the same order; the receipt does so among processes."""

    def __init__(self, pool: Pool, provider: Provider) -> None:
        self._pool = pool
        self._provider = provider
        self._under_way: dict[UUID, asyncio.Task[str]] = {}

    async def ensure(self, payment: Payment, description: str) -> str:
        """The provider's order of ``payment``, whose opening was recorded with it (`open_payments`).

        Raises:
            ProviderUnavailable: the provider didn't answer, or not with an order.
        """
        if payment.order_id is not None:
            return payment.order_id
        task = self._under_way.get(payment.payment_id)
        if task is None:
            task = asyncio.create_task(self._open(payment, description))
            self._under_way[payment.payment_id] = task
            task.add_done_callback(lambda _: self._under_way.pop(payment.payment_id, None))
        # Shielded: one caller that goes away doesn't take the order from the others.
        return await asyncio.shield(task)

    async def _open(self, payment: Payment, description: str) -> str:
        wish = OrderWish(
            receipt=str(payment.payment_id),
            amount=payment.amount,
            booking_id=payment.booking_id,
            description=description,
        )
        try:
            return (await self._provider.open_order(wish)).order_id
        except ProviderInDoubtError as error:
            # Stays IN_PROGRESS: the order may exist. The receipt finds it again.
            log.warning("order_in_doubt", payment_id=str(payment.payment_id), problem=str(error))
            raise ProviderUnavailable(
                "the payment provider does not answer; try again", retry_after_seconds=2
            ) from None
        except ProviderRefusedError as error:
            log.error("order_refused", payment_id=str(payment.payment_id), problem=str(error))
            async with self._pool.connection() as connection:
                await end_call(connection, order_call(payment.payment_id), refused_because=str(error))
            raise ProviderUnavailable("the payment provider did not take this order") from None
