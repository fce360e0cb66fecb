"""The lead: whoever has it and falls silent loses it, wherever it stopped; whoever works keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psycopg
import pytest

from services.kit.database import Connection
from services.kit.leadership import IDLE_SECONDS, lead

TAKEOVER_S = 60.0


async def idle(connection: Connection) -> None:
    pass


async def in_a_transaction(connection: Connection) -> None:
    await connection.execute("BEGIN")


async def half_sent(connection: Connection) -> None:
    """A statement without its end: PostgreSQL has it, is at work, and waits for more."""
    connection.pgconn.enter_pipeline_mode()
    connection.pgconn.send_query_params(b"SELECT 1", None)
    connection.pgconn.send_flush_request()
    while connection.pgconn.flush():
        await asyncio.sleep(0.01)


async def half_read(connection: Connection) -> None:
    """An answer too long for the buffers between, of which nothing is taken."""
    connection.pgconn.send_query(b"SELECT repeat('x', 1000000) FROM generate_series(1, 100)")
    while connection.pgconn.flush():
        await asyncio.sleep(0.01)


async def loses_the_lead(url: str, stop: Callable[[Connection], Awaitable[None]]) -> None:
    role = stop.__name__
    took_over = False
    with suppress(psycopg.Error):  # what the silent one meets when it goes on; it closes its session in vain
        async with lead(url, role) as silent:
            pid = silent.info.backend_pid
            await stop(silent)
            async with asyncio.timeout(TAKEOVER_S), lead(url, role, ask_every_seconds=0.1) as successor:
                cursor = await successor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (pid,))
                took_over = await cursor.fetchone() == (0,)
    assert took_over, role


async def test_who_stops_anywhere_loses_the_lead(database_url: Callable[[str], str]) -> None:
    url = database_url("led")
    await asyncio.gather(*(loses_the_lead(url, stop) for stop in (idle, in_a_transaction, half_sent, half_read)))


async def test_who_works_keeps_the_lead_however_long_a_statement_takes(database_url: Callable[[str], str]) -> None:
    url = database_url("led")
    async with lead(url, "r") as leader, lead(url, "other", idle_seconds=60) as other:
        rival = asyncio.create_task(lead(url, "r", ask_every_seconds=0.1).__aenter__())
        await leader.execute("SELECT pg_sleep(%s)", (IDLE_SECONDS + 2,))
        await leader.execute("SELECT 1")
        await other.execute("SELECT 1")
        assert not rival.done()
        rival.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rival


async def test_an_answer_that_is_read_slowly_keeps_the_lead(database_url: Callable[[str], str]) -> None:
    """As an export, whose file takes longer to write than its rows to read."""
    url = database_url("led")
    async with lead(url, "r") as leader:
        rival = asyncio.create_task(lead(url, "r", ask_every_seconds=0.1).__aenter__())
        rows = 0
        async with leader.cursor().copy(
            "COPY (SELECT repeat('x', 1000000) FROM generate_series(1, 40)) TO STDOUT"
        ) as copied:
            async for _ in copied:
                rows += 1
                await asyncio.sleep((IDLE_SECONDS + 3) / 40)
        await leader.execute("SELECT 1")
        assert (rows, rival.done()) == (40, False)
        rival.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rival
