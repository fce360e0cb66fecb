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

from services.kit.database import SESSION, Connection

log = structlog.get_logger()

IDLE_SECONDS = 5
"""A leader that says nothing for so long is frozen; PostgreSQL ends its session and with that its lead."""

LEADER_SESSION = f"{SESSION} -c idle_session_timeout={IDLE_SECONDS * 1000} -c plan_cache_mode=force_custom_plan"
"""Custom plans: what a leader asks for is at the end of long tables, which a generic plan would read whole."""


@asynccontextmanager
async def lead(url: str, role: str, *, ask_every_seconds: float = 0.5) -> AsyncIterator[Connection]:
    """Wait until nobody else in ``url``'s database has ``role``; gives the session that has it now.

    The session commits by itself outside ``connection.transaction()``. Use it at least every few seconds.
    It does not go through a pooler that shares sessions (PgBouncer's transaction mode).

    Raises:
        psycopg.OperationalError: PostgreSQL cannot be reached.
    """
    connection: Connection = await psycopg.AsyncConnection.connect(
        url,
        autocommit=True,
        prepare_threshold=None,  # the session outlives migrations, which prepared statements may not
        options=LEADER_SESSION,
        connect_timeout=5,
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
    )
    async with connection:
        stood_by = False
        while not await _has(connection, role):
            if not stood_by:
                log.info("standing_by", role=role)
                stood_by = True
            await asyncio.sleep(ask_every_seconds)
        log.info("leading", role=role)
        yield connection


async def _has(connection: Connection, role: str) -> bool:
    cursor = await connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (role,))
    row = await cursor.fetchone()
    return row is not None and bool(row[0])
