"""Tables that are split by ranges of their ids, which begin with a day (``kit/ids.py``).

Each has a default partition, which takes what no other one covers: no row is ever refused. Partitions are made before
their days come, and take over what the default has of them; old ones are moved to the schema ``archive``, or dropped.

Every step is a transaction of its own that can be done again, so whoever died in the middle is continued by the next.
It waits ``LOCK_WAIT`` for its locks and no longer, as all who use the table wait behind it, and then raises
``psycopg.errors.LockNotAvailable``: try again later. ``docs/decisions/partitions.md`` says why it is not CONCURRENTLY.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import psycopg
import structlog

from services.kit.database import Connection
from services.kit.ids import EPOCH, business_date_of, day_of_uuid7, first_id_of, first_uuid7_of

log = structlog.get_logger()

ARCHIVE = "archive"
LOCK_WAIT = "250ms"

TODAY = "SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date"
BOUNDS = """
    SELECT pg_get_expr(c.relpartbound, c.oid)
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = %s::regclass
"""
LONG_USER = """
    EXISTS (
        SELECT
        FROM pg_locks l
        JOIN pg_stat_activity a USING (pid)
        WHERE l.relation = '{table}'::regclass
          AND a.datname = current_database()
          AND a.pid <> pg_backend_pid()
          AND a.xact_start < clock_timestamp() - interval '1 second'
    )
"""


@dataclass(frozen=True, slots=True)
class Days:
    """How ids tell days: the lowest id of a day, and the day of an id."""

    first_id: Callable[[date], UUID]
    day_of: Callable[[UUID], date]


BUSINESS_DAYS = Days(first_id_of, business_date_of)
CLOCK_DAYS = Days(first_uuid7_of, day_of_uuid7)


@dataclass(frozen=True, slots=True)
class Span:
    """Days from ``first`` on, without ``end``."""

    first: date
    end: date


@dataclass(frozen=True, slots=True)
class Partitioned:
    """A table, the column with the ids, how they tell days, and how many days a partition covers."""

    table: str
    key: str
    ids: Days
    days: int

    @property
    def default(self) -> str:
        return f"{self.table}_default"

    def name(self, span: Span) -> str:
        return f"{self.table}_{span.first:%Y%m%d}"

    def bounds(self, span: Span) -> tuple[UUID, UUID]:
        """The lowest id of the span, and the first one after it."""
        return self.ids.first_id(span.first), self.ids.first_id(span.end)

    def missing(self, have: Sequence[Span], first: date, last: date) -> list[Span]:
        """The spans that ``have`` lacks to cover the days from ``first`` to ``last``; none touches what is there."""
        found: list[Span] = []
        day = first
        while day <= last:
            covering = next((span for span in have if span.first <= day < span.end), None)
            if covering is None:
                start = EPOCH + (day - EPOCH) // timedelta(days=self.days) * timedelta(days=self.days)
                covering = Span(
                    max([start, *(span.end for span in have if span.end <= day)]),
                    min([start + timedelta(days=self.days), *(span.first for span in have if span.first > day)]),
                )
                found.append(covering)
            day = covering.end
        return found

    def making(self, span: Span) -> str:
        """SQL that makes a partition, with what the default has of it; for one transaction."""
        low, high = self.bounds(span)
        return f"""
            LOCK TABLE ONLY {self.table} IN SHARE UPDATE EXCLUSIVE MODE;
            LOCK TABLE {self.default} IN ACCESS EXCLUSIVE MODE;
            CREATE TABLE {self.name(span)} (LIKE {self.table} INCLUDING ALL);
            WITH moved AS (
                DELETE FROM {self.default}
                WHERE {self.key} >= '{low}'
                  AND {self.key} < '{high}'
                RETURNING *
            )
            INSERT INTO {self.name(span)}
            SELECT *
            FROM moved;
            ALTER TABLE {self.table} ATTACH PARTITION {self.name(span)} FOR VALUES FROM ('{low}') TO ('{high}');
        """


# --- once: when the database is brought up to date --------------------------------------------------------------------


def partition(connection: psycopg.Connection[Any], each: Partitioned, *, ahead: timedelta) -> bool:
    """Turn a plain table into a partitioned one, in the caller's transaction; False when it is one already.

    The table becomes its own default partition; `make_ahead` moves what is older than yesterday out of that later.
    Triggers remain on the default.
    """
    kind = connection.execute("SELECT relkind::text FROM pg_class WHERE oid = %s::regclass", (each.table,)).fetchone()
    if kind == ("p",):
        return False
    row = connection.execute(TODAY).fetchone()
    assert row is not None
    today: date = row[0]
    for statement in (
        f"ALTER TABLE {each.table} RENAME TO {each.default}",
        f"CREATE TABLE {each.table} (LIKE {each.default} INCLUDING ALL) PARTITION BY RANGE ({each.key})",
        f"ALTER TABLE {each.table} ATTACH PARTITION {each.default} DEFAULT",
        *(each.making(span) for span in each.missing([], today - timedelta(days=1), today + ahead)),
    ):
        connection.execute(statement)
    return True


# --- again and again --------------------------------------------------------------------------------------------------


async def today(connection: Connection) -> date:
    """The day by the database's clock (UTC)."""
    row = await (await connection.execute(TODAY)).fetchone()
    assert row is not None
    day: date = row[0]
    return day


async def spans(connection: Connection, each: Partitioned) -> list[Span]:
    """What the partitions of a table cover, the oldest first; without the default."""
    cursor = await connection.execute(BOUNDS, (each.table,))
    bounds = [re.findall(r"'([^']+)'", row[0]) for row in await cursor.fetchall()]
    found = [Span(each.ids.day_of(UUID(pair[0])), each.ids.day_of(UUID(pair[1]))) for pair in bounds if len(pair) == 2]
    return sorted(found, key=lambda span: span.first)


async def make_ahead(connection: Connection, each: Partitioned, *, today: date, ahead: timedelta) -> None:
    """Have partitions from yesterday until ``ahead``, and for everything older that lies in the default.

    What was archived stays so: its latecomers remain in the default.
    """
    have = await spans(connection, each)

    async def make(span: Span) -> None:
        async with _briefly(connection):
            await connection.execute(each.making(span))
        have.append(span)
        log.info("partition_made", partition=each.name(span))

    for span in each.missing(have, today - timedelta(days=1), today + ahead):
        await make(span)
    lowest = f"SELECT {each.key} FROM {each.default} WHERE {each.key} >= %s AND {each.key} < %s ORDER BY 1 LIMIT 1"
    low, high = UUID(int=0), each.ids.first_id(today + ahead)
    while row := await (await connection.execute(lowest, (low, high))).fetchone():
        day = each.ids.day_of(row[0])
        (span,) = each.missing(have, day, day)
        if await _true(connection, f"to_regclass('{ARCHIVE}.{each.name(span)}') IS NULL"):
            await make(span)
        low = each.ids.first_id(span.end)


async def archive(connection: Connection, each: Partitioned, *, before: date, unless: str = "false") -> list[str]:
    """Move partitions that end by ``before`` to the schema ``archive``. Answers which of them had to stay.

    Args:
        unless: an SQL condition on a row; a partition with such a row stays.
    """
    old = [span for span in await spans(connection, each) if span.end <= before]
    for span in old:
        part = each.name(span)
        if await _is_used_at_length(connection, each):
            break
        async with _briefly(connection):
            await connection.execute(f"LOCK TABLE {part} IN SHARE MODE")  # nobody adds to it between look and end
            if await _true(connection, f"EXISTS (SELECT FROM {part} WHERE {unless})"):
                continue
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {ARCHIVE}")
            await connection.execute(f"ALTER TABLE {each.table} DETACH PARTITION {part}")
            await connection.execute(f"ALTER TABLE {part} SET SCHEMA {ARCHIVE}")
        log.info("partition_archived", partition=part)
    return [each.name(span) for span in await spans(connection, each) if span in old]


async def drop(connection: Connection, each: Partitioned, *, before: date, unless: str) -> list[str]:
    """Drop partitions that end by ``before``. Answers for which of them ``unless`` is true; they stay.

    Args:
        unless: an SQL condition on ``{part}``, whose ids are from ``{low}`` up to below ``{high}``.
    """
    stay: list[str] = []
    for span in await spans(connection, each):
        part, (low, high) = each.name(span), each.bounds(span)
        if span.end > before or await _is_used_at_length(connection, each):
            break
        async with _briefly(connection):
            await connection.execute(f"LOCK TABLE {part} IN SHARE MODE")
            if await _true(connection, unless.format(part=part, low=f"'{low}'", high=f"'{high}'")):
                stay.append(part)
                continue
            await connection.execute(f"DROP TABLE {part}")
        log.info("partition_dropped", partition=part)
    return stay


@asynccontextmanager
async def _briefly(connection: Connection) -> AsyncIterator[None]:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'")
        yield


async def _is_used_at_length(connection: Connection, each: Partitioned) -> bool:
    """Whether a transaction of more than a second has the table: waiting for its end would hold up everybody else."""
    return await _true(connection, LONG_USER.format(table=each.table))


async def _true(connection: Connection, condition: str) -> bool:
    row = await (await connection.execute(f"SELECT {condition}")).fetchone()
    return row is not None and bool(row[0])
