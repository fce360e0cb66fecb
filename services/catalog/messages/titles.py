"""Films and events as messages."""

from __future__ import annotations

from marquee.catalog import v1 as catalog_v1
from services.catalog.domain.titles import (
    Event,
    EventKind,
    Format,
    Movie,
    TitleState,
    require_film_formats,
    require_text,
    state_from,
)
from services.catalog.messages.values import date_message, date_of, optional_uuid_of, uuid_of, uuid_text


def movie_of(message: catalog_v1.Movie, field: str) -> Movie:
    """The film that an administrator describes; its id is nil and its version is as sent.

    Raises:
        InvalidArgument: names the field below ``field``.
    """
    require_text(message.title, f"{field}.title")
    formats = tuple(map(Format, message.formats))
    require_film_formats(formats, f"{field}.formats")
    return Movie(
        movie_id=NIL,
        title=message.title.strip(),
        synopsis=message.synopsis,
        release_date=date_of(message.release_date, f"{field}.release_date"),
        genres=tuple(message.genres),
        languages=tuple(message.languages),
        formats=formats,
        duration_minutes=message.duration_minutes,
        certificate=message.certificate,
        director=message.director,
        rating=message.rating,
        votes=message.votes,
        state=state_from(message.state or TitleState.NOW_SHOWING, f"{field}.state"),
        version=message.version,
    )


def movie_message(movie: Movie) -> catalog_v1.Movie:
    return catalog_v1.Movie(
        movie_id=str(movie.movie_id),
        title=movie.title,
        synopsis=movie.synopsis,
        release_date=date_message(movie.release_date) if movie.release_date else None,
        genres=movie.genres,
        languages=movie.languages,
        formats=[catalog_v1.Format.ValueType(each) for each in movie.formats],
        duration_minutes=movie.duration_minutes,
        certificate=movie.certificate,
        director=movie.director,
        rating=movie.rating,
        votes=movie.votes,
        state=catalog_v1.TitleState.ValueType(movie.state),
        version=movie.version,
    )


def event_of(message: catalog_v1.Event, field: str) -> Event:
    """The event that an administrator describes; its id is nil and its version is as sent.

    Raises:
        InvalidArgument: names the field below ``field``.
    """
    require_text(message.title, f"{field}.title")
    return Event(
        event_id=NIL,
        title=message.title.strip(),
        description=message.description,
        kind=EventKind(message.kind),
        genres=tuple(message.genres),
        languages=tuple(message.languages),
        duration_minutes=message.duration_minutes,
        organizer_id=optional_uuid_of(message.organizer_id, f"{field}.organizer_id"),
        state=state_from(message.state or TitleState.NOW_SHOWING, f"{field}.state"),
        version=message.version,
    )


def event_message(event: Event) -> catalog_v1.Event:
    return catalog_v1.Event(
        event_id=str(event.event_id),
        title=event.title,
        description=event.description,
        kind=catalog_v1.EventKind.ValueType(event.kind),
        genres=event.genres,
        languages=event.languages,
        duration_minutes=event.duration_minutes,
        organizer_id=uuid_text(event.organizer_id),
        state=catalog_v1.TitleState.ValueType(event.state),
        version=event.version,
    )


NIL = uuid_of("00000000-0000-0000-0000-000000000000", "")
"""Stands for the id that only the service gives."""
