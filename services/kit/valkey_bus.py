"""The bus on Valkey Streams: a topic is a stream, a consumer is a group with one reader.

The reader's name is the group's, in every process: only one process of a consumer is active (``kit/leadership.py``),
and so whoever takes over finds its predecessor's unacknowledged entries as its own, in order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import redis.asyncio as redis
import structlog
from redis.exceptions import ResponseError

from services.kit.bus import Batch, DeadLetter, Delivery, ReceivedEvent, dead_topic

log = structlog.get_logger()

DEAD_LETTERS_KEPT = 100_000
"""In each ``.dead`` stream, about. A consumer's inbox knows all of them."""

Entry = tuple[bytes, Mapping[bytes, bytes]]


def open_client(url: str, *, wait_seconds: float = 0.0) -> redis.Redis:
    """A client of the bus; an answer that takes more than 5 s (besides ``wait_seconds``) is an error."""
    return redis.Redis.from_url(
        url,
        protocol=2,  # one shape of answers, whatever the client's default becomes
        socket_timeout=wait_seconds + 5,
        socket_connect_timeout=5,
        socket_keepalive=True,
        health_check_interval=0,
    )


def fields_of(event: ReceivedEvent) -> dict[str, str | bytes]:
    """An event as the fields of a stream's entry."""
    return {
        "id": str(event.event_id),
        "key": event.key,
        "type": event.type,
        "payload": event.payload,
        "headers": json.dumps(dict(event.headers)),
        "created_at": event.created_at.isoformat(),
    }


def event_of(topic: str, fields: Mapping[bytes, bytes]) -> ReceivedEvent:
    """The event that an entry's fields tell of.

    Raises:
        KeyError, ValueError: they are not those of an event.
    """
    headers: Any = json.loads(fields[b"headers"])
    return ReceivedEvent(
        event_id=UUID(fields[b"id"].decode()),
        topic=topic,
        key=fields[b"key"].decode(),
        type=fields[b"type"].decode(),
        payload=bytes(fields[b"payload"]),
        headers={str(name): str(value) for name, value in dict(headers).items()},
        created_at=datetime.fromisoformat(fields[b"created_at"].decode()),
    )


class ValkeyBus:
    """A consumer's place on the bus; see ``kit/bus.py`` for what its methods promise.

    Args:
        group: the consumer's name.
        batch: entries of one topic in one look.
    """

    def __init__(self, url: str, group: str, topics: Sequence[str], *, batch: int = 500) -> None:
        self._client = open_client(url, wait_seconds=10)
        self._group = group
        self._topics = list(topics)
        self._batch = batch
        self._owed = True

    async def receive(self, wait_seconds: float) -> Sequence[Batch]:
        """See ``Bus``. Raises redis' errors while Valkey is away."""
        try:
            return await self._receive(wait_seconds)
        except ResponseError as error:
            # The stream or the group is gone: Valkey lost its memory. A group that begins at the beginning sees all
            # that the relay sends again, and the inbox skips what was taken before.
            if "NOGROUP" not in str(error) and "UNBLOCKED" not in str(error):
                raise
            await self._make_groups()
            self._owed = True
            return await self._receive(wait_seconds)

    async def acknowledge(self, batch: Batch) -> None:
        if batch.deliveries:
            await self._client.xack(batch.topic, self._group, *(delivery.position for delivery in batch.deliveries))

    async def bury(self, letter: DeadLetter) -> None:
        fields: dict[Any, Any] = {
            **fields_of(letter.event),
            "consumer": letter.consumer,
            "error": letter.error,
            "attempts": letter.attempts,
        }
        await self._client.xadd(dead_topic(letter.event.topic), fields, maxlen=DEAD_LETTERS_KEPT, approximate=True)

    async def close(self) -> None:
        await self._client.aclose()

    async def _receive(self, wait_seconds: float) -> Sequence[Batch]:
        if self._owed:
            batches = await self._read("0")
            if batches:
                return batches
            self._owed = False
        batches = await self._read(">", wait_seconds)
        # A predecessor that was frozen, not dead, may have read entries after we took over. Older than ours, they must
        # come first; so whenever there is more to acknowledge than we hold, begin with the oldest.
        if await self._count_pending() > sum(len(batch.deliveries) for batch in batches):
            self._owed = True
            return await self._read("0")
        return batches

    async def _read(self, start: str, wait_seconds: float | None = None) -> list[Batch]:
        answer: Any = await self._client.xreadgroup(
            self._group,
            self._group,
            dict.fromkeys(self._topics, start),
            count=self._batch,
            block=None if wait_seconds is None else max(1, int(wait_seconds * 1000)),
        )
        batches = [await self._batch_of(name.decode(), entries) for name, entries in answer or ()]
        return [batch for batch in batches if batch.deliveries]

    async def _batch_of(self, topic: str, entries: Sequence[Entry]) -> Batch:
        deliveries = []
        for entry_id, fields in entries:
            try:
                deliveries.append(Delivery(event_of(topic, fields), entry_id.decode()))
            except (KeyError, ValueError, TypeError) as error:
                await self._discard(topic, entry_id, fields, error)
        return Batch(topic, deliveries)

    async def _discard(self, topic: str, entry_id: bytes, fields: Mapping[bytes, bytes], error: Exception) -> None:
        """Put aside what is no event at all, or was trimmed away before it was taken (then it has no fields)."""
        log.error("not_an_event", topic=topic, entry=entry_id.decode(), consumer=self._group, trimmed=not fields)
        if fields:
            note: dict[Any, Any] = {
                **fields,
                "consumer": self._group,
                "error": f"not an event: {type(error).__name__}: {error}",
            }
            await self._client.xadd(dead_topic(topic), note, maxlen=DEAD_LETTERS_KEPT, approximate=True)
        await self._client.xack(topic, self._group, entry_id)

    async def _count_pending(self) -> int:
        pipeline = self._client.pipeline(transaction=False)
        for topic in self._topics:
            pipeline.xpending(topic, self._group)
        return sum(int(answer["pending"]) for answer in await pipeline.execute())

    async def _make_groups(self) -> None:
        for topic in self._topics:
            try:
                await self._client.xgroup_create(topic, self._group, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        log.info("groups_made", consumer=self._group, topics=self._topics)
