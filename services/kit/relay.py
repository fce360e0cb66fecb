"""The relay: carries every outbox's rows to the bus. ``python -m services.kit.relay``, one process for all databases.

It is what Debezium does in production. Each row arrives at least once, in order within its topic and key
(``kit/outbox_reader.py`` says why), also after the relay, PostgreSQL or the bus died at any point:

- added but not marked as sent: added again; the consumers' inbox skips it;
- marked as sent, but the bus lost its memory: the marker is gone, and everything of the last day is added again;
- two relays: the second stands by. One that was frozen while the other took over repeats what it had in hand; what it
  repeats is in order, and everything before it was sent, so the first time of each event is in order too.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
import typer
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.kit import command
from services.kit.leadership import lead
from services.kit.logs import configure_logs
from services.kit.outbox_reader import OutboxReader, OutboxRow
from services.kit.stream_writer import BusForgot, StreamWriter
from services.kit.valkey_bus import open_client

log = structlog.get_logger()

SWEEP = timedelta(days=1)
"""How far back a sweep looks. A new leader looks at everything."""
DROP_AT_ONCE = 1000
"""Rows a statement deletes; more would keep the session from sending."""


class RelaySettings(BaseSettings):
    """The relay's settings, read from the environment (``MARQUEE_...``)."""

    model_config = SettingsConfigDict(env_prefix="MARQUEE_", extra="ignore", frozen=True)

    relay_database_urls: SecretStr = Field(
        description="PostgreSQL URLs of the databases with an outbox, comma-separated"
    )
    bus_url: SecretStr
    log_format: str = Field(default="json", pattern="^(json|console)$")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    relay_refill_hours: float = Field(default=24, gt=0, description="how far back a bus without memory is filled again")
    relay_keep_days: float = Field(default=7, gt=0, description="outbox and inbox rows are dropped after so long")
    relay_stream_hours: float = Field(default=24, gt=0, description="entries of the bus are dropped after so long")
    relay_stream_length: int = Field(default=200_000, gt=0, description="entries of one topic, about")

    def database_urls(self) -> list[str]:
        return [url.strip() for url in self.relay_database_urls.get_secret_value().split(",") if url.strip()]


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the relay does what.

    Args:
        page: rows in one look.
        gather_seconds: between looks while events keep coming; a look costs more than the events that it finds.
        poll_seconds: between looks when nobody wakes us; also how often the bus's memory is checked.
        nap_seconds: between looks while a writer is in its transaction that could not know that we sleep.
        sweep_seconds: between looks at the last day of the outbox, for what a stepping clock hid.
        tidy_seconds: between deletions of what is old, and looks at the partitions.
        longest_pause_seconds: between tries while PostgreSQL or the bus is away.
    """

    page: int = 500
    gather_seconds: float = 0.1
    poll_seconds: float = 1.0
    nap_seconds: float = 0.02
    sweep_seconds: float = 900.0
    tidy_seconds: float = 60.0
    longest_pause_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept. ``keep`` must be longer than ``refill``: an inbox must know what is sent again."""

    refill: timedelta = timedelta(hours=24)
    keep: timedelta = timedelta(days=7)
    stream_age: timedelta = timedelta(hours=24)
    stream_length: int = 200_000

    def __post_init__(self) -> None:
        if self.keep <= max(self.refill, self.stream_age):
            raise ValueError("rows must be kept longer than the refill window and than the bus keeps its entries")


class Relay:
    """Carries one database's outbox to the bus."""

    def __init__(
        self, database_url: str, bus_url: str, *, pace: Pace | None = None, retention: Retention | None = None
    ) -> None:
        self._database_url = database_url
        self._bus_url = bus_url
        self._pace = pace or Pace()
        self._retention = retention or Retention()
        self._floor: datetime | None = None
        self._next_sweep = self._next_tidy = self._next_check = 0.0

    async def run(self) -> None:
        """Until cancelled; waits out whatever fails."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._lead()
            except Exception as error:
                failures = 1 if time.monotonic() - began > 10 else failures + 1
                log.warning("relay_interrupted", error=f"{type(error).__name__}: {error}", failures=failures)
            await asyncio.sleep(min(self._pace.longest_pause_seconds, 0.1 * 2.0 ** min(failures, 10)))

    async def _lead(self) -> None:
        async with lead(self._database_url, "relay") as connection, open_client(self._bus_url) as client:
            outbox = OutboxReader(connection)
            await outbox.begin()
            database = f"{connection.info.host}:{connection.info.port}/{connection.info.dbname}"
            bus = StreamWriter(client, database)
            self._floor, self._next_sweep = None, time.monotonic() + self._pace.sweep_seconds  # all of it, once
            known = False
            while True:
                try:
                    if not known:
                        await bus.adopt()
                        known = True
                    await self._send_and_sleep(outbox, bus)
                except BusForgot:
                    log.warning("bus_forgot", database=database)
                    await outbox.wake_up()
                    known = await self._fill(outbox, bus)

    async def _send_and_sleep(self, outbox: OutboxReader, bus: StreamWriter) -> None:
        """Send what there is; when there is nothing, wait for more."""
        await self._tidy(outbox, bus)  # also when there is much to send: a full bus takes nothing until it is trimmed
        if sent := await self._send_page(outbox, bus):
            if sent < self._pace.page:
                await asyncio.sleep(self._pace.gather_seconds)
            return
        if not await outbox.fall_asleep():
            await asyncio.sleep(self._pace.nap_seconds)
            return
        if not await self._send_page(outbox, bus):  # whoever inserts from here on will notify
            await outbox.wait(self._pace.poll_seconds)
        await outbox.wake_up()

    async def _send_page(self, outbox: OutboxReader, bus: StreamWriter) -> int:
        """Send the oldest unsent rows; how many there were. Now and then asks the bus whether it still knows."""
        now = time.monotonic()
        if now >= self._next_check:
            await bus.check()
            self._next_check = now + self._pace.poll_seconds
        if now >= self._next_sweep:
            if self._floor is not None:
                self._floor -= SWEEP
            self._next_sweep = now + self._pace.sweep_seconds
        floor = await outbox.floor()
        rows = await outbox.unsent(since=self._floor, at_most=self._pace.page)
        await self._send(rows, outbox, bus)
        # All that is visible and older than the last row of a full page has been sent.
        self._floor = min(floor, rows[-1].created_at) if len(rows) == self._pace.page else floor
        return len(rows)

    async def _fill(self, outbox: OutboxReader, bus: StreamWriter) -> bool:
        """Give a bus without memory everything of the last hours again; whether it still knows it at the end."""
        await bus.begin_filling()
        since = await outbox.now() - self._retention.refill
        count = 0
        try:
            while rows := await outbox.unsent(before=since, at_most=self._pace.page):
                await self._send(rows, outbox, bus)
                count += len(rows)
            async with contextlib.aclosing(outbox.all_since(since, page=self._pace.page)) as pages:
                async for page in pages:
                    await self._send(page, outbox, bus)
                    count += len(page)
            await bus.end_filling()
        except BusForgot:
            return False
        self._floor = None
        log.warning("bus_filled", events=count)
        return True

    async def _send(self, rows: Sequence[OutboxRow], outbox: OutboxReader, bus: StreamWriter) -> None:
        if rows:
            await bus.add(rows)
            await outbox.mark(rows)

    async def _tidy(self, outbox: OutboxReader, bus: StreamWriter) -> None:
        """Drop what is old, inbox rows a little at a time; have the outbox's next partitions."""
        if time.monotonic() < self._next_tidy:
            return
        dropped = await outbox.drop_old(self._retention.keep, at_most=DROP_AT_ONCE)
        if dropped < DROP_AT_ONCE:
            if unsent := await outbox.tend_partitions(self._retention.keep):
                log.warning("old_events_unsent", partitions=unsent)
                self._floor = None  # look at everything again
            await bus.trim(older_than=self._retention.stream_age, longest=self._retention.stream_length)
            self._next_tidy = time.monotonic() + self._pace.tidy_seconds


async def run(settings: RelaySettings) -> None:
    """A relay for each database, until SIGTERM or SIGINT."""
    retention = Retention(
        refill=timedelta(hours=settings.relay_refill_hours),
        keep=timedelta(days=settings.relay_keep_days),
        stream_age=timedelta(hours=settings.relay_stream_hours),
        stream_length=settings.relay_stream_length,
    )
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    bus_url = settings.bus_url.get_secret_value()
    tasks = [asyncio.create_task(Relay(url, bus_url, retention=retention).run()) for url in settings.database_urls()]
    log.info("relaying", databases=len(tasks))
    await asked.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    log.info("stopped")


app = typer.Typer(add_completion=False)


@app.command(help="Carry the outboxes of MARQUEE_RELAY_DATABASE_URLS to MARQUEE_BUS_URL until told to stop.")
def main() -> None:
    settings = RelaySettings()
    configure_logs("relay", style=settings.log_format, level=settings.log_level)
    command.run(run(settings))


if __name__ == "__main__":
    app()
