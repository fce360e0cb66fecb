"""One process does it, the others stand by: a session-wide advisory lock of PostgreSQL.

Whoever leads does its transactions on the very session that holds the lock. So a process that lost the lock without
noticing (frozen, cut off) cannot commit anything: the fence is the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import structlog

from services.kit.database import LASTING_PLANS, SESSION, Connection, configure

log = structlog.get_logger()

SILENT_SECONDS = 5
"""A leader that PostgreSQL waits for so long is frozen or cut off; who stands by ends its session, and so its lead."""

END_SILENT = """
    SELECT pg_terminate_backend(pid)
    FROM pg_locks
    JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory'
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (classid::bigint << 32 | objid::bigint) = hashtextextended(%s, 0)
      AND objsubid = 1
      AND granted
      AND wait_event_type = 'Client'
      AND state_change < clock_timestamp() - make_interval(secs => %s)
"""
"""PostgreSQL's own limits for idle sessions miss a client that stopped in the middle of what it sends, or of what it
reads: to them that session is at work."""


@asynccontextmanager
async def lead(url: str, role: str, *, ask_every_seconds: float = 0.5) -> AsyncIterator[Connection]:
    """Wait until nobody else in ``url``'s database has ``role``; gives the session that has it now.

    The session commits by itself outside ``connection.transaction()``. Use it at least every few seconds, or whoever
    stands by takes over. It does not go through a pooler that shares sessions (PgBouncer's transaction mode).

    Raises:
        psycopg.OperationalError: PostgreSQL cannot be reached.
    """
    connection: Connection = await psycopg.AsyncConnection.connect(
        url,
        autocommit=True,
        prepare_threshold=None,  # the session outlives migrations, which prepared statements may not
        options=f"{SESSION} {LASTING_PLANS}",
        connect_timeout=5,
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
    )
    async with connection:
        await configure(connection)
        stood_by = False
        while not await _has(connection, role):
            if not stood_by:
                log.info("standing_by", role=role)
                stood_by = True
            if (await connection.execute(END_SILENT, (role, SILENT_SECONDS))).rowcount:
                log.warning("silent_leader_ended", role=role)
            await asyncio.sleep(ask_every_seconds)
        log.info("leading", role=role)
        yield connection


async def _has(connection: Connection, role: str) -> bool:
    cursor = await connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (role,))
    row = await cursor.fetchone()
    return row is not None and bool(row[0])
