"""What is shown: films and live events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from uuid import UUID

from services.kit.errors import InvalidArgument


class Format(IntEnum):
    """How a film is shown, or an event seated; the contract's numbers."""

    TWO_D = 1
    THREE_D = 2
    IMAX = 3
    LIVE = 4


class TitleState(IntEnum):
    COMING_SOON = 1
    NOW_SHOWING = 2
    RETIRED = 3


class EventKind(IntEnum):
    UNSPECIFIED = 0
    CONCERT = 1
    PLAY = 2
    MATCH = 3
    COMEDY = 4
    OTHER = 5


@dataclass(frozen=True, slots=True)
class Movie:
    """A film. ``rating`` is 0 to 10, the mean of ``votes``."""

    movie_id: UUID
    title: str
    synopsis: str = ""
    release_date: date | None = None
    genres: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    formats: tuple[Format, ...] = ()
    duration_minutes: int = 0
    certificate: str = ""
    director: str = ""
    rating: float = 0.0
    votes: int = 0
    state: TitleState = TitleState.NOW_SHOWING
    version: int = 1


@dataclass(frozen=True, slots=True)
class Event:
    """A concert, play or match."""

    event_id: UUID
    title: str
    description: str = ""
    kind: EventKind = EventKind.UNSPECIFIED
    genres: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    duration_minutes: int = 0
    organizer_id: UUID | None = None
    state: TitleState = TitleState.NOW_SHOWING
    version: int = 1


MOVIE_FIELDS = frozenset(
    {
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
    }
)
"""What an administrator may change of a film."""

EVENT_FIELDS = frozenset(
    {"title", "description", "kind", "genres", "languages", "duration_minutes", "organizer_id", "state"}
)
"""What an administrator may change of an event."""


def require_text(value: str, field: str) -> None:
    """A name that people can see.

    Raises:
        InvalidArgument: names ``field``.
    """
    if not value.strip():
        raise InvalidArgument.of(field, "must not be blank")


def require_film_formats(formats: tuple[Format, ...], field: str) -> None:
    """A film is not performed live.

    Raises:
        InvalidArgument: names the format.
    """
    for index, each in enumerate(formats):
        if each is Format.LIVE:
            raise InvalidArgument.of(f"{field}[{index}]", "FORMAT_LIVE is not for films")


def state_from(number: int, field: str) -> TitleState:
    """The state that an administrator may give: retiring has its own call, which cannot be undone.

    Raises:
        InvalidArgument: names ``field``.
    """
    if number not in (TitleState.COMING_SOON, TitleState.NOW_SHOWING):
        raise InvalidArgument.of(field, "must be COMING_SOON or NOW_SHOWING")
    return TitleState(number)
