"""Work that arrives together is done together: while one batch is under way, the next one gathers.

An item that comes when nothing is under way leaves at once. Right after a batch the next one waits some milliseconds
for company: its callers' next items arrive one by one, and a call for each would cost several times one for all.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from services.kit.errors import Overloaded

CLOSE_SECONDS = 0.02
"""A batch that begins so soon after its predecessor is taken as one of many."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Groups items into calls of ``flush``.

    Items with the same ``lane`` key never run in two batches at once, so that two batches of one process do not wait
    for each other's row lock.

    Args:
        flush: does a batch; answers one result (or exception, as a value) for each item, in order.
        lane: what must not be split over batches that run at once (a show).
        lanes: how many batches may be under way.
        most: items in a batch.
        gather_seconds: how long a batch that follows close upon another waits for company.
        waiting: items that may wait in a lane; a further one is refused.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        lane: Callable[[Item], Hashable],
        lanes: int = 2,
        most: int = 32,
        gather_seconds: float = 0.0,
        waiting: int = 2_000,
    ) -> None:
        self._flush = flush
        self._lane = lane
        self._most = most
        self._gather_seconds = gather_seconds
        self._waiting = waiting
        self._queues: list[deque[tuple[Item, asyncio.Future[Result]]]] = [deque() for _ in range(lanes)]
        self._running: list[asyncio.Task[None] | None] = [None] * lanes
        self._ended = [0.0] * lanes

    async def add(self, item: Item) -> Result:
        """The result of ``item``. A caller that goes away does not take the batch with it.

        Raises:
            Overloaded: too many wait already.
        """
        number = hash(self._lane(item)) % len(self._queues)
        queue = self._queues[number]
        if len(queue) >= self._waiting:
            raise Overloaded("too many people want this at once; try again", retry_after_seconds=1)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        queue.append((item, future))
        if self._running[number] is None:
            self._running[number] = asyncio.create_task(self._drain(number))
        return await future

    async def _drain(self, number: int) -> None:
        queue = self._queues[number]
        try:
            while queue:
                if len(queue) < self._most and time.monotonic() - self._ended[number] < CLOSE_SECONDS:
                    await asyncio.sleep(self._gather_seconds)
                batch = [queue.popleft() for _ in range(min(self._most, len(queue)))]
                batch = [(item, future) for item, future in batch if not future.done()]
                if batch:
                    await self._run(batch)
                    self._ended[number] = time.monotonic()
        finally:
            self._running[number] = None

    async def _run(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._flush([item for item, _ in batch])
        except Exception as error:  # every waiter learns of it
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
