"""The floor of a whole booking: all that it writes in booking's and payment's databases, by pgbench.

pgbench knows one database, so the writes go to one of their own in the same server, which both services' own migrations
have made: booking's tables in ``public``, payment's in the schema ``payment``, with every column, index, partition and
trigger. No service looks at it: neither the relay nor the sweeper takes from pgbench what the machine can do, and what
the relay would write (``outbox_sent``) is in the script. The payloads are those that a real booking wrote just before.
Left out are the services' reads, and ``seat.availability``, which is one event a show and ten seconds, not a booking's.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg

from bench import pgbench
from local.databases import create_missing
from local.stack import Stack
from services.kit.migrations import migrate

HERE = Path(__file__).parent
DATABASE = "bench"
SHOWS = 2_300
"""As many as whole bookings are spread over."""
FEWEST = 4_000
"""Each of pgbench's clients plans some 50 statements at first, which must not count for much."""

OF_BOOKING = {
    "created": "SELECT payload FROM outbox WHERE aggregatetype = 'booking.created' ORDER BY id DESC LIMIT 1",
    "headers": "SELECT headers::text FROM outbox WHERE aggregatetype = 'booking.created' ORDER BY id DESC LIMIT 1",
    "confirmed": "SELECT payload FROM outbox WHERE aggregatetype = 'booking.confirmed' ORDER BY id DESC LIMIT 1",
    "hold_content": "SELECT content FROM requests WHERE method = 'hold' LIMIT 1",
    "book_content": "SELECT content FROM requests WHERE method = 'book' LIMIT 1",
    "book_answer": "SELECT answer FROM requests WHERE method = 'book' LIMIT 1",
    "quote": "SELECT quote FROM bookings WHERE status = 2 ORDER BY created_at DESC LIMIT 1",
    "expired_event": "SELECT expired_event FROM bookings WHERE status = 2 ORDER BY created_at DESC LIMIT 1",
}
OF_PAYMENT = {
    "completed": "SELECT payload FROM outbox WHERE aggregatetype = 'payment.completed' ORDER BY id DESC LIMIT 1",
    "pay_content": "SELECT content FROM requests LIMIT 1",
    "pay_answer": "SELECT answer FROM requests LIMIT 1",
    "facts": "SELECT facts::text FROM webhook_events LIMIT 1",
    "description": "SELECT description FROM payments LIMIT 1",
}


class BookingsFloor:
    """pgbench and its database. Use ``of``."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._url = stack.database_url(DATABASE)
        self._count = 0
        self._variables: dict[str, str] = {}

    @classmethod
    async def of(cls, stack: Stack) -> BookingsFloor:
        """Make the database; ``stack`` ends with it."""
        floor = cls(stack)
        await asyncio.to_thread(create_missing, stack.database_url("postgres"), [DATABASE])
        async with await psycopg.AsyncConnection.connect(floor._url, autocommit=True) as connection:
            await connection.execute("CREATE SCHEMA IF NOT EXISTS payment")
        await asyncio.to_thread(migrate, "booking", floor._url)
        await asyncio.to_thread(migrate, "payment", f"{floor._url}?options=-csearch_path%3Dpayment")
        return floor

    async def prepare(self, count: int) -> None:
        """Make what ``count`` bookings or more need. A real one must have been confirmed before."""
        self._count = count = max(count, FEWEST)
        booking, payment = self._stack.database_url("booking"), self._stack.database_url("payment")
        self._variables = {**await _written(booking, OF_BOOKING), **await _written(payment, OF_PAYMENT)}
        async with await psycopg.AsyncConnection.connect(booking) as connection:
            row = await (await connection.execute("SELECT show_id FROM bookings LIMIT 1")).fetchone()
        assert row is not None
        parameters = {"count": f"{count}", "shows": f"{min(count, SHOWS)}", "template": f"'{row[0]}'"}
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            await connection.execute((HERE / "selling.sql").read_text() % parameters)
            await connection.execute("VACUUM ANALYZE bench.to_sell, show_versions")

    async def sell(self) -> tuple[int, float]:
        """Write the bookings: how many, and the seconds."""
        return await pgbench.run(self._stack, self._url, HERE / "booking.pgbench", self._count, self._variables)


async def _written(url: str, queries: dict[str, str]) -> dict[str, str]:
    """What the newest bookings wrote, as PostgreSQL reads it."""
    found = {}
    async with await psycopg.AsyncConnection.connect(url) as connection:
        for name, query in queries.items():
            row = await (await connection.execute(query)).fetchone()
            if row is None:
                raise SystemExit(f"bench: no booking has written its {name} yet")
            found[name] = row[0] if isinstance(row[0], str) else f"\\x{bytes(row[0]).hex()}"
    return found
