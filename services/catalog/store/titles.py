"""SQL of films and events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from services.catalog.domain.shows import LONGEST, starts_on
from services.catalog.domain.titles import Event, EventKind, Format, Movie, TitleState
from services.catalog.store.page import Page, SortKey, Where, rows_of_page

MOVIE_COLUMNS = (
    "movie_id",
    "title",
    "synopsis",
    "release_date",
    "genres",
    "languages",
    "formats",
    "duration_minutes",
    "certificate",
    "director",
    "rating",
    "votes",
    "state",
    "version",
)
EVENT_COLUMNS = (
    "event_id",
    "title",
    "description",
    "kind",
    "genres",
    "languages",
    "duration_minutes",
    "organizer_id",
    "state",
    "version",
)


@dataclass(frozen=True, slots=True)
class TitleFilter:
    """Which titles to list: those with shows that fit, where anything about shows is asked."""

    state: TitleState | None = None
    city_id: str = ""
    genre: str = ""
    language: str = ""
    format: Format | None = None
    day: date | None = None
    kind: EventKind = EventKind.UNSPECIFIED

    @property
    def about_shows(self) -> bool:
        return bool(self.city_id) or self.day is not None


def movie_row(movie: Movie) -> tuple[Any, ...]:
    """A film's values in the order of ``MOVIE_COLUMNS``."""
    return (
        movie.movie_id,
        movie.title,
        movie.synopsis,
        movie.release_date,
        list(movie.genres),
        list(movie.languages),
        [int(each) for each in movie.formats],
        movie.duration_minutes,
        movie.certificate,
        movie.director,
        movie.rating,
        movie.votes,
        int(movie.state),
        movie.version,
    )


def event_row(event: Event) -> tuple[Any, ...]:
    """An event's values in the order of ``EVENT_COLUMNS``."""
    return (
        event.event_id,
        event.title,
        event.description,
        int(event.kind),
        list(event.genres),
        list(event.languages),
        event.duration_minutes,
        event.organizer_id,
        int(event.state),
        event.version,
    )


def _movie(row: RowMapping) -> Movie:
    return Movie(
        movie_id=row["movie_id"],
        title=row["title"],
        synopsis=row["synopsis"],
        release_date=row["release_date"],
        genres=tuple(row["genres"]),
        languages=tuple(row["languages"]),
        formats=tuple(map(Format, row["formats"])),
        duration_minutes=row["duration_minutes"],
        certificate=row["certificate"],
        director=row["director"],
        rating=row["rating"],
        votes=row["votes"],
        state=TitleState(row["state"]),
        version=row["version"],
    )


def _event(row: RowMapping) -> Event:
    return Event(
        event_id=row["event_id"],
        title=row["title"],
        description=row["description"],
        kind=EventKind(row["kind"]),
        genres=tuple(row["genres"]),
        languages=tuple(row["languages"]),
        duration_minutes=row["duration_minutes"],
        organizer_id=row["organizer_id"],
        state=TitleState(row["state"]),
        version=row["version"],
    )


_SELECT_MOVIE = f"SELECT {', '.join(MOVIE_COLUMNS)}, created_at\nFROM movies AS titles"
_SELECT_EVENT = f"SELECT {', '.join(EVENT_COLUMNS)}, created_at\nFROM events AS titles"


def _insert(table: str, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(f':{column}' for column in columns)})"


def _update(table: str, columns: tuple[str, ...]) -> str:
    key, *others = columns
    return f"UPDATE {table} SET {', '.join(f'{column} = :{column}' for column in others)} WHERE {key} = :{key}"


async def find_movie(connection: AsyncConnection, movie_id: UUID, *, lock: str = "") -> Movie | None:
    """The film; ``lock`` is ``FOR SHARE`` or ``FOR UPDATE`` in a transaction that depends on its state."""
    statement = text(f"{_SELECT_MOVIE}\nWHERE movie_id = :movie_id {lock}")
    row = (await connection.execute(statement, {"movie_id": movie_id})).mappings().one_or_none()
    return None if row is None else _movie(row)


async def find_event(connection: AsyncConnection, event_id: UUID, *, lock: str = "") -> Event | None:
    """The event; ``lock`` as for a film."""
    statement = text(f"{_SELECT_EVENT}\nWHERE event_id = :event_id {lock}")
    row = (await connection.execute(statement, {"event_id": event_id})).mappings().one_or_none()
    return None if row is None else _event(row)


async def add_movie(connection: AsyncConnection, movie: Movie) -> None:
    values = dict(zip(MOVIE_COLUMNS, movie_row(movie), strict=True))
    await connection.execute(text(_insert("movies", MOVIE_COLUMNS)), values)


async def save_movie(connection: AsyncConnection, movie: Movie) -> None:
    """Write a changed film, whose row the transaction has locked."""
    values = dict(zip(MOVIE_COLUMNS, movie_row(movie), strict=True))
    await connection.execute(text(_update("movies", MOVIE_COLUMNS)), values)


async def add_event(connection: AsyncConnection, event: Event) -> None:
    values = dict(zip(EVENT_COLUMNS, event_row(event), strict=True))
    await connection.execute(text(_insert("events", EVENT_COLUMNS)), values)


async def save_event(connection: AsyncConnection, event: Event) -> None:
    """Write a changed event, whose row the transaction has locked."""
    values = dict(zip(EVENT_COLUMNS, event_row(event), strict=True))
    await connection.execute(text(_update("events", EVENT_COLUMNS)), values)


async def list_movies(
    connection: AsyncConnection, wanted: TitleFilter, *, after: SortKey | None, size: int, now: datetime
) -> Page[Movie]:
    """Films, the best known first."""
    where = _where(wanted, "movie_id", now)
    if after is not None:
        where.add(
            "votes <= :after_votes AND (votes < :after_votes OR movie_id > CAST(:after_id AS uuid))",
            after_votes=after[0],
            after_id=after[1],
        )
    rows, more = await rows_of_page(connection, _SELECT_MOVIE, where, "votes DESC, movie_id", size)
    last = rows[-1] if more else None
    return Page([_movie(row) for row in rows], None if last is None else [last["votes"], str(last["movie_id"])])


async def list_events(
    connection: AsyncConnection, wanted: TitleFilter, *, after: SortKey | None, size: int, now: datetime
) -> Page[Event]:
    """Events, by title."""
    where = _where(wanted, "event_id", now)
    where.add("state <> 3")
    if wanted.kind is not EventKind.UNSPECIFIED:
        where.add("kind = :kind", kind=int(wanted.kind))
    if after is not None:
        where.add(
            "(title, event_id) > (:after_title, CAST(:after_id AS uuid))", after_title=after[0], after_id=after[1]
        )
    rows, more = await rows_of_page(connection, _SELECT_EVENT, where, "title, event_id", size)
    last = rows[-1] if more else None
    return Page([_event(row) for row in rows], None if last is None else [last["title"], str(last["event_id"])])


async def list_all_movies(
    connection: AsyncConnection, state: TitleState | None, *, after: SortKey | None, size: int
) -> Page[Movie]:
    """Films of any state, the last created first."""
    where = _last_created("movie_id", state, after)
    rows, more = await rows_of_page(connection, _SELECT_MOVIE, where, "created_at DESC, movie_id", size)
    last = rows[-1] if more else None
    after = None if last is None else [last["created_at"].isoformat(), str(last["movie_id"])]
    return Page([_movie(row) for row in rows], after)


async def list_all_events(
    connection: AsyncConnection, state: TitleState | None, *, after: SortKey | None, size: int
) -> Page[Event]:
    """Events of any state, the last created first."""
    where = _last_created("event_id", state, after)
    rows, more = await rows_of_page(connection, _SELECT_EVENT, where, "created_at DESC, event_id", size)
    last = rows[-1] if more else None
    after = None if last is None else [last["created_at"].isoformat(), str(last["event_id"])]
    return Page([_event(row) for row in rows], after)


def _last_created(key: str, state: TitleState | None, after: SortKey | None) -> Where:
    where = Where()
    if state is not None:
        where.add("state = :state", state=int(state))
    if after is not None:
        where.add(
            "created_at <= CAST(:after_time AS timestamptz) "
            f"AND (created_at < CAST(:after_time AS timestamptz) OR {key} > CAST(:after_id AS uuid))",
            after_time=after[0],
            after_id=after[1],
        )
    return where


def _where(wanted: TitleFilter, key: str, now: datetime) -> Where:
    where = Where()
    if wanted.state is not None:
        where.add("state = :state", state=int(wanted.state))
    if wanted.genre:
        where.add("EXISTS (SELECT FROM unnest(genres) AS genre WHERE lower(genre) = lower(:genre))", genre=wanted.genre)
    if wanted.about_shows:
        _where_shown(where, wanted, key, now)
        return where
    if wanted.language:
        where.add("languages @> ARRAY[CAST(:language AS text)]", language=wanted.language)
    if wanted.format is not None:
        where.add("formats @> ARRAY[CAST(:format AS smallint)]", format=int(wanted.format))
    return where


def _where_shown(where: Where, wanted: TitleFilter, key: str, now: datetime) -> None:
    """Those with a show that is not over and fits: language and format are then the show's, not the title's."""
    conditions = [
        f"shows.title_id = titles.{key}",
        "shows.state = 1",
        "shows.end_time > :now",
        "shows.start_time > :earliest",
    ]
    where.parameters.update(now=now, earliest=now - LONGEST)
    if wanted.city_id:
        conditions.append("shows.city_id = :city_id")
        where.parameters["city_id"] = wanted.city_id
    if wanted.day is not None:
        conditions.append("shows.business_date = :day AND shows.start_time BETWEEN :day_from AND :day_to")
        day_from, day_to = starts_on(wanted.day)
        where.parameters.update(day=wanted.day, day_from=day_from, day_to=day_to)
    if wanted.language:
        conditions.append("shows.language = :language")
        where.parameters["language"] = wanted.language
    if wanted.format is not None:
        conditions.append("shows.format = :format")
        where.parameters["format"] = int(wanted.format)
    where.add(f"EXISTS (SELECT FROM shows WHERE {' AND '.join(conditions)})")
