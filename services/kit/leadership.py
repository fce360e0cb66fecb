"""One process does it, the others stand by: a session-wide advisory lock of PostgreSQL.

Whoever leads does its transactions on the very session that holds the lock. So a process that lost the lock without
noticing (frozen, cut off) cannot commit anything: the fence is the connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import structlog

from services.kit.database import CONNECTING, LASTING_PLANS, SESSION, Connection, configure

log = structlog.get_logger()

IDLE_SECONDS = 5
"""A leader that says nothing for so long is frozen; PostgreSQL ends its session and with that its lead."""

LEADER_SESSION = f"{SESSION} {LASTING_PLANS} -c tcp_user_timeout=10000"
"""Within a transaction ``SESSION`` knows how long it may be silent. Who stopped while he reads an answer that is longer
than all buffers is found by TCP."""

END_HALF_SENT = """
    SELECT pg_terminate_backend(pid)
    FROM pg_locks
    JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory'
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (classid::bigint << 32 | objid::bigint) = hashtextextended(%s, 0)
      AND objsubid = 1
      AND granted
      AND state = 'active'
      AND wait_event = 'ClientRead'
      AND state_change < clock_timestamp() - make_interval(secs => %s)
"""
"""Ends the session of a leader that stopped in the middle of what it sends: to PostgreSQL's limits it is at work."""


@asynccontextmanager
async def lead(
    url: str, role: str, *, ask_every_seconds: float = 0.5, idle_seconds: float = IDLE_SECONDS
) -> AsyncIterator[Connection]:
    """Wait until nobody else in ``url``'s database has ``role``; gives the session that has it now.

    The session commits by itself outside ``connection.transaction()``. It does not go through a pooler that shares
    sessions (PgBouncer's transaction mode).

    Args:
        idle_seconds: how long the leader may leave the session alone; beyond it the lead is lost.

    Raises:
        psycopg.OperationalError: PostgreSQL cannot be reached.
    """
    connection: Connection = await psycopg.AsyncConnection.connect(
        url,
        autocommit=True,
        prepare_threshold=None,  # the session outlives migrations, which prepared statements may not
        options=f"{LEADER_SESSION} -c idle_session_timeout={round(idle_seconds * 1000)}",
        **CONNECTING,
    )
    async with connection:
        await configure(connection)
        began = time.monotonic()
        stood_by = False
        while not await _has(connection, role):
            if not stood_by:
                log.info("standing_by", role=role)
                stood_by = True
            if time.monotonic() - began > IDLE_SECONDS:
                ended = await connection.execute(END_HALF_SENT, (role, IDLE_SECONDS))
                if ended.rowcount:
                    log.warning("frozen_leader_ended", role=role)
            await asyncio.sleep(ask_every_seconds)
        log.info("leading", role=role)
        yield connection


async def _has(connection: Connection, role: str) -> bool:
    cursor = await connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (role,))
    row = await cursor.fetchone()
    return row is not None and bool(row[0])
