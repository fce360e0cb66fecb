"""PostgreSQL: sessions, and a psycopg pool for the hot path. SQLAlchemy, for ordinary reads and writes: ``engine.py``.

URLs are libpq's. ``postgresql://user@one:5432,two:5432/booking?target_session_attrs=read-write`` connects to whichever
of two servers takes writes, and so finds a promoted replica.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection
from psycopg.errors import IdleInTransactionSessionTimeout, TransactionTimeout
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from services.kit import arrays

if TYPE_CHECKING:  # whoever needs no SQLAlchemy starts 0.3 s sooner
    from sqlalchemy.ext.asyncio import AsyncConnection as AlchemyConnection

Connection = AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Connection]

SESSION = "-c TimeZone=UTC -c lock_timeout=3000 -c statement_timeout=10000 -c idle_in_transaction_session_timeout=15000"
"""No lock is waited for longer than 3 s, so that one hot show cannot drain a pool."""

SHORT_TRANSACTIONS = "-c transaction_timeout=20000"
"""For sessions that answer calls: a transaction, with its locks, ends after 20 s whatever its client does. Most that is
stuck ends sooner by the other limits. But ``idle_in_transaction_session_timeout`` knows only a client that is silent
between statements, not one that stopped in the middle of several which it sends together. The wait for a synchronous
standby is not part of it. Sessions that lead, move or export may have long transactions, and not this limit."""

SESSION_ENDED = (IdleInTransactionSessionTimeout, TransactionTimeout)
"""What a client finds who was silent for too long (stopped, or kept busy) and goes on: its transaction was rolled back
and its session is over. psycopg does not count them among its operational errors."""

LASTING_PLANS = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
"""A statement is planned once in a session, for all values. Without this PostgreSQL would plan each statement on a
partitioned table anew each time: it weighs plans without knowing that a plan for all partitions opens only one. A plan
made while a partition was empty must not read it whole when it has grown."""


CONNECTING: dict[str, Any] = {
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
        "options": f"{SESSION} {SHORT_TRANSACTIONS} {options}",
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
        configure=configure,
        open=False,
    )
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close(timeout=5)


async def configure(connection: Connection) -> None:
    """Send lists quickly."""
    arrays.register(connection.adapters)


async def session_of(connection: Connection | AlchemyConnection) -> Connection:
    """The session under SQLAlchemy's connection: what it does there belongs to the same transaction."""
    if isinstance(connection, AsyncConnection):
        return connection
    session: Connection | None = (await connection.get_raw_connection()).driver_connection
    assert session is not None
    return session
