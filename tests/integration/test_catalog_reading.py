"""Reading the catalogue, on the real PostgreSQL: filters, pages, and what is hidden."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from marquee.booking import v1 as booking_v1
from marquee.catalog import v1 as catalog_v1
from services.catalog.settings import CatalogSettings
from tests.integration.catalog_fixtures import Catalogue, a_show, at, catalogue, new_id, refusal
from tests.integration.service_harness import TestKeys, fields, reason, serving


@pytest.fixture(scope="module")
async def catalog(
    migrated_database_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Catalogue]:
    folder: Path = tmp_path_factory.mktemp("catalog")
    async with catalogue(folder, migrated_database_url("catalog")) as running:
        yield running


async def all_movies(catalog: Catalogue, **filters: Any) -> list[str]:
    """Titles on every page, in order."""
    titles: list[str] = []
    request = catalog_v1.ListMoviesRequest(**filters)
    while True:
        page = await catalog.read.ListMovies(request)
        titles += [movie.title for movie in page.movies]
        if not page.next_page_token:
            return titles
        request.page_token = page.next_page_token


async def all_shows(catalog: Catalogue, **filters: Any) -> list[str]:
    request = catalog_v1.ListShowsRequest(**filters)
    return [show.show_id for show in (await catalog.read.ListShows(request)).shows]


# --- Filters


async def test_films_are_found_by_what_their_shows_are_and_where(catalog: Catalogue) -> None:
    mark = uuid.uuid4().hex[:8]
    mumbai = await catalog.screen(formats=[catalog_v1.FORMAT_2D, catalog_v1.FORMAT_IMAX])
    pune = await catalog.screen((await catalog.venue(city_id="pune")).venue_id)
    both = await catalog.movie(title="Both", genres=[mark], votes=5)
    home = await catalog.movie(title="Home", genres=[mark.upper()], votes=7)
    await catalog.movie(title="Nowhere", genres=[mark], votes=9, languages=["ta"])
    await catalog.movie(title="Later", genres=[mark], state=catalog_v1.TITLE_STATE_COMING_SOON)
    start = datetime.now(UTC) + timedelta(days=2)
    await catalog.show(movie_id=both.movie_id, screen_id=pune.screen_id, start_time=at(start), language="hi")
    imax = await catalog.show(
        movie_id=both.movie_id, screen_id=mumbai.screen_id, start_time=at(start), format=catalog_v1.FORMAT_IMAX
    )
    at_home = await catalog.show(
        movie_id=home.movie_id, screen_id=mumbai.screen_id, start_time=at(start + timedelta(days=3))
    )
    day, later = (
        date(each.business_date.year, each.business_date.month, each.business_date.day).isoformat()
        for each in (imax, at_home)
    )

    assert await all_movies(catalog, genre=mark) == ["Nowhere", "Home", "Both"]
    assert await all_movies(catalog, genre=mark, language="ta") == ["Nowhere"]
    assert await all_movies(catalog, genre=mark, state=catalog_v1.TITLE_STATE_COMING_SOON) == ["Later"]
    assert await all_movies(catalog, genre=mark, city_id="mumbai") == ["Home", "Both"]
    assert await all_movies(catalog, genre=mark, city_id="pune") == ["Both"]
    assert await all_movies(catalog, genre=mark, city_id="mumbai", date=day) == ["Both"]
    assert await all_movies(catalog, genre=mark, date=later) == ["Home"]
    assert await all_movies(catalog, genre=mark, city_id="pune", format=catalog_v1.FORMAT_IMAX) == []
    assert await all_movies(catalog, genre=mark, city_id="mumbai", format=catalog_v1.FORMAT_IMAX) == ["Both"]
    assert await all_movies(catalog, genre=mark, city_id="mumbai", language="hi") == []
    assert await all_movies(catalog, genre=mark, city_id="atlantis") == []

    assert await all_shows(catalog, movie_id=both.movie_id, city_id="mumbai") == [imax.show_id]
    assert len(await all_shows(catalog, movie_id=both.movie_id, date=day)) == 2
    assert await all_shows(catalog, movie_id=both.movie_id, language="en") == [imax.show_id]
    assert await all_shows(catalog, venue_id=mumbai.venue_id) == [imax.show_id, at_home.show_id]
    assert await all_shows(catalog, venue_id=mumbai.venue_id, format=catalog_v1.FORMAT_2D) == [at_home.show_id]


async def test_events_are_found_by_kind_and_city(catalog: Catalogue) -> None:
    event = await catalog.event(kind=catalog_v1.EVENT_KIND_PLAY, title="A Play", organizer_id=new_id())
    await catalog.event(kind=catalog_v1.EVENT_KIND_MATCH, title="A Match")
    screen = await catalog.screen((await catalog.venue(city_id="delhi")).venue_id)
    show = await catalog.show(event_id=event.event_id, screen_id=screen.screen_id)
    assert show.organizer_id == event.organizer_id
    plays = await catalog.read.ListEvents(catalog_v1.ListEventsRequest(kind=catalog_v1.EVENT_KIND_PLAY))
    assert list(plays.events) == [event]
    there = await catalog.read.ListEvents(catalog_v1.ListEventsRequest(city_id="delhi"))
    assert list(there.events) == [event]
    assert await all_shows(catalog, event_id=event.event_id) == [show.show_id]
    assert await catalog.read.GetEvent(catalog_v1.GetEventRequest(event_id=event.event_id)) == event


async def test_shows_that_are_over_or_cancelled_are_not_listed_but_can_be_read(catalog: Catalogue) -> None:
    movie = await catalog.movie()
    running, over, cancelled, coming = [await catalog.show(movie_id=movie.movie_id) for _ in range(4)]
    for show, hours in ((running, -1), (over, -5)):
        begin = datetime.now(UTC) + timedelta(hours=hours)
        await catalog.sql(
            "UPDATE shows SET start_time = %s, end_time = %s WHERE show_id = %s",
            begin,
            begin + timedelta(hours=2),
            show.show_id,
        )
    cancel = catalog_v1.CancelShowRequest(request_id=new_id(), show_id=cancelled.show_id)
    await catalog.write.CancelShow(cancel, metadata=catalog.admin)
    assert await all_shows(catalog, movie_id=movie.movie_id) == [running.show_id, coming.show_id]
    seen = await catalog.read.GetShow(catalog_v1.GetShowRequest(show_id=cancelled.show_id))
    assert (seen.state, seen.available_seats) == (catalog_v1.SHOW_STATE_CANCELLED, 0)
    assert (await catalog.read.GetShow(catalog_v1.GetShowRequest(show_id=over.show_id))).show_id == over.show_id
    request = catalog_v1.ListShowsForAdminRequest(state=catalog_v1.SHOW_STATE_CANCELLED, page_size=200)
    answer = await catalog.write.ListShowsForAdmin(request, metadata=catalog.admin)
    assert cancelled.show_id in {show.show_id for show in answer.shows}


async def test_cities_come_the_largest_first(catalog: Catalogue) -> None:
    first = await catalog.read.ListCities(catalog_v1.ListCitiesRequest(page_size=2))
    assert [city.city_id for city in first.cities] == ["mumbai", "delhi"]
    rest = catalog_v1.ListCitiesRequest(page_size=2, page_token=first.next_page_token)
    second = await catalog.read.ListCities(rest)
    assert [city.city_id for city in second.cities] == ["pune"] and not second.next_page_token
    assert first.cities[0].time_zone == "Asia/Kolkata" and first.cities[0].location.latitude == 19.07


# --- Pages


async def test_no_film_is_read_twice_or_missed_while_others_are_added(catalog: Catalogue) -> None:
    genre = uuid.uuid4().hex[:8]
    there = {
        (await catalog.movie(genres=[genre], votes=number // 3)).movie_id for number in range(25)
    }  # many with the same votes
    seen: list[str] = []
    request = catalog_v1.ListMoviesRequest(genre=genre, page_size=4)
    while True:
        page = await catalog.read.ListMovies(request)
        assert len(page.movies) <= 4
        seen += [movie.movie_id for movie in page.movies]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
        await asyncio.gather(*(catalog.movie(genres=[genre], votes=votes) for votes in (0, 4, 9)))
    assert len(seen) == len(set(seen))
    assert there <= set(seen)


async def test_shows_that_begin_together_are_paged_completely(catalog: Catalogue) -> None:
    movie = await catalog.movie()
    start = datetime.now(UTC) + timedelta(days=1)
    screens = [await catalog.screen() for _ in range(7)]
    plans = [a_show(movie_id=movie.movie_id, screen_id=each.screen_id, start_time=at(start)) for each in screens]
    made = await catalog.write.CreateShows(
        catalog_v1.CreateShowsRequest(request_id=new_id(), shows=plans), metadata=catalog.admin
    )
    seen: list[str] = []
    request = catalog_v1.ListShowsRequest(movie_id=movie.movie_id, page_size=3)
    for pages in (3, 3, 1):
        page = await catalog.read.ListShows(request)
        assert len(page.shows) == pages
        seen += [show.show_id for show in page.shows]
        request.page_token = page.next_page_token
    assert not page.next_page_token
    assert seen == sorted(show.show_id for show in made.shows)


async def test_administrators_page_through_everything(catalog: Catalogue) -> None:
    for _ in range(3):
        await catalog.movie()
        await catalog.event()
        await catalog.venue()
    listings: Sequence[tuple[Any, Any, str]] = (
        (catalog.write.ListMoviesForAdmin, catalog_v1.ListMoviesForAdminRequest(page_size=2), "movies"),
        (catalog.write.ListEventsForAdmin, catalog_v1.ListEventsForAdminRequest(page_size=2), "events"),
        (catalog.write.ListVenuesForAdmin, catalog_v1.ListVenuesForAdminRequest(page_size=2), "venues"),
        (catalog.write.ListShowsForAdmin, catalog_v1.ListShowsForAdminRequest(page_size=2), "shows"),
    )
    for call, request, kind in listings:
        found: list[str] = []
        while True:
            page = await call(request, metadata=catalog.admin)
            found += [str(each) for each in getattr(page, kind)]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        counted = await catalog.sql(f"SELECT count(*) FROM {kind}")
        assert len(found) == len(set(found)) == counted[0][0]


async def test_a_page_token_is_for_its_own_request(catalog: Catalogue) -> None:
    for _ in range(2):
        await catalog.movie()
    page = await catalog.read.ListMovies(catalog_v1.ListMoviesRequest(page_size=1))
    for other in (
        catalog_v1.ListMoviesRequest(page_size=1, city_id="pune", page_token=page.next_page_token),
        catalog_v1.ListMoviesRequest(page_size=1, page_token=page.next_page_token[:-2] + "AA"),
        catalog_v1.ListMoviesRequest(page_size=1, page_token="nonsense!"),
    ):
        error = await refusal(catalog.read.ListMovies(other))
        assert (reason(error), fields(error)) == ("INVALID_PAGE_TOKEN", ["page_token"])


# --- Nonsense


async def test_impossible_days_are_refused_by_field(catalog: Catalogue) -> None:
    movie_id = new_id()
    for day in ("2026-02-31", "2025-02-29", "0000-01-01", "9999-12-31"):
        for call in (
            catalog.read.ListMovies(catalog_v1.ListMoviesRequest(date=day)),
            catalog.read.ListEvents(catalog_v1.ListEventsRequest(date=day)),
            catalog.read.ListShows(catalog_v1.ListShowsRequest(movie_id=movie_id, date=day)),
            catalog.write.ListShowsForAdmin(catalog_v1.ListShowsForAdminRequest(date=day), metadata=catalog.admin),
        ):
            error = await refusal(call)
            assert (reason(error), fields(error)) == ("INVALID_ARGUMENT", ["date"])


async def test_what_does_not_exist_is_not_found(catalog: Catalogue) -> None:
    nobody = new_id()
    for call in (
        catalog.read.GetMovie(catalog_v1.GetMovieRequest(movie_id=nobody)),
        catalog.read.GetEvent(catalog_v1.GetEventRequest(event_id=nobody)),
        catalog.read.GetVenue(catalog_v1.GetVenueRequest(venue_id=nobody)),
        catalog.read.GetShow(catalog_v1.GetShowRequest(show_id=nobody)),
        catalog.read.GetLayout(catalog_v1.GetLayoutRequest(layout_id=nobody)),
    ):
        error = await refusal(call)
        assert (error.code(), reason(error)) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    shows = await catalog.read.ListShows(catalog_v1.ListShowsRequest(movie_id=nobody))
    assert not shows.shows


async def test_an_id_in_capitals_is_the_same_id(catalog: Catalogue) -> None:
    movie = await catalog.movie()
    assert await catalog.read.GetMovie(catalog_v1.GetMovieRequest(movie_id=movie.movie_id.upper())) == movie


# --- Free seats


class Booking(booking_v1.BookingInternalServiceServicer):
    """Booking as the catalogue sees it."""

    def __init__(self) -> None:
        self.seats: dict[str, int] = {}

    async def GetAvailability(
        self, request: booking_v1.GetAvailabilityRequest, context: Any
    ) -> booking_v1.GetAvailabilityResponse:
        return booking_v1.GetAvailabilityResponse(
            shows=[
                booking_v1.ShowAvailability(show_id=show_id, available_seats=self.seats[show_id])
                for show_id in request.show_ids
                if show_id in self.seats
            ]
        )


@asynccontextmanager
async def running_booking(keys: TestKeys, booking: Booking) -> AsyncIterator[str]:
    async with serving(
        CatalogSettings(**keys.settings()),
        ["marquee.booking.v1.BookingInternalService"],
        lambda server: booking_v1.add_BookingInternalServiceServicer_to_server(booking, server),
        keys,
    ) as served:
        yield f"127.0.0.1:{served.port}"


async def test_free_seats_are_bookings_and_lists_outlive_it(
    migrated_database_url: Callable[[str], str], tmp_path: Path
) -> None:
    keys, booking = TestKeys.make(tmp_path), Booking()
    async with (
        running_booking(keys, booking) as address,
        catalogue(tmp_path, migrated_database_url("catalog"), keys=keys, booking_address=address) as catalog,
    ):
        show, unknown = await catalog.show(), await catalog.show()
        assert show.available_seats == show.capacity  # booking has not heard of it yet
        booking.seats[show.show_id] = 12
        await asyncio.sleep(2.1)
        seen = await catalog.read.GetShow(catalog_v1.GetShowRequest(show_id=show.show_id))
        assert seen.available_seats == 12
        listed = await catalog.read.ListShows(catalog_v1.ListShowsRequest(venue_id=unknown.venue_id))
        assert [each.available_seats for each in listed.shows] == [57]
        booking.seats[show.show_id] = 10_000
        await asyncio.sleep(2.1)
        seen = await catalog.read.GetShow(catalog_v1.GetShowRequest(show_id=show.show_id))
        assert seen.available_seats == 57
        booking.seats[show.show_id] = 3
        await asyncio.sleep(2.1)
        await catalog.read.GetShow(catalog_v1.GetShowRequest(show_id=show.show_id))
        booking.seats = {}
        gone = address
    # The same with nobody at booking's address: the capacity, at once.
    async with catalogue(tmp_path, migrated_database_url("catalog"), keys=keys, booking_address=gone) as catalog:
        show = await catalog.show()
        assert show.available_seats == show.capacity
        listed = await catalog.read.ListShows(catalog_v1.ListShowsRequest(venue_id=show.venue_id))
        assert [each.available_seats for each in listed.shows] == [57]
