"""Ending what is due: holds whose time is over, and bookings that were not paid in theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from services.booking.desk import Desk

log = structlog.get_logger()
MOST_SHOWS = 100


async def sweep(desk: Desk) -> int:
    """End everything that is due now; answers in how many shows."""
    shows = 0
    while True:
        expiries = await desk.holds.expire_due(MOST_SHOWS)
        desk.tell([expiry.change for expiry in expiries])
        desk.signals.changed(booking_id for expiry in expiries for booking_id in expiry.booking_ids)
        shows += len(expiries)
        if len(expiries) < MOST_SHOWS:
            return shows


@asynccontextmanager
async def sweeping(desk: Desk, every_seconds: float) -> AsyncIterator[None]:
    """Sweep beside the block. Every process does; the function is safe to run in several at once."""

    async def run() -> None:
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await sweep(desk)
            except Exception as error:
                log.warning("sweep_failed", error=f"{type(error).__name__}: {error}"[:200])

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
