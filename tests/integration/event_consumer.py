"""A consumer in a process of its own: notes every event in the table ``effects``."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

import uvloop

from services.kit.bus import ReceivedEvent
from services.kit.consumers import AfterCommit, Consumer
from services.kit.database import Connection
from services.kit.logs import configure_logs


async def note(connection: Connection, events: Sequence[ReceivedEvent]) -> AfterCommit | None:
    async with connection.cursor() as cursor:
        await cursor.execute(
            """
            INSERT INTO effects (event_id, key, value, pid)
            SELECT *, %s FROM unnest(%s::uuid[], %s::text[], %s::text[])
            """,
            (
                os.getpid(),
                [event.event_id for event in events],
                [event.key for event in events],
                [event.payload.decode() for event in events],
            ),
        )
    return None


async def main(name: str, topics: Sequence[str]) -> None:
    consumer = Consumer.on_valkey(
        name, dict.fromkeys(topics, note), database_url=os.environ["DATABASE_URL"], bus_url=os.environ["BUS_URL"]
    )
    await consumer.run()


if __name__ == "__main__":
    configure_logs("consumer")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], sys.argv[2].split(",")))
