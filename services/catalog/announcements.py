"""`catalog.changed`: the whole new state of what changed, committed with the change."""

from __future__ import annotations

from google.protobuf.message import Message

from marquee.catalog import v1 as catalog_v1
from services.kit.outbox import Event

TOPIC = "catalog.changed"


def changed(subject: Message, *, reason: str = "") -> Event:
    """The event that tells of ``subject``'s new state.

    Args:
        subject: a City, Movie, Event, Venue (without screens), Screen or Show.
        reason: why a show was cancelled.
    """
    match subject:
        case catalog_v1.City():
            return Event(TOPIC, subject.city_id, catalog_v1.CatalogChanged(city=subject))
        case catalog_v1.Movie():
            return Event(TOPIC, subject.movie_id, catalog_v1.CatalogChanged(movie=subject))
        case catalog_v1.Event():
            return Event(TOPIC, subject.event_id, catalog_v1.CatalogChanged(event=subject))
        case catalog_v1.Venue():
            return Event(TOPIC, subject.venue_id, catalog_v1.CatalogChanged(venue=subject))
        case catalog_v1.Screen():
            return Event(TOPIC, subject.screen_id, catalog_v1.CatalogChanged(screen=subject))
        case catalog_v1.Show():
            return Event(TOPIC, subject.show_id, catalog_v1.CatalogChanged(show=subject, reason=reason))
    raise TypeError(f"{type(subject).__name__} is not announced")
