"""The demo's shows: a screen's day from its first show to its last, busier in the evening and at the weekend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from uuid import UUID
from zoneinfo import ZoneInfo

from local.demo import prices
from local.demo.chance import bits_of, dice
from local.demo.events import EVENTS
from local.demo.venues import Hall
from services.catalog.domain.shows import CLEANING, NamedShow, RefundTier, Show
from services.catalog.domain.titles import Event, Format, Movie
from services.kit.ids import new_show_id

ON_SALE_DAYS = 30
EVENING = time(17, 30)
BUSY_DAYS = (4, 5, 6)
LATE_DAYS = (4, 5)
LOCAL_LANGUAGE = {
    "chennai": "ta",
    "coimbatore": "ta",
    "madurai": "ta",
    "hyderabad": "te",
    "visakhapatnam": "te",
}
EVENT_DAYS = {"theatre": (1, 2, 3, 4, 5, 6), "club": (2, 3, 4, 5), "arena": (4, 5, 6), "stadium": (4, 5, 6)}
"""Weekdays on which each kind of venue plays, Monday being 0."""


def shows_on(day: date, hall: Hall, place: int, films: Sequence[Movie]) -> Iterator[NamedShow]:
    """The shows of ``hall`` on ``day``, in order and apart from each other.

    Args:
        place: the hall's number among those of its purpose, which decides what it plays.
        films: those now showing, the best known first.
    """
    if hall.purpose == "cinema":
        yield from _films_on(day, hall, place, films)
    else:
        yield from _events_on(day, hall, place)


def _films_on(day: date, hall: Hall, place: int, films: Sequence[Movie]) -> Iterator[NamedShow]:
    chance = dice("timetable", hall.screen.screen_id, day)
    popular, others = _repertoire(day, hall, place, films)
    busy = day.weekday() in BUSY_DAYS
    now = datetime.combine(day, time(9 if busy else 10, 0)) + timedelta(minutes=5 * chance.randint(0, 9))
    last = datetime.combine(day, time(23, 45) if day.weekday() in LATE_DAYS else time(22, 45))
    while now <= last:
        evening = now.time() >= EVENING
        if not evening and chance.random() < (0.12 if busy else 0.45):
            now += timedelta(minutes=150)  # few come on a weekday's morning
            continue
        film = chance.choice(popular if chance.random() < (0.85 if evening else 0.5) else others)
        named = film_show(day, hall, film, now, chance)
        yield named
        length = named.show.end_time - named.show.start_time
        now = _round_up(now + length + timedelta(minutes=5 * chance.randint(0, 2)))


def _repertoire(day: date, hall: Hall, place: int, films: Sequence[Movie]) -> tuple[Sequence[Movie], Sequence[Movie]]:
    """What the screen plays this week: some of the best known, and two of the others so that each is on somewhere."""
    chance = dice("repertoire", hall.screen.screen_id, *day.isocalendar()[:2])
    special = [film for film in films if set(film.formats) & set(hall.screen.formats) - {Format.TWO_D}]
    pool = special if special and len(hall.screen.formats) > 1 else films
    weights = [1 / (rank + 4) for rank in range(len(pool))]
    others = [films[(2 * place + each) % len(films)] for each in (0, 1)]
    return chance.choices(pool, weights, k=3), others


def film_show(day: date, hall: Hall, film: Movie, local_start: datetime, chance: Random) -> NamedShow:
    """A screening that begins at ``local_start`` by the venue's clock."""
    formats = [each for each in film.formats if each in hall.screen.formats]
    format_ = formats[-1] if chance.random() < 0.75 else formats[0]
    local = LOCAL_LANGUAGE.get(hall.city.city_id, "hi")
    language = local if local in film.languages and chance.random() < 0.6 else film.languages[0]
    length = _round_up_minutes(timedelta(minutes=film.duration_minutes) + CLEANING)
    return make_show(
        day, hall, film, local_start, length=length, format_=format_, language=language, tiers=prices.CINEMA_REFUNDS
    )


def _events_on(day: date, hall: Hall, place: int) -> Iterator[NamedShow]:
    if day.weekday() not in EVENT_DAYS[hall.purpose]:
        return
    events = EVENTS[hall.purpose]
    event = events[(day.toordinal() + 2 * place) % len(events)]
    starts = [time(19, 30)]
    if hall.purpose == "theatre" and day.weekday() in (5, 6):
        starts.insert(0, time(15, 30))
    for start in starts:
        yield make_show(
            day,
            hall,
            event,
            datetime.combine(day, start),
            length=_round_up_minutes(timedelta(minutes=event.duration_minutes) + CLEANING),
            format_=Format.LIVE,
            language=event.languages[0] if event.languages else "",
            tiers=prices.LIVE_REFUNDS,
        )


def make_show(
    day: date,
    hall: Hall,
    title: Movie | Event,
    local_start: datetime,
    *,
    length: timedelta,
    format_: Format,
    language: str,
    tiers: tuple[RefundTier, ...],
) -> NamedShow:
    """A show of business date ``day``. Its id depends on the screen and the start only."""
    start = local_start.replace(tzinfo=ZoneInfo(hall.venue.time_zone)).astimezone(UTC)
    bits = bits_of("show", hall.screen.screen_id, start.isoformat())
    movie_id, event_id = _title_ids(title)
    show = Show(
        show_id=new_show_id(day, hall.city.region, random=bits),
        movie_id=movie_id,
        event_id=event_id,
        venue_id=hall.venue.venue_id,
        screen_id=hall.screen.screen_id,
        city_id=hall.city.city_id,
        start_time=start,
        end_time=start + length,
        business_date=day,
        language=language,
        format=format_,
        layout_id=hall.screen.layout_id,
        layout_version=hall.screen.layout_version,
        prices=prices.prices(
            hall.plan.categories, format_=format_, metro=hall.metro, day=day, start=local_start.time()
        ),
        on_sale_time=start - timedelta(days=ON_SALE_DAYS),
        off_sale_time=start,
        refund_tiers=tiers,
        organizer_id=title.organizer_id if isinstance(title, Event) else hall.venue.organizer_id,
        capacity=hall.screen.capacity,
        time_zone=hall.venue.time_zone,
    )
    return NamedShow(show, title.title, hall.venue.name, hall.screen.name)


def _title_ids(title: Movie | Event) -> tuple[UUID | None, UUID | None]:
    return (title.movie_id, None) if isinstance(title, Movie) else (None, title.event_id)


def _round_up(moment: datetime) -> datetime:
    """To the next five minutes, as timetables are."""
    return moment + timedelta(minutes=-moment.minute % 5)


def _round_up_minutes(length: timedelta) -> timedelta:
    return length + timedelta(minutes=-(length // timedelta(minutes=1)) % 5)
