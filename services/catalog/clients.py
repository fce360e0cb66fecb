"""Other services, as the catalogue needs them: how many seats of a show are for sale, which booking knows."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import grpc
import structlog

from marquee.booking import v1 as booking_v1
from services.kit.channels import open_channel

log = structlog.get_logger()

MOST_AT_ONCE = 500
"""Shows in one question; the contract's limit."""
MOST_KNOWN = 100_000
REST_SECONDS = 1.0
"""How long booking is not asked after it did not answer."""


class AskBooking(Protocol):
    """Booking's ``GetAvailability``."""

    async def __call__(self, show_ids: Sequence[str]) -> Mapping[str, int]:
        """Free seats by show; unknown shows are left out.

        Raises:
            grpc.RpcError, TimeoutError, OSError: booking does not answer.
        """


class SeatsLeft:
    """Free seats of shows, some seconds old. Never fails: what booking does not tell keeps its last known number.

    Concurrent readers of a show share one question, and one question asks for many shows.

    Args:
        ask: booking; None where there is none.
        fresh_seconds: how long an answer is good.
    """

    def __init__(
        self, ask: AskBooking | None, *, fresh_seconds: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._fresh_seconds = fresh_seconds
        self._now = now
        self._known: OrderedDict[str, tuple[int | None, float]] = OrderedDict()
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._resting_until = 0.0

    async def of(self, show_ids: Iterable[str]) -> dict[str, int]:
        """Free seats of those shows of which booking ever told; a show that it does not know yet is left out."""
        wanted = list(dict.fromkeys(show_ids))
        if self._ask is not None:
            stale = [show_id for show_id in wanted if not self._is_fresh(show_id)]
            if self._now() >= self._resting_until:
                self._start([show_id for show_id in stale if show_id not in self._asked])
            questions = {self._asked[show_id] for show_id in stale if show_id in self._asked}
            if questions:
                await asyncio.wait(questions)
        left = {}
        for show_id in wanted:
            seats, _ = self._known.get(show_id, (None, 0.0))
            if seats is not None:
                left[show_id] = seats
        return left

    def _is_fresh(self, show_id: str) -> bool:
        known = self._known.get(show_id)
        return known is not None and known[1] > self._now()

    def _start(self, show_ids: Sequence[str]) -> None:
        for start in range(0, len(show_ids), MOST_AT_ONCE):
            some = show_ids[start : start + MOST_AT_ONCE]
            question = asyncio.create_task(self._question(some))
            for show_id in some:
                self._asked[show_id] = question

    async def _question(self, show_ids: Sequence[str]) -> None:
        assert self._ask is not None
        try:
            answer = await self._ask(show_ids)
        except (grpc.RpcError, TimeoutError, OSError) as error:
            self._resting_until = self._now() + REST_SECONDS
            code = error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
            log.warning("availability_unknown", error=code, shows=len(show_ids))
        else:
            until = self._now() + self._fresh_seconds
            for show_id in show_ids:
                self._known[show_id] = (answer.get(show_id), until)
                self._known.move_to_end(show_id)
            while len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        finally:
            for show_id in show_ids:
                self._asked.pop(show_id, None)


@asynccontextmanager
async def open_booking(address: str, token_file: Path, *, timeout_seconds: float) -> AsyncIterator[AskBooking | None]:
    """Booking at ``address``, or None without one."""
    if not address:
        yield None
        return
    async with open_channel(address, token_file) as channel:
        stub = booking_v1.BookingInternalServiceStub(channel)

        async def ask(show_ids: Sequence[str]) -> Mapping[str, int]:
            request = booking_v1.GetAvailabilityRequest(show_ids=show_ids)
            answer = await stub.GetAvailability(request, timeout=timeout_seconds)
            return {show.show_id: show.available_seats for show in answer.shows}

        yield ask
