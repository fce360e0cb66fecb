"""Tables that are split by ranges of their ids, which begin with a day (``kit/ids.py``).

Each has a default partition, which takes what no other one covers: no row is ever refused. Partitions are made before
their days come, and take over what the default has of them; old ones are moved to the schema ``archive``, or dropped.

Every step is a transaction of its own that can be done again, so whoever died in the middle is continued by the next.
All who use a table wait behind a step that waits for its locks. So it is not begun while a transaction of more than a
second has the table, gives up after ``LOCK_WAIT``, and comes again with the next look.
``docs/decisions/partitions.md`` says why it is not CONCURRENTLY.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum, auto
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
INVENTORY = """
    SELECT n.nspname, c.relname, pg_get_expr(c.relpartbound, c.oid), greatest(c.reltuples, 0)::bigint,
           pg_size_pretty(pg_total_relation_size(c.oid))
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
    WHERE i.inhparent = %s::regclass
       OR n.nspname = %s AND c.relname ~ %s
    ORDER BY c.relname
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
        """SQL that makes a partition, with what the default has of it; for one transaction.

        It locks the table, although PostgreSQL would attach without: an insert that had chosen the default, and waits
        for it, would then be refused because the default is no longer right for its row.
        """
        low, high = self.bounds(span)
        return f"""
            LOCK TABLE ONLY {self.table} IN ACCESS EXCLUSIVE MODE;
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
    found = [span for row in await cursor.fetchall() if (span := _span(each, row[0]))]
    return sorted(found, key=lambda span: span.first)


def _span(each: Partitioned, bounds: str) -> Span | None:
    """Read ``FOR VALUES FROM ('...') TO ('...')``; None for the default."""
    ids = [UUID(id_) for id_ in re.findall(r"'([^']+)'", bounds)]
    return Span(each.ids.day_of(ids[0]), each.ids.day_of(ids[1])) if ids else None


@dataclass(frozen=True, slots=True)
class Part:
    """A partition as an operator sees it; ``rows`` as PostgreSQL last estimated them."""

    name: str
    days: str
    rows: int
    size: str


async def inventory(connection: Connection, each: Partitioned) -> list[Part]:
    """The partitions of a table, with the default and the archived ones."""
    cursor = await connection.execute(INVENTORY, (each.table, ARCHIVE, f"^{each.table}_[0-9]{{8}}$"))
    found = []
    for schema, name, bounds, rows, size in await cursor.fetchall():
        span = _span(each, bounds or "")
        days = (
            f"{span.first} to {span.end - timedelta(days=1)}" if span else "archived" if schema == ARCHIVE else "other"
        )
        found.append(Part(name, days, rows, size))
    return found


async def make_ahead(connection: Connection, each: Partitioned, *, today: date, ahead: timedelta) -> None:
    """Have partitions from yesterday until ``ahead``, and for everything older that lies in the default.

    What was archived stays so: its latecomers remain in the default.
    """
    have = await spans(connection, each)
    for span in each.missing(have, today - timedelta(days=1), today + ahead):
        if await _step(connection, each, "made", each.name(span), each.making(span)) is Step.DONE:
            have.append(span)
    lowest = f"SELECT {each.key} FROM {each.default} WHERE {each.key} >= %s AND {each.key} < %s ORDER BY 1 LIMIT 1"
    low, high = UUID(int=0), each.ids.first_id(today + ahead)
    while row := await (await connection.execute(lowest, (low, high))).fetchone():
        day = each.ids.day_of(row[0])
        span = next(iter(each.missing(have, day, day)))
        if not await _true(connection, f"to_regclass('{ARCHIVE}.{each.name(span)}') IS NOT NULL"):
            await _step(connection, each, "made", each.name(span), each.making(span))
        low = each.ids.first_id(span.end)


async def archive(connection: Connection, each: Partitioned, *, before: date, unless: str = "false") -> list[str]:
    """Move partitions that end by ``before`` to the schema ``archive``. Answers which of them stayed.

    Args:
        unless: an SQL condition on a row; a partition with such a row stays.
    """
    stay: list[str] = []
    for span in await spans(connection, each):
        part = each.name(span)
        if span.end <= before:
            step = await _step(
                connection,
                each,
                "archived",
                part,
                f"CREATE SCHEMA IF NOT EXISTS {ARCHIVE}",
                f"ALTER TABLE {each.table} DETACH PARTITION {part}",
                f"ALTER TABLE {part} SET SCHEMA {ARCHIVE}",
                unless=f"EXISTS (SELECT FROM {part} WHERE {unless})",
            )
            stay += [part] if step is not Step.DONE else []
    return stay


async def drop(connection: Connection, each: Partitioned, *, before: date, unless: str) -> list[str]:
    """Drop partitions that end by ``before``. Answers for which of them ``unless`` is true; they stay.

    Args:
        unless: an SQL condition on ``{part}``, whose ids are from ``{low}`` up to below ``{high}``.
    """
    needed: list[str] = []
    for span in await spans(connection, each):
        part, (low, high) = each.name(span), each.bounds(span)
        if span.end <= before:
            condition = unless.format(part=part, low=f"'{low}'", high=f"'{high}'")
            step = await _step(connection, each, "dropped", part, f"DROP TABLE {part}", unless=condition)
            needed += [part] if step is Step.NEEDED else []
    return needed


class Step(Enum):
    DONE = auto()
    NEEDED = auto()
    """There is a reason to leave the partition as it is."""
    LATER = auto()
    """Somebody uses the table."""


async def _step(
    connection: Connection, each: Partitioned, verb: str, part: str, *statements: str, unless: str = ""
) -> Step:
    """Do what one partition needs, in a transaction; nobody adds to it between the look for ``unless`` and the end."""
    if await _true(connection, LONG_USER.format(table=each.table)):
        log.info("partition_later", partition=part, why="a long transaction uses the table")
        return Step.LATER
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'")
            if unless:
                await connection.execute(f"LOCK TABLE {part} IN SHARE MODE")
                if await _true(connection, unless):
                    return Step.NEEDED
            for statement in statements:
                await connection.execute(statement)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, psycopg.errors.QueryCanceled) as error:
        log.info("partition_later", partition=part, why=str(error).partition("\n")[0])
        return Step.LATER
    log.info(f"partition_{verb}", partition=part)
    return Step.DONE


async def _true(connection: Connection, condition: str) -> bool:
    row = await (await connection.execute(f"SELECT {condition}")).fetchone()
    return row is not None and bool(row[0])
