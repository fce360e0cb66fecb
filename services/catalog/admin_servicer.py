# ruff: noqa: N802  (gRPC names methods as the contract does)
"""CatalogAdminService: keeping the catalogue, over gRPC. From messages to domain values and back; no rules."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import Message

from marquee.catalog import v1 as catalog_v1
from services.catalog.domain.shows import ShowState
from services.catalog.domain.titles import TitleState
from services.catalog.messages.shows import show_message
from services.catalog.messages.titles import event_message, movie_message
from services.catalog.messages.values import day_of, optional_uuid_of, uuid_of
from services.catalog.messages.venues import screen_message, venue_message
from services.catalog.store.page import SortKey
from services.catalog.store.shows import ShowFilter
from services.catalog.usecases import events, movies, reading, screens, shows, venues
from services.catalog.usecases.desk import Desk
from services.catalog.usecases.reading import Library, Where
from services.kit.call import UserId, calling_user
from services.kit.paging import PageTokens

Context = grpc.aio.ServicerContext[Any, Any]


def _caller() -> UserId:
    return calling_user().user_id


class CatalogAdminServicer(catalog_v1.CatalogAdminServiceServicer):
    """The writing side, for administrators.

    Args:
        library: fills in the free seats of the shows that are answered.
    """

    def __init__(self, desk: Desk, library: Library, pages: PageTokens) -> None:
        self._desk = desk
        self._library = library
        self._pages = pages

    def _where(self, request: Message, size: int) -> Where:
        return Where(self._pages.read(request), size or 50)

    def _token(self, request: Message, after: SortKey | None) -> str:
        return "" if after is None else self._pages.make(request, after)

    async def CreateMovie(self, request: catalog_v1.CreateMovieRequest, context: Context) -> catalog_v1.Movie:
        return await movies.create_movie(request, by=_caller(), desk=self._desk)

    async def UpdateMovie(self, request: catalog_v1.UpdateMovieRequest, context: Context) -> catalog_v1.Movie:
        return await movies.update_movie(request, by=_caller(), desk=self._desk)

    async def RetireMovie(self, request: catalog_v1.RetireMovieRequest, context: Context) -> catalog_v1.Movie:
        return await movies.retire_movie(request, by=_caller(), desk=self._desk)

    async def ListMoviesForAdmin(
        self, request: catalog_v1.ListMoviesForAdminRequest, context: Context
    ) -> catalog_v1.ListMoviesForAdminResponse:
        state = TitleState(request.state) if request.state else None
        page = await movies.list_all_movies(state, self._where(request, request.page_size), desk=self._desk)
        return catalog_v1.ListMoviesForAdminResponse(
            movies=map(movie_message, page.items), next_page_token=self._token(request, page.after)
        )

    async def CreateEvent(self, request: catalog_v1.CreateEventRequest, context: Context) -> catalog_v1.Event:
        return await events.create_event(request, by=_caller(), desk=self._desk)

    async def UpdateEvent(self, request: catalog_v1.UpdateEventRequest, context: Context) -> catalog_v1.Event:
        return await events.update_event(request, by=_caller(), desk=self._desk)

    async def RetireEvent(self, request: catalog_v1.RetireEventRequest, context: Context) -> catalog_v1.Event:
        return await events.retire_event(request, by=_caller(), desk=self._desk)

    async def ListEventsForAdmin(
        self, request: catalog_v1.ListEventsForAdminRequest, context: Context
    ) -> catalog_v1.ListEventsForAdminResponse:
        state = TitleState(request.state) if request.state else None
        page = await events.list_all_events(state, self._where(request, request.page_size), desk=self._desk)
        return catalog_v1.ListEventsForAdminResponse(
            events=map(event_message, page.items), next_page_token=self._token(request, page.after)
        )

    async def CreateVenue(self, request: catalog_v1.CreateVenueRequest, context: Context) -> catalog_v1.Venue:
        return await venues.create_venue(request, by=_caller(), desk=self._desk)

    async def UpdateVenue(self, request: catalog_v1.UpdateVenueRequest, context: Context) -> catalog_v1.Venue:
        return await venues.update_venue(request, by=_caller(), desk=self._desk)

    async def RetireVenue(self, request: catalog_v1.RetireVenueRequest, context: Context) -> catalog_v1.Venue:
        return await venues.retire_venue(request, by=_caller(), desk=self._desk)

    async def ListVenuesForAdmin(
        self, request: catalog_v1.ListVenuesForAdminRequest, context: Context
    ) -> catalog_v1.ListVenuesForAdminResponse:
        where = self._where(request, request.page_size)
        page = await venues.list_all_venues(request.city_id, where, desk=self._desk)
        return catalog_v1.ListVenuesForAdminResponse(
            venues=map(venue_message, page.items), next_page_token=self._token(request, page.after)
        )

    async def CreateScreen(self, request: catalog_v1.CreateScreenRequest, context: Context) -> catalog_v1.Screen:
        return await screens.create_screen(request, by=_caller(), desk=self._desk)

    async def UpdateScreen(self, request: catalog_v1.UpdateScreenRequest, context: Context) -> catalog_v1.Screen:
        return await screens.update_screen(request, by=_caller(), desk=self._desk)

    async def RetireScreen(self, request: catalog_v1.RetireScreenRequest, context: Context) -> catalog_v1.Screen:
        return await screens.retire_screen(request, by=_caller(), desk=self._desk)

    async def ListScreens(
        self, request: catalog_v1.ListScreensRequest, context: Context
    ) -> catalog_v1.ListScreensResponse:
        found = await screens.list_screens(uuid_of(request.venue_id, "venue_id"), desk=self._desk)
        return catalog_v1.ListScreensResponse(screens=map(screen_message, found))

    async def CreateShow(self, request: catalog_v1.CreateShowRequest, context: Context) -> catalog_v1.Show:
        show = await shows.create_show(request, by=_caller(), desk=self._desk)
        return (await reading.with_seats([show], library=self._library))[0]

    async def CreateShows(
        self, request: catalog_v1.CreateShowsRequest, context: Context
    ) -> catalog_v1.CreateShowsResponse:
        answer = await shows.create_shows(request, by=_caller(), desk=self._desk)
        return catalog_v1.CreateShowsResponse(shows=await reading.with_seats(answer.shows, library=self._library))

    async def UpdateShow(self, request: catalog_v1.UpdateShowRequest, context: Context) -> catalog_v1.Show:
        show = await shows.update_show(request, by=_caller(), desk=self._desk)
        return (await reading.with_seats([show], library=self._library))[0]

    async def CancelShow(self, request: catalog_v1.CancelShowRequest, context: Context) -> catalog_v1.Show:
        return await shows.cancel_show(request, by=_caller(), desk=self._desk)

    async def ListShowsForAdmin(
        self, request: catalog_v1.ListShowsForAdminRequest, context: Context
    ) -> catalog_v1.ListShowsForAdminResponse:
        wanted = ShowFilter(
            venue_id=optional_uuid_of(request.venue_id, "venue_id"),
            day=day_of(request.date, "date"),
            state=ShowState(request.state) if request.state else None,
        )
        page = await shows.list_all_shows(wanted, self._where(request, request.page_size), desk=self._desk)
        found = await reading.with_seats(map(show_message, page.items), library=self._library)
        return catalog_v1.ListShowsForAdminResponse(shows=found, next_page_token=self._token(request, page.after))
