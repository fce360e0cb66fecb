"""Pure parts of the events: what passes by itself, how long to wait, what an entry on the bus says."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import redis.exceptions
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from services.kit.bus import ReceivedEvent
from services.kit.consumers import Patience
from services.kit.errors import NotFound, Unavailable
from services.kit.outbox_reader import OutboxRow
from services.kit.relay import Retention
from services.kit.stream_writer import CHUNK_BYTES, chunks
from services.kit.transient import TryLater, is_transient
from services.kit.valkey_bus import event_of, fields_of

NOW = datetime(2026, 5, 1, 18, tzinfo=UTC)


def received(payload: bytes = b"") -> ReceivedEvent:
    return ReceivedEvent(uuid.UUID(int=7), "t", "k", "google.protobuf.StringValue", payload, {"request_id": "r"}, NOW)


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("connection refused"),
        psycopg.errors.DeadlockDetected(),
        psycopg.errors.SerializationFailure(),
        psycopg.errors.LockNotAvailable(),
        psycopg.errors.AdminShutdown(),
        psycopg.errors.DiskFull(),
        psycopg.errors.UndefinedTable(),
        redis.exceptions.ConnectionError(),
        redis.exceptions.OutOfMemoryError(),
        ConnectionRefusedError(),
        TimeoutError(),
        TryLater(),
        Unavailable("away"),
    ],
)
def test_failures_of_the_moment_pass_by_themselves(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.UniqueViolation(),
        psycopg.errors.DivisionByZero(),
        psycopg.errors.CheckViolation(),
        redis.exceptions.DataError(),
        ValueError(),
        KeyError(),
        NotFound("show"),
    ],
)
def test_failures_of_the_event_do_not(error: Exception) -> None:
    assert not is_transient(error)


def test_pauses_double_up_to_the_longest() -> None:
    patience = Patience(first_pause_seconds=0.1, longest_pause_seconds=1.0)
    assert [patience.pause(n) for n in (1, 2, 3, 4, 5, 10_000)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_an_event_survives_the_bus() -> None:
    event = received(b"\x00\xff")
    fields = {
        name.encode(): value if isinstance(value, bytes) else value.encode() for name, value in fields_of(event).items()
    }
    assert event_of("t", fields) == event


def test_an_event_is_read_as_what_it_is_only() -> None:
    event = received(StringValue(value="x").SerializeToString())
    assert event.read(StringValue).value == "x"
    with pytest.raises(ValueError, match=r"carries google\.protobuf\.StringValue"):
        event.read(Int32Value)


def test_chunks_keep_every_row_in_order_and_are_bounded() -> None:
    sizes = [10, CHUNK_BYTES, 10, CHUNK_BYTES // 2, CHUNK_BYTES // 2, CHUNK_BYTES * 3, 1]
    rows = [OutboxRow(uuid.uuid4(), "t", "k", "x", b"." * size, "{}", NOW) for size in sizes]
    parts = list(chunks(rows))
    assert [row for part in parts for row in part] == rows
    assert all(len(part) == 1 or sum(len(row.payload) for row in part) <= CHUNK_BYTES for part in parts)
    assert list(chunks([])) == []


def test_an_inbox_must_outlive_what_can_come_again() -> None:
    with pytest.raises(ValueError, match="kept longer"):
        Retention(keep=timedelta(days=1), refill=timedelta(days=2))
