"""A day with very many shows, on screens of its own that are marked as load-test ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from local.demo import copying, halls, prices, writing
from local.demo.chance import dice, named_id
from local.demo.cities import cities
from local.demo.loading import ZONE, films_showing, write_static
from local.demo.timetable import make_show
from local.demo.venues import METROS, Hall, make_hall, near
from services.catalog.domain.shows import NamedShow
from services.catalog.domain.titles import Format, Movie
from services.catalog.domain.venues import Amenity, City, Venue

SHOWS_A_SCREEN = 8
SLOT = timedelta(minutes=165)
FIRST = time(6, 0)
"""Eight slots from here end at 04:00, with the business day."""
SCREENS_A_VENUE = 10
PLANS = (halls.SMALL, halls.MIDDLE, halls.LARGE)


@dataclass(frozen=True, slots=True)
class Seeded:
    """How many of the shows were new, and on how many screens they all are."""

    day: date
    shows: int
    screens: int


async def seed_shows(catalog_database_url: str, count: int, *, day: date | None = None) -> Seeded:
    """Have ``count`` load-test shows on ``day`` (tomorrow in India when None), on sale now.

    Raises:
        psycopg.OperationalError: the database does not answer.
        psycopg.errors.UndefinedTable: it has not been migrated.
    """
    day = day or datetime.now(ZONE).date() + timedelta(days=1)
    connection = await copying.connect(catalog_database_url)
    async with connection, connection.transaction():
        await copying.begin(connection)
        await write_static(connection)
        screens = load_test_halls(cities(), -(-count // SHOWS_A_SCREEN))
        await writing.write_halls(connection, screens)
        short = [film for film in await films_showing(connection) if film.duration_minutes <= 145]
        shows = list(load_test_shows(day, screens, short, count))
        seeded = Seeded(day, await writing.write_shows(connection, shows), len(screens))
        await copying.refresh_statistics(connection)
        return seeded


def load_test_halls(cities: Sequence[City], count: int) -> list[Hall]:
    """Screens in venues of ten, spread over the cities."""
    return [_hall(cities, number) for number in range(count)]


def _hall(cities: Sequence[City], number: int) -> Hall:
    venue_number = number // SCREENS_A_VENUE
    rank = venue_number % len(cities)
    city = cities[rank]
    venue = Venue(
        venue_id=named_id("load-test", "venue", venue_number),
        name=f"Load test multiplex {venue_number + 1:04}",
        city_id=city.city_id,
        address=f"Made for load tests, {city.name}",
        location=near(city, "load-test", venue_number),
        time_zone=city.time_zone,
        amenities=(Amenity.M_TICKET,),
        organizer_id=named_id("organizer", "load-test"),
    )
    plan = PLANS[number % len(PLANS)]
    name = f"Screen {number % SCREENS_A_VENUE + 1}"
    return make_hall(venue, city, name, (Format.TWO_D,), [plan], metro=rank < METROS, load_test=True)


def load_test_shows(day: date, screens: Sequence[Hall], films: Sequence[Movie], count: int) -> Iterator[NamedShow]:
    """``count`` shows; popular films more often."""
    chance = dice("load-test", day)
    weights = [1 / (rank + 4) for rank in range(len(films))]
    chosen = chance.choices(films, weights, k=count)
    first = datetime.combine(day, FIRST)
    for number, film in enumerate(chosen):
        yield make_show(
            day,
            screens[number // SHOWS_A_SCREEN],
            film,
            first + SLOT * (number % SHOWS_A_SCREEN),
            length=SLOT,
            format_=Format.TWO_D,
            language=film.languages[0],
            tiers=prices.CINEMA_REFUNDS,
        )
