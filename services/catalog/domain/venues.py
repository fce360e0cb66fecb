"""Where it is shown: cities, venues and their screens."""

from __future__ import annotations

import functools
import math
import zoneinfo
from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

from services.catalog.domain.titles import Format
from services.kit.errors import InvalidArgument


class Amenity(IntEnum):
    """What a visitor finds at a venue; the contract's numbers."""

    PARKING = 1
    FOOD = 2
    WHEELCHAIR_ACCESS = 3
    RECLINERS = 4
    DOLBY_ATMOS = 5
    IMAX = 6
    M_TICKET = 7
    BAR = 8


@dataclass(frozen=True, slots=True)
class Location:
    """Degrees, WGS 84."""

    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class City:
    """A city in which tickets are sold. ``region`` is the 16-bit number that its shows' ids carry."""

    city_id: str
    name: str
    location: Location
    time_zone: str
    population: int
    region: int


@dataclass(frozen=True, slots=True)
class Venue:
    """A cinema, theatre, hall or ground."""

    venue_id: UUID
    name: str
    city_id: str
    address: str
    location: Location | None
    time_zone: str
    amenities: tuple[Amenity, ...] = ()
    organizer_id: UUID | None = None
    retired: bool = False
    version: int = 1


@dataclass(frozen=True, slots=True)
class Screen:
    """A hall of a venue, with the layout that new shows get."""

    screen_id: UUID
    venue_id: UUID
    name: str
    formats: tuple[Format, ...]
    layout_id: UUID
    layout_version: int
    capacity: int
    retired: bool = False
    version: int = 1


VENUE_FIELDS = frozenset({"name", "address", "location", "amenities", "organizer_id"})
"""What an administrator may change of a venue: its shows' ids and business days depend on city and zone."""


def require_location(location: Location, field: str) -> None:
    """A point on Earth.

    Raises:
        InvalidArgument: names the coordinate.
    """
    for name, value, most in (("latitude", location.latitude, 90), ("longitude", location.longitude, 180)):
        if not math.isfinite(value) or abs(value) > most:
            raise InvalidArgument.of(f"{field}.{name}", f"must be from -{most} to {most}")


@functools.cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def require_zone(name: str, field: str) -> None:
    """A zone of the IANA database.

    Raises:
        InvalidArgument: names ``field``.
    """
    if name not in _zones():
        raise InvalidArgument.of(field, 'must be an IANA time zone ("Asia/Kolkata")')
