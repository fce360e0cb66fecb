"""What booking's processes tell each other after a commit, over Valkey's sharded pub/sub.

Everything here may be lost at any time: whoever listens also polls PostgreSQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress

import redis.asyncio as redis
import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

log = structlog.get_logger()

Receiver = Callable[[str, bytes], None]
KEEPER_CHANNEL = "marquee:booking"
"""Always subscribed, because a connection without any channel cannot listen."""
LONGEST_QUEUE = 5_000
GATHER_SECONDS = 0.02
"""What is told within it shares a round trip; viewers get changes every 100 ms anyway."""
RETRY_SECONDS = 0.5


class Notices:
    """Pub/sub on the cache's Valkey. Use ``open_notices``.

    Publishing never waits and never fails: what cannot be sent is dropped.
    """

    def __init__(self, client: redis.Redis | None) -> None:
        self._client = client
        self._pubsub: PubSub | None = client.pubsub(ignore_subscribe_messages=True) if client else None
        self._receivers: dict[str, Receiver] = {}
        self._outgoing: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(LONGEST_QUEUE)

    def publish(self, notices: Iterable[tuple[str, bytes]]) -> None:
        """Send (channel, message) pairs soon."""
        if self._client is None:
            return
        for notice in notices:
            with suppress(asyncio.QueueFull):
                self._outgoing.put_nowait(notice)

    async def subscribe(self, channel: str, receiver: Receiver) -> None:
        """Have ``receiver`` called with every message on ``channel``. Answers once the subscription was asked for."""
        self._receivers[channel] = receiver
        if self._pubsub is not None:
            with suppress(RedisError, OSError):  # the listener subscribes again when the connection is back
                await self._pubsub.ssubscribe(channel)

    async def unsubscribe(self, channel: str) -> None:
        self._receivers.pop(channel, None)
        if self._pubsub is not None:
            with suppress(RedisError, OSError):
                await self._pubsub.sunsubscribe(channel)

    async def _send(self) -> None:
        assert self._client is not None
        while True:
            batch = [await self._outgoing.get()]
            await asyncio.sleep(GATHER_SECONDS)
            while not self._outgoing.empty() and len(batch) < 500:
                batch.append(self._outgoing.get_nowait())
            try:
                async with self._client.pipeline(transaction=False) as pipeline:
                    for channel, message in batch:
                        pipeline.execute_command("SPUBLISH", channel, message)
                    await pipeline.execute()
            except (RedisError, OSError) as error:
                log.debug("notices_dropped", count=len(batch), error=type(error).__name__)

    async def _listen(self) -> None:
        assert self._pubsub is not None
        while True:
            try:
                await self._pubsub.ssubscribe(KEEPER_CHANNEL, *self._receivers)
                while True:
                    message = await self._pubsub.get_message(timeout=5.0)
                    if message is not None and message["type"] == "smessage":
                        channel = message["channel"].decode()
                        receiver = self._receivers.get(channel)
                        if receiver is not None:
                            receiver(channel, message["data"])
            except (RedisError, OSError) as error:
                log.debug("notices_interrupted", error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        if self._client is None:
            yield
            return
        tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._listen())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def open_notices(cache_url: str) -> AsyncIterator[Notices]:
    """Notices over the Valkey at ``cache_url``; with an empty URL nothing is told, and polling alone has to do."""
    if not cache_url:
        yield Notices(None)
        return
    client = redis.Redis.from_url(
        cache_url, socket_connect_timeout=1, socket_timeout=None, health_check_interval=5, protocol=2
    )
    notices = Notices(client)
    async with notices.running():
        yield notices
    await client.aclose()
