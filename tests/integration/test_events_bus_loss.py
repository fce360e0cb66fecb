"""A bus that loses its memory at any point: everything comes again, and has its effect once.

The points are reached by locks that hold the real relay where the test wants it: between XADD and the mark it needs
``outbox_sent``.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import psycopg
import pytest
import redis
from event_fixtures import staged  # noqa: F401  # the fixture ``stage``
from event_stage import INSERT, Stage, consumer, logged, relay, until
from fixtures_stores import running

from local import ports, valkey
from local.home import Home

FIRST = [f"{n:08}" for n in range(5)]


def test_between_the_add_and_the_consumers_read(stage: Stage, tmp_path: Path) -> None:
    with relay(stage, tmp_path / "log"):
        stage.happen("t", "k", *FIRST)
        until(lambda: stage.on_bus("t") == FIRST and stage.unsent() == 0)
        stage.bus.flushall()
        until(lambda: stage.on_bus("t") == FIRST, patience_s=4)
        with consumer(stage, tmp_path / "consumer"):
            until(lambda: len(stage.effects()) == 5)
    assert stage.effects() == FIRST


def test_between_the_add_and_the_mark(stage: Stage, tmp_path: Path) -> None:
    with relay(stage, tmp_path / "log"), consumer(stage, tmp_path / "consumer"):
        until(lambda: logged(tmp_path / "log", "bus_filled"))
        with psycopg.connect(stage.producer) as holder:
            holder.execute("LOCK TABLE outbox_sent IN EXCLUSIVE MODE")  # reads go on, marks wait
            stage.happen("t", "k", *FIRST)
            until(lambda: len(stage.effects()) == 5)
            stage.bus.flushall()
        stage.happen("t", "k", "00000005")
        until(lambda: len(stage.effects()) == 6)
        until(lambda: stage.unsent() == 0)
        until(lambda: stage.on_bus("t")[-6:] == [*FIRST, "00000005"])
    assert stage.effects() == [*FIRST, "00000005"]


def test_between_the_consumers_commit_and_its_acknowledgement(stage: Stage, tmp_path: Path) -> None:
    with relay(stage, tmp_path / "log"), consumer(stage, tmp_path / "consumer"):
        with psycopg.connect(stage.consumer) as holder:
            holder.execute("LOCK TABLE effects IN EXCLUSIVE MODE")  # the consumer has read, and waits in its handler
            stage.happen("t", "k", *FIRST)
            until(lambda: stage.pending())
            stage.bus.flushall()
        until(lambda: len(stage.effects()) == 5)
        stage.happen("t", "k", "00000005")
        until(lambda: len(stage.effects()) == 6)
        until(lambda: stage.pending() == 0)
    assert stage.effects() == [*FIRST, "00000005"]


def test_while_the_relay_is_down(stage: Stage, tmp_path: Path) -> None:
    with relay(stage, tmp_path / "log"):
        stage.happen("t", "k", *FIRST)
        until(lambda: stage.unsent() == 0)
    stage.bus.flushall()
    stage.happen("t", "k", "00000005")
    with relay(stage, tmp_path / "log"), consumer(stage, tmp_path / "consumer"):
        until(lambda: len(stage.effects()) == 6)
        assert stage.on_bus("t") == [*FIRST, "00000005"]


def test_a_filling_that_was_cut_off_is_begun_again(stage: Stage, tmp_path: Path) -> None:
    count = 3000
    stage.happen_often("t", count)
    with relay(stage, tmp_path / "log"):
        until(lambda: stage.unsent() == 0)
    stage.bus.flushall()
    with psycopg.connect(stage.producer) as holder:
        holder.execute("LOCK TABLE outbox_sent IN EXCLUSIVE MODE")
        with relay(stage, tmp_path / "log"):
            until(lambda: stage.on_bus("t"))
            assert len(stage.on_bus("t")) < count
    with relay(stage, tmp_path / "log"), consumer(stage, tmp_path / "consumer"):
        until(lambda: len(stage.effects()) >= count)
    stage.assert_each_effect_once_in_order(count)


def test_a_bus_flushed_every_moment_under_load(stage: Stage, tmp_path: Path) -> None:
    count = 10_000
    with relay(stage, tmp_path / "log"), consumer(stage, tmp_path / "consumer"):
        for round_ in range(10):
            stage.happen_often("t", 1000, begin=round_ * 1000)
            time.sleep(0.15)
            stage.bus.flushall()
        until(lambda: len(stage.effects()) >= count, patience_s=40)
    stage.assert_each_effect_once_in_order(count)


def test_several_databases_each_send_their_own_again(stage: Stage, tmp_path: Path) -> None:
    with relay(stage, tmp_path / "log", stage.producer, stage.consumer):
        stage.happen("t", "k", "one")
        with psycopg.connect(stage.consumer, autocommit=True) as other:
            other.execute(INSERT, ("u", "k", b"two"))
        until(lambda: stage.on_bus("t") == ["one"] and stage.on_bus("u") == ["two"])
        stage.bus.flushall()
        until(lambda: stage.on_bus("t") == ["one"] and stage.on_bus("u") == ["two"], patience_s=4)
        time.sleep(1.5)
        assert stage.on_bus("t") == ["one"], "filled more than once"
        assert stage.on_bus("u") == ["two"], "filled more than once"


def test_only_the_refill_window_is_sent_again(stage: Stage, tmp_path: Path) -> None:
    with relay(stage, tmp_path / "log"):
        stage.happen("t", "k", "long ago", "lately")
        until(lambda: stage.unsent() == 0)
        stage.ask(
            stage.producer,
            "UPDATE outbox SET created_at = created_at - interval '2 days' WHERE payload = 'long ago' RETURNING id",
        )
        stage.bus.flushall()
        until(lambda: stage.on_bus("t"))
        assert stage.on_bus("t") == ["lately"]


@pytest.mark.parametrize("durable", [True, False], ids=["killed", "killed and emptied"])
def test_the_bus_dies_and_comes_back(stage: Stage, tmp_path: Path, durable: bool) -> None:
    home = Home(tmp_path / "bus")
    home.make()
    port = ports.pick()
    url = valkey.url(home, "bus", port)
    argv = valkey.server_argv(home, "bus", port, valkey.BUS)
    own = Stage(stage.producer, stage.consumer, url)

    def ready() -> None:
        with redis.Redis.from_url(url) as client:
            client.ping()

    count = 4000
    with relay(own, tmp_path / "log"), consumer(own, tmp_path / "consumer"):
        for round_ in range(2):
            with running(argv, valkey.folder(home, "bus"), ready):
                if not round_:
                    own.happen_often("t", count)
                    until(lambda: own.effects())
                else:
                    until(lambda: len(own.effects()) >= count and not own.unsent(), patience_s=15)
            # `running` ends it as a power cut does, with a signal that lets it write nothing more
            if not durable:
                subprocess.run(["rm", "-rf", str(valkey.folder(home, "bus") / "appendonlydir")], check=True)
        with running(argv, valkey.folder(home, "bus"), ready):
            own.happen("t", "k0", f"{80:08}")
            until(lambda: len(own.effects()) >= count + 1, patience_s=15)
    assert own.effects("k0") == [f"{n:08}" for n in range(81)]
