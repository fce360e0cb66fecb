"""The demo data is what was promised, comes out the same each time, and keeps the catalogue's rules."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.demo.cities import cities
from local.demo.events import EVENTS, events
from local.demo.films import films
from local.demo.loading import _shows_of_day
from local.demo.seeding import load_test_halls, load_test_shows
from local.demo.timetable import shows_on
from local.demo.venues import Built, all_halls
from services.catalog.domain.layouts import require_plan
from services.catalog.domain.shows import (
    NamedShow,
    business_date,
    require_apart,
    require_fit,
    require_prices,
    require_sale_window,
)
from services.catalog.domain.titles import Event, Format, Movie, TitleState
from services.catalog.domain.venues import require_location, require_zone
from services.kit.ids import business_date_of, region_of

HALLS = all_halls(cities())
BY_SCREEN = {hall.screen.screen_id: hall for hall in HALLS}
FILMS = films()
SHOWING = [film for film in FILMS if film.state is TitleState.NOW_SHOWING]
TITLES: dict[UUID, Movie | Event] = {
    **{film.movie_id: film for film in FILMS},
    **{event.event_id: event for event in events()},
}
MONDAY = date(2026, 11, 23)
days = st.dates(date(2026, 1, 1), date(2028, 1, 1))


@pytest.fixture(scope="module")
def week() -> list[NamedShow]:
    usable = set(BY_SCREEN)
    return [show for each in range(7) for show in _shows_of_day(MONDAY + timedelta(days=each), HALLS, usable, SHOWING)]


def test_there_is_as_much_as_was_promised() -> None:
    built = Built.of(HALLS)
    assert len(cities()) >= 20 and len({city.region for city in cities()}) == len(cities())
    assert len(built.venues) >= 60 and len(built.screens) >= 200
    assert len(FILMS) == 300 and len({film.movie_id for film in FILMS}) == 300
    assert len(events()) == 20
    assert 0 < len(FILMS) - len(SHOWING) < 60
    assert {hall.city.city_id for hall in HALLS} == {city.city_id for city in cities()}
    formats = {each for hall in HALLS for each in hall.screen.formats}
    assert formats == set(Format)


def test_halls_keep_the_catalogues_rules() -> None:
    for hall in HALLS:
        for layout in hall.layouts:
            require_plan(layout.plan, "layout")
        assert hall.venue.location is not None
        require_location(hall.venue.location, "location")
        require_zone(hall.venue.time_zone, "zone")
        assert abs(hall.venue.location.latitude - hall.city.location.latitude) < 0.1
        if hall.purpose == "cinema":
            assert 100 <= hall.screen.capacity <= 500
            assert set(hall.plan.categories) <= {"REGULAR", "PREMIUM", "RECLINER"}
    assert any(hall.plan.standing_areas for hall in HALLS)
    assert any(len(hall.layouts) > 1 for hall in HALLS)


def test_a_week_is_like_a_real_one(week: list[NamedShow]) -> None:
    by_day = Counter(named.show.business_date.weekday() for named in week)
    assert min(by_day[each] for each in (4, 5, 6)) > 1.2 * max(by_day[each] for each in (0, 1, 2, 3))
    hours = Counter(
        (named.show.start_time + timedelta(hours=5, minutes=30)).hour
        for named in week
        if named.show.business_date == MONDAY
    )
    assert sum(hours[each] for each in (18, 19, 20, 21)) > 1.2 * sum(hours[each] for each in (10, 11, 12, 13))
    shown = Counter(named.show.movie_id for named in week)
    ranks = [shown[film.movie_id] for film in SHOWING]
    assert sum(ranks[:20]) > 5 * sum(ranks[-20:])
    assert sum(count > 0 for count in ranks) > 0.95 * len(SHOWING)
    assert {named.show.event_id for named in week} - {None} == {event.event_id for event in events()}


def test_every_show_is_one_that_an_administrator_could_have_made(week: list[NamedShow]) -> None:
    for named in week:
        show, hall = named.show, BY_SCREEN[named.show.screen_id]
        title = TITLES[show.movie_id or show.event_id]  # type: ignore[index]
        require_fit(title, hall.screen, show.format, show.language, "show")
        require_prices(list(show.prices.items()), hall.plan.categories, "prices")
        require_sale_window(show.on_sale_time, show.off_sale_time, show.end_time, "show")
        assert show.end_time - show.start_time >= timedelta(minutes=title.duration_minutes + 20)
        assert business_date(show.start_time, show.time_zone) == show.business_date == business_date_of(show.show_id)
        assert region_of(show.show_id) == hall.city.region
        assert all(price.minor > 0 for price in show.prices.values())
    assert len({named.show.show_id for named in week}) == len(week)


@settings(max_examples=20, deadline=None)
@given(days, st.sampled_from(HALLS), st.integers(0, 300))
def test_a_screens_shows_are_apart_also_over_midnight(day: date, hall: object, place: int) -> None:
    shows = [
        named.show
        for each in range(3)
        for named in shows_on(day + timedelta(days=each), hall, place, SHOWING)  # type: ignore[arg-type]
    ]
    wanted = [(show.screen_id, show.start_time, show.end_time) for show in shows]
    require_apart(wanted, [str(number) for number in range(len(wanted))])


def test_it_comes_out_the_same_each_time(week: list[NamedShow]) -> None:
    again = list(_shows_of_day(MONDAY, all_halls(cities()), set(BY_SCREEN), SHOWING))
    assert again == [named for named in week if named.show.business_date == MONDAY]


def test_load_test_shows_fit_in_their_day() -> None:
    halls = load_test_halls(cities(), 30)
    shows = [named.show for named in load_test_shows(MONDAY, halls, SHOWING[:50], 240)]
    assert len({show.show_id for show in shows}) == 240
    by_screen = defaultdict(list)
    for show in shows:
        assert business_date(show.start_time, show.time_zone) == MONDAY
        assert show.end_time > show.start_time > show.on_sale_time
        by_screen[show.screen_id].append(show)
    assert len(by_screen) == 30
    for some in by_screen.values():
        assert all(one.end_time <= other.start_time for one, other in pairwise(some))
    assert shows[0].start_time > datetime(2026, 11, 22, tzinfo=UTC)


def test_events_have_their_kind_of_venue() -> None:
    assert set(EVENTS) == {hall.purpose for hall in HALLS} - {"cinema"}
