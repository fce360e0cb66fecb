"""Work that arrives together is done together: while one batch is under way, the next one gathers.

An item that comes when nothing is under way leaves at once. Right after a batch the next one waits some milliseconds
for company, as long as it keeps coming: items arrive one by one, and a call for each would cost several times one for
all (whole bookings cost a quarter less CPU by that). For the same reason batches run one after the other, unless one is
slow (it waits for a lock, say): then others overtake it.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

import structlog

from services.kit.errors import Overloaded
from services.kit.transient import is_transient

log = structlog.get_logger()

CLOSE_SECONDS = 0.02
"""A batch that begins so soon after its predecessor is taken as one of many."""
SLOW_SECONDS = 0.03
"""A batch that takes longer is overtaken."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Groups items into calls of ``flush``, fairly over their lanes.

    Items of one ``lane`` never run in two batches at once, so that two batches of one process do not wait for each
    other's row lock, and a lane that is slow is waited for by nobody else.

    Args:
        flush: does a batch; answers one result (or exception, as a value) for each item, in order. What it raises is
            everybody's when it passes by itself (``is_transient``); else each item is tried alone, so that one that
            cannot be done does not spoil the others.
        lane: what must not be split over batches that run at once (a show).
        at_once: how many batches may be under way when some are slow.
        most: items in a batch.
        gather_seconds: how long a batch that follows close upon another waits for company at most; it leaves when
            none comes for a third of it.
        waiting: items that may wait in a lane; a further one is refused.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        lane: Callable[[Item], Hashable],
        at_once: int = 4,
        most: int = 32,
        gather_seconds: float = 0.0,
        waiting: int = 2_000,
    ) -> None:
        self._flush = flush
        self._lane = lane
        self._at_once = at_once
        self._most = most
        self._gather_seconds = gather_seconds
        self._most_waiting = waiting
        self._lanes: OrderedDict[Hashable, deque[tuple[Item, asyncio.Future[Result]]]] = OrderedDict()
        self._busy: set[Hashable] = set()
        self._batches: set[asyncio.Task[None]] = set()
        self._driving: asyncio.Task[None] | None = None
        self._ended = 0.0

    async def add(self, item: Item) -> Result:
        """The result of ``item``. A caller that goes away does not take the batch with it.

        Raises:
            Overloaded: too many wait already.
        """
        lane = self._lane(item)
        queue = self._lanes.get(lane)
        if queue is None:
            queue = self._lanes[lane] = deque()
        if len(queue) >= self._most_waiting:
            raise Overloaded("too many people want this at once; try again", retry_after_seconds=1)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        queue.append((item, future))
        if self._driving is None:
            # Not in this caller's context: a batch belongs to no single call.
            self._driving = asyncio.create_task(self._drive(), context=contextvars.Context())
        return await future

    async def _drive(self) -> None:
        """Start batches until nothing waits."""
        try:
            while self._lanes:
                if self._batches:
                    patience = SLOW_SECONDS if len(self._batches) < self._at_once else None
                    ended, _ = await asyncio.wait(self._batches, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                    if ended:
                        continue
                elif time.monotonic() - self._ended < CLOSE_SECONDS and self._waiting() < self._most:
                    await self._gather()
                if not self._start() and self._batches:
                    await asyncio.wait(self._batches, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._driving = None

    async def _gather(self) -> None:
        """Wait for company while it comes."""
        for _ in range(3):
            waiting = self._waiting()
            await asyncio.sleep(self._gather_seconds / 3)
            if self._waiting() in (waiting, self._most):
                return

    def _waiting(self) -> int:
        """Items that wait; no more than fit into a batch are counted."""
        return min(self._most, sum(map(len, self._lanes.values())))

    def _start(self) -> bool:
        """Begin a batch of what waits in lanes that no batch is busy with; False when there is nothing."""
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        lanes = []
        for lane in [lane for lane in self._lanes if lane not in self._busy]:
            queue = self._lanes[lane]
            lanes.append(lane)
            while queue and len(batch) < self._most:
                entry = queue.popleft()
                if not entry[1].done():
                    batch.append(entry)
            if queue:
                self._lanes.move_to_end(lane)  # the others come first next time
            else:
                del self._lanes[lane]
            if len(batch) == self._most:
                break
        if not batch:
            return False
        self._busy.update(lanes)
        task = asyncio.create_task(self._run(batch, lanes))
        self._batches.add(task)
        task.add_done_callback(self._batches.discard)
        return True

    async def _run(self, batch: list[tuple[Item, asyncio.Future[Result]]], lanes: Sequence[Hashable]) -> None:
        try:
            results = await self._results([item for item, _ in batch])
        finally:
            self._ended = time.monotonic()
            self._busy.difference_update(lanes)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    async def _results(self, items: Sequence[Item]) -> Sequence[Result | Exception]:
        try:
            results = await self._flush(items)
            if len(results) != len(items):
                raise ValueError(f"{len(results)} results of {len(items)} items")
            return results
        except Exception as error:
            if len(items) == 1 or is_transient(error):
                return [error] * len(items)
            log.error("batch_taken_apart", items=len(items), error=f"{type(error).__name__}: {error}"[:300])
            return [(await self._results([item]))[0] for item in items]
