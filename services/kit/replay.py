"""Sending events again: ``python -m services.kit.replay --help``.

Events keep their ids, so a consumer that took them skips them, unless its inbox is told to forget them (``--again``).
They come after newer events of their keys: what a consumer does anew, it must judge by the versions in the payloads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import psycopg
import redis.asyncio as redis
import typer
from psycopg.rows import class_row

from services.kit import inbox
from services.kit.bus import dead_topic
from services.kit.database import Connection
from services.kit.outbox_reader import COLUMNS, OutboxRow, first_id
from services.kit.valkey_bus import event_of, fields_of, open_client

PAGE = 500

WINDOW = f"""
    SELECT {COLUMNS}
    FROM outbox
    WHERE id >= %s
      AND created_at >= %s
      AND created_at < %s
      AND aggregatetype = %s
      AND (%s::text IS NULL OR aggregateid = %s)
    ORDER BY created_at, id
"""


@dataclass(frozen=True, slots=True)
class Window:
    """Which events: of a topic, written in a span of time (its end excluded), of one key or of all."""

    topic: str
    since: datetime
    until: datetime
    key: str | None = None

    def holds(self, key: str, at: datetime) -> bool:
        return self.since <= at < self.until and self.key in (None, key)


@dataclass(frozen=True, slots=True)
class Counts:
    """What a replay did."""

    sent: int = 0
    forgotten: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class Again:
    """A consumer that shall take the events anew, and its database."""

    consumer: str
    connection: Connection

    async def forget(self, event_ids: Sequence[UUID]) -> int:
        return await inbox.forget(self.connection, self.consumer, event_ids)


async def replay_window(database: Connection, bus: redis.Redis, window: Window, again: Again | None) -> Counts:
    """Add the outbox's events of ``window`` to the bus, oldest first."""
    sent = forgotten = 0
    async with (
        database.transaction(),
        database.cursor("window", row_factory=class_row(OutboxRow)) as cursor,
    ):
        values = (first_id(window.since), window.since, window.until, window.topic, window.key, window.key)
        await cursor.execute(WINDOW, values)
        while rows := await cursor.fetchmany(PAGE):
            if again is not None:  # before they are sent, or the consumer might skip them
                forgotten += await again.forget([row.id for row in rows])
            pipeline = bus.pipeline(transaction=False)
            for row in rows:
                pipeline.xadd(row.topic, _fields(row))
            await pipeline.execute()
            sent += len(rows)
    return Counts(sent, forgotten)


async def replay_dead(bus: redis.Redis, window: Window, again: Again) -> Counts:
    """Move the letters of ``window`` that ``again``'s consumer gave up on back to their topic, oldest first."""
    sent = forgotten = unreadable = 0
    after = "-"
    while entries := await _letters(bus, window.topic, after):
        after = f"({entries[-1][0].decode()}"
        for entry_id, fields in entries:
            if fields.get(b"consumer", b"").decode() != again.consumer:
                continue
            try:
                event = event_of(window.topic, fields)
            except (KeyError, ValueError, TypeError):
                unreadable += 1
                continue
            if not window.holds(event.key, event.created_at):
                continue
            forgotten += await again.forget([event.event_id])
            fields_again: dict[Any, Any] = {**fields_of(event)}
            async with bus.pipeline(transaction=True) as pipeline:
                pipeline.xadd(window.topic, fields_again)
                pipeline.xdel(dead_topic(window.topic), entry_id)
                await pipeline.execute()
            sent += 1
    return Counts(sent, forgotten, unreadable)


async def _letters(bus: redis.Redis, topic: str, after: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    entries: Any = await bus.xrange(dead_topic(topic), min=after, count=PAGE)
    return list(entries)


def _fields(row: OutboxRow) -> dict[Any, Any]:
    return {
        "id": str(row.id),
        "key": row.key,
        "type": row.type,
        "payload": row.payload,
        "headers": row.headers,
        "created_at": row.created_at.isoformat(),
    }


def instant(text: str) -> datetime:
    """A point in time as ISO 8601 writes it; UTC where it names no zone."""
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Connection]:
    connection: Connection = await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=5)
    async with connection:
        yield connection


async def _run(
    window: Window, *, dead: bool, bus_url: str, database_url: str, again: str, consumer_database_url: str
) -> Counts:
    async with open_client(bus_url) as bus:
        if not again:
            async with _connected(database_url) as database:
                return await replay_window(database, bus, window, None)
        async with _connected(consumer_database_url) as inbox_database:
            anew = Again(again, inbox_database)
            if dead:
                return await replay_dead(bus, window, anew)
            async with _connected(database_url) as database:
                return await replay_window(database, bus, window, anew)


app = typer.Typer(add_completion=False)
BEGINNING = "0001-01-01T00:00:00Z"
END = "9999-12-31T00:00:00Z"


@app.command()
def main(
    topic: Annotated[str, typer.Option(help="The events' topic, e.g. booking.confirmed.")],
    bus_url: Annotated[str, typer.Option(envvar="MARQUEE_BUS_URL", help="The bus (Valkey).", show_envvar=True)],
    since: Annotated[
        datetime | None,
        typer.Option("--from", parser=instant, metavar="TIME", help="Events written from then on (ISO 8601, UTC)."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option("--to", parser=instant, metavar="TIME", help="Events written before then (ISO 8601, UTC)."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Only events of this key, e.g. one booking's id.")] = None,
    database_url: Annotated[
        str,
        typer.Option(envvar="MARQUEE_DATABASE_URL", help="The database whose outbox has the events."),
    ] = "",
    again: Annotated[
        str,
        typer.Option(
            metavar="CONSUMER",
            help="Let this consumer take the events anew: they have their effect a second time. Others skip them.",
        ),
    ] = "",
    consumer_database_url: Annotated[
        str,
        typer.Option(
            envvar="MARQUEE_CONSUMER_DATABASE_URL",
            help="With --again: the consumer's own database, where its inbox is.",
        ),
    ] = "",
    dead: Annotated[
        bool,
        typer.Option("--dead", help="Move dead letters of --again's consumer back instead of reading an outbox."),
    ] = False,
) -> None:
    """Send events of an outbox to the bus again, or move dead letters back.

    Consumers skip what they have taken; --again names one that shall not.

    A window:      --topic booking.confirmed --from 2026-05-01T18:00Z --to 2026-05-01T19:00Z --database-url ...

    Dead letters:  --topic payment.completed --dead --again booking --consumer-database-url ...
    """
    if again and not consumer_database_url:
        raise typer.BadParameter("--again needs --consumer-database-url: where is its inbox?")
    if dead and not again:
        raise typer.BadParameter("--dead needs --again: whose dead letters?")
    if not dead and not database_url:
        raise typer.BadParameter("--database-url is missing: whose outbox?")
    if not dead and (since is None or until is None):
        raise typer.BadParameter("--from and --to are needed to read an outbox")
    window = Window(topic, since or instant(BEGINNING), until or instant(END), key)
    counts = asyncio.run(
        _run(
            window,
            dead=dead,
            bus_url=bus_url,
            database_url=database_url,
            again=again,
            consumer_database_url=consumer_database_url,
        )
    )
    typer.echo(f"sent: {counts.sent}")
    if again:
        typer.echo(f"taken before and forgotten by {again}: {counts.forgotten}")
    if counts.unreadable:
        typer.echo(f"left where they are, being no events: {counts.unreadable}")


if __name__ == "__main__":
    app()
