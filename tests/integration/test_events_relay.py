"""The relay: every committed row reaches the bus, in order, whatever dies."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import psycopg
import pytest
from event_fixtures import staged  # noqa: F401  # the fixture ``stage``
from event_stage import INSERT, Stage, consumer, logged, relay, until

SEVERAL = [f"{n:08}" for n in range(20)]


def test_a_committed_event_is_on_the_bus_at_once(stage: Stage, tmp_path: Path) -> None:
    with relay(stage, tmp_path / "log"):
        stage.happen("t", "k", "first")
        until(lambda: stage.on_bus("t") == ["first"])
        waits = []
        for n in range(10):
            time.sleep(0.15)  # so that the relay sleeps again, and has to be woken
            began = time.monotonic()
            stage.happen("t", "k", str(n))
            until(lambda n=n: str(n) in stage.on_bus("t"))
            waits.append(time.monotonic() - began)
        assert sorted(waits)[5] < 0.3, "was not woken, only polled"
        entry = stage.bus.xrange("t")[0][1]
        assert set(entry) == {b"id", b"key", b"type", b"payload", b"headers", b"created_at"}


def test_an_older_row_that_commits_later_is_not_skipped(stage: Stage, tmp_path: Path) -> None:
    with relay(stage, tmp_path / "log"), psycopg.connect(stage.producer) as slow:
        slow.execute(INSERT, ("t", "slow", b"older"))
        stage.happen("t", "quick", "newer")
        until(lambda: stage.on_bus("t") == ["newer"])
        time.sleep(2.5)  # longer than the slack for the clock, and than a few polls
        stage.happen("t", "quick", "newest")
        until(lambda: stage.on_bus("t") == ["newer", "newest"])
        slow.commit()
        until(lambda: stage.on_bus("t") == ["newer", "newest", "older"])


def test_nothing_is_lost_or_doubled_when_relays_are_killed_again_and_again(stage: Stage, tmp_path: Path) -> None:
    count, dice = 12_000, random.Random(5)
    stage.happen_often("t", count)
    with consumer(stage, tmp_path / "consumer"):
        for _ in range(10):
            with relay(stage, tmp_path / "log") as child:
                before = stage.unsent()
                until(lambda before=before: stage.unsent() < before or not before)
                time.sleep(dice.random() * 0.05)
                child.send_signal(signal.SIGKILL)
        with relay(stage, tmp_path / "log"):
            until(lambda: stage.unsent() == 0)
            until(lambda: len(stage.effects()) >= count)
    stage.assert_each_effect_once_in_order(count)


@pytest.mark.alone
def test_a_second_relay_takes_over_within_two_seconds(stage: Stage, tmp_path: Path) -> None:
    with relay(stage, tmp_path / "one") as first:
        until(lambda: logged(tmp_path / "one", "leading"))
        with relay(stage, tmp_path / "two"):
            until(lambda: logged(tmp_path / "two", "standing_by"))
            first.kill()
            stage.happen("t", "k", *SEVERAL)
            until(lambda: stage.on_bus("t") == SEVERAL, patience_s=2)


def test_a_frozen_relay_loses_its_lead_and_does_no_harm_when_it_thaws(stage: Stage, tmp_path: Path) -> None:
    with relay(stage, tmp_path / "one") as first, consumer(stage, tmp_path / "consumer"):
        until(lambda: logged(tmp_path / "one", "leading"))
        stage.happen_often("t", 3000)
        until(lambda: stage.on_bus("t"))
        first.send_signal(signal.SIGSTOP)
        with relay(stage, tmp_path / "two"):
            until(lambda: len(stage.effects()) == 3000)
            first.send_signal(signal.SIGCONT)
            until(lambda: logged(tmp_path / "one", "relay_interrupted"))
            stage.happen("t", "k0", f"{60:08}")
            until(lambda: len(stage.effects()) == 3001)
    assert stage.effects("k0") == [f"{n:08}" for n in range(61)]


def test_a_relay_waits_for_tables_and_serves_the_other_databases(
    stage: Stage, tmp_path: Path, database_url: object
) -> None:
    empty = database_url("empty")  # type: ignore[operator]
    with relay(stage, tmp_path / "log", empty, stage.producer, stage.consumer):
        stage.happen("t", "k", "one")
        with psycopg.connect(stage.consumer, autocommit=True) as other:
            other.execute(INSERT, ("u", "k", b"two"))
        until(lambda: stage.on_bus("t") == ["one"] and stage.on_bus("u") == ["two"])


def test_old_rows_that_were_sent_are_dropped_and_old_unsent_ones_are_sent(stage: Stage, tmp_path: Path) -> None:
    with psycopg.connect(stage.producer, autocommit=True) as connection:
        connection.execute("""
            INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, created_at)
            SELECT uuidv7(interval '-8 days'), 't', 'k', 'x', 'old', clock_timestamp() - interval '8 days'
            FROM generate_series(1, 2500)
        """)
        connection.execute("INSERT INTO inbox (consumer, event_id, received_at) SELECT 'c', id, created_at FROM outbox")
        stage.happen("t", "k", "new")
        with relay(stage, tmp_path / "log"):
            until(lambda: "new" in stage.on_bus("t"))
            assert len(stage.on_bus("t")) == 2501
        with relay(stage, tmp_path / "log"):
            until(lambda: stage.ask(stage.producer, "SELECT count(*) FROM outbox") == [(1,)])
            until(lambda: stage.ask(stage.producer, "SELECT count(*) FROM inbox") == [(0,)])
    assert stage.ask(stage.producer, "SELECT count(*) FROM outbox_sent") == [(1,)]
