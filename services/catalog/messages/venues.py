"""Cities, venues and screens as messages."""

from __future__ import annotations

from collections.abc import Sequence

from google.type import latlng_pb2

from marquee.catalog import v1 as catalog_v1
from services.catalog.domain.titles import require_text
from services.catalog.domain.venues import Amenity, City, Location, Screen, Venue, require_location, require_zone
from services.catalog.messages.titles import NIL
from services.catalog.messages.values import optional_uuid_of, uuid_text


def city_message(city: City) -> catalog_v1.City:
    return catalog_v1.City(
        city_id=city.city_id,
        name=city.name,
        location=_latlng(city.location),
        time_zone=city.time_zone,
        population=city.population,
        region=city.region,
    )


def venue_of(message: catalog_v1.Venue, field: str) -> Venue:
    """The venue that an administrator describes; its id is nil, its version as sent, its zone empty when unset.

    Raises:
        InvalidArgument: names the field below ``field``.
    """
    require_text(message.name, f"{field}.name")
    location = None
    if message.HasField("location"):
        location = Location(message.location.latitude, message.location.longitude)
        require_location(location, f"{field}.location")
    if message.time_zone:
        require_zone(message.time_zone, f"{field}.time_zone")
    return Venue(
        venue_id=NIL,
        name=message.name.strip(),
        city_id=message.city_id,
        address=message.address,
        location=location,
        time_zone=message.time_zone,
        amenities=tuple(map(Amenity, message.amenities)),
        organizer_id=optional_uuid_of(message.organizer_id, f"{field}.organizer_id"),
        version=message.version,
    )


def venue_message(venue: Venue, screens: Sequence[Screen] = ()) -> catalog_v1.Venue:
    return catalog_v1.Venue(
        venue_id=str(venue.venue_id),
        name=venue.name,
        city_id=venue.city_id,
        address=venue.address,
        location=_latlng(venue.location) if venue.location else None,
        time_zone=venue.time_zone,
        amenities=[catalog_v1.Amenity.ValueType(each) for each in venue.amenities],
        organizer_id=uuid_text(venue.organizer_id),
        screens=map(screen_message, screens),
        retired=venue.retired,
        version=venue.version,
    )


def screen_message(screen: Screen) -> catalog_v1.Screen:
    return catalog_v1.Screen(
        screen_id=str(screen.screen_id),
        venue_id=str(screen.venue_id),
        name=screen.name,
        formats=[catalog_v1.Format.ValueType(each) for each in screen.formats],
        layout_id=str(screen.layout_id),
        layout_version=screen.layout_version,
        capacity=screen.capacity,
        retired=screen.retired,
        version=screen.version,
    )


def _latlng(location: Location) -> latlng_pb2.LatLng:
    return latlng_pb2.LatLng(latitude=location.latitude, longitude=location.longitude)
