"""Consumers: each event has its effect once, in order, and what cannot have one is put aside."""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from event_fixtures import staged  # noqa: F401  # the fixture ``stage``
from event_stage import PATIENCE_S, Stage, consumer, logged, relay, until

from services.kit.bus import ReceivedEvent
from services.kit.consumers import AfterCommit, Consumer, Handler, Patience
from services.kit.database import Connection
from services.kit.transient import TryLater
from services.kit.valkey_bus import fields_of

QUICK = Patience(attempts=3, first_pause_seconds=0.01, longest_pause_seconds=0.1, wait_seconds=0.2)


def event(key: str, payload: str, topic: str = "t") -> ReceivedEvent:
    return ReceivedEvent(uuid.uuid4(), topic, key, "x", payload.encode(), {}, datetime.now(UTC))


def deliver(stage: Stage, *events: ReceivedEvent) -> None:
    for each in events:
        stage.bus.xadd(each.topic, {**fields_of(each)})


async def note(connection: Connection, events: Sequence[ReceivedEvent]) -> AfterCommit | None:
    for each in events:
        await connection.execute(
            "INSERT INTO effects (event_id, key, value) VALUES (%s, %s, %s)",
            (each.event_id, each.key, each.payload.decode()),
        )
    return None


def consumer_of(stage: Stage, handler: Handler, *topics: str) -> Consumer:
    return Consumer.on_valkey(
        "c",
        dict.fromkeys(topics or ("t",), handler),
        database_url=stage.consumer,
        bus_url=stage.bus_url,
        patience=QUICK,
    )


async def eventually(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await asyncio.to_thread(true):  # who acts is another process
            await asyncio.sleep(0.02)


def acknowledged(stage: Stage) -> bool:
    return stage.pending() == 0


async def test_an_event_delivered_often_has_one_effect(stage: Stage) -> None:
    one, two = event("k", "1"), event("k", "2")
    deliver(stage, one, one, two, one, two)
    async with consumer_of(stage, note).running():
        await eventually(lambda: stage.effects() == ["1", "2"])
        deliver(stage, two, one, event("k", "3"))
        await eventually(lambda: stage.effects() == ["1", "2", "3"])
        await eventually(lambda: acknowledged(stage))


async def test_a_poisoned_event_goes_to_the_dead_letters_and_later_ones_of_its_key_go_on(stage: Stage) -> None:
    tried: list[str] = []

    async def handler(connection: Connection, events: Sequence[ReceivedEvent]) -> AfterCommit | None:
        tried.extend(each.payload.decode() for each in events if len(events) == 1)
        await note(connection, events)
        for each in events:
            await connection.execute("SELECT 1 / %s::int", (int(each.payload.decode()),))
        return None

    poisoned = event("k", "0")
    deliver(stage, event("k", "1"), event("other", "2"), poisoned, event("k", "3"), event("other", "4"))
    async with consumer_of(stage, handler).running():
        await eventually(lambda: stage.effects() == ["1", "2", "3", "4"])
        await eventually(lambda: acknowledged(stage))
        deliver(stage, poisoned, event("k", "5"))
        await eventually(lambda: stage.effects() == ["1", "2", "3", "4", "5"])
    assert tried.count("0") == QUICK.attempts
    letters = stage.bus.xrange("t.dead")
    assert len(letters) == 1
    fields = letters[0][1]
    assert fields[b"consumer"] == b"c"
    assert fields[b"error"].startswith(b"DivisionByZero: division by zero")
    assert {name: fields[name.encode()] for name in ("id", "key")} == {
        "id": str(poisoned.event_id).encode(),
        "key": b"k",
    }
    assert stage.ask(stage.consumer, "SELECT event_id FROM inbox WHERE failure LIKE 'DivisionByZero%%'") == [
        (poisoned.event_id,)
    ]


async def test_an_entry_that_is_no_event_goes_to_the_dead_letters(stage: Stage) -> None:
    stage.bus.xadd("t", {"id": "not a uuid", "key": "k"})
    deliver(stage, event("k", "1"))
    async with consumer_of(stage, note).running():
        await eventually(lambda: stage.effects() == ["1"])
        await eventually(lambda: acknowledged(stage))
    assert stage.bus.xrange("t.dead")[0][1][b"error"].startswith(b"not an event")


async def test_what_passes_by_itself_is_waited_out_however_often(stage: Stage) -> None:
    calls = 0

    async def handler(connection: Connection, events: Sequence[ReceivedEvent]) -> AfterCommit | None:
        nonlocal calls
        calls += 1
        await note(connection, events)
        match calls % 4, calls < 24:
            case 0, True:
                raise TryLater
            case 1, True:
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            case 2, True:
                await connection.execute("SET LOCAL statement_timeout = 1")
                await connection.execute("SELECT pg_sleep(1)")
            case 3, True:
                raise ConnectionRefusedError
        return None

    deliver(stage, event("k", "1"), event("k", "2"))
    async with consumer_of(stage, handler).running():
        await eventually(lambda: stage.effects() == ["1", "2"])
    assert calls >= 24
    assert not stage.bus.exists("t.dead")


async def test_a_table_that_is_not_there_yet_is_waited_for(stage: Stage) -> None:
    stage.do(stage.consumer, "ALTER TABLE effects RENAME TO later")
    deliver(stage, event("k", "1"))
    async with consumer_of(stage, note).running():
        await asyncio.sleep(1)
        assert not stage.bus.exists("t.dead")
        stage.do(stage.consumer, "ALTER TABLE later RENAME TO effects")
        await eventually(lambda: stage.effects() == ["1"])


async def test_something_is_done_after_the_commit_and_only_then(stage: Stage) -> None:
    seen: list[Any] = []

    def after(values: list[str]) -> Callable[[], Awaitable[None]]:
        async def look() -> None:
            seen.append((values, await asyncio.to_thread(stage.effects)))
            raise RuntimeError("harms nobody")

        return look

    async def handler(connection: Connection, events: Sequence[ReceivedEvent]) -> AfterCommit | None:
        await note(connection, events)
        values = [each.payload.decode() for each in events]
        if "bad" in values:
            await connection.execute("SELECT 1 / 0")
        return after(values)

    deliver(stage, event("k", "1"), event("k", "bad"))
    async with consumer_of(stage, handler).running():
        await eventually(lambda: stage.bus.exists("t.dead"))
        deliver(stage, event("k", "2"))
        await eventually(lambda: stage.effects() == ["1", "2"])
        await eventually(lambda: len(seen) == 2)
    assert seen == [(["1"], ["1"]), (["2"], ["1", "2"])]


async def test_entries_that_a_thawed_predecessor_took_come_before_newer_ones(stage: Stage) -> None:
    async with consumer_of(stage, note).running():
        deliver(stage, event("k", "0"))
        await eventually(lambda: stage.effects() == ["0"])
        with psycopg.connect(stage.consumer) as holder:  # keeps the consumer in its handler meanwhile
            holder.execute("LOCK TABLE effects IN EXCLUSIVE MODE")
            deliver(stage, event("k", "1"))
            await eventually(lambda: stage.pending() == 1)
            deliver(stage, event("k", "2"))
            assert stage.bus.xreadgroup("c", "c", {"t": ">"}, count=1), "the predecessor takes 2 and does nothing"
            deliver(stage, event("k", "3"))
        await eventually(lambda: stage.effects() == ["0", "1", "2", "3"])
        stage.bus.xadd("t", {**fields_of(event("k", "4"))})
        await eventually(lambda: stage.effects() == ["0", "1", "2", "3", "4"])
        await eventually(lambda: acknowledged(stage))


async def test_each_consumer_gets_every_event(stage: Stage) -> None:
    names = ["first", "second"]
    deliver(stage, event("k", "1"))
    consumers = [
        Consumer.on_valkey(name, {"t": note}, database_url=stage.consumer, bus_url=stage.bus_url, patience=QUICK)
        for name in names
    ]
    async with consumers[0].running(), consumers[1].running():
        await eventually(lambda: stage.effects() == ["1", "1"])


@pytest.mark.alone
def test_a_second_consumer_takes_over_within_two_seconds(stage: Stage, tmp_path: Path) -> None:
    with relay(stage, tmp_path / "log"), consumer(stage, tmp_path / "one") as first:
        until(lambda: logged(tmp_path / "one", "leading"))
        with consumer(stage, tmp_path / "two"):
            until(lambda: logged(tmp_path / "two", "standing_by"))
            stage.happen_often("t", 5000)
            until(lambda: stage.effects())
            first.kill()
            began = time.monotonic()
            until(lambda: logged(tmp_path / "two", "leading"))
            assert time.monotonic() - began < 2
            until(lambda: len(stage.effects()) == 5000)
    stage.assert_each_effect_once_in_order(5000)


def test_nothing_is_lost_or_doubled_when_consumers_are_killed_again_and_again(stage: Stage, tmp_path: Path) -> None:
    count = 12_000
    stage.happen_often("t", count)
    with relay(stage, tmp_path / "log"):
        for round_ in range(8):
            with consumer(stage, tmp_path / "c") as child:
                before = len(stage.effects())
                until(lambda before=before: len(stage.effects()) > before or before == count)
                time.sleep(0.004 * round_)
                child.kill()
        with consumer(stage, tmp_path / "c"):
            until(lambda: len(stage.effects()) >= count)
            until(lambda: acknowledged(stage))
    stage.assert_each_effect_once_in_order(count)


def test_a_frozen_consumer_loses_its_lead_and_does_no_harm_when_it_thaws(stage: Stage, tmp_path: Path) -> None:
    with relay(stage, tmp_path / "log"), consumer(stage, tmp_path / "one") as first:
        until(lambda: logged(tmp_path / "one", "leading"))
        with consumer(stage, tmp_path / "two"):
            until(lambda: logged(tmp_path / "two", "standing_by"))
            stage.happen_often("t", 3000)
            until(lambda: stage.effects())
            first.send_signal(signal.SIGSTOP)
            until(lambda: len(stage.effects()) == 3000)
            first.send_signal(signal.SIGCONT)
            stage.happen_often("t", 100, begin=3000)
            until(lambda: len(stage.effects()) == 3100)
            until(lambda: acknowledged(stage))
    stage.assert_each_effect_once_in_order(3100)
