"""Removing what is over, a little at a time: sessions, counted attempts, answers kept for repeats."""

from __future__ import annotations

import asyncio

import structlog

from services.user.store import UserStore

log = structlog.get_logger()

EVERY_SECONDS = 600.0
ROWS_AT_ONCE = 2_000


async def sweep_forever(store: UserStore) -> None:
    """Sweep until cancelled. Several processes may; what one removed the others do not find."""
    while True:
        try:
            while removed := await _sweep(store):
                log.info("swept", rows=removed)
        except Exception as error:  # the next round tries again; nobody waits for it
            log.warning("sweep_failed", error=type(error).__name__)
        await asyncio.sleep(EVERY_SECONDS)


async def _sweep(store: UserStore) -> int:
    async with store.transaction() as tx:
        return await tx.sweep(ROWS_AT_ONCE)
