"""What booking's processes tell each other after a commit, over Valkey's sharded pub/sub.

Everything here may be lost at any time: whoever listens also polls PostgreSQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

import redis.asyncio as redis
import structlog
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, RedisError

from services.kit.valkey import Nodes, open_nodes

log = structlog.get_logger()

Receiver = Callable[[str, bytes], None]
Notice = tuple[str, bytes]
LONGEST_QUEUE = 5_000
GATHER_SECONDS = 0.05
"""What is told within it shares a round trip. Viewers in another process get changes by so much later."""
SEND_SECONDS = 1.0
"""A Valkey that has not taken a batch by then does not get it."""
RETRY_SECONDS = 0.5
KEEPER_CHANNEL = "marquee:booking"
"""Always subscribed: without any channel, redis-py checks a connection's health at each subscription by reading from
it, and two who subscribe at once read at once."""
LOST = (RedisError, OSError, RuntimeError)
"""What a connection's end looks like; RuntimeError where somebody reads while it is set up anew."""


class Line:
    """What goes over one Valkey: notices that are sent, and the channels that are listened to.

    Args:
        url: of the server.
        receive: called with every message.
        doubt: called when a channel may have gone to another server.
    """

    def __init__(self, url: str, receive: Receiver, doubt: Callable[[], None]) -> None:
        self._client = redis.Redis.from_url(
            url,
            socket_connect_timeout=1,
            socket_timeout=None,
            health_check_interval=5,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
        )
        self._receive = receive
        self._doubt = doubt
        self._pubsub: PubSub | None = None
        self._wanted = asyncio.Event()
        self.channels: set[str] = set()

    async def listen_to(self, channel: str) -> None:
        """Answers once the subscription was asked for; the listener asks for it again when a connection was lost."""
        self.channels.add(channel)
        self._wanted.set()
        if self._pubsub is not None:
            with suppress(*LOST):
                await self._pubsub.ssubscribe(channel)

    async def leave(self, channel: str) -> None:
        self.channels.discard(channel)
        if self._pubsub is not None:
            with suppress(*LOST):
                await self._pubsub.sunsubscribe(channel)

    async def send(self, notices: Sequence[Notice]) -> list[Notice]:
        """Answers those that another server should have got."""
        try:
            async with asyncio.timeout(SEND_SECONDS), self._client.pipeline(transaction=False) as pipeline:
                for channel, message in notices:
                    pipeline.execute_command("SPUBLISH", channel, message)
                answers = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError, TimeoutError) as error:
            log.debug("notices_dropped", count=len(notices), error=type(error).__name__)
            self._doubt()
            return []
        return [notice for notice, answer in zip(notices, answers, strict=True) if isinstance(answer, AskError)]

    async def listen(self) -> None:
        """Hand on what comes, and begin again whenever something is wrong."""
        while True:
            await self._wanted.wait()
            pubsub = self._client.pubsub()
            try:
                await pubsub.connect()  # type: ignore[no-untyped-call]
                await pubsub.subscribe(KEEPER_CHANNEL)
                self._pubsub = pubsub
                # One by one: in a cluster, channels of several slots cannot be asked for at once.
                for channel in list(self.channels):
                    await pubsub.ssubscribe(channel)
                while True:
                    self._take(await pubsub.get_message(timeout=5.0))
            except LOST as error:
                log.debug("notices_interrupted", error=type(error).__name__)
            finally:
                self._pubsub = None
                await pubsub.aclose()  # type: ignore[no-untyped-call]
            self._doubt()
            await asyncio.sleep(RETRY_SECONDS)

    def _take(self, message: dict[str, bytes | str] | None) -> None:
        if message is None:
            return
        channel = message["channel"].decode() if isinstance(message["channel"], bytes) else ""
        if message["type"] == "smessage" and isinstance(message["data"], bytes):
            self._receive(channel, message["data"])
        elif message["type"] == "sunsubscribe" and channel in self.channels:
            self._doubt()  # nobody here asked for it: the channel's slot has moved

    async def close(self) -> None:
        await self._client.aclose()


class Notices:
    """Pub/sub on the cache's Valkey. Use ``open_notices``.

    Publishing never waits and never fails: what cannot be sent is dropped.
    """

    def __init__(self) -> None:
        self._lines: Nodes[Line] | None = None
        self._receivers: dict[str, Receiver] = {}
        self._outgoing: asyncio.Queue[Notice] = asyncio.Queue(LONGEST_QUEUE)
        self._listening: dict[Line, asyncio.Task[None]] = {}

    def publish(self, notices: Iterable[Notice]) -> None:
        """Send (channel, message) pairs soon."""
        if self._lines is None:
            return
        for notice in notices:
            with suppress(asyncio.QueueFull):
                self._outgoing.put_nowait(notice)

    async def subscribe(self, channel: str, receiver: Receiver) -> None:
        """Have ``receiver`` called with every message on ``channel``. Answers once the subscription was asked for."""
        self._receivers[channel] = receiver
        line = self._lines.of(channel) if self._lines is not None else None
        if line is not None:
            await line.listen_to(channel)

    async def unsubscribe(self, channel: str) -> None:
        self._receivers.pop(channel, None)
        for line in self._lines.all() if self._lines is not None else ():
            if channel in line.channels:
                await line.leave(channel)

    def _receive(self, channel: str, message: bytes) -> None:
        receiver = self._receivers.get(channel)
        if receiver is not None:
            receiver(channel, message)

    def _doubt(self) -> None:
        if self._lines is not None:
            self._lines.doubt()

    def _open_line(self, url: str) -> Line:
        line = Line(url, self._receive, self._doubt)
        self._listening[line] = asyncio.create_task(line.listen())
        return line

    async def _send(self, lines: Nodes[Line]) -> None:
        while True:
            batch = [await self._outgoing.get()]
            await asyncio.sleep(GATHER_SECONDS)
            while not self._outgoing.empty() and len(batch) < 500:
                batch.append(self._outgoing.get_nowait())
            astray = await self._deliver(batch, lines)
            if astray and await lines.look():
                await self._deliver(astray, lines)

    async def _deliver(self, batch: Sequence[Notice], lines: Nodes[Line]) -> list[Notice]:
        by_line: dict[Line, list[Notice]] = {}
        for notice in batch:
            if (line := lines.of(notice[0])) is not None:
                by_line.setdefault(line, []).append(notice)
        astray = await asyncio.gather(*(line.send(some) for line, some in by_line.items()))
        return [notice for some in astray for notice in some]

    async def _rearrange(self, lines: Nodes[Line]) -> None:
        """After each look at the cluster, listen where the channels are now."""
        while True:
            await lines.looked.wait()
            lines.looked.clear()
            for channel in list(self._receivers):
                owner = lines.of(channel)
                for line in lines.all():
                    if channel in line.channels and line is not owner:
                        await line.leave(channel)
                if owner is not None and channel in self._receivers:
                    await owner.listen_to(
                        channel
                    )  # again, also where we listen already: it may have gone and come back

    @asynccontextmanager
    async def over(self, url: str) -> AsyncIterator[None]:
        async with open_nodes(url, self._open_line) as lines:
            self._lines = lines
            tasks = [asyncio.create_task(self._send(lines)), asyncio.create_task(self._rearrange(lines))]
            try:
                yield
            finally:
                self._lines = None
                for task in (*tasks, *self._listening.values()):
                    task.cancel()
                await asyncio.gather(*tasks, *self._listening.values(), return_exceptions=True)
                for line in lines.all():
                    await line.close()


@asynccontextmanager
async def open_notices(cache_url: str) -> AsyncIterator[Notices]:
    """Notices over the Valkey at ``cache_url``; with an empty URL nothing is told, and polling alone has to do."""
    notices = Notices()
    if not cache_url:
        yield notices
        return
    async with notices.over(cache_url):
        yield notices
