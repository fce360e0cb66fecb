"""SQL of cities, venues, screens and layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from marquee.catalog import v1 as catalog_v1
from services.catalog.domain.layouts import Layout
from services.catalog.domain.titles import Format
from services.catalog.domain.venues import Amenity, City, Location, Screen, Venue
from services.catalog.messages.layouts import plan_message, plan_of
from services.catalog.store.page import Page, SortKey, Where, rows_of_page

CITY_COLUMNS = ("city_id", "name", "latitude", "longitude", "time_zone", "population", "region")
VENUE_COLUMNS = (
    "venue_id",
    "name",
    "city_id",
    "address",
    "latitude",
    "longitude",
    "time_zone",
    "amenities",
    "organizer_id",
    "retired",
    "version",
)
SCREEN_COLUMNS = (
    "screen_id",
    "venue_id",
    "name",
    "formats",
    "layout_id",
    "layout_version",
    "capacity",
    "retired",
    "version",
)
LAYOUT_COLUMNS = ("layout_id", "screen_id", "layout_version", "plan")


def city_row(city: City) -> tuple[Any, ...]:
    """A city's values in the order of ``CITY_COLUMNS``."""
    at = city.location
    return city.city_id, city.name, at.latitude, at.longitude, city.time_zone, city.population, city.region


def venue_row(venue: Venue) -> tuple[Any, ...]:
    """A venue's values in the order of ``VENUE_COLUMNS``."""
    return (
        venue.venue_id,
        venue.name,
        venue.city_id,
        venue.address,
        venue.location.latitude if venue.location else None,
        venue.location.longitude if venue.location else None,
        venue.time_zone,
        [int(each) for each in venue.amenities],
        venue.organizer_id,
        venue.retired,
        venue.version,
    )


def screen_row(screen: Screen) -> tuple[Any, ...]:
    """A screen's values in the order of ``SCREEN_COLUMNS``."""
    return (
        screen.screen_id,
        screen.venue_id,
        screen.name,
        [int(each) for each in screen.formats],
        screen.layout_id,
        screen.layout_version,
        screen.capacity,
        screen.retired,
        screen.version,
    )


def layout_row(layout: Layout) -> tuple[Any, ...]:
    """A layout's values in the order of ``LAYOUT_COLUMNS``."""
    return layout.layout_id, layout.screen_id, layout.layout_version, plan_message(layout.plan).SerializeToString()


def _city(row: RowMapping) -> City:
    return City(
        city_id=row["city_id"],
        name=row["name"],
        location=Location(row["latitude"], row["longitude"]),
        time_zone=row["time_zone"],
        population=row["population"],
        region=row["region"],
    )


def _venue(row: RowMapping) -> Venue:
    return Venue(
        venue_id=row["venue_id"],
        name=row["name"],
        city_id=row["city_id"],
        address=row["address"],
        location=None if row["latitude"] is None else Location(row["latitude"], row["longitude"]),
        time_zone=row["time_zone"],
        amenities=tuple(map(Amenity, row["amenities"])),
        organizer_id=row["organizer_id"],
        retired=row["retired"],
        version=row["version"],
    )


def _screen(row: RowMapping) -> Screen:
    return Screen(
        screen_id=row["screen_id"],
        venue_id=row["venue_id"],
        name=row["name"],
        formats=tuple(map(Format, row["formats"])),
        layout_id=row["layout_id"],
        layout_version=row["layout_version"],
        capacity=row["capacity"],
        retired=row["retired"],
        version=row["version"],
    )


def _layout(row: RowMapping) -> Layout:
    plan = plan_of(catalog_v1.LayoutPlan.FromString(bytes(row["plan"])))
    return Layout(row["layout_id"], row["screen_id"], row["layout_version"], plan)


_SELECT_CITY = f"SELECT {', '.join(CITY_COLUMNS)}\nFROM cities"
_SELECT_VENUE = f"SELECT {', '.join(VENUE_COLUMNS)}, created_at\nFROM venues"
_SELECT_SCREEN = f"SELECT {', '.join(SCREEN_COLUMNS)}\nFROM screens"
_SELECT_LAYOUT = f"SELECT {', '.join(LAYOUT_COLUMNS)}\nFROM layouts"


async def find_city(connection: AsyncConnection, city_id: str) -> City | None:
    statement = text(f"{_SELECT_CITY}\nWHERE city_id = :city_id")
    row = (await connection.execute(statement, {"city_id": city_id})).mappings().one_or_none()
    return None if row is None else _city(row)


async def regions_of(connection: AsyncConnection, city_ids: Sequence[str]) -> dict[str, int]:
    """The number that the shows of each city carry in their ids."""
    statement = text("SELECT city_id, region FROM cities WHERE city_id = ANY(:city_ids)")
    rows = (await connection.execute(statement, {"city_ids": list(city_ids)})).mappings()
    return {row["city_id"]: row["region"] for row in rows}


async def list_cities(connection: AsyncConnection, *, after: SortKey | None, size: int) -> Page[City]:
    """Cities, the largest first."""
    where = Where()
    if after is not None:
        where.add(
            "population <= :after_population AND (population < :after_population OR city_id > :after_id)",
            after_population=after[0],
            after_id=after[1],
        )
    rows, more = await rows_of_page(connection, _SELECT_CITY, where, "population DESC, city_id", size)
    return Page([_city(row) for row in rows], [rows[-1]["population"], rows[-1]["city_id"]] if more else None)


async def find_venue(connection: AsyncConnection, venue_id: UUID, *, lock: str = "") -> Venue | None:
    """The venue; ``lock`` is ``FOR SHARE`` or ``FOR UPDATE`` in a transaction that depends on its state."""
    statement = text(f"{_SELECT_VENUE}\nWHERE venue_id = :venue_id {lock}")
    row = (await connection.execute(statement, {"venue_id": venue_id})).mappings().one_or_none()
    return None if row is None else _venue(row)


async def find_venues(connection: AsyncConnection, venue_ids: Sequence[UUID]) -> dict[UUID, Venue]:
    """Venues by id, locked FOR SHARE in the order of their ids: none retires while shows are added."""
    statement = text(f"{_SELECT_VENUE}\nWHERE venue_id = ANY(:venue_ids)\nORDER BY venue_id\nFOR SHARE")
    rows = (await connection.execute(statement, {"venue_ids": list(venue_ids)})).mappings()
    return {row["venue_id"]: _venue(row) for row in rows}


async def add_venue(connection: AsyncConnection, venue: Venue) -> None:
    columns = ", ".join(VENUE_COLUMNS)
    places = ", ".join(f":{column}" for column in VENUE_COLUMNS)
    values = dict(zip(VENUE_COLUMNS, venue_row(venue), strict=True))
    await connection.execute(text(f"INSERT INTO venues ({columns}) VALUES ({places})"), values)


async def save_venue(connection: AsyncConnection, venue: Venue) -> None:
    """Write a changed venue, whose row the transaction has locked."""
    changes = ", ".join(f"{column} = :{column}" for column in VENUE_COLUMNS[1:])
    values = dict(zip(VENUE_COLUMNS, venue_row(venue), strict=True))
    await connection.execute(text(f"UPDATE venues SET {changes} WHERE venue_id = :venue_id"), values)


async def list_venues(connection: AsyncConnection, city_id: str, *, after: SortKey | None, size: int) -> Page[Venue]:
    """Venues that are not retired, by name."""
    where = Where()
    where.add("NOT retired")
    if city_id:
        where.add("city_id = :city_id", city_id=city_id)
    if after is not None:
        where.add("(name, venue_id) > (:after_name, CAST(:after_id AS uuid))", after_name=after[0], after_id=after[1])
    rows, more = await rows_of_page(connection, _SELECT_VENUE, where, "name, venue_id", size)
    return Page([_venue(row) for row in rows], [rows[-1]["name"], str(rows[-1]["venue_id"])] if more else None)


async def list_all_venues(
    connection: AsyncConnection, city_id: str, *, after: SortKey | None, size: int
) -> Page[Venue]:
    """Venues, retired ones too, the last created first."""
    where = Where()
    if city_id:
        where.add("city_id = :city_id", city_id=city_id)
    if after is not None:
        where.add(
            "created_at <= CAST(:after_time AS timestamptz) "
            "AND (created_at < CAST(:after_time AS timestamptz) OR venue_id > CAST(:after_id AS uuid))",
            after_time=after[0],
            after_id=after[1],
        )
    rows, more = await rows_of_page(connection, _SELECT_VENUE, where, "created_at DESC, venue_id", size)
    last = rows[-1] if more else None
    next_after: SortKey | None = None if last is None else [last["created_at"].isoformat(), str(last["venue_id"])]
    return Page([_venue(row) for row in rows], next_after)


async def find_screen(connection: AsyncConnection, screen_id: UUID, *, lock: str = "") -> Screen | None:
    """The screen; ``lock`` is ``FOR UPDATE`` in a transaction that changes it."""
    statement = text(f"{_SELECT_SCREEN}\nWHERE screen_id = :screen_id {lock}")
    row = (await connection.execute(statement, {"screen_id": screen_id})).mappings().one_or_none()
    return None if row is None else _screen(row)


async def lock_screens(connection: AsyncConnection, screen_ids: Sequence[UUID]) -> dict[UUID, Screen]:
    """Screens by id, locked in the order of their ids, so that whoever schedules on one waits for the other."""
    statement = text(f"{_SELECT_SCREEN}\nWHERE screen_id = ANY(:screen_ids)\nORDER BY screen_id\nFOR NO KEY UPDATE")
    rows = (await connection.execute(statement, {"screen_ids": list(screen_ids)})).mappings()
    return {row["screen_id"]: _screen(row) for row in rows}


async def screens_of(connection: AsyncConnection, venue_id: UUID, *, retired_too: bool = False) -> list[Screen]:
    """A venue's screens, by name."""
    condition = "" if retired_too else "AND NOT retired"
    statement = text(f"{_SELECT_SCREEN}\nWHERE venue_id = :venue_id {condition}\nORDER BY name, screen_id")
    return [_screen(row) for row in (await connection.execute(statement, {"venue_id": venue_id})).mappings()]


async def add_screen(connection: AsyncConnection, screen: Screen) -> None:
    columns = ", ".join(SCREEN_COLUMNS)
    places = ", ".join(f":{column}" for column in SCREEN_COLUMNS)
    values = dict(zip(SCREEN_COLUMNS, screen_row(screen), strict=True))
    await connection.execute(text(f"INSERT INTO screens ({columns}) VALUES ({places})"), values)


async def save_screen(connection: AsyncConnection, screen: Screen) -> None:
    """Write a changed screen, whose row the transaction has locked."""
    changes = ", ".join(f"{column} = :{column}" for column in SCREEN_COLUMNS[1:])
    values = dict(zip(SCREEN_COLUMNS, screen_row(screen), strict=True))
    await connection.execute(text(f"UPDATE screens SET {changes} WHERE screen_id = :screen_id"), values)


async def find_layout(connection: AsyncConnection, layout_id: UUID) -> Layout | None:
    statement = text(f"{_SELECT_LAYOUT}\nWHERE layout_id = :layout_id")
    row = (await connection.execute(statement, {"layout_id": layout_id})).mappings().one_or_none()
    return None if row is None else _layout(row)


async def find_layouts(connection: AsyncConnection, layout_ids: Sequence[UUID]) -> dict[UUID, Layout]:
    """Layouts by id."""
    statement = text(f"{_SELECT_LAYOUT}\nWHERE layout_id = ANY(:layout_ids)")
    rows = (await connection.execute(statement, {"layout_ids": list(layout_ids)})).mappings()
    return {row["layout_id"]: _layout(row) for row in rows}


async def add_layout(connection: AsyncConnection, layout: Layout) -> None:
    values = dict(zip(LAYOUT_COLUMNS, layout_row(layout), strict=True))
    await connection.execute(
        text("""
            INSERT INTO layouts (layout_id, screen_id, layout_version, plan)
            VALUES (:layout_id, :screen_id, :layout_version, :plan)
        """),
        values,
    )
