"""A stage for the tests of events: a database with an outbox, one with an inbox, a bus, and who acts on it.

Relays run as the real command in processes of their own, so that they can be killed and frozen. Consumers too, where a
test does that to them (``python tests/integration/event_consumer.py``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis

from local.home import CHECKOUT
from services.kit.migrations import create_event_tables, partition_event_tables

PATIENCE_S = 20.0
INSERT = """
    INSERT INTO outbox (aggregatetype, aggregateid, type, payload, headers)
    VALUES (%s, %s, 'google.protobuf.StringValue', %s, '{"request_id": "r"}')
    RETURNING id
"""


class _Op:
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, sqltext: str, /) -> None:
        self._connection.execute(sqltext)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Stage:
    """Producer's database, consumer's database, bus."""

    producer: str
    consumer: str
    bus_url: str

    @property
    def bus(self) -> redis.Redis:
        return redis.Redis.from_url(self.bus_url, protocol=2)

    def happen(self, topic: str, key: str, *payloads: str) -> list[str]:
        """Commit an event for each payload, one transaction each; their ids."""
        with psycopg.connect(self.producer, autocommit=True) as connection:
            return [
                str(connection.execute(INSERT, (topic, key, payload.encode())).fetchone()[0])  # type: ignore[index]
                for payload in payloads
            ]

    def happen_often(self, topic: str, count: int, keys: int = 50, begin: int = 0) -> None:
        """Many events in one statement; the payload counts up within each key."""
        with psycopg.connect(self.producer, autocommit=True) as connection:
            connection.execute(
                """
                INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
                SELECT %s, 'k' || (n %% %s), 'google.protobuf.StringValue',
                       convert_to(lpad((n / %s)::text, 8, '0'), 'UTF8')
                FROM generate_series(%s::int, %s - 1) AS n
                """,
                (topic, keys, keys, begin, begin + count),
            )

    def on_bus(self, topic: str) -> list[str]:
        """Payloads on the stream, in order, each delivery."""
        return [fields[b"payload"].decode() for _, fields in self.bus.xrange(topic)]

    def unsent(self) -> int:
        with psycopg.connect(self.producer, autocommit=True) as connection:
            row = connection.execute(
                "SELECT count(*) FROM outbox WHERE NOT EXISTS (SELECT FROM outbox_sent s WHERE s.id = outbox.id)"
            ).fetchone()
            assert row is not None
            return int(row[0])

    def effects(self, key: str | None = None) -> list[str]:
        """What the consumers did, in the order in which they did it."""
        with psycopg.connect(self.consumer, autocommit=True) as connection:
            return [
                row[0]
                for row in connection.execute(
                    "SELECT value FROM effects WHERE %s::text IS NULL OR key = %s ORDER BY number", (key, key)
                )
            ]

    def pending(self, topic: str = "t", name: str = "c") -> int | None:
        """Entries that a consumer has read and not acknowledged; None while it has no group."""
        try:
            return int(self.bus.xpending(topic, name)["pending"])
        except redis.ResponseError:
            return None

    def ask(self, url: str, question: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(url, autocommit=True) as connection:
            return connection.execute(question, values).fetchall()  # type: ignore[call-overload,no-any-return]

    def do(self, url: str, order: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(order)  # type: ignore[call-overload]

    def assert_each_effect_once_in_order(self, count: int, keys: int = 50) -> None:
        """After ``happen_often(topic, count, keys)``."""
        rows = self.ask(self.consumer, "SELECT key, array_agg(value ORDER BY number) FROM effects GROUP BY key")
        assert sum(len(values) for _, values in rows) == count
        assert len(rows) == min(keys, count)
        for key, values in rows:
            assert values == [f"{n:08}" for n in range(len(values))], f"{key} out of order or doubled"


def make_stage(database_url: Callable[[str], str], bus_url: str) -> Stage:
    """Fresh databases and an empty bus."""
    stage = Stage(database_url("producer"), database_url("consumer"), bus_url)
    for url in (stage.producer, stage.consumer):
        with psycopg.connect(url, autocommit=True) as connection:
            create_event_tables(_Op(connection))
            partition_event_tables(connection)
    with psycopg.connect(stage.consumer, autocommit=True) as connection:
        connection.execute(
            """
            CREATE TABLE effects (
                number bigint GENERATED ALWAYS AS IDENTITY, event_id uuid, key text, value text, pid int
            )
            """
        )
    stage.bus.flushall()
    return stage


def until(true: Callable[[], object], *, patience_s: float = PATIENCE_S) -> None:
    """Wait until ``true()`` is; fails after ``patience_s``."""
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)


@contextmanager
def process(argv: Sequence[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours while the block lasts."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, *argv], cwd=CHECKOUT, stdout=output, stderr=output, env={**os.environ, **environment}
        )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


@contextmanager
def relay(stage: Stage, log: Path, *urls: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """The relay's command."""
    with process(
        ["-m", "services.kit.relay"],
        log,
        MARQUEE_RELAY_DATABASE_URLS=",".join(urls or (stage.producer,)),
        MARQUEE_BUS_URL=stage.bus_url,
        **environment,
    ) as child:
        yield child


@contextmanager
def consumer(stage: Stage, log: Path, topics: str = "t", name: str = "c") -> Iterator[subprocess.Popen[bytes]]:
    """A consumer whose handler notes every event in ``effects``."""
    with process(
        ["tests/integration/event_consumer.py", name, topics],
        log,
        DATABASE_URL=stage.consumer,
        BUS_URL=stage.bus_url,
    ) as child:
        yield child


def logged(log: Path, event: str) -> int:
    """How often the processes logged ``event``."""
    count = 0
    for line in log.read_text().splitlines() if log.exists() else []:
        try:
            count += json.loads(line).get("event") == event
        except ValueError:
            continue
    return count
