"""The demo data: once, and then day by day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from local.demo import copying, writing
from local.demo.cities import cities
from local.demo.events import events
from local.demo.films import films
from local.demo.timetable import shows_on
from local.demo.venues import Hall, all_halls
from services.catalog.domain.shows import NamedShow, starts_on
from services.catalog.domain.titles import Movie, TitleState
from services.kit.database import Connection

DAYS = 7
ZONE = ZoneInfo("Asia/Kolkata")


@dataclass(frozen=True, slots=True)
class Loaded:
    """How many things were new."""

    things: int
    shows: int


async def load(catalog_database_url: str, *, today: date | None = None, days: int = DAYS) -> Loaded:
    """Have the demo data with shows for ``days`` days from ``today`` (India's, by this machine's clock, when None).

    What is there already stays as it is, and a day that has demo shows is left alone.

    Raises:
        psycopg.OperationalError: the database does not answer.
        psycopg.errors.UndefinedTable: it has not been migrated.
    """
    today = today or datetime.now(ZONE).date()
    connection = await copying.connect(catalog_database_url)
    async with connection, connection.transaction():
        await copying.begin(connection)
        things = await write_static(connection)
        halls = all_halls(cities())
        missing = await _days_without_shows(connection, halls, [today + timedelta(days=each) for each in range(days)])
        if not missing:
            return Loaded(things, 0)
        usable = await _usable_halls(connection, halls)
        showing = await films_showing(connection)
        shows = [show for day in missing for show in _shows_of_day(day, halls, usable, showing)]
        loaded = Loaded(things, await writing.write_shows(connection, shows))
        await copying.refresh_statistics(connection)
        return loaded


async def write_static(connection: Connection) -> int:
    """Cities, films, events, venues, screens; answers how many were new."""
    known = cities()
    return (
        await writing.write_cities(connection, known)
        + await writing.write_titles(connection, films(), events())
        + await writing.write_halls(connection, all_halls(known))
    )


async def films_showing(connection: Connection) -> list[Movie]:
    """The demo's films that an administrator has not taken off meanwhile, the best known first."""
    rows = await connection.execute("SELECT movie_id FROM movies WHERE state = %s", (int(TitleState.NOW_SHOWING),))
    showing = {row[0] for row in await rows.fetchall()}
    return [film for film in films() if film.movie_id in showing]


async def _days_without_shows(connection: Connection, halls: Sequence[Hall], days: Sequence[date]) -> list[date]:
    earliest, latest = starts_on(days[0])[0], starts_on(days[-1])[1]
    rows = await connection.execute(
        """
        SELECT DISTINCT business_date
        FROM shows
        WHERE start_time BETWEEN %s AND %s
          AND screen_id = ANY(%s)
        """,
        (earliest, latest, [hall.screen.screen_id for hall in halls]),
    )
    present = {row[0] for row in await rows.fetchall()}
    return [day for day in days if day not in present]


async def _usable_halls(connection: Connection, halls: Sequence[Hall]) -> set[UUID]:
    """Screens that still are as the demo made them: not retired, with the same layout."""
    rows = await connection.execute(
        """
        SELECT screens.screen_id, screens.layout_id
        FROM screens
        JOIN venues ON venues.venue_id = screens.venue_id
        WHERE NOT screens.retired
          AND NOT venues.retired
        """
    )
    layouts: dict[UUID, UUID] = {row[0]: row[1] for row in await rows.fetchall()}
    return {hall.screen.screen_id for hall in halls if layouts.get(hall.screen.screen_id) == hall.screen.layout_id}


def _shows_of_day(day: date, halls: Sequence[Hall], usable: set[UUID], films: Sequence[Movie]) -> Iterator[NamedShow]:
    places: dict[str, int] = defaultdict(int)
    for hall in halls:
        if hall.screen.screen_id in usable:
            yield from shows_on(day, hall, places[hall.purpose], films)
        places[hall.purpose] += 1
