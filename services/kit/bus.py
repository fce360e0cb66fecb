"""The bus between services, as a consumer sees it: read, acknowledge, bury. Valkey Streams here, Kafka in production.

Every event comes at least once, and in order within a topic and key. What makes its effect happen once is the inbox
(``kit/inbox.py``), not the bus: a bus may lose its memory and be filled again.
"""

from __future__ import annotations

import builtins  # `type` is an attribute of an event
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

from google.protobuf.message import Message

DEAD_SUFFIX = ".dead"
Payload = TypeVar("Payload", bound=Message)


def dead_topic(topic: str) -> str:
    """Where events of ``topic`` go that a consumer gave up on."""
    return topic + DEAD_SUFFIX


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """A row of some service's outbox, as the bus delivered it.

    Args:
        event_id: the outbox row's id; the same however often it is delivered.
        topic: ``booking.confirmed``.
        key: order holds within a topic and key.
        type: full name of the payload's message (``marquee.booking.v1.BookingConfirmed``).
        created_at: when the row was written, by the clock of its database.
    """

    event_id: UUID
    topic: str
    key: str
    type: str
    payload: bytes
    headers: Mapping[str, str]
    created_at: datetime

    def read(self, message_type: builtins.type[Payload]) -> Payload:
        """The payload.

        Raises:
            ValueError: the event carries another message.
            google.protobuf.message.DecodeError: it is not a message at all.
        """
        expected = message_type.DESCRIPTOR.full_name
        if self.type != expected:
            raise ValueError(f"{self.topic} carries {self.type}, not {expected}")
        return message_type.FromString(self.payload)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of an event. ``position`` is what the bus calls it (a stream's entry, a partition's offset)."""

    event: ReceivedEvent
    position: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that ``consumer`` gave up on."""

    event: ReceivedEvent
    consumer: str
    error: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Deliveries of one topic, in the order of its log."""

    topic: str
    deliveries: Sequence[Delivery] = field(default_factory=tuple)


class Bus(Protocol):
    """One consumer's place on the bus. All methods raise the client's own errors while the bus is away.

    Whoever gives up on a batch closes the bus and opens it anew: that begins with what is not acknowledged.
    """

    async def receive(self, wait_seconds: float) -> Sequence[Batch]:
        """What comes next in each topic: first what was delivered before and never acknowledged, then what is new.

        Waits up to ``wait_seconds`` for something; empty when nothing came.
        """

    async def acknowledge(self, batch: Batch) -> None:
        """Never deliver these again (unless the bus loses its memory)."""

    async def bury(self, letter: DeadLetter) -> None:
        """Put an event on ``<topic>.dead``, with its error."""

    async def close(self) -> None:
        """Leave."""
