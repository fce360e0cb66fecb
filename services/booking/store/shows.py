"""Booking's copy of shows and layouts, kept by the catalogue's events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.kit.database import Connection, Pool


@dataclass(frozen=True, slots=True)
class ShowRow:
    """A row of ``shows``."""

    show_id: UUID
    version: int
    title: str
    city_id: str
    venue_id: str
    venue_name: str
    screen_name: str
    time_zone: str
    start_time: datetime
    sale_opens: datetime
    sale_closes: datetime
    layout_id: UUID
    layout_version: int
    capacity: int
    currency: str
    prices: dict[str, int]
    refund_tiers: list[tuple[int, int]]
    cancelled: bool


COLUMNS = (
    "show_id, version, title, city_id, venue_id, venue_name, screen_name, time_zone, start_time, sale_opens,"
    " sale_closes, layout_id, layout_version, capacity, currency, prices, refund_tiers, cancelled"
)


class ShowStore:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find_many(self, show_ids: Sequence[UUID]) -> list[ShowRow]:
        """Those that exist."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                f"SELECT {COLUMNS} FROM shows WHERE show_id = ANY (%s)", (list(show_ids),)
            )
            return [ShowRow(*row) for row in await cursor.fetchall()]

    async def find_layout(self, layout_id: UUID) -> bytes | None:
        """The serialized ``marquee.catalog.v1.Layout``."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute("SELECT layout FROM layouts WHERE layout_id = %s", (layout_id,))
            row = await cursor.fetchone()
        return bytes(row[0]) if row else None

    async def keep_layout(self, layout_id: UUID, layout: bytes) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(
                "INSERT INTO layouts (layout_id, layout) VALUES (%s, %s) ON CONFLICT DO NOTHING", (layout_id, layout)
            )


async def keep_shows(connection: Connection, rows: Sequence[ShowRow]) -> None:
    """Insert shows, or update those of which we know an older version. In the caller's transaction."""
    # One show may have changed twice in a batch; ON CONFLICT cannot touch a row twice in one statement.
    latest: dict[UUID, ShowRow] = {}
    for row in rows:
        known = latest.get(row.show_id)
        if known is None or row.version > known.version:
            latest[row.show_id] = row
    ordered = [latest[show_id] for show_id in sorted(latest)]
    if not ordered:
        return
    ids = [row.show_id for row in ordered]
    await connection.execute(
        """
        INSERT INTO show_versions (show_id)
        SELECT unnest(%s::uuid[])
        ON CONFLICT DO NOTHING
        """,
        (ids,),
    )
    # Sellers read the show under this lock, so none of them sees half a change.
    await connection.execute("SELECT FROM show_versions WHERE show_id = ANY (%s) ORDER BY show_id FOR UPDATE", (ids,))
    await connection.execute(
        f"""
        INSERT INTO shows ({COLUMNS})
        SELECT *
        FROM unnest(
            %s::uuid[], %s::int[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
            %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::uuid[], %s::int[], %s::int[], %s::text[],
            %s::jsonb[], %s::jsonb[], %s::boolean[]
        )
        ON CONFLICT (show_id) DO UPDATE
        SET version = excluded.version, title = excluded.title, city_id = excluded.city_id,
            venue_id = excluded.venue_id, venue_name = excluded.venue_name, screen_name = excluded.screen_name,
            time_zone = excluded.time_zone, start_time = excluded.start_time, sale_opens = excluded.sale_opens,
            sale_closes = excluded.sale_closes, layout_id = excluded.layout_id,
            layout_version = excluded.layout_version, capacity = excluded.capacity, currency = excluded.currency,
            prices = excluded.prices, refund_tiers = excluded.refund_tiers, cancelled = excluded.cancelled
        WHERE shows.version < excluded.version
        """,
        (
            ids,
            [row.version for row in ordered],
            [row.title for row in ordered],
            [row.city_id for row in ordered],
            [row.venue_id for row in ordered],
            [row.venue_name for row in ordered],
            [row.screen_name for row in ordered],
            [row.time_zone for row in ordered],
            [row.start_time for row in ordered],
            [row.sale_opens for row in ordered],
            [row.sale_closes for row in ordered],
            [row.layout_id for row in ordered],
            [row.layout_version for row in ordered],
            [row.capacity for row in ordered],
            [row.currency for row in ordered],
            [json.dumps(row.prices) for row in ordered],
            [json.dumps(row.refund_tiers) for row in ordered],
            [row.cancelled for row in ordered],
        ),
    )
