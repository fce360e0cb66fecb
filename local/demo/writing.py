"""The demo's things into the database: what is new is added and announced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from google.protobuf.message import Message

from local.demo.copying import add_new, announce
from local.demo.venues import Built, Hall
from services.catalog.domain.shows import NamedShow
from services.catalog.domain.titles import Event, Movie
from services.catalog.domain.venues import City
from services.catalog.messages.shows import show_message
from services.catalog.messages.titles import event_message, movie_message
from services.catalog.messages.venues import city_message, screen_message, venue_message
from services.catalog.store import shows, titles, venues
from services.kit.database import Connection


async def write_cities(connection: Connection, some: Sequence[City]) -> int:
    new = await add_new(connection, "cities", venues.CITY_COLUMNS, map(venues.city_row, some))
    return await announce(connection, (city_message(each) for each in some if each.city_id in new))


async def write_titles(connection: Connection, films: Sequence[Movie], events: Sequence[Event]) -> int:
    new = await add_new(connection, "movies", titles.MOVIE_COLUMNS, map(titles.movie_row, films))
    new |= await add_new(connection, "events", titles.EVENT_COLUMNS, map(titles.event_row, events))

    def messages() -> Iterator[Message]:
        yield from (movie_message(each) for each in films if each.movie_id in new)
        yield from (event_message(each) for each in events if each.event_id in new)

    return await announce(connection, messages())


async def write_halls(connection: Connection, some: Sequence[Hall]) -> int:
    built = Built.of(some)
    new = await add_new(connection, "venues", venues.VENUE_COLUMNS, map(venues.venue_row, built.venues.values()))
    await add_new(connection, "layouts", venues.LAYOUT_COLUMNS, map(venues.layout_row, built.layouts.values()))
    new |= await add_new(connection, "screens", venues.SCREEN_COLUMNS, map(venues.screen_row, built.screens.values()))

    def messages() -> Iterator[Message]:
        yield from (venue_message(each) for key, each in built.venues.items() if key in new)
        yield from (screen_message(each) for key, each in built.screens.items() if key in new)

    return await announce(connection, messages())


async def write_shows(connection: Connection, some: Sequence[NamedShow]) -> int:
    """Shows, but not those in whose place another stands."""
    new = await add_new(connection, "shows", shows.COLUMNS, (shows.show_row(each.show) for each in some))
    return await announce(connection, (show_message(each) for each in some if each.show.show_id in new))
