"""The transactional outbox: an event commits with the change that it tells of, or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from services.kit.call import current_call
from services.kit.database import Connection, session_of
from services.kit.partitions import CLOCK_DAYS, Partitioned

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection as AlchemyConnection

RELAY_ASLEEP = 7_205_302
"""Advisory lock of a relay that sleeps, so that writers know whether to wake it; any number that nobody else uses."""

OUTBOX = Partitioned("outbox", "id", CLOCK_DAYS, days=1)
OUTBOX_SENT = Partitioned("outbox_sent", "id", CLOCK_DAYS, days=1)
OUTBOX_TABLES = (OUTBOX, OUTBOX_SENT)
OUTBOX_AHEAD = timedelta(days=3)
"""For so long nobody needs to make partitions; then rows lie in the default until somebody does."""

INSERT = """
    INSERT INTO outbox (aggregatetype, aggregateid, type, payload, headers)
    SELECT *
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::bytea[], %s::jsonb[])
"""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Args:
        topic: ``booking.confirmed``; the bus's stream or Kafka's topic.
        key: order holds within a topic and key.
        payload: a message of the contracts.
    """

    topic: str
    key: str
    payload: Message
    headers: dict[str, str] = field(default_factory=dict)

    def row(self) -> tuple[str, str, str, bytes, str]:
        headers = dict(self.headers)
        call = current_call()
        if call is not None:
            headers.setdefault("request_id", call.request_id)
        return (
            self.topic,
            self.key,
            self.payload.DESCRIPTOR.full_name,
            self.payload.SerializeToString(),
            json.dumps(headers),
        )


async def append(connection: Connection | AlchemyConnection, events: Sequence[Event]) -> None:
    """Add events; the caller's transaction commits them with its change."""
    if events:
        await (await session_of(connection)).execute(
            INSERT, [list(column) for column in zip(*(event.row() for event in events), strict=True)]
        )
