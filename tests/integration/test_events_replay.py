"""The replay command: a window of an outbox, or dead letters, once more."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from event_fixtures import staged  # noqa: F401  # the fixture ``stage``
from event_stage import Stage, consumer, relay, until

from local.home import CHECKOUT


def replay(stage: Stage, *options: str, succeeds: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "services.kit.replay", "--topic", "t", "--bus-url", stage.bus_url, *options],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is succeeds, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_window_is_sent_again_and_skipped_unless_a_consumer_shall_take_it_anew(stage: Stage, tmp_path: Path) -> None:
    with relay(stage, tmp_path / "log"), consumer(stage, tmp_path / "consumer"):
        stage.happen("t", "k", "before")
        time.sleep(0.05)
        begin = datetime.now(UTC)
        stage.happen("t", "k", "1", "2")
        stage.happen("t", "other", "3")
        end = datetime.now(UTC)
        time.sleep(0.05)
        stage.happen("t", "k", "after")
        until(lambda: len(stage.effects()) == 5)
        window = ("--database-url", stage.producer, "--from", begin.isoformat(), "--to", end.isoformat())
        assert "sent: 3\n" in replay(stage, *window)
        until(lambda: stage.on_bus("t")[-3:] == ["1", "2", "3"])
        assert "sent: 2\n" in replay(stage, *window, "--key", "k")
        until(lambda: stage.pending() == 0)
        assert len(stage.effects()) == 5
        again = ("--again", "c", "--consumer-database-url", stage.consumer)
        said = replay(stage, *window, "--key", "k", *again)
        assert "sent: 2\n" in said
        assert "forgotten by c: 2\n" in said
        until(lambda: stage.effects()[5:] == ["1", "2"])


def test_dead_letters_are_moved_back(stage: Stage, tmp_path: Path) -> None:
    with relay(stage, tmp_path / "log"), consumer(stage, tmp_path / "consumer"):
        until(lambda: stage.bus.exists("t"))
        stage.do(stage.consumer, "ALTER TABLE effects ADD CONSTRAINT no_good CHECK (value <> 'bad')")
        stage.happen("t", "k", "good", "bad", "fine")
        until(lambda: stage.bus.xlen("t.dead") == 1)
        until(lambda: stage.effects() == ["good", "fine"])
        stage.do(stage.consumer, "ALTER TABLE effects DROP CONSTRAINT no_good")
        said = replay(stage, "--dead", "--again", "c", "--consumer-database-url", stage.consumer)
        assert "sent: 1\n" in said
        until(lambda: stage.effects() == ["good", "fine", "bad"])
        assert stage.bus.xlen("t.dead") == 0
        assert "sent: 0\n" in replay(stage, "--dead", "--again", "c", "--consumer-database-url", stage.consumer)


def test_what_is_missing_is_said(stage: Stage) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    assert "--from and --to" in replay(stage, "--database-url", stage.producer, succeeds=False)
    assert "whose outbox" in replay(stage, "--from", yesterday, "--to", yesterday, succeeds=False)
    assert "whose dead letters" in replay(stage, "--dead", succeeds=False)
    assert "where is its inbox" in replay(stage, "--again", "c", succeeds=False)
