"""A stack starts, survives the death of its parts, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from local import lock, status
from local.home import CHECKOUT, Home
from local.postgres import account
from local.process import State, account_options
from local.stack import Stack
from local.trouble import Trouble

STORES = {"postgres", "cache", "bus"}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    """An empty home, whose data outside the test's folder (root's PostgreSQL) is removed too."""
    home = Home(tmp_path / "stack")
    yield home
    home.wipe()


def living(parts: list[status.PartStatus]) -> list[str]:
    return [part.name for part in parts if part.lives]


async def until_dead(parts: list[status.PartStatus], patience_s: float = 10) -> list[str]:
    """Names of the parts that live on after that long."""
    for _ in range(int(patience_s / 0.05)):
        if not living(parts):
            break
        await asyncio.sleep(0.05)
    return living(parts)


async def test_no_process_is_left_after_stop(home: Home) -> None:
    async with Stack(home.root, parts=STORES) as stack:
        running = status.read(home.status)
        assert sorted(living(running)) == sorted(STORES)
        postmaster = psutil.Process(stack.part("postgres").pid)
        family = [postmaster, *postmaster.children(recursive=True)]
    assert living(running) == []
    assert not any(process.is_running() for process in family)
    assert {part.state for part in status.read(home.status)} == {State.STOPPED}


async def test_data_survives_a_restart_of_the_stack(home: Home) -> None:
    async with Stack(home.root, parts=STORES) as stack:
        ports = dict(stack.plan.ports)
        with psycopg.connect(stack.url("postgres")) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        redis.Redis.from_url(stack.url("bus")).set("kept", "42")
    async with Stack(home.root, parts=STORES) as stack:
        assert {name: stack.plan.ports[name] for name in STORES} == {name: ports[name] for name in STORES}
        with psycopg.connect(stack.url("postgres")) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
        assert redis.Redis.from_url(stack.url("bus")).get("kept") == b"42"


@pytest.mark.parametrize("name", sorted(STORES))
async def test_a_killed_store_comes_back_with_what_it_acknowledged(home: Home, name: str) -> None:
    said: list[str] = []
    async with Stack(home.root, parts={name}, tell=said.append) as stack:
        if name == "postgres":
            with psycopg.connect(stack.url(name)) as connection:
                connection.execute("CREATE TABLE acknowledged AS SELECT 1")
        else:
            redis.Redis.from_url(stack.url(name)).set("acknowledged", "1")
        before = stack.part(name).pid
        stack.part(name).kill()
        await stack.part(name).ready(15)
        assert stack.part(name).pid != before
        assert said[0].startswith(f"{name} stopped (signal 9); restarted in ")
        if name == "postgres":
            with psycopg.connect(stack.url(name)) as connection:
                assert connection.execute("SELECT * FROM acknowledged").fetchone() == (1,)
        if name == "bus":
            assert redis.Redis.from_url(stack.url(name)).get("acknowledged") == b"1"
        assert status.read(home.status)[0].restarts == 1


async def test_a_frozen_part_still_stops(home: Home) -> None:
    async with Stack(home.root, parts={"cache"}) as stack:
        stack.part("cache").freeze()
        began = time.monotonic()
    assert time.monotonic() - began < 5


async def test_stores_ask_for_a_password(home: Home) -> None:
    async with Stack(home.root, parts={"postgres", "cache"}) as stack:
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"postgresql://marquee@{stack.address('postgres')}/postgres")
        with pytest.raises(redis.AuthenticationError):
            redis.Redis.from_url(f"redis://{stack.address('cache')}").ping()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")
async def test_roots_postgresql_lives_where_its_user_may_go_and_loosens_nothing(home: Home) -> None:
    home.root.parent.chmod(0o700)
    async with Stack(home.root, parts={"postgres"}) as stack:
        assert psutil.Process(stack.part("postgres").pid).uids().real != 0
        assert home.postgres.is_relative_to(home.outside)
        assert home.postgres.stat().st_uid != 0
        assert home.postgres.stat().st_mode & 0o777 == 0o700
        assert home.outside.stat().st_uid == 0
        assert home.outside.stat().st_mode & 0o022 == 0
    assert home.root.parent.stat().st_mode & 0o777 == 0o700
    home.wipe()
    assert not home.outside.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")
async def test_a_folder_that_somebody_else_put_there_is_refused(home: Home) -> None:
    home.outside.mkdir(mode=0o777)
    home.outside.chmod(0o777)
    with pytest.raises(Trouble, match="belongs to somebody else"):
        await Stack(home.root, parts={"postgres"}).start()


async def test_a_second_stack_in_the_same_folder_is_refused(home: Home) -> None:
    async with Stack(home.root, parts={"cache"}):
        assert lock.holder(home.lock) == os.getpid()
        with pytest.raises(Trouble, match=f"runs here already .process {os.getpid()}"):
            async with Stack(home.root, parts={"cache"}):
                pass
    assert lock.holder(home.lock) is None


async def test_a_part_that_cannot_start_is_named_with_its_log_and_nothing_is_left(home: Home) -> None:
    stack = Stack(home.root, parts={"postgres", "cache"}, postgres_settings={"shared_buffers": "nonsense"})
    with pytest.raises(Trouble, match=r"postgres stopped while starting .*postgres\.log says why") as trouble:
        async with stack:
            pass
    assert "nonsense" in str(trouble.value)
    assert living(status.read(home.status)) == []


SUPERVISOR = """
import asyncio, pathlib, sys
from local.stack import Stack
async def main():
    async with Stack(pathlib.Path(sys.argv[1]), parts={"postgres", "cache", "bus"}):
        print("ready", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def supervisor(home: Home) -> subprocess.Popen[str]:
    """A stack in a process of its own, ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(home.root)], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


async def test_parts_die_with_a_killed_supervisor_and_the_next_one_starts(home: Home) -> None:
    with supervisor(home) as process:
        parts = status.read(home.status)
        assert len(living(parts)) == 3
        process.kill()
    assert await until_dead(parts) == []
    async with Stack(home.root, parts=STORES) as stack:
        assert stack.is_ready


async def test_a_postmaster_pid_file_that_names_a_stranger_does_no_harm(home: Home) -> None:
    async with Stack(home.root, parts={"postgres"}):
        pass
    same_user = account_options(account())  # PostgreSQL minds no others
    stranger = await asyncio.create_subprocess_exec("sleep", "60", **same_user)
    try:
        (home.postgres / "data" / "postmaster.pid").write_text(f"{stranger.pid}\n")
        async with Stack(home.root, parts={"postgres"}) as stack:
            assert stack.is_ready
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


def test_status_json_lists_every_part_with_its_url(tmp_path: Path) -> None:
    part = status.PartStatus("bus", "ready", 1, 1.0, "127.0.0.1:1", "redis://127.0.0.1:1/0", 0, "bus.log")
    status.write(tmp_path / "status.json", [part])
    assert json.loads((tmp_path / "status.json").read_text())[0]["url"] == "redis://127.0.0.1:1/0"
    assert (tmp_path / "status.json").stat().st_mode & 0o077 == 0
