"""The relay is killed again and again while people trade; a witness takes every event."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import redis.asyncio as redis

from local.parts import relay
from services.kit.migrations import create_event_tables
from tests.prove.check_bus import Event, follow
from tests.prove.child import Child, child
from tests.prove.phases import Context, Phase, Result
from tests.prove.sale import Hall, Sale, open_sale
from tests.prove.stage import Stage
from tests.prove.trading import trading
from tests.prove.witness import TABLE, TOPICS

KILLS = 50
ALL_BUT_THE_RELAY = ("user", "catalog", "booking", "payment", "provider", "edge")
BEGINS_WITHIN_S = 30.0
LONGEST_LIFE_S = 0.7
"""After it has begun to send, a relay lives up to that."""
WITNESS_PATIENCE_S = 30.0


class _Op:
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, sqltext: str, /) -> None:
        self._connection.execute(sqltext.encode())


def witness_database(stage: Stage) -> str:
    """A database for the witness; its URL."""
    with psycopg.connect(stage.stack.database_url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE witness")
    url = stage.stack.database_url("witness")
    with psycopg.connect(url, autocommit=True) as connection:
        create_event_tables(_Op(connection))
        connection.execute(TABLE)
    return url


class Relays:
    """Relays, one after the other; each has a log of its own."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        part = relay(stage.stack.plan)
        self._argv, self._environment, self._folder = part.argv, dict(part.env), folder
        self.kills = 0
        self.now = self._start()

    @property
    def _log(self) -> Path:
        return self._folder / f"relay-{self.kills}.log"

    def _start(self) -> Child:
        return Child(self._argv, self._environment, self._log)

    async def begun(self) -> None:
        """Wait until the present one leads in some database."""
        async with asyncio.timeout(BEGINS_WITHIN_S):
            while '"leading"' not in self._log.read_text():
                await asyncio.sleep(0.03)

    def replace(self) -> None:
        """kill -9, and another one."""
        self.now.kill()
        self.kills += 1
        self.now = self._start()


@asynccontextmanager
async def relays(stage: Stage, folder: Path) -> AsyncIterator[Relays]:
    made = Relays(stage, folder)
    try:
        yield made
    finally:
        made.now.kill()


async def run(context: Context) -> Result:
    hall = Hall(shows=0)
    folder = context.folder
    async with (
        open_sale(folder / "stage", seed=context.seed, rate=14.0, hall=hall, parts=ALL_BUT_THE_RELAY) as sale,
        relays(sale.stage, folder) as line,
    ):
        url = witness_database(sale.stage)
        names = {"DATABASE_URL": url, "BUS_URL": sale.stage.stack.url("bus")}
        with child([sys.executable, "-m", "tests.prove.witness"], names, folder / "witness.log"):
            for _ in range(4):
                await sale.one_more_show()
            began = time.monotonic()
            async with trading(sale):
                for _ in range(KILLS):
                    await line.begun()
                    await asyncio.sleep(sale.stage.randomly.uniform(0.0, LONGEST_LIFE_S))
                    line.replace()
            took = time.monotonic() - began
            judged = await sale.judge()
            written = await _written(sale)
            await _until_witnessed(sale, len(written))
        delivered, effects = await _delivered(sale), await _effects(sale)
    found = follow(written, delivered, effects)
    result = Result(problems=[*judged.problems(), *found.problems[:20]])
    result.figures = {
        "kills of the relay": line.kills,
        "under load, s": took,
        "operations of people meanwhile": len(judged.record.history.operations),
        "events written": found.written,
        "deliveries": found.deliveries,
        "of them repeats": found.repeats,
        "effects": found.effects,
        "topics and keys with an order to keep": found.keys,
        "lost, doubled or out of order": len(found.problems),
        "facts checked": sum(judged.findings.examined.values()),
        "violations": len(judged.findings.violations),
    }
    result.demand(line.kills >= KILLS, f"only {line.kills} kills")
    result.demand(found.written > 20 * KILLS, f"only {found.written} events")
    return result


async def _written(sale: Sale) -> list[Event]:
    events = []
    for database in ("booking", "payment", "catalog"):
        rows = await sale.stage.rows(
            "SELECT id::text, aggregatetype, aggregateid FROM outbox WHERE aggregatetype = ANY (%s)"
            " ORDER BY created_at, id",
            list(TOPICS),
            database=database,
        )
        events += [Event(*row) for row in rows]
    return events


async def _delivered(sale: Sale) -> list[Event]:
    events = []
    async with redis.Redis.from_url(sale.stage.stack.url("bus"), protocol=2) as bus:
        for topic in TOPICS:
            entries: Any = await bus.xrange(topic)
            events += [Event(fields[b"id"].decode(), topic, fields[b"key"].decode()) for _, fields in entries]
    return events


async def _effects(sale: Sale) -> list[Event]:
    rows = await sale.stage.rows("SELECT event_id::text, topic, key FROM effects ORDER BY number", database="witness")
    return [Event(*row) for row in rows]


async def _until_witnessed(sale: Sale, count: int) -> None:
    """Or so long that what is missing will not come."""
    deadline = time.monotonic() + WITNESS_PATIENCE_S
    while time.monotonic() < deadline and len(await _effects(sale)) < count:
        await asyncio.sleep(0.3)


PHASE = Phase(
    "relay",
    "Events, and a relay that dies",
    "The relay is killed (-9) 50 times while people trade. Each event arrives at least once, takes effect once, and in "
    "order within its topic and key, as a consumer of all topics sees it.",
    2.5,
    run,
)
