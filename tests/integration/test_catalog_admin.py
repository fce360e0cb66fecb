"""Keeping the catalogue, on the real PostgreSQL: what is made is seen, announced, and refused where it must be."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.date_pb2 import Date
from google.type.latlng_pb2 import LatLng

from marquee.catalog import v1 as catalog_v1
from services.kit.ids import business_date_of, region_of
from tests.integration.catalog_fixtures import (
    PRICES,
    Catalogue,
    a_layout,
    a_show,
    at,
    catalogue,
    mask,
    new_id,
    refusal,
    rupees,
)
from tests.integration.service_harness import facts, fields, reason


@pytest.fixture(scope="module")
async def catalog(
    migrated_database_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Catalogue]:
    folder: Path = tmp_path_factory.mktemp("catalog")
    async with catalogue(folder, migrated_database_url("catalog")) as running:
        yield running


# --- The whole way


async def test_what_an_administrator_makes_everyone_finds(catalog: Catalogue) -> None:
    movie = await catalog.movie(title="  Inception ", votes=9, release_date=Date(year=2010, month=7, day=16))
    venue = await catalog.venue()
    screen = await catalog.screen(venue.venue_id)
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    show = await catalog.show(movie_id=movie.movie_id, screen_id=screen.screen_id, start_time=at(start))

    assert movie.title == "Inception" and movie.version == 1 and movie.state == catalog_v1.TITLE_STATE_NOW_SHOWING
    assert venue.time_zone == "Asia/Kolkata"
    assert screen.capacity == 57 and screen.layout_version == 1
    assert (show.title, show.venue_name, show.screen_name) == ("Inception", venue.name, "Screen 1")
    assert show.end_time.ToDatetime(UTC) - start == timedelta(minutes=140)
    assert show.off_sale_time.ToDatetime(UTC) == start and show.language == "en"
    assert show.capacity == show.available_seats == 57
    assert show.organizer_id == venue.organizer_id and show.time_zone == "Asia/Kolkata"
    day = show.business_date
    assert business_date_of(uuid.UUID(show.show_id)).timetuple()[:3] == (day.year, day.month, day.day)
    assert region_of(uuid.UUID(show.show_id)) == 1

    assert await catalog.read.GetMovie(catalog_v1.GetMovieRequest(movie_id=movie.movie_id)) == movie
    assert await catalog.read.GetShow(catalog_v1.GetShowRequest(show_id=show.show_id)) == show
    found = await catalog.read.ListShows(catalog_v1.ListShowsRequest(movie_id=movie.movie_id, city_id="mumbai"))
    assert list(found.shows) == [show]
    seen = await catalog.read.GetVenue(catalog_v1.GetVenueRequest(venue_id=venue.venue_id))
    assert list(seen.screens) == [screen]
    layout = await catalog.read.GetLayout(catalog_v1.GetLayoutRequest(layout_id=screen.layout_id))
    assert [seat.label for seat in layout.seats] == ["A1", "A2", "A3", "A4", "B1", "B2", "B3"]
    assert [seat.seat_no for seat in layout.seats] == list(range(7)) and layout.capacity == 57
    assert layout.standing_areas[0].first_seat_no == 7 and layout.seats[0].wheelchair


async def test_every_change_is_announced_with_the_whole_new_state(catalog: Catalogue) -> None:
    movie = await catalog.movie()
    update = catalog_v1.UpdateMovieRequest(
        request_id=new_id(),
        movie=catalog_v1.Movie(movie_id=movie.movie_id, version=1, title=movie.title, director="Someone"),
        update_mask=mask("director"),
    )
    await catalog.write.UpdateMovie(update, metadata=catalog.admin)
    show = await catalog.show(movie_id=movie.movie_id)
    cancel = catalog_v1.CancelShowRequest(request_id=new_id(), show_id=show.show_id, reason="The projector broke")
    await catalog.write.CancelShow(cancel, metadata=catalog.admin)

    first, second = await catalog.announced(movie.movie_id)
    assert first.movie == movie
    assert (second.movie.version, second.movie.director, second.movie.formats) == (2, "Someone", movie.formats)
    made, cancelled = await catalog.announced(show.show_id)
    show.ClearField("available_seats")
    assert made.show == show
    assert cancelled.show.state == catalog_v1.SHOW_STATE_CANCELLED and cancelled.show.version == 2
    assert cancelled.reason == "The projector broke" and list(cancelled.show.prices) == list(show.prices)


async def test_a_new_name_reaches_the_shows_to_come(catalog: Catalogue) -> None:
    venue = await catalog.venue()
    show = await catalog.show(screen_id=(await catalog.screen(venue.venue_id)).screen_id)
    before = await catalog.read.GetShow(catalog_v1.GetShowRequest(show_id=show.show_id))
    update = catalog_v1.UpdateVenueRequest(
        request_id=new_id(),
        venue=catalog_v1.Venue(venue_id=venue.venue_id, version=1, name="The New Name"),
        update_mask=mask("name"),
    )
    await catalog.write.UpdateVenue(update, metadata=catalog.admin)
    after = await catalog.read.GetShow(catalog_v1.GetShowRequest(show_id=show.show_id))
    assert (before.version, after.version, after.venue_name) == (1, 2, "The New Name")
    assert (await catalog.announced(show.show_id))[-1].show.venue_name == "The New Name"


async def test_a_new_layout_is_for_new_shows_only(catalog: Catalogue) -> None:
    screen = await catalog.screen()
    old = await catalog.show(screen_id=screen.screen_id)
    plan = a_layout(rows=[catalog_v1.RowPlan(row="A", seats=9, category="REGULAR")], standing_areas=[])
    update = catalog_v1.UpdateScreenRequest(
        request_id=new_id(), screen_id=screen.screen_id, version=screen.version, layout=plan
    )
    changed = await catalog.write.UpdateScreen(update, metadata=catalog.admin)
    assert (changed.layout_version, changed.capacity, changed.name) == (2, 9, screen.name)
    new = await catalog.show(
        screen_id=screen.screen_id,
        start_time=at(datetime.now(UTC) + timedelta(days=3)),
        prices=[PRICES[0]],
    )
    assert (new.layout_id, new.layout_version, new.capacity) == (changed.layout_id, 2, 9)
    same = await catalog.read.GetShow(catalog_v1.GetShowRequest(show_id=old.show_id))
    assert (same.layout_id, same.layout_version, same.capacity) == (screen.layout_id, 1, 57)
    kept = await catalog.read.GetLayout(catalog_v1.GetLayoutRequest(layout_id=screen.layout_id))
    assert kept.capacity == 57


async def test_a_show_is_changed_until_it_is_cancelled(catalog: Catalogue) -> None:
    show = await catalog.show()

    def change(version: int, **more: Any) -> Any:
        request = catalog_v1.UpdateShowRequest(request_id=new_id(), show_id=show.show_id, version=version, **more)
        return catalog.write.UpdateShow(request, metadata=catalog.admin)

    dearer = [*PRICES[1:], catalog_v1.CategoryPrice(category="REGULAR", price=rupees(999))]
    policy = catalog_v1.RefundPolicy(tiers=[catalog_v1.RefundTier(minutes_before=60, percent=50)])
    changed = await change(1, prices=dearer, refund_policy=policy)
    assert {each.category: each.price.units for each in changed.prices}["REGULAR"] == 999
    assert changed.version == 2 and changed.refund_policy == policy and changed.on_sale_time == show.on_sale_time
    assert reason(await refusal(change(1))) == "CONFLICT"
    assert fields(await refusal(change(2, prices=dearer[:1]))) == ["prices"]
    assert fields(await refusal(change(2, off_sale_time=at(datetime(2199, 1, 1, tzinfo=UTC))))) == ["off_sale_time"]
    cancel = catalog_v1.CancelShowRequest(request_id=new_id(), show_id=show.show_id)
    assert (await catalog.write.CancelShow(cancel, metadata=catalog.admin)).version == 3
    cancel.request_id = new_id()
    assert (await catalog.write.CancelShow(cancel, metadata=catalog.admin)).version == 3
    assert reason(await refusal(change(3))) == "SHOW_NOT_ON_SALE"


# --- Retiring


async def test_a_retired_film_leaves_the_lists_but_can_be_read(catalog: Catalogue) -> None:
    movie = await catalog.movie(votes=4_000_000_000)
    listed = await catalog.read.ListMovies(catalog_v1.ListMoviesRequest())
    assert movie in listed.movies
    retire = catalog_v1.RetireMovieRequest(request_id=new_id(), movie_id=movie.movie_id)
    retired = await catalog.write.RetireMovie(retire, metadata=catalog.admin)
    assert retired.state == catalog_v1.TITLE_STATE_RETIRED and retired.version == 2
    listed = await catalog.read.ListMovies(catalog_v1.ListMoviesRequest())
    assert movie.movie_id not in {each.movie_id for each in listed.movies}
    assert await catalog.read.GetMovie(catalog_v1.GetMovieRequest(movie_id=movie.movie_id)) == retired
    update = catalog_v1.UpdateMovieRequest(request_id=new_id(), movie=retired, update_mask=mask("director"))
    assert reason(await refusal(catalog.write.UpdateMovie(update, metadata=catalog.admin))) == "RETIRED"
    error = await refusal(catalog.show(movie_id=movie.movie_id))
    assert (reason(error), facts(error)["field"]) == ("RETIRED", "show.movie_id")


async def test_what_has_shows_to_come_cannot_be_closed(catalog: Catalogue) -> None:
    venue = await catalog.venue()
    screen = await catalog.screen(venue.venue_id)
    show = await catalog.show(screen_id=screen.screen_id)
    close_venue = catalog_v1.RetireVenueRequest(request_id=new_id(), venue_id=venue.venue_id)
    close_screen = catalog_v1.RetireScreenRequest(request_id=new_id(), screen_id=screen.screen_id)
    assert reason(await refusal(catalog.write.RetireVenue(close_venue, metadata=catalog.admin))) == "IN_USE"
    assert reason(await refusal(catalog.write.RetireScreen(close_screen, metadata=catalog.admin))) == "IN_USE"
    cancel = catalog_v1.CancelShowRequest(request_id=new_id(), show_id=show.show_id)
    await catalog.write.CancelShow(cancel, metadata=catalog.admin)
    assert (await catalog.write.RetireScreen(close_screen, metadata=catalog.admin)).retired
    assert (await catalog.write.RetireVenue(close_venue, metadata=catalog.admin)).retired
    assert not (await catalog.read.GetVenue(catalog_v1.GetVenueRequest(venue_id=venue.venue_id))).screens
    all_screens = await catalog.write.ListScreens(
        catalog_v1.ListScreensRequest(venue_id=venue.venue_id), metadata=catalog.admin
    )
    assert [each.retired for each in all_screens.screens] == [True]
    assert reason(await refusal(catalog.show(screen_id=screen.screen_id))) == "RETIRED"
    assert reason(await refusal(catalog.screen(venue.venue_id))) == "RETIRED"


# --- Repeating and racing


async def test_one_request_sent_ten_times_at_once_has_one_effect(catalog: Catalogue) -> None:
    screen, movie = await catalog.screen(), await catalog.movie()
    plan = a_show(screen_id=screen.screen_id, movie_id=movie.movie_id)
    request = catalog_v1.CreateShowRequest(request_id=new_id(), show=plan)
    answers = await asyncio.gather(*(catalog.write.CreateShow(request, metadata=catalog.admin) for _ in range(10)))
    assert all(answer == answers[0] for answer in answers)
    assert len(await catalog.announced(answers[0].show_id)) == 1
    request.show.format = catalog_v1.FORMAT_IMAX
    error = await refusal(catalog.write.CreateShow(request, metadata=catalog.admin))
    assert reason(error) == "REQUEST_ID_REUSED"


async def test_of_ten_shows_that_want_one_screen_at_once_one_is_made(catalog: Catalogue) -> None:
    screen, movie = await catalog.screen(), await catalog.movie()
    start = datetime.now(UTC) + timedelta(days=1)

    async def schedule(number: int) -> catalog_v1.Show | grpc.aio.AioRpcError:
        try:
            return await catalog.show(
                movie_id=movie.movie_id, screen_id=screen.screen_id, start_time=at(start + timedelta(minutes=number))
            )
        except grpc.aio.AioRpcError as error:
            return error

    answers = await asyncio.gather(*(schedule(number) for number in range(10)))
    made = [each for each in answers if isinstance(each, catalog_v1.Show)]
    refused = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert len(made) == 1
    assert {reason(each) for each in refused} == {"SCREEN_BUSY"}
    assert {facts(each)["show_id"] for each in refused} == {made[0].show_id}
    assert {facts(each)["field"] for each in refused} == {"show.screen_id"}
    cancel = catalog_v1.CancelShowRequest(request_id=new_id(), show_id=made[0].show_id)
    await catalog.write.CancelShow(cancel, metadata=catalog.admin)
    assert isinstance(await schedule(0), catalog_v1.Show)


async def test_the_next_show_may_begin_when_the_one_before_ends(catalog: Catalogue) -> None:
    screen = await catalog.screen()
    first = await catalog.show(screen_id=screen.screen_id)
    second = await catalog.show(screen_id=screen.screen_id, start_time=first.end_time)
    assert second.start_time == first.end_time


async def test_a_screen_cannot_be_closed_while_a_show_is_put_on_it(catalog: Catalogue) -> None:
    for _ in range(8):
        screen, movie = await catalog.screen(), await catalog.movie()
        close = catalog_v1.RetireScreenRequest(request_id=new_id(), screen_id=screen.screen_id)
        answers = await asyncio.gather(
            catalog.show(screen_id=screen.screen_id, movie_id=movie.movie_id),
            catalog.write.RetireScreen(close, metadata=catalog.admin),
            return_exceptions=True,
        )
        assert sum(isinstance(each, BaseException) for each in answers) == 1


# --- Many shows


async def test_many_shows_are_all_made_or_none(catalog: Catalogue) -> None:
    screen, movie = await catalog.screen(), await catalog.movie()
    start = datetime.now(UTC) + timedelta(days=1)
    plans = [
        a_show(screen_id=screen.screen_id, movie_id=movie.movie_id, start_time=at(start + timedelta(hours=3 * number)))
        for number in range(200)
    ]
    request = catalog_v1.CreateShowsRequest(request_id=new_id(), shows=plans)
    answer = await catalog.write.CreateShows(request, metadata=catalog.admin)
    assert len({show.show_id for show in answer.shows}) == 200
    assert await catalog.write.CreateShows(request, metadata=catalog.admin) == answer

    other = await catalog.screen()
    mixed = [
        a_show(screen_id=other.screen_id, movie_id=movie.movie_id),
        a_show(screen_id=screen.screen_id, movie_id=movie.movie_id, start_time=plans[7].start_time),
    ]
    busy = await refusal(
        catalog.write.CreateShows(
            catalog_v1.CreateShowsRequest(request_id=new_id(), shows=mixed), metadata=catalog.admin
        )
    )
    assert reason(busy) == "SCREEN_BUSY"
    assert facts(busy) == {"field": "shows[1].screen_id", "show_id": answer.shows[7].show_id}
    assert await catalog.sql("SELECT 1 FROM shows WHERE screen_id = %s", other.screen_id) == []


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        ({"format": catalog_v1.FORMAT_IMAX}, "shows[1].format"),
        ({"language": "ta"}, "shows[1].language"),
        ({"prices": PRICES[:2]}, "shows[1].prices"),
        ({"prices": [*PRICES, PRICES[0]]}, "shows[1].prices[3].category"),
        (
            {"prices": [*PRICES[:2], catalog_v1.CategoryPrice(category="FLOOR", price=rupees(-1))]},
            "shows[1].prices[2].price.units",
        ),
        (
            {"prices": [*PRICES[:2], catalog_v1.CategoryPrice(category="BALCONY", price=rupees(1))]},
            "shows[1].prices[2].category",
        ),
        ({"start_time": Timestamp(seconds=1)}, "shows[1].start_time"),
        ({"start_time": Timestamp(seconds=2**62)}, "shows[1].start_time"),
        ({"start_time": Timestamp(seconds=-(2**62))}, "shows[1].start_time"),
        ({"start_time": Timestamp(nanos=-5)}, "shows[1].start_time"),
        ({"start_time": at(datetime(2150, 1, 1, tzinfo=UTC))}, "shows[1].start_time"),
        ({"end_time": Timestamp(seconds=1)}, "shows[1].end_time"),
        ({"end_time": at(datetime(2190, 1, 1, tzinfo=UTC))}, "shows[1].end_time"),
        ({"on_sale_time": at(datetime(2190, 1, 1, tzinfo=UTC))}, "shows[1].off_sale_time"),
        ({"off_sale_time": at(datetime(2190, 1, 1, tzinfo=UTC))}, "shows[1].off_sale_time"),
        (
            {
                "refund_policy": catalog_v1.RefundPolicy(
                    tiers=[
                        catalog_v1.RefundTier(minutes_before=10, percent=10),
                        catalog_v1.RefundTier(minutes_before=60, percent=5),
                    ]
                )
            },
            "shows[1].refund_policy.tiers[1].minutes_before",
        ),
    ],
)
async def test_a_bad_show_among_many_is_named(catalog: Catalogue, spoil: dict[str, Any], field: str) -> None:
    screen, movie = await catalog.screen(), await catalog.movie()
    later = at(datetime.now(UTC) + timedelta(days=5))
    good = {"screen_id": screen.screen_id, "movie_id": movie.movie_id}
    plans = [a_show(**good), a_show(**{**good, "start_time": later, **spoil})]
    request = catalog_v1.CreateShowsRequest(request_id=new_id(), shows=plans)
    error = await refusal(catalog.write.CreateShows(request, metadata=catalog.admin))
    assert (reason(error), fields(error)) == ("INVALID_ARGUMENT", [field])


async def test_a_show_of_nothing_on_no_screen_is_not_found(catalog: Catalogue) -> None:
    for missing in ("movie_id", "event_id", "screen_id"):
        error = await refusal(catalog.show(**{missing: new_id()}))
        assert (reason(error), facts(error)["field"]) == ("NOT_FOUND", f"show.{missing}")


# --- Nonsense


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"title": "   "}, "movie.title"),
        ({"release_date": Date(year=2026, month=2, day=31)}, "movie.release_date"),
        ({"release_date": Date(year=2026)}, "movie.release_date"),
        ({"release_date": Date(year=-5, month=1, day=1)}, "movie.release_date"),
        ({"release_date": Date(year=2**31 - 1, month=1, day=1)}, "movie.release_date"),
        ({"formats": [catalog_v1.FORMAT_LIVE]}, "movie.formats[0]"),
        ({"state": catalog_v1.TITLE_STATE_RETIRED}, "movie.state"),
        ({"rating": float("nan")}, "movie.rating"),
        ({"languages": ["English!"]}, "movie.languages[0]"),
    ],
)
async def test_a_film_that_cannot_be_is_refused_by_field(catalog: Catalogue, wish: dict[str, Any], field: str) -> None:
    error = await refusal(catalog.movie(**wish))
    assert (reason(error), fields(error)) == ("INVALID_ARGUMENT", [field])


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"name": " "}, "venue.name"),
        ({"location": LatLng(latitude=91)}, "venue.location.latitude"),
        ({"location": LatLng(longitude=float("inf"))}, "venue.location.longitude"),
        ({"location": LatLng(latitude=float("nan"))}, "venue.location.latitude"),
        ({"time_zone": "Mars/Olympus"}, "venue.time_zone"),
        ({"time_zone": "Asia"}, "venue.time_zone"),
        ({"city_id": ""}, "venue.city_id"),
        ({"organizer_id": "me"}, "venue.organizer_id"),
    ],
)
async def test_a_venue_that_cannot_be_is_refused_by_field(catalog: Catalogue, wish: dict[str, Any], field: str) -> None:
    error = await refusal(catalog.venue(**wish))
    assert (reason(error), fields(error)) == ("INVALID_ARGUMENT", [field])


async def test_a_venue_in_no_city_is_not_found(catalog: Catalogue) -> None:
    assert reason(await refusal(catalog.venue(city_id="atlantis"))) == "NOT_FOUND"


@pytest.mark.parametrize(
    ("plan", "field"),
    [
        ({"rows": [], "standing_areas": []}, "layout.rows"),
        ({"rows": [catalog_v1.RowPlan(row="A", seats=2, category="X")] * 2}, "layout.rows[1].row"),
        (
            {"rows": [catalog_v1.RowPlan(row="A", seats=2, category="X", aisles_after=[3])]},
            "layout.rows[0].aisles_after[0]",
        ),
        (
            {"rows": [catalog_v1.RowPlan(row="A", seats=2, category="X", wheelchairs=[0])]},
            "layout.rows[0].wheelchairs[0]",
        ),
        (
            {"standing_areas": [catalog_v1.StandingAreaPlan(name="F", category="F", capacity=50_000)] * 2},
            "layout.standing_areas[1].name",
        ),
    ],
)
async def test_a_layout_that_cannot_be_is_refused_by_field(
    catalog: Catalogue, plan: dict[str, Any], field: str
) -> None:
    error = await refusal(catalog.screen(layout=a_layout(**plan)))
    assert (reason(error), fields(error)) == ("INVALID_ARGUMENT", [field])


@pytest.mark.parametrize("paths", [(), ("version",), ("movie_id",), ("no_such",), ("*", "title"), ("genres.x",)])
async def test_a_mask_may_name_only_what_can_be_changed(catalog: Catalogue, paths: tuple[str, ...]) -> None:
    movie = await catalog.movie()
    request = catalog_v1.UpdateMovieRequest(request_id=new_id(), movie=movie, update_mask=mask(*paths))
    error = await refusal(catalog.write.UpdateMovie(request, metadata=catalog.admin))
    assert (reason(error), fields(error)) == ("INVALID_ARGUMENT", ["update_mask"])


async def test_a_mask_changes_what_it_names_and_nothing_else(catalog: Catalogue) -> None:
    movie = await catalog.movie(genres=["Drama"], director="A", synopsis="Long")
    wish = catalog_v1.Movie(movie_id=movie.movie_id, version=1, title="Other", genres=[], synopsis="Short")
    request = catalog_v1.UpdateMovieRequest(
        request_id=new_id(), movie=wish, update_mask=mask("genres", "movie.synopsis")
    )
    changed = await catalog.write.UpdateMovie(request, metadata=catalog.admin)
    assert (list(changed.genres), changed.synopsis) == ([], "Short")
    assert (changed.title, changed.director, changed.version) == (movie.title, "A", 2)
    again = catalog_v1.UpdateMovieRequest(request_id=new_id(), movie=wish, update_mask=mask("synopsis"))
    error = await refusal(catalog.write.UpdateMovie(again, metadata=catalog.admin))
    assert (reason(error), facts(error)["version"]) == ("CONFLICT", "2")
    wish.version = 2
    all_of_it = catalog_v1.UpdateMovieRequest(request_id=new_id(), movie=wish, update_mask=mask("*"))
    changed = await catalog.write.UpdateMovie(all_of_it, metadata=catalog.admin)
    assert (changed.title, changed.director, changed.duration_minutes) == ("Other", "", 0)
    assert changed.state == catalog_v1.TITLE_STATE_NOW_SHOWING


async def test_only_administrators_keep_the_catalogue(catalog: Catalogue) -> None:
    request = catalog_v1.CreateMovieRequest(request_id=new_id(), movie=catalog_v1.Movie(title="Mine"))
    customer = catalog.served.as_user(uuid.uuid4())
    assert reason(await refusal(catalog.write.CreateMovie(request, metadata=customer))) == "PERMISSION_DENIED"
    assert reason(await refusal(catalog.write.CreateMovie(request))) == "UNAUTHENTICATED"
