"""Other services' events: booking asks for money to go back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from marquee.payment import v1 as payment_v1
from services.kit import money
from services.kit.bus import ReceivedEvent
from services.kit.consumers import AfterCommit
from services.kit.database import Connection
from services.payment.usecases import request_refund

CONSUMER = "payment"
REFUND_REQUESTED = "payment.refund_requested"


class RefundRequests:
    """Handles `payment.refund_requested`. The promise is stored with the inbox; a worker keeps it."""

    def __init__(self, wake_refunds: asyncio.Event) -> None:
        self._wake_refunds = wake_refunds

    async def __call__(self, connection: Connection, events: Sequence[ReceivedEvent]) -> AfterCommit | None:
        """See `services.kit.consumers.Handler`."""
        for event in events:
            wish: payment_v1.RefundRequested = event.read(payment_v1.RefundRequested)
            await request_refund(
                connection,
                refund_id=UUID(wish.refund_id),
                capture_id=wish.capture_id,
                amount=money.from_proto(wish.amount, "amount"),
                reason=wish.reason,
            )
        return self._wake

    async def _wake(self) -> None:
        self._wake_refunds.set()
