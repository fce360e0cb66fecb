"""Loading the demo data into the real PostgreSQL: once, again, the next day, and the large day."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

from local.demo import Loaded, load, seed_shows
from marquee.catalog import v1 as catalog_v1
from tests.integration.catalog_fixtures import catalogue, new_id

TODAY = date(2031, 3, 3)  # a Monday to come, so that every show can be listed


async def test_the_demo_is_loaded_once_and_topped_up_day_by_day(
    migrated_database_url: Callable[[str], str], tmp_path: Path
) -> None:
    url = migrated_database_url("catalog")
    first = await load(url, today=TODAY)
    assert first.things > 500 and first.shows > 5_000
    assert await load(url, today=TODAY) == Loaded(0, 0)
    next_day = await load(url, today=TODAY + timedelta(days=1))
    assert next_day.things == 0 and 500 < next_day.shows < 1_500

    async with catalogue(tmp_path, url) as catalog:
        cities = (await catalog.read.ListCities(catalog_v1.ListCitiesRequest())).cities
        assert len(cities) >= 20 and cities[0].city_id == "mumbai"
        movies = (await catalog.read.ListMovies(catalog_v1.ListMoviesRequest(city_id="mumbai"))).movies
        assert len(movies) == 20 and movies[0].votes > 400_000
        events = (await catalog.read.ListEvents(catalog_v1.ListEventsRequest())).events
        assert len(events) == 20
        venues = (await catalog.read.ListVenues(catalog_v1.ListVenuesRequest(city_id="mumbai", page_size=200))).venues
        assert len(venues) >= 4 and all(venue.HasField("location") and venue.amenities for venue in venues)
        request = catalog_v1.ListShowsRequest(
            movie_id=movies[0].movie_id, city_id="mumbai", date=(TODAY + timedelta(days=5)).isoformat()
        )
        shows = (await catalog.read.ListShows(request)).shows
        assert shows and all(show.available_seats == show.capacity for show in shows)
        layout = await catalog.read.GetLayout(catalog_v1.GetLayoutRequest(layout_id=shows[0].layout_id))
        assert layout.capacity == shows[0].capacity
        assert {price.category for price in shows[0].prices} == {seat.category for seat in layout.seats}

        # Everything is announced, once, as it is.
        announced = await catalog.announced(shows[0].show_id)
        shows[0].ClearField("available_seats")
        assert [each.show for each in announced] == [shows[0]]
        counts = await catalog.sql(
            """
            SELECT (SELECT count(*) FROM cities)
                   + (SELECT count(*) FROM movies)
                   + (SELECT count(*) FROM events)
                   + (SELECT count(*) FROM venues)
                   + (SELECT count(*) FROM screens)
                   + (SELECT count(*) FROM shows),
                   count(*),
                   count(DISTINCT aggregateid)
            FROM outbox
            """
        )
        things, announcements, keys = counts[0]
        assert things == announcements == keys


async def test_what_an_administrator_changed_stays(migrated_database_url: Callable[[str], str], tmp_path: Path) -> None:
    url = migrated_database_url("catalog")
    await load(url, today=TODAY, days=1)
    async with catalogue(tmp_path, url) as catalog:
        movie = (await catalog.read.ListMovies(catalog_v1.ListMoviesRequest())).movies[0]
        retire = catalog_v1.RetireMovieRequest(request_id=new_id(), movie_id=movie.movie_id)
        await catalog.write.RetireMovie(retire, metadata=catalog.admin)
        await load(url, today=TODAY + timedelta(days=1), days=1)
        later = (TODAY + timedelta(days=1)).isoformat()
        shows = await catalog.read.ListShows(catalog_v1.ListShowsRequest(movie_id=movie.movie_id, date=later))
        assert not shows.shows
        seen = await catalog.read.GetMovie(catalog_v1.GetMovieRequest(movie_id=movie.movie_id))
        assert seen.state == catalog_v1.TITLE_STATE_RETIRED


async def test_a_large_day_is_made_once_and_grows(migrated_database_url: Callable[[str], str], tmp_path: Path) -> None:
    url = migrated_database_url("catalog")
    seeded = await seed_shows(url, 400, day=TODAY)
    assert (seeded.day, seeded.shows, seeded.screens) == (TODAY, 400, 50)
    assert (await seed_shows(url, 400, day=TODAY)).shows == 0
    assert (await seed_shows(url, 500, day=TODAY)).shows == 100
    async with catalogue(tmp_path, url) as catalog:
        rows = await catalog.sql("SELECT show_id, movie_id FROM shows LIMIT 1")
        show_id, movie_id = map(str, rows[0])
        show = await catalog.read.GetShow(catalog_v1.GetShowRequest(show_id=show_id))
        assert show.venue_name.startswith("Load test") and show.business_date.day == TODAY.day
        assert show.on_sale_time.seconds < show.start_time.seconds
        listed = await catalog.read.ListShows(catalog_v1.ListShowsRequest(movie_id=movie_id, page_size=200))
        assert show_id in {each.show_id for each in listed.shows}
        assert len(await catalog.announced(show_id)) == 1
        assert uuid.UUID(show_id).version == 8
