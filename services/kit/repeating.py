"""Work that a process does again and again beside its calls: sweeping, polling, announcing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog

log = structlog.get_logger()


@asynccontextmanager
async def repeating(name: str, work: Callable[[], Awaitable[object]], every_seconds: float) -> AsyncIterator[None]:
    """Do ``work`` every ``every_seconds`` while the block lasts. A failure is logged; the next try comes."""

    async def run() -> None:
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await work()
            except Exception as error:
                log.warning(f"{name}_failed", error=f"{type(error).__name__}: {error}"[:200])

    task = asyncio.create_task(run(), name=name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
