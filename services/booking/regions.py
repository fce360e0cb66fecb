"""Moving a region's shows, with all that belongs to them, to another database: ``move-region 2 north``.

The region is closed first: processes learn of it and refuse its calls for the moment, and triggers refuse whoever has
not heard. What is copied is counted and hashed on both sides before it is committed. Afterwards the region stays closed
where it was, so that a process with an old directory sells nothing there. ``docs/decisions/regions.md`` has the steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog
from psycopg import sql

from services.kit.database import SESSION

log = structlog.get_logger()
Connection = psycopg.Connection[Any]

TABLES: Mapping[str, str] = {
    "shows": "show_id",
    "show_versions": "show_id",
    "seat_claims": "show_id",
    "show_log": "show_id",
    "reservations": "show_id",
    "bookings": "show_id",
    "booking_items": "show_id",
    "captures": "show_id",
    "requests": "show_id",
    "user_bookings": "booking_id",
}
"""What is copied, and the column whose ids name the region. Layouts are copied besides, as regions share them."""

FENCED = ("show_versions", "reservations", "user_bookings")
"""Whoever changes anything of a show writes to one of these."""

MOVING = "marquee.moving_region"
"""Set in a session that may write to a closed region."""

REFUSE = f"""
    CREATE OR REPLACE FUNCTION region_is_closed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF current_setting('{MOVING}', true) = 'on' THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'this region is sold from another database' USING ERRCODE = 'object_not_in_prerequisite_state';
    END $$
"""


class MoveFailed(Exception):
    """A region could not be moved; everything is as it was. Says why."""


@dataclass(frozen=True, slots=True)
class Count:
    """The rows of a table that are a region's, and a hash of all that is in them."""

    table: str
    rows: int
    hash: int


def move(source_url: str, target_url: str, region: int, *, wait: Callable[[], None]) -> list[Count]:
    """Move ``region``, or finish a move that was cut short after the copy; answers what is there now.

    At no moment is the region open in both databases: it is closed in the new one too, until the old one is laid down.

    Args:
        wait: until every process has learnt that the region is closed.

    Raises:
        MoveFailed
        psycopg.Error: a database failed. Unless it was at the very end, the region is open again where it was.
    """
    with _connected(source_url) as source, _connected(target_url) as target:
        if _identity(source) == _identity(target):
            raise MoveFailed("both are the same database")
        if not _has_shows(source, region):
            raise MoveFailed(f"there are no shows of region {region} in the database to move from")
        if not _was_moved(source, region):
            if _is_closed(source, region):
                raise MoveFailed(f"region {region} is being moved; if that was killed, `reopen-region` first")
            close(source, region)
            try:
                wait()
                _fence(source, region)
                _copy(source, target, region)
            except BaseException:
                reopen(source, region)
                raise
            _lay_down(source, region)
        elif not _has_shows(target, region):
            raise MoveFailed(f"region {region} was moved from there to another database")
        target.execute("DELETE FROM closed_regions WHERE region = %s AND moved_at IS NULL", (region,))
        return [_count(target, table, column, region) for table, column in TABLES.items()]


def close(connection: Connection, region: int) -> None:
    """Have every process refuse the region's calls, once it has looked."""
    connection.execute("INSERT INTO closed_regions (region) VALUES (%s)", (region,))
    log.info("region_closed", region=region)


def reopen(connection: Connection, region: int) -> None:
    """Sell the region from here again, after a move that did not come to its end.

    Raises:
        MoveFailed: it came to its end.
    """
    if _was_moved(connection, region):
        raise MoveFailed(f"region {region} was moved from there; what remains of it is old")
    _unfence(connection, region)
    connection.execute("DELETE FROM closed_regions WHERE region = %s", (region,))
    log.info("region_open", region=region)


def _fence(connection: Connection, region: int) -> None:
    """From now on nobody writes to the region here. Waits for those who are at it."""
    connection.execute(REFUSE)
    for table in FENCED:
        _patiently(
            connection,
            f"""
            CREATE TRIGGER {_trigger(region)} BEFORE INSERT OR UPDATE ON {table}
            FOR EACH ROW WHEN ({_is_of(region, f"NEW.{TABLES[table]}")})
            EXECUTE FUNCTION region_is_closed()
            """,
        )


def _unfence(connection: Connection, region: int) -> None:
    for table in FENCED:
        _patiently(connection, f"DROP TRIGGER IF EXISTS {_trigger(region)} ON {table}")


def _copy(source: Connection, target: Connection, region: int) -> None:
    """Copy everything in one transaction of the target, which is committed, still closed, when both sides agree."""
    source.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        _unfence(target, region)  # it may have been moved away from there once
        with target.transaction():
            target.execute(
                """
                INSERT INTO closed_regions (region)
                VALUES (%s)
                ON CONFLICT (region) DO UPDATE
                SET moved_at = NULL
                """,
                (region,),
            )
            for table, column in TABLES.items():
                target.execute(f"DELETE FROM {table} WHERE {_is_of(region, column)}")  # an earlier try's, or move's
            _copy_layouts(source, target, region)
            for table, column in TABLES.items():
                _copy_table(source, target, table, _is_of(region, column))
                here, there = (_count(each, table, column, region) for each in (source, target))
                if here != there:
                    raise MoveFailed(f"{table} differs after copying: {here.rows} rows became {there.rows}")
    finally:
        source.execute("ROLLBACK")


def _copy_table(source: Connection, target: Connection, table: str, condition: str) -> None:
    columns = ", ".join(_columns(target, table))
    with (
        source.cursor().copy(f"COPY (SELECT {columns} FROM {table} WHERE {condition}) TO STDOUT") as rows,
        target.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copy,
    ):
        for row in rows:
            copy.write(row)


def _copy_layouts(source: Connection, target: Connection, region: int) -> None:
    rows = source.execute(
        f"""
        SELECT layout_id, layout
        FROM layouts
        WHERE layout_id IN (SELECT layout_id FROM shows WHERE {_is_of(region)})
        """
    )
    for row in rows.fetchall():
        target.execute("INSERT INTO layouts (layout_id, layout) VALUES (%s, %s) ON CONFLICT DO NOTHING", row)


def _lay_down(source: Connection, region: int) -> None:
    """From here on what remains is nobody's: closed for ever, in no list, its holds do not run out."""
    with source.transaction():
        source.execute(sql.SQL("SET LOCAL {} = 'on'").format(sql.SQL(MOVING)))
        source.execute("UPDATE closed_regions SET moved_at = clock_timestamp() WHERE region = %s", (region,))
        source.execute(f"UPDATE reservations SET holding = false WHERE holding AND {_is_of(region)}")
        source.execute(f"DELETE FROM user_bookings WHERE {_is_of(region, 'booking_id')}")


def _count(connection: Connection, table: str, column: str, region: int) -> Count:
    columns = ", ".join(_columns(connection, table))
    row = connection.execute(
        f"""
        SELECT count(*), coalesce(sum(hashtextextended(ROW({columns})::text, 0)::numeric), 0)
        FROM {table}
        WHERE {_is_of(region, column)}
        """
    ).fetchone()
    assert row is not None
    return Count(table, row[0], int(row[1]))


def _columns(connection: Connection, table: str) -> list[str]:
    """In the order of their names: tables of different ages may have them in different orders."""
    rows = connection.execute(
        """
        SELECT attname
        FROM pg_attribute
        WHERE attrelid = %s::regclass
          AND attnum > 0
          AND NOT attisdropped
        ORDER BY attname
        """,
        (table,),
    )
    return [row[0] for row in rows]


def _is_closed(connection: Connection, region: int) -> bool:
    return connection.execute("SELECT FROM closed_regions WHERE region = %s", (region,)).fetchone() is not None


def _was_moved(connection: Connection, region: int) -> bool:
    moved = "SELECT FROM closed_regions WHERE region = %s AND moved_at IS NOT NULL"
    return connection.execute(moved, (region,)).fetchone() is not None


def _has_shows(connection: Connection, region: int) -> bool:
    return connection.execute(f"SELECT FROM shows WHERE {_is_of(region)} LIMIT 1").fetchone() is not None


def _identity(connection: Connection) -> Any:
    return connection.execute(
        """
        SELECT system_identifier, current_database()
        FROM pg_control_system()
        """
    ).fetchone()


def _is_of(region: int, column: str = "show_id") -> str:
    """SQL: whether an id is of the region, its second 16 bits (``kit/ids.py``)."""
    return f"substr({column}::text, 5, 4) = '{region:04x}'"


def _trigger(region: int) -> str:
    return f"region_{region}_is_closed"


def _patiently(connection: Connection, statement: str) -> None:
    """Ask for a lock briefly and often: everybody else waits behind one that waits long."""
    for _ in range(100):
        try:
            with connection.transaction():
                connection.execute("SET LOCAL lock_timeout = '250ms'")
                connection.execute(statement.encode())
            return
        except psycopg.errors.LockNotAvailable:
            time.sleep(0.25)
    raise MoveFailed("a table is in use at length; try again later")


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True, connect_timeout=5, options=f"{SESSION} -c statement_timeout=0") as made:
        made.execute("SET idle_in_transaction_session_timeout = 0")
        yield made
