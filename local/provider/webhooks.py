"""Sends what the queue holds, signed as Razorpay signs, until the merchant answers 2xx."""

import asyncio
import hashlib
import hmac
import sqlite3

from local.provider.http_post import HttpPoster
from local.provider.storage import transaction
from local.provider.webhook_queue import Delivery, WebhookQueue

TIMEOUT_S = 5.0
MOST_AT_ONCE = 32
# The longest sleep: settles refunds and notices faults that were changed meanwhile.
IDLE_S = 0.2


def sign(secret: str, body: bytes) -> str:
    """`X-Razorpay-Signature`: hexadecimal HMAC-SHA256 of the raw body."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class WebhookSender:
    """One loop that keeps at most `MOST_AT_ONCE` deliveries under way."""

    def __init__(self, queue: WebhookQueue, connection: sqlite3.Connection, *, poster: HttpPoster) -> None:
        self._queue = queue
        self._connection = connection
        self._poster = poster
        self._wake = asyncio.Event()
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._ended: list[tuple[Delivery, bool]] = []

    def wake(self) -> None:
        """Something was added."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver for ever; cancel it to stop. What was not acknowledged is sent again after a restart."""
        while True:
            self._wake.clear()
            self._note_ended()
            free = MOST_AT_ONCE - len(self._under_way)
            if free:
                for delivery in self._queue.due(limit=free, except_for=set(self._under_way)):
                    self._under_way[delivery.seq] = asyncio.create_task(self._deliver(delivery))
            await self._sleep()

    async def _sleep(self) -> None:
        wait_ms = self._queue.next_due_in_ms()
        timeout_s = IDLE_S if wait_ms is None else min(IDLE_S, wait_ms / 1000)
        try:
            await asyncio.wait_for(self._wake.wait(), timeout_s)
        except TimeoutError:
            return
        # Lets a burst of endings share one transaction.
        await asyncio.sleep(0.002)

    def _note_ended(self) -> None:
        ended, self._ended = self._ended, []
        if not ended:
            return
        with transaction(self._connection):
            for delivery, accepted in ended:
                if accepted:
                    self._queue.delivered(delivery)
                else:
                    self._queue.failed(delivery)
        for delivery, _ in ended:
            del self._under_way[delivery.seq]

    async def _deliver(self, delivery: Delivery) -> None:
        accepted = False
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status = await self._poster.post(
                    delivery.body,
                    {
                        "content-type": "application/json",
                        "x-razorpay-signature": sign(delivery.secret, delivery.body),
                        "x-razorpay-event-id": delivery.event_id,
                    },
                )
            accepted = 200 <= status < 300
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            pass  # counted in the queue as a failed delivery; TimeoutError is an OSError
        finally:
            self._ended.append((delivery, accepted))
            self._wake.set()
