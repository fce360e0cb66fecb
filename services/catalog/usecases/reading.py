"""What everyone may read: what is on, where and when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from marquee.catalog import v1 as catalog_v1
from services.catalog.clients import SeatsLeft
from services.catalog.domain.errors import missing
from services.catalog.domain.titles import Event, Movie
from services.catalog.domain.venues import City, Venue
from services.catalog.messages.layouts import layout_message
from services.catalog.messages.shows import show_message
from services.catalog.messages.titles import event_message, movie_message
from services.catalog.messages.venues import venue_message
from services.catalog.store import shows, titles, venues
from services.catalog.store.page import Page, SortKey
from services.kit import caches
from services.kit.caches import Caches
from services.kit.clock import Clock
from services.kit.replicas import Reads

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Library:
    """What reading needs.

    Args:
        engine: the primary's, for what must not be old.
        reads: for everything else. Engines that commit by themselves, since every answer comes from one statement, or
            from rows that do not depend on each other.
        seats_left: how many seats are free, as booking last told.
    """

    engine: AsyncEngine
    reads: Reads[AsyncEngine]
    caches: Caches
    seats_left: SeatsLeft
    clock: Clock

    async def read(self, query: Callable[[AsyncConnection], Awaitable[Answer]]) -> Answer:
        """What ``query`` answers, maybe some seconds old."""

        async def on(engine: AsyncEngine) -> Answer:
            async with engine.connect() as connection:
                return await query(connection)

        return await self.reads(on)


@dataclass(frozen=True, slots=True)
class Where:
    """Which page: after which row, how many."""

    after: SortKey | None
    size: int


async def list_cities(where: Where, *, library: Library) -> Page[City]:
    """Cities, the largest first."""
    return await library.read(lambda connection: venues.list_cities(connection, after=where.after, size=where.size))


async def list_movies(wanted: titles.TitleFilter, where: Where, *, library: Library) -> Page[Movie]:
    """Films, the best known first."""
    return await library.read(
        lambda connection: titles.list_movies(
            connection, wanted, after=where.after, size=where.size, now=library.clock()
        )
    )


async def list_events(wanted: titles.TitleFilter, where: Where, *, library: Library) -> Page[Event]:
    """Events, by title."""
    return await library.read(
        lambda connection: titles.list_events(
            connection, wanted, after=where.after, size=where.size, now=library.clock()
        )
    )


async def list_venues(city_id: str, where: Where, *, library: Library) -> Page[Venue]:
    """Venues that are not retired, by name."""
    return await library.read(
        lambda connection: venues.list_venues(connection, city_id, after=where.after, size=where.size)
    )


async def list_shows(
    wanted: shows.ShowFilter, where: Where, *, library: Library
) -> tuple[list[catalog_v1.Show], SortKey | None]:
    """Shows that are not over, by start, with their free seats."""

    async def load() -> bytes | None:
        page = await library.read(
            lambda connection: shows.list_shows(
                connection, wanted, after=where.after, size=where.size, now=library.clock()
            )
        )
        more = "more" if page.after is not None else ""
        return catalog_v1.ListShowsResponse(
            shows=map(show_message, page.items), next_page_token=more
        ).SerializeToString()

    kept = catalog_v1.ListShowsResponse.FromString(
        await library.caches.get(caches.SHOW_PAGES, repr((wanted, where)), load) or b""
    )
    found = await with_seats(kept.shows, library=library)
    return found, shows.after_show(found[-1]) if kept.next_page_token else None


async def with_seats(found: Iterable[catalog_v1.Show], *, library: Library) -> list[catalog_v1.Show]:
    """The same shows with their free seats.

    Until booking has heard of a show, all its seats are free; a cancelled one has none.
    """
    messages = list(found)
    scheduled = [show.show_id for show in messages if show.state == catalog_v1.SHOW_STATE_SCHEDULED]
    left = await library.seats_left.of(scheduled)
    for show in messages:
        if show.state == catalog_v1.SHOW_STATE_SCHEDULED:
            show.available_seats = min(left.get(show.show_id, show.capacity), show.capacity)
    return messages


async def get_movie(movie_id: UUID, *, library: Library) -> catalog_v1.Movie:
    """A film, retired ones too.

    Raises:
        NotFound: there is none.
    """

    async def load() -> bytes | None:
        movie = await library.read(lambda connection: titles.find_movie(connection, movie_id))
        return None if movie is None else movie_message(movie).SerializeToString()

    found = await library.caches.get(caches.MOVIE, str(movie_id), load)
    if found is None:
        raise missing("movie", movie_id)
    return catalog_v1.Movie.FromString(found)


async def get_event(event_id: UUID, *, library: Library) -> catalog_v1.Event:
    """An event, retired ones too.

    Raises:
        NotFound: there is none.
    """

    async def load() -> bytes | None:
        event = await library.read(lambda connection: titles.find_event(connection, event_id))
        return None if event is None else event_message(event).SerializeToString()

    found = await library.caches.get(caches.EVENT, str(event_id), load)
    if found is None:
        raise missing("event", event_id)
    return catalog_v1.Event.FromString(found)


async def get_venue(venue_id: UUID, *, library: Library) -> catalog_v1.Venue:
    """A venue, retired ones too, with the screens that it has now.

    Raises:
        NotFound: there is none.
    """

    async def query(connection: AsyncConnection) -> bytes | None:
        venue = await venues.find_venue(connection, venue_id)
        if venue is None:
            return None
        return venue_message(venue, await venues.screens_of(connection, venue_id)).SerializeToString()

    async def load() -> bytes | None:
        return await library.read(query)

    found = await library.caches.get(caches.VENUE, str(venue_id), load)
    if found is None:
        raise missing("venue", venue_id)
    return catalog_v1.Venue.FromString(found)


async def get_layout(layout_id: UUID, *, library: Library) -> bytes:
    """A layout's message as bytes, since a large hall's takes milliseconds to make.

    Raises:
        NotFound: there is none.
    """

    async def load() -> bytes | None:
        async with library.engine.connect() as connection:  # booking asks for it when it has heard of a new show
            layout = await venues.find_layout(connection, layout_id)
        return None if layout is None else layout_message(layout).SerializeToString()

    found = await library.caches.get(caches.LAYOUT, str(layout_id), load)
    if found is None:
        raise missing("layout", layout_id)
    return found


async def get_show(show_id: UUID, *, library: Library) -> catalog_v1.Show:
    """A show of any state, past ones too, with its free seats.

    Raises:
        NotFound: there is none.
    """

    async def load() -> bytes | None:
        show = await library.read(lambda connection: shows.find_show(connection, show_id))
        return None if show is None else show_message(show).SerializeToString()

    found = await library.caches.get(caches.SHOW, str(show_id), load)
    if found is None:
        raise missing("show", show_id)
    return (await with_seats([catalog_v1.Show.FromString(found)], library=library))[0]
