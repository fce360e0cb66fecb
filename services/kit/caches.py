"""Read caches: in the process for seconds, in Valkey for minutes to a day, invalidated by whoever writes.

    value = await caches.get(MOVIE, movie_id, load)      # bytes of a protobuf message, or None: there is no such thing
    await caches.forget(MOVIE, [movie_id])               # by its writer, just before the commit and after it

A cache only ever makes reads cheaper. When Valkey is slow, down or flushed, values come from ``load``, and Valkey is
left alone for a second so that a dead one costs no read its timeout. Many readers of one key share one ``load``.

**Old values do not come back.** A reader may have loaded a row before it was changed and store it after it was
forgotten. So forgetting writes a tombstone which outlives any such reader, and readers store only where nothing is
(``SET NX``). What could not be forgotten because Valkey was away is forgotten as soon as it is back. Other processes'
own copies live for seconds only.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, RedisError

from services.kit.valkey import Nodes, open_nodes

log = structlog.get_logger()

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


@dataclass(frozen=True, slots=True)
class Cached:
    """One kind of thing that is cached.

    Args:
        name: the first part of its keys. Give it a new number when the bytes change their meaning.
        process_seconds: how long a process keeps it, which is how old another process's change may look.
        shared_seconds: how long Valkey keeps it; 0 means that it never gets there.
        process_entries: how many a process keeps; the least recently read go first.
    """

    name: str
    process_seconds: float
    shared_seconds: float
    process_entries: int


# What is cached, where and for how long. In the process | in Valkey | entries of a process.
MOVIE = Cached("movie.1", 5.0, DAY, 5_000)
EVENT = Cached("event.1", 5.0, DAY, 2_000)
VENUE = Cached("venue.1", 5.0, 6 * HOUR, 2_000)
SHOW = Cached("show.1", 5.0, HOUR, 10_000)  # without its free seats
LAYOUT = Cached("layout.1", HOUR, DAY, 200)  # immutable, and up to a megabyte
SHOW_PAGES = Cached("show-pages.1", 1.0, 0, 2_000)  # a hundred shows cost 10 ms to read and write out
TABLE: Sequence[Cached] = (MOVIE, EVENT, VENUE, SHOW, LAYOUT, SHOW_PAGES)

JITTER = 0.1
"""Lifetimes are shortened by up to this share, so that what was cached together does not end together."""
TOMBSTONE = b"\x00"
"""Stands where something was forgotten. No protobuf message begins with it (there is no field 0)."""
TOMBSTONE_SECONDS = 20
"""Longer than any call lasts, and so than any reader that loaded before the change."""
REST_SECONDS = 1.0
"""How long Valkey is left alone after it failed."""
SHARED_TIMEOUT_SECONDS = 0.15
FORGET_RETRY_SECONDS = 0.5
MOST_UNFORGOTTEN = 20_000

Load = Callable[[], Awaitable[bytes | None]]


class Shelf(Protocol):
    """Where processes share values. None of its methods raises: a shelf that fails is an empty one."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes, seconds: float) -> None:
        """Store ``value`` unless something is there."""

    async def bury(self, keys: Sequence[str]) -> bool:
        """Put tombstones; False when it could not be done."""


class NoShelf:
    """For a process without Valkey."""

    async def get(self, key: str) -> bytes | None:
        return None

    async def put(self, key: str, value: bytes, seconds: float) -> None:
        return None

    async def bury(self, keys: Sequence[str]) -> bool:
        return True


def shelf_key(key: str) -> str:
    """What ``key`` is called in Valkey."""
    return f"cache:{key}"


class ValkeyShelf:
    """One Valkey, with short timeouts and a circuit breaker.

    Args:
        doubt: called when it fails, or says that a key is another node's.
    """

    def __init__(
        self, client: Redis, *, doubt: Callable[[], None] = lambda: None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._doubt = doubt
        self._now = now
        self._resting_until = 0.0

    async def get(self, key: str) -> bytes | None:
        with self._watching() as usable:
            if usable:
                async with asyncio.timeout(SHARED_TIMEOUT_SECONDS):
                    value = await self._client.get(shelf_key(key))
                return value if isinstance(value, bytes) else None
        return None

    async def put(self, key: str, value: bytes, seconds: float) -> None:
        with self._watching() as usable:
            if usable:
                async with asyncio.timeout(SHARED_TIMEOUT_SECONDS):
                    await self._client.set(shelf_key(key), value, px=max(1, int(seconds * 1000)), nx=True)

    async def bury(self, keys: Sequence[str]) -> bool:
        with self._watching() as usable:
            if usable:
                async with asyncio.timeout(SHARED_TIMEOUT_SECONDS * 4):
                    for start in range(0, len(keys), 500):
                        pipeline = self._client.pipeline(transaction=False)
                        for key in keys[start : start + 500]:
                            pipeline.set(shelf_key(key), TOMBSTONE, ex=TOMBSTONE_SECONDS)
                        await pipeline.execute()
                return True
        return False

    @contextlib.contextmanager
    def _watching(self) -> Iterator[bool]:
        """Says whether to try; a failure inside ends the block quietly and opens the circuit."""
        try:
            yield self._now() >= self._resting_until
        except AskError:  # or MovedError, a kind of it: another node has the key, and this one is well
            self._doubt()
        except (RedisError, OSError, TimeoutError) as error:
            self._doubt()
            if self._now() >= self._resting_until:
                log.warning("cache_unavailable", error=type(error).__name__, rest_seconds=REST_SECONDS)
            self._resting_until = self._now() + REST_SECONDS

    async def close(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            await self._client.aclose()
            await self._client.connection_pool.disconnect()


class Shelves:
    """The Valkeys of a cluster, each with the keys that are its own. One that is down takes no other with it."""

    def __init__(self, nodes: Nodes[ValkeyShelf]) -> None:
        self._nodes = nodes

    async def get(self, key: str) -> bytes | None:
        shelf = self._nodes.of(shelf_key(key))
        return None if shelf is None else await shelf.get(key)

    async def put(self, key: str, value: bytes, seconds: float) -> None:
        shelf = self._nodes.of(shelf_key(key))
        if shelf is not None:
            await shelf.put(key, value, seconds)

    async def bury(self, keys: Sequence[str]) -> bool:
        by_shelf: dict[ValkeyShelf | None, list[str]] = {}
        for key in keys:
            by_shelf.setdefault(self._nodes.of(shelf_key(key)), []).append(key)
        known = [shelf.bury(own) for shelf, own in by_shelf.items() if shelf is not None]
        return all(await asyncio.gather(*known)) and None not in by_shelf


class Caches:
    """A process's copies in front of a shelf."""

    def __init__(
        self,
        shelf: Shelf,
        *,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._shelf = shelf
        self._now = now
        self._chance = chance
        self._copies: dict[str, OrderedDict[str, tuple[bytes, float]]] = {}
        self._flights: dict[str, asyncio.Task[bytes | None]] = {}
        self._unforgotten: dict[str, None] = {}
        self._repair: asyncio.Task[None] | None = None

    async def get(self, kind: Cached, key: str, load: Load) -> bytes | None:
        """The value of ``key``, from the nearest place that has it.

        Raises:
            Whatever ``load`` raises, for everyone who waited for it.
        """
        copies = self._copies.setdefault(kind.name, OrderedDict())
        copy = copies.get(key)
        if copy is not None and copy[1] > self._now():
            copies.move_to_end(key)
            return copy[0]
        full = f"{kind.name}:{key}"
        flight = self._flights.get(full)
        if flight is None:
            flight = asyncio.create_task(self._fetch(kind, key, full, load))
            self._flights[full] = flight
            flight.add_done_callback(lambda done: self._land(full, done))
        # A reader that goes away leaves the flight to the others.
        return await asyncio.shield(flight)

    async def forget(self, kind: Cached, keys: Iterable[str]) -> None:
        """Drop what is known of ``keys``. Never raises.

        A writer calls it twice: just before the commit, so that dying at once after it leaves nothing old behind, and
        after it, for who read in between.
        """
        keys = list(keys)
        full = [f"{kind.name}:{key}" for key in keys]
        copies = self._copies.get(kind.name, OrderedDict())
        for key, name in zip(keys, full, strict=True):
            copies.pop(key, None)
            self._flights.pop(name, None)  # what it brings may be old: its readers get it, nobody keeps it
        if kind.shared_seconds and full and not await self._shelf.bury(full):
            self._owe(full)

    def forget_all(self, kind: Cached) -> None:
        """Drop everything of ``kind`` in this process; for kinds that Valkey does not keep."""
        self._copies.pop(kind.name, None)
        for name in [name for name in self._flights if name.startswith(f"{kind.name}:")]:
            del self._flights[name]

    async def _fetch(self, kind: Cached, key: str, full: str, load: Load) -> bytes | None:
        me = asyncio.current_task()
        shared = kind.shared_seconds > 0 and full not in self._unforgotten
        buried = False
        if shared:
            value = await self._shelf.get(full)
            buried = value == TOMBSTONE
            if value is not None and not buried:
                self._keep(kind, key, full, value, me)
                return value
        value = await load()
        if value is not None:
            self._keep(kind, key, full, value, me)
            if shared and not buried and self._flights.get(full) is me:
                await self._shelf.put(full, value, self._shortened(kind.shared_seconds))
        return value

    def _keep(self, kind: Cached, key: str, full: str, value: bytes, me: asyncio.Task[object] | None) -> None:
        if self._flights.get(full) is not me:
            return  # forgotten meanwhile
        copies = self._copies.setdefault(kind.name, OrderedDict())
        copies[key] = (value, self._now() + self._shortened(kind.process_seconds))
        copies.move_to_end(key)
        while len(copies) > kind.process_entries:
            copies.popitem(last=False)

    def _shortened(self, seconds: float) -> float:
        return seconds * (1 - JITTER * self._chance())

    def _land(self, full: str, done: asyncio.Task[bytes | None]) -> None:
        if self._flights.get(full) is done:
            del self._flights[full]
        if not done.cancelled():
            done.exception()  # seen, also when every reader has gone

    def _owe(self, full: Sequence[str]) -> None:
        """Remember what to forget when the shelf is back; until then these are read past it."""
        self._unforgotten.update(dict.fromkeys(full))
        while len(self._unforgotten) > MOST_UNFORGOTTEN:
            self._unforgotten.pop(next(iter(self._unforgotten)))
        if self._repair is None or self._repair.done():
            self._repair = asyncio.create_task(self._forget_owed())

    async def _forget_owed(self) -> None:
        while self._unforgotten:
            await asyncio.sleep(FORGET_RETRY_SECONDS)
            owed = list(self._unforgotten)
            if await self._shelf.bury(owed):
                for key in owed:
                    self._unforgotten.pop(key, None)

    async def close(self) -> None:
        """Stop what runs in the background."""
        if self._repair is not None:
            self._repair.cancel()
            await asyncio.gather(self._repair, return_exceptions=True)


@asynccontextmanager
async def open_caches(url: str, *, connections: int = 16) -> AsyncIterator[Caches]:
    """Caches over the Valkey at ``url``, or its nodes, which need not be there; without a URL in the process only."""
    if not url:
        yield Caches(NoShelf())
        return

    def open_shelf(node_url: str) -> ValkeyShelf:
        pool = BlockingConnectionPool.from_url(
            node_url,
            max_connections=connections,
            timeout=SHARED_TIMEOUT_SECONDS,
            socket_timeout=SHARED_TIMEOUT_SECONDS * 2,
            socket_connect_timeout=SHARED_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        return ValkeyShelf(Redis(connection_pool=pool), doubt=lambda: nodes.doubt())

    async with open_nodes(url, open_shelf) as nodes:
        caches = Caches(Shelves(nodes))
        try:
            yield caches
        finally:
            await caches.close()
            for shelf in nodes.all():
                await shelf.close()
