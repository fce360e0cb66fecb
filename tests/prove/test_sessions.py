"""A client of PostgreSQL that stops in the middle of its work keeps a show's lock for a bounded time only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.errors import LockNotAvailable
from sqlalchemy import text

from services.kit.database import Connection, open_pool
from services.kit.engine import open_engine

TRANSACTION_S, IDLE_S = 1.5, 0.5
LIMITS = f"-c transaction_timeout={TRANSACTION_S * 1000:.0f} -c idle_in_transaction_session_timeout={IDLE_S * 1000:.0f}"
"""What services have, but shorter."""
SLACK_S = 3.0
LOCK_SHOW = "SELECT version FROM show_versions WHERE show_id = %s FOR UPDATE"
TIMEOUTS = """
    SELECT name, setting::integer
    FROM pg_settings
    WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')
"""


async def stops_between_statements(connection: Connection, show_id: UUID) -> None:
    """It has its answer, and does not say what comes next."""
    await connection.execute("BEGIN")
    await connection.execute(LOCK_SHOW, (show_id,))


async def stops_among_statements(connection: Connection, show_id: UUID) -> None:
    """It has sent two statements of several that belong together: PostgreSQL waits for more and calls that active."""
    wire = connection.pgconn
    wire.enter_pipeline_mode()
    wire.send_query_params(b"BEGIN", None)
    wire.send_query_params(LOCK_SHOW.replace("%s", "$1").encode(), [str(show_id).encode()])
    while wire.flush():
        await asyncio.sleep(0.01)


async def is_locked(connection: Connection, show_id: UUID) -> bool:
    try:
        await connection.execute(LOCK_SHOW, (show_id,))
    except LockNotAvailable:
        return True
    return False


@pytest.mark.parametrize(
    ("stop", "limit_s"), [(stops_between_statements, IDLE_S), (stops_among_statements, TRANSACTION_S)]
)
async def test_a_client_that_stops_in_a_transaction_loses_the_shows_lock(
    migrated_database_url: Callable[[str], str],
    stop: Callable[[Connection, UUID], Awaitable[None]],
    limit_s: float,
) -> None:
    url, show_id = migrated_database_url("booking"), uuid4()
    async with (
        await psycopg.AsyncConnection.connect(url, autocommit=True, options="-c lock_timeout=50") as other,
        open_pool(url, size=1, options=LIMITS) as pool,
        pool.connection() as stopped,
    ):
        await other.execute("INSERT INTO show_versions (show_id, version, taken) VALUES (%s, 0, 0)", (show_id,))
        await stop(stopped, show_id)
        began = time.monotonic()
        async with asyncio.timeout(limit_s):  # what was sent is not answered, so nothing tells when it was done
            while not await is_locked(other, show_id):
                await asyncio.sleep(0.01)
        async with asyncio.timeout(limit_s + SLACK_S):
            while await is_locked(other, show_id):
                await asyncio.sleep(0.05)
        assert time.monotonic() - began > limit_s / 2
        await stopped.close()


async def test_every_session_that_answers_calls_has_these_limits(migrated_database_url: Callable[[str], str]) -> None:
    url = migrated_database_url("booking")
    async with open_pool(url, size=1) as pool, pool.connection() as connection:
        of_pools = {row[0]: row[1] for row in await (await connection.execute(TIMEOUTS)).fetchall()}
    async with open_engine(url, size=1) as engine, engine.connect() as session:
        of_engines = {row[0]: row[1] for row in await session.execute(text(TIMEOUTS))}
    assert of_pools == of_engines
    # Else PostgreSQL would not look at the shorter ones; and callers give up after 40 s at the latest.
    assert 0 < of_pools["statement_timeout"] < of_pools["transaction_timeout"] < 40_000
    assert 0 < of_pools["idle_in_transaction_session_timeout"] < of_pools["transaction_timeout"]
