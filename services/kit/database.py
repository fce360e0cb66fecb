"""PostgreSQL: a psycopg pool for the hot path, a SQLAlchemy engine for ordinary reads and writes.

URLs are libpq's. ``postgresql://user@one:5432,two:5432/booking?target_session_attrs=read-write`` connects to whichever
of two servers takes writes, and so finds a promoted replica.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from services.kit import arrays

Connection = AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Connection]

SESSION = "-c TimeZone=UTC -c lock_timeout=3000 -c statement_timeout=10000 -c idle_in_transaction_session_timeout=15000"
"""No lock is waited for longer than 3 s, so that one hot show cannot drain a pool."""

LASTING_PLANS = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
"""A statement is planned once in a session, for all values. Without this PostgreSQL would plan each statement on a
partitioned table anew each time: it weighs plans without knowing that a plan for all partitions opens only one. A plan
made while a partition was empty must not read it whole when it has grown."""


CONNECTING = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
"""A server that is gone without a word is noticed within about ten seconds, also by whoever waits for its answer."""

RECONNECT_SECONDS = 8.0
"""Pauses between attempts double; after this long an attempt is given up, and the next call begins a new one. So a
server that was away for long is found again within seconds."""


@asynccontextmanager
async def open_pool(
    url: str, *, size: int, wait_seconds: float = 5.0, name: str = "pool", options: str = ""
) -> AsyncIterator[Pool]:
    """A pool of autocommitting connections; use ``connection.transaction()`` for more than one statement.

    A call that finds no free connection within ``wait_seconds`` fails with ``psycopg_pool.PoolTimeout``.
    ``options`` are further settings of the sessions.
    """
    kwargs: dict[str, Any] = {
        "autocommit": True,
        "prepare_threshold": 1,
        "options": f"{SESSION} {options}",
        **CONNECTING,
    }
    pool: Pool = AsyncConnectionPool(
        url,
        min_size=min(2, size),
        max_size=size,
        timeout=wait_seconds,
        max_waiting=size * 50,
        max_lifetime=3600,
        reconnect_timeout=RECONNECT_SECONDS,
        name=name,
        kwargs=kwargs,
        configure=_configure,
        open=False,
    )
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close(timeout=5)


async def _configure(connection: Connection) -> None:
    arrays.register(connection.adapters)


def connect_args(url: str) -> dict[str, Any]:
    """A libpq URL for SQLAlchemy, whose own do not know several hosts."""
    return {name: value for name, value in conninfo_to_dict(url).items() if value is not None}


@asynccontextmanager
async def open_engine(url: str, *, size: int, wait_seconds: float = 5.0) -> AsyncIterator[AsyncEngine]:
    """A SQLAlchemy engine on psycopg. Connections are tried before use, so a restarted PostgreSQL costs no error."""
    engine = create_async_engine(
        "postgresql+psycopg://",
        pool_size=size,
        max_overflow=0,
        pool_timeout=wait_seconds,
        pool_pre_ping=True,
        pool_recycle=3600,
        hide_parameters=True,  # else an error's text, which is logged, holds the statement's values
        connect_args={**connect_args(url), "options": SESSION, **CONNECTING},
    )
    try:
        yield engine
    finally:
        await engine.dispose()
