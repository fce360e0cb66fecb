"""A consumer of every topic, in a process of its own, that writes down each event it takes: the effect, in order.

``DATABASE_URL=... BUS_URL=... python -m tests.prove.witness``
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

import uvloop

from services.kit.bus import ReceivedEvent
from services.kit.consumers import AfterCommit, Consumer
from services.kit.database import Connection
from services.kit.logs import configure_logs

TOPICS = (
    "booking.created", "booking.confirmed", "booking.cancelled", "booking.expired", "catalog.changed",
    "payment.completed", "payment.failed", "payment.refund_requested", "payment.refunded", "seat.availability",
)  # fmt: skip
TABLE = """
    CREATE TABLE effects (
        number bigint GENERATED ALWAYS AS IDENTITY, event_id uuid NOT NULL, topic text NOT NULL, key text NOT NULL
    )
"""


async def note(connection: Connection, events: Sequence[ReceivedEvent]) -> AfterCommit | None:
    """The effect of events: a row each."""
    async with connection.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO effects (event_id, topic, key) VALUES (%s, %s, %s)",
            [(event.event_id, event.topic, event.key) for event in events],
        )
    return None


def main() -> None:
    configure_logs("witness")
    consumer = Consumer.on_valkey(
        "witness",
        dict.fromkeys(TOPICS, note),
        database_url=os.environ["DATABASE_URL"],
        bus_url=os.environ["BUS_URL"],
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(consumer.run())


if __name__ == "__main__":
    main()
