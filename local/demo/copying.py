"""Rows into the catalogue's tables by COPY, with an event in the outbox for each new one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from google.protobuf.message import Message
from psycopg import sql

from services.catalog.announcements import changed
from services.kit.database import Connection

OUTBOX = ("aggregatetype", "aggregateid", "type", "payload", "headers")
LOCK = 7_205_302
"""Two loads at once would wait for each other's rows in different orders."""


async def connect(url: str) -> Connection:
    """A connection without the services' time limits: a large day takes a while."""
    return await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=5)


async def begin(connection: Connection) -> None:
    """Wait until no other load is under way; call it first in the transaction."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))


async def add_new(
    connection: Connection, table: LiteralString, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> set[UUID | str]:
    """Add those rows that no rule of the table forbids; answers the first column of what was added.

    What exists stays as it is: an administrator may have changed it, or put another show in the place.
    """
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    target = sql.Identifier(table)
    fresh = sql.Identifier(f"new_{table}")
    await connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
            fresh, names, target
        )
    )
    async with connection.cursor() as cursor:
        async with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(fresh, names)) as copy:
            for row in rows:
                await copy.write_row(row)
        await cursor.execute(
            sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT DO NOTHING RETURNING {}").format(
                target, names, names, fresh, sql.Identifier(columns[0])
            )
        )
        added = {row[0] for row in await cursor.fetchall()}
        await cursor.execute(sql.SQL("DROP TABLE {}").format(fresh))
        return added


async def announce(connection: Connection, messages: Iterable[Message]) -> int:
    """An event for each message; answers how many."""
    count = 0
    names = sql.SQL(", ").join(map(sql.Identifier, OUTBOX))
    async with (
        connection.cursor() as cursor,
        cursor.copy(sql.SQL("COPY outbox ({}) FROM STDIN").format(names)) as copy,
    ):
        for message in messages:
            await copy.write_row(changed(message).row())
            count += 1
    return count


async def refresh_statistics(connection: Connection) -> None:
    """Let PostgreSQL plan for what was just added instead of for empty tables."""
    await connection.execute("ANALYZE movies, events, venues, screens, layouts, shows")
