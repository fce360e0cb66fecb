"""The lead: whoever has it and falls silent loses it, wherever it stopped; whoever works keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
import pytest

from services.kit.database import Connection
from services.kit.leadership import SILENT_SECONDS, lead

TAKEOVER_S = SILENT_SECONDS + 10.0


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


@pytest.mark.parametrize("stop", [idle, in_a_transaction, half_sent, half_read])
async def test_who_stops_anywhere_loses_the_lead(
    database_url: Callable[[str], str], stop: Callable[[Connection], Awaitable[None]]
) -> None:
    url = database_url("led")
    with pytest.raises(psycopg.Error):
        async with lead(url, "r") as silent:
            await stop(silent)
            async with asyncio.timeout(TAKEOVER_S), lead(url, "r", ask_every_seconds=0.1) as successor:
                assert (await (await successor.execute("SELECT 1")).fetchone()) == (1,)
            if silent.pgconn.pipeline_status:
                silent.pgconn.exit_pipeline_mode()
            await silent.execute("SELECT 1")


async def test_who_works_keeps_the_lead_however_long_a_statement_takes(database_url: Callable[[str], str]) -> None:
    url = database_url("led")
    async with lead(url, "r") as leader, lead(url, "other"):
        rival = asyncio.create_task(lead(url, "r", ask_every_seconds=0.1).__aenter__())
        await leader.execute("SELECT pg_sleep(%s)", (SILENT_SECONDS + 2,))
        await leader.execute("SELECT 1")
        assert not rival.done()
        rival.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rival
