"""Many who begin to listen at once, on a connection that was quiet for long."""

from __future__ import annotations

import asyncio

from services.booking.notices import open_notices


async def test_a_crowd_may_subscribe_at_once_after_a_long_silence(valkey_cache: str) -> None:
    async with open_notices(valkey_cache) as notices:
        await notices.subscribe("seats:{first}", lambda channel, message: None)
        await notices.unsubscribe("seats:{first}")
        await asyncio.sleep(5.5)  # longer than redis-py leaves a connection unchecked
        heard: set[str] = set()
        channels = {f"seats:{{{number}}}" for number in range(50)}
        await asyncio.gather(
            *(notices.subscribe(channel, lambda channel, message: heard.add(channel)) for channel in channels)
        )
        async with asyncio.timeout(10):
            while heard != channels:
                notices.publish((channel, b"") for channel in channels)
                await asyncio.sleep(0.05)
