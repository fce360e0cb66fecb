"""CatalogService: what is on, over gRPC. From messages to domain values and back; no rules."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import Message

from marquee.catalog import v1 as catalog_v1
from services.catalog.domain.shows import ShowState
from services.catalog.domain.titles import EventKind, Format, TitleState
from services.catalog.messages.titles import event_message, movie_message
from services.catalog.messages.values import day_of, optional_uuid_of, uuid_of
from services.catalog.messages.venues import city_message, venue_message
from services.catalog.store.page import SortKey
from services.catalog.store.shows import ShowFilter
from services.catalog.store.titles import TitleFilter
from services.catalog.usecases import reading
from services.catalog.usecases.reading import Library, Where
from services.kit.paging import PageTokens

Context = grpc.aio.ServicerContext[Any, Any]


class CatalogServicer(catalog_v1.CatalogServiceServicer):
    """The reading side, for everyone."""

    def __init__(self, library: Library, pages: PageTokens) -> None:
        self._library = library
        self._pages = pages

    def _where(self, request: Message, size: int) -> Where:
        return Where(self._pages.read(request), size)

    def _token(self, request: Message, after: SortKey | None) -> str:
        return "" if after is None else self._pages.make(request, after)

    async def ListCities(
        self, request: catalog_v1.ListCitiesRequest, context: Context
    ) -> catalog_v1.ListCitiesResponse:
        page = await reading.list_cities(self._where(request, request.page_size or 100), library=self._library)
        return catalog_v1.ListCitiesResponse(
            cities=map(city_message, page.items), next_page_token=self._token(request, page.after)
        )

    async def ListMovies(
        self, request: catalog_v1.ListMoviesRequest, context: Context
    ) -> catalog_v1.ListMoviesResponse:
        wanted = TitleFilter(
            state=TitleState(request.state or TitleState.NOW_SHOWING),
            city_id=request.city_id,
            genre=request.genre,
            language=request.language,
            format=Format(request.format) if request.format else None,
            day=day_of(request.date, "date"),
        )
        where = self._where(request, request.page_size or 20)
        page = await reading.list_movies(wanted, where, library=self._library)
        return catalog_v1.ListMoviesResponse(
            movies=map(movie_message, page.items), next_page_token=self._token(request, page.after)
        )

    async def GetMovie(self, request: catalog_v1.GetMovieRequest, context: Context) -> catalog_v1.Movie:
        return await reading.get_movie(uuid_of(request.movie_id, "movie_id"), library=self._library)

    async def ListShows(self, request: catalog_v1.ListShowsRequest, context: Context) -> catalog_v1.ListShowsResponse:
        wanted = ShowFilter(
            title_id=optional_uuid_of(request.movie_id, "movie_id") or optional_uuid_of(request.event_id, "event_id"),
            venue_id=optional_uuid_of(request.venue_id, "venue_id"),
            city_id=request.city_id,
            day=day_of(request.date, "date"),
            format=Format(request.format) if request.format else None,
            language=request.language,
            state=ShowState.SCHEDULED,
        )
        where = self._where(request, request.page_size or 100)
        shows, after = await reading.list_shows(wanted, where, library=self._library)
        return catalog_v1.ListShowsResponse(shows=shows, next_page_token=self._token(request, after))

    async def GetShow(self, request: catalog_v1.GetShowRequest, context: Context) -> catalog_v1.Show:
        return await reading.get_show(uuid_of(request.show_id, "show_id"), library=self._library)

    async def ListEvents(
        self, request: catalog_v1.ListEventsRequest, context: Context
    ) -> catalog_v1.ListEventsResponse:
        wanted = TitleFilter(city_id=request.city_id, day=day_of(request.date, "date"), kind=EventKind(request.kind))
        where = self._where(request, request.page_size or 20)
        page = await reading.list_events(wanted, where, library=self._library)
        return catalog_v1.ListEventsResponse(
            events=map(event_message, page.items), next_page_token=self._token(request, page.after)
        )

    async def GetEvent(self, request: catalog_v1.GetEventRequest, context: Context) -> catalog_v1.Event:
        return await reading.get_event(uuid_of(request.event_id, "event_id"), library=self._library)

    async def ListVenues(
        self, request: catalog_v1.ListVenuesRequest, context: Context
    ) -> catalog_v1.ListVenuesResponse:
        where = self._where(request, request.page_size or 50)
        page = await reading.list_venues(request.city_id, where, library=self._library)
        return catalog_v1.ListVenuesResponse(
            venues=map(venue_message, page.items), next_page_token=self._token(request, page.after)
        )

    async def GetVenue(self, request: catalog_v1.GetVenueRequest, context: Context) -> catalog_v1.Venue:
        return await reading.get_venue(uuid_of(request.venue_id, "venue_id"), library=self._library)

    async def GetLayout(  # type: ignore[override]  # the server sends bytes as they are; see kit.door.serialize
        self, request: catalog_v1.GetLayoutRequest, context: Context
    ) -> bytes:
        return await reading.get_layout(uuid_of(request.layout_id, "layout_id"), library=self._library)
