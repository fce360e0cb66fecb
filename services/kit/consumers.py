"""Taking events from the bus, each with one effect, in order within its topic and key.

    async def confirm(connection: Connection, events: Sequence[ReceivedEvent]) -> AfterCommit | None:
        for event in events:
            completed = event.read(payment_v1.PaymentCompleted)
            ...                       # SQL on ``connection``; the consumer commits it, together with the inbox
        async def publish() -> None:  # optional: after the commit, never when it was rolled back
            await live.publish(...)
        return publish

    consumer = Consumer.on_valkey(
        name="booking",
        handlers={"payment.completed": confirm, "catalog.changed": copy_show},
        database_url=settings.database_url.get_secret_value(),
        bus_url=settings.bus_url.get_secret_value(),
    )
    async with consumer.running():
        await server.serve_until_signal()

A handler gets events that were not taken before, of one topic, in one transaction: up to a batch at once, fewer when
one of them fails. It must not commit, and must bear being called again after it raised.

What a handler raises decides: a failure that passes by itself (``kit/transient.py``; a handler may raise ``TryLater``)
is waited out, however long; any other is tried a few times, and then the event goes to ``<topic>.dead``, and the next
ones go on. Later events of its key must make sense without it: versions in the payloads tell.

One process of all that run a consumer is active (``kit/leadership.py``); another takes over when it dies, and begins
with what was delivered and not acknowledged. Some of that may have been committed: the inbox knows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog

from services.kit import inbox
from services.kit.bus import Bus, DeadLetter, ReceivedEvent
from services.kit.database import Connection
from services.kit.leadership import lead
from services.kit.transient import is_transient
from services.kit.valkey_bus import ValkeyBus

log = structlog.get_logger()

AfterCommit = Callable[[], Awaitable[None]]
"""Something to do once the effect is durable. May be lost in a crash, so it must be a convenience (a push)."""


class Handler(Protocol):
    """Does what events of one topic ask for, on a connection that is in a transaction."""

    async def __call__(self, connection: Connection, events: Sequence[ReceivedEvent]) -> AfterCommit | None: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a consumer goes on with something that fails.

    Args:
        attempts: how often an event is tried before it is dead.
        first_pause_seconds: after the first failure; doubles with each.
        longest_pause_seconds: also between tries while a database or the bus is away.
        wait_seconds: how long one look at the bus waits for something new.
    """

    attempts: int = 5
    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 2.0
    wait_seconds: float = 1.0

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return min(self.longest_pause_seconds, self.first_pause_seconds * 2.0 ** min(failures - 1, 20))


class Consumer:
    """Runs ``handlers`` for the topics they are named by.

    Args:
        name: the consumer in the inbox and on the bus; never change it, or every event comes again.
        open_bus: a place on the bus, made anew after each failure.
        database_url: the service's own database; one session of it is held while running.
    """

    def __init__(
        self,
        name: str,
        handlers: Mapping[str, Handler],
        *,
        database_url: str,
        open_bus: Callable[[], Bus],
        patience: Patience | None = None,
    ) -> None:
        self.name = name
        self._handlers = dict(handlers)
        self._database_url = database_url
        self._open_bus = open_bus
        self._patience = patience or Patience()
        self._stopping = asyncio.Event()

    @classmethod
    def on_valkey(
        cls,
        name: str,
        handlers: Mapping[str, Handler],
        *,
        database_url: str,
        bus_url: str,
        patience: Patience | None = None,
        batch: int = 500,
    ) -> Consumer:
        """A consumer on Valkey Streams; ``batch`` events at most have one transaction."""
        return cls(
            name,
            handlers,
            database_url=database_url,
            open_bus=lambda: ValkeyBus(bus_url, name, list(handlers), batch=batch),
            patience=patience,
        )

    @asynccontextmanager
    async def running(self, *, stop_seconds: float = 5.0) -> AsyncIterator[None]:
        """Run beside the block; at its end finish the batch in hand, for ``stop_seconds`` at most."""
        task = asyncio.create_task(self.run(), name=f"consumer {self.name}")
        try:
            yield
        finally:
            self.stop()
            await asyncio.wait([task], timeout=stop_seconds)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def stop(self) -> None:
        """Let ``run`` return after the batch in hand."""
        self._stopping.set()

    async def run(self) -> None:
        """Take events until stopped or cancelled; waits out whatever fails."""
        failures = 0
        while not self._stopping.is_set():
            bus = self._open_bus()
            try:
                async with lead(self._database_url, f"consumer/{self.name}") as connection:
                    while not self._stopping.is_set():
                        await self._round(connection, bus)
                        failures = 0
            except Exception as error:
                failures += 1
                self._tell("consumer_interrupted", error, failures=failures)
            finally:
                with contextlib.suppress(Exception):
                    await bus.close()
            if not self._stopping.is_set():
                await self._rest(failures)

    async def _round(self, connection: Connection, bus: Bus) -> None:
        batches = await bus.receive(self._patience.wait_seconds)
        if not batches:
            await connection.execute("SELECT 1")  # keeps the lead, and learns when it is lost
        for batch in batches:
            if self._stopping.is_set():
                return
            await self._handle(connection, bus, [delivery.event for delivery in batch.deliveries])
            await bus.acknowledge(batch)

    async def _handle(self, connection: Connection, bus: Bus, events: Sequence[ReceivedEvent]) -> None:
        """Give ``events`` their effect. Halves what fails until the one that fails stands alone; order stays.

        Raises:
            Exception: the session is lost, or the bus is away; nothing of the rest was taken.
        """
        failures = attempts = 0
        while True:
            try:
                await self._commit(connection, events)
                return
            except Exception as error:
                if connection.closed:
                    raise
                if len(events) > 1:
                    half = len(events) // 2
                    await self._handle(connection, bus, events[:half])
                    await self._handle(connection, bus, events[half:])
                    return
                failures += 1
                attempts += not is_transient(error)
                event = events[0]
                self._tell(
                    "event_failed",
                    error,
                    topic=event.topic,
                    key=event.key,
                    event_id=str(event.event_id),
                    attempts=attempts,
                )
                if attempts >= self._patience.attempts:
                    await self._bury(connection, bus, event, error, attempts)
                    return
                await self._rest(failures)
                if self._stopping.is_set():
                    raise

    async def _commit(self, connection: Connection, events: Sequence[ReceivedEvent]) -> None:
        after: AfterCommit | None = None
        async with connection.transaction():
            new = await inbox.take(connection, self.name, events)
            if new:
                after = await self._handlers[new[0].topic](connection, new)
        if after is not None:
            try:
                await after()
            except Exception as error:  # the effect is durable; repeating it is not possible any more
                self._tell("after_commit_failed", error, topic=events[0].topic)

    async def _bury(
        self, connection: Connection, bus: Bus, event: ReceivedEvent, error: Exception, attempts: int
    ) -> None:
        """Put ``event`` aside. The bus first: a letter twice is better than none."""
        text = f"{type(error).__name__}: {error}"
        await bus.bury(DeadLetter(event, self.name, text, attempts))
        await inbox.give_up(connection, self.name, event.event_id, text)
        log.error("event_dead", consumer=self.name, topic=event.topic, key=event.key, event_id=str(event.event_id))

    async def _rest(self, failures: int) -> None:
        """Wait as long as so many failures ask for, or until told to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), self._patience.pause(max(failures, 1)))

    def _tell(self, what: str, error: Exception, **facts: object) -> None:
        log.warning(what, consumer=self.name, error=f"{type(error).__name__}: {error}", **facts)
