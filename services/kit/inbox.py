"""The inbox: which events a consumer has taken, recorded in the transaction of their effect.

The primary key ``(consumer, event_id)`` is what makes an event's effect happen once, however often it is delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from services.kit.bus import ReceivedEvent
from services.kit.database import Connection

TAKE = """
    INSERT INTO inbox (consumer, event_id)
    SELECT %s, unnest(%s::uuid[])
    ON CONFLICT DO NOTHING
    RETURNING event_id
"""
GIVE_UP = """
    INSERT INTO inbox (consumer, event_id, failure)
    VALUES (%s, %s, %s)
    ON CONFLICT DO NOTHING
"""
FORGET = """
    DELETE FROM inbox
    WHERE consumer = %s
      AND event_id = ANY (%s::uuid[])
"""


async def take(connection: Connection, consumer: str, events: Sequence[ReceivedEvent]) -> list[ReceivedEvent]:
    """Record ``events`` and give those that ``consumer`` had not taken before, each once, in their order.

    The caller's transaction commits it with the effect. Where another transaction is about to take one of them, this
    waits for its end.
    """
    cursor = await connection.execute(TAKE, (consumer, list({event.event_id for event in events})))
    new = {row[0] for row in await cursor.fetchall()}
    taken: list[ReceivedEvent] = []
    for event in events:
        if event.event_id in new:
            new.discard(event.event_id)
            taken.append(event)
    return taken


async def give_up(connection: Connection, consumer: str, event_id: UUID, failure: str) -> None:
    """Record an event that had no effect because it cannot have one, so that it is not tried for ever."""
    await connection.execute(GIVE_UP, (consumer, event_id, failure.replace("\x00", "")))


async def forget(connection: Connection, consumer: str, event_ids: Sequence[UUID]) -> int:
    """Let ``consumer`` take these events anew when they are delivered again; tells how many it had taken."""
    cursor = await connection.execute(FORGET, (consumer, list(event_ids)))
    return cursor.rowcount
