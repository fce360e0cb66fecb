"""The relay's side of the bus on Valkey Streams: adds events only while the bus remembers what it was given before.

Each database has a *marker* in the bus: a generation, whether it was filled, and how many events were added under it.
Adding is one script that first looks at the marker. A bus that lost its memory has none (or counts fewer, when it came
back with an older state): then nothing is added, and the relay fills it again from the outbox, oldest first.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta

import redis.asyncio as redis
import structlog

from services.kit.bus import DEAD_SUFFIX
from services.kit.outbox_reader import OutboxRow

log = structlog.get_logger()

MARKER_PREFIX = "relay:"
CHUNK_BYTES = 1024 * 1024
"""A script keeps Valkey from everything else, so it is not given more at once."""

ADD = """
local marker = redis.call('HMGET', KEYS[1], 'generation', 'added')
if marker[1] ~= ARGV[1] or tonumber(marker[2]) < tonumber(ARGV[2]) then
    return -1
end
for at = 3, #ARGV, 7 do
    redis.call('XADD', KEYS[tonumber(ARGV[at])], '*',
        'id', ARGV[at + 1], 'key', ARGV[at + 2], 'type', ARGV[at + 3],
        'payload', ARGV[at + 4], 'headers', ARGV[at + 5], 'created_at', ARGV[at + 6])
end
return redis.call('HINCRBY', KEYS[1], 'added', (#ARGV - 2) / 7)
"""
FILLED = """
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then
    return 0
end
redis.call('HSET', KEYS[1], 'filled', '1')
return 1
"""


class BusForgot(Exception):
    """The bus lost its memory, or some of it; it has to be filled again before anything new is added."""


class StreamWriter:
    """Adds one database's events to the bus.

    Args:
        database: names the database's marker; the same in every relay that may lead there.
    """

    def __init__(self, client: redis.Redis, database: str) -> None:
        self._client = client
        self._marker = MARKER_PREFIX + database
        self._add = client.register_script(ADD)
        self._filled = client.register_script(FILLED)
        self._generation = ""
        self._added = 0

    async def adopt(self) -> None:
        """Go on where a predecessor left off.

        Raises:
            BusForgot: nothing is there, or its filling was never finished.
        """
        generation, filled, added = await self._look()
        if filled != "1":
            raise BusForgot
        self._generation, self._added = generation, added

    async def check(self) -> None:
        """Raises ``BusForgot`` unless the bus remembers everything that was added."""
        generation, _, added = await self._look()
        if generation != self._generation or added < self._added:
            raise BusForgot

    async def begin_filling(self) -> None:
        """Start a new generation; what another relay still wants to add under the old one is refused."""
        self._generation, self._added = uuid.uuid4().hex, 0
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.delete(self._marker)
            pipeline.hset(self._marker, mapping={"generation": self._generation, "filled": "0", "added": 0})
            await pipeline.execute()

    async def end_filling(self) -> None:
        """Everything has been added again.

        Raises:
            BusForgot: the bus lost its memory meanwhile.
        """
        if not await self._filled(keys=[self._marker], args=[self._generation]):
            raise BusForgot

    async def add(self, rows: Sequence[OutboxRow]) -> None:
        """Add events in this order.

        Raises:
            BusForgot: the bus lost its memory; some of ``rows`` may have been added before it did.
        """
        for chunk in chunks(rows):
            topics = sorted({row.topic for row in chunk})
            place = {topic: number for number, topic in enumerate(topics, start=2)}
            arguments: list[str | bytes | int] = [self._generation, self._added]
            for row in chunk:
                arguments += (
                    place[row.topic],
                    str(row.id),
                    row.key,
                    row.type,
                    row.payload,
                    row.headers,
                    row.created_at.isoformat(),
                )
            added = int(await self._add(keys=[self._marker, *topics], args=arguments))
            if added < 0:
                raise BusForgot
            self._added = added

    async def trim(self, *, older_than: timedelta, longest: int) -> None:
        """Shorten every stream that is no dead-letter stream: by age, and to about ``longest`` entries.

        Ages are by the bus's own clock, which names the entries.
        """
        seconds, _ = await self._client.time()
        oldest = max(0, int((seconds - older_than.total_seconds()) * 1000))
        async for name in self._client.scan_iter(count=1000, _type="stream"):
            topic = bytes(name).decode()
            if topic.endswith(DEAD_SUFFIX):
                continue
            await self._client.xtrim(topic, minid=oldest, approximate=True)
            if await self._client.xlen(topic) <= longest:
                continue
            for group in await self._client.xinfo_groups(topic):
                if (group.get("lag") or 0) > longest:
                    log.error("consumer_lost_events", topic=topic, consumer=bytes(group["name"]).decode())
            await self._client.xtrim(topic, maxlen=longest, approximate=True)

    async def _look(self) -> tuple[str, str, int]:
        values = await self._client.hmget(self._marker, ["generation", "filled", "added"])
        generation, filled, added = (value.decode() if isinstance(value, bytes) else value or "" for value in values)
        return generation, filled, int(added or 0)


def chunks(rows: Sequence[OutboxRow]) -> Iterator[Sequence[OutboxRow]]:
    """``rows`` in parts of about ``CHUNK_BYTES``."""
    start = size = 0
    for index, row in enumerate(rows):
        if size and size + len(row.payload) > CHUNK_BYTES:
            yield rows[start:index]
            start, size = index, 0
        size += len(row.payload) + len(row.headers) + 200
    if start < len(rows):
        yield rows[start:]
