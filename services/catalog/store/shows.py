"""SQL of shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from marquee.catalog import v1 as catalog_v1
from services.catalog.domain.shows import LONGEST, NamedShow, RefundTier, Show, ShowState, starts_on
from services.catalog.domain.titles import Format
from services.catalog.store.page import Page, SortKey, Where, rows_of_page
from services.kit.money import Money

COLUMNS = (
    "show_id",
    "movie_id",
    "event_id",
    "venue_id",
    "screen_id",
    "city_id",
    "start_time",
    "end_time",
    "business_date",
    "language",
    "format",
    "layout_id",
    "layout_version",
    "prices",
    "currency",
    "on_sale_time",
    "off_sale_time",
    "refund_tiers",
    "organizer_id",
    "capacity",
    "time_zone",
    "state",
    "version",
)
_JSON = frozenset({"prices", "refund_tiers"})


@dataclass(frozen=True, slots=True)
class ShowFilter:
    """Which shows to list."""

    title_id: UUID | None = None
    venue_id: UUID | None = None
    city_id: str = ""
    day: date | None = None
    format: Format | None = None
    language: str = ""
    state: ShowState | None = None


def show_row(show: Show) -> tuple[Any, ...]:
    """A show's values in the order of ``COLUMNS``; JSON as text."""
    return (
        show.show_id,
        show.movie_id,
        show.event_id,
        show.venue_id,
        show.screen_id,
        show.city_id,
        show.start_time,
        show.end_time,
        show.business_date,
        show.language,
        int(show.format),
        show.layout_id,
        show.layout_version,
        json.dumps([[category, price.minor] for category, price in show.prices.items()]),
        next(iter(show.prices.values())).currency,
        show.on_sale_time,
        show.off_sale_time,
        json.dumps([[tier.minutes_before, tier.percent] for tier in show.refund_tiers]),
        show.organizer_id,
        show.capacity,
        show.time_zone,
        int(show.state),
        show.version,
    )


def _show(row: RowMapping) -> Show:
    return Show(
        show_id=row["show_id"],
        movie_id=row["movie_id"],
        event_id=row["event_id"],
        venue_id=row["venue_id"],
        screen_id=row["screen_id"],
        city_id=row["city_id"],
        start_time=row["start_time"],
        end_time=row["end_time"],
        business_date=row["business_date"],
        language=row["language"],
        format=Format(row["format"]),
        layout_id=row["layout_id"],
        layout_version=row["layout_version"],
        prices={category: Money(minor, row["currency"]) for category, minor in row["prices"]},
        on_sale_time=row["on_sale_time"],
        off_sale_time=row["off_sale_time"],
        refund_tiers=tuple(RefundTier(minutes, percent) for minutes, percent in row["refund_tiers"]),
        organizer_id=row["organizer_id"],
        capacity=row["capacity"],
        time_zone=row["time_zone"],
        state=ShowState(row["state"]),
        version=row["version"],
    )


def _named(row: RowMapping) -> NamedShow:
    return NamedShow(_show(row), row["title"], row["venue_name"], row["screen_name"])


_SELECT = f"""
SELECT {", ".join(f"shows.{column}" for column in COLUMNS)},
       COALESCE(movies.title, events.title) AS title,
       venues.name AS venue_name,
       screens.name AS screen_name
FROM shows
JOIN venues ON venues.venue_id = shows.venue_id
JOIN screens ON screens.screen_id = shows.screen_id
LEFT JOIN movies ON movies.movie_id = shows.movie_id
LEFT JOIN events ON events.event_id = shows.event_id
""".strip()

_INSERT = f"""
INSERT INTO shows ({", ".join(COLUMNS)})
VALUES ({", ".join(f"CAST(:{column} AS jsonb)" if column in _JSON else f":{column}" for column in COLUMNS)})
"""


async def find_show(connection: AsyncConnection, show_id: UUID, *, lock: str = "") -> NamedShow | None:
    """The show; ``lock`` is ``FOR UPDATE OF shows`` in a transaction that changes it."""
    statement = text(f"{_SELECT}\nWHERE shows.show_id = :show_id {lock}")
    row = (await connection.execute(statement, {"show_id": show_id})).mappings().one_or_none()
    return None if row is None else _named(row)


async def list_shows(
    connection: AsyncConnection, wanted: ShowFilter, *, after: SortKey | None, size: int, now: datetime | None
) -> Page[NamedShow]:
    """Shows by start. With ``now`` those that are not over then, else all of them."""
    where = Where()
    if wanted.title_id is not None:
        where.add("shows.title_id = :title_id", title_id=wanted.title_id)
    if wanted.venue_id is not None:
        where.add("shows.venue_id = :venue_id", venue_id=wanted.venue_id)
    if wanted.state is not None:
        # A literal, so that the partial indexes are seen to fit.
        where.add(f"shows.state = {int(wanted.state)}")
    if wanted.city_id:
        where.add("shows.city_id = :city_id", city_id=wanted.city_id)
    if wanted.format is not None:
        where.add("shows.format = :format", format=int(wanted.format))
    if wanted.language:
        where.add("shows.language = :language", language=wanted.language)
    if now is not None:
        where.add("shows.end_time > :now AND shows.start_time > :earliest", now=now, earliest=now - LONGEST)
    if wanted.day is not None:
        day_from, day_to = starts_on(wanted.day)
        where.add(
            "shows.business_date = :day AND shows.start_time BETWEEN :day_from AND :day_to",
            day=wanted.day,
            day_from=day_from,
            day_to=day_to,
        )
    if after is not None:
        where.add(
            "(shows.start_time, shows.show_id) > (CAST(:after_time AS timestamptz), CAST(:after_id AS uuid))",
            after_time=after[0],
            after_id=after[1],
        )
    rows, more = await rows_of_page(connection, _SELECT, where, "shows.start_time, shows.show_id", size)
    last = rows[-1] if more else None
    next_after = None if last is None else _sort_key(last["start_time"], last["show_id"])
    return Page([_named(row) for row in rows], next_after)


def _sort_key(start_time: datetime, show_id: UUID | str) -> SortKey:
    return [start_time.isoformat(), str(show_id)]


def after_show(show: catalog_v1.Show) -> SortKey:
    """Where the page after this show begins."""
    return _sort_key(show.start_time.ToDatetime(UTC), show.show_id)


async def add_shows(connection: AsyncConnection, shows: Sequence[Show]) -> None:
    """Add shows whose screens the transaction has locked.

    Raises:
        sqlalchemy.exc.IntegrityError: constraint ``shows_apart``: a writer that does not lock screens came between.
    """
    await connection.execute(text(_INSERT), [dict(zip(COLUMNS, show_row(show), strict=True)) for show in shows])


async def save_show(connection: AsyncConnection, show: Show) -> None:
    """Write what can change of a show, whose row the transaction has locked."""
    values = dict(zip(COLUMNS, show_row(show), strict=True))
    names = ("show_id", "prices", "currency", "on_sale_time", "off_sale_time", "refund_tiers", "state", "version")
    await connection.execute(
        text("""
            UPDATE shows
            SET prices = CAST(:prices AS jsonb),
                currency = :currency,
                on_sale_time = :on_sale_time,
                off_sale_time = :off_sale_time,
                refund_tiers = CAST(:refund_tiers AS jsonb),
                state = :state,
                version = :version
            WHERE show_id = :show_id
        """),
        {name: values[name] for name in names},
    )


async def first_collision(
    connection: AsyncConnection, wanted: Sequence[tuple[UUID, datetime, datetime]]
) -> tuple[int, UUID] | None:
    """The first of ``wanted`` (screen, start, end) whose screen is busy then, and the show that is there."""
    statement = text("""
        SELECT wanted.place, shows.show_id
        FROM unnest(CAST(:screens AS uuid[]), CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[]))
             WITH ORDINALITY AS wanted (screen_id, start_time, end_time, place)
        JOIN shows ON shows.screen_id = wanted.screen_id
                  AND shows.state = 1
                  AND tstzrange(shows.start_time, shows.end_time) && tstzrange(wanted.start_time, wanted.end_time)
        ORDER BY wanted.place, shows.start_time
        LIMIT 1
    """)
    parameters = {
        "screens": [screen for screen, _, _ in wanted],
        "starts": [start for _, start, _ in wanted],
        "ends": [end for _, _, end in wanted],
    }
    row = (await connection.execute(statement, parameters)).one_or_none()
    return None if row is None else (int(row.place) - 1, row.show_id)


async def count_to_come(
    connection: AsyncConnection, *, now: datetime, venue_id: UUID | None = None, screen_id: UUID | None = None
) -> int:
    """Scheduled shows of a venue or of a screen that are not over."""
    column = "screen_id" if venue_id is None else "venue_id"
    statement = text(f"SELECT count(*) FROM shows WHERE {column} = :id AND state = 1 AND end_time > :now")
    return int((await connection.execute(statement, {"id": venue_id or screen_id, "now": now})).scalar_one())


async def renew_to_come(
    connection: AsyncConnection,
    *,
    now: datetime,
    title_id: UUID | None = None,
    venue_id: UUID | None = None,
    screen_id: UUID | None = None,
) -> list[NamedShow]:
    """Give the scheduled shows of a title, venue or screen that are not over their next version."""
    column, value = next(
        (column, value)
        for column, value in (("title_id", title_id), ("venue_id", venue_id), ("screen_id", screen_id))
        if value is not None
    )
    parameters = {"id": value, "now": now, "earliest": now - LONGEST}
    condition = f"{column} = :id AND state = 1 AND end_time > :now AND start_time > :earliest"
    # Locked in one order, as two renamings that meet in a show must do.
    ids = (
        await connection.execute(
            text(f"SELECT show_id FROM shows WHERE {condition} ORDER BY show_id FOR NO KEY UPDATE"), parameters
        )
    ).scalars()
    locked = {"ids": list(ids)}
    await connection.execute(text("UPDATE shows SET version = version + 1 WHERE show_id = ANY(:ids)"), locked)
    rows = (await connection.execute(text(f"{_SELECT}\nWHERE shows.show_id = ANY(:ids)"), locked)).mappings()
    return [_named(row) for row in rows]
