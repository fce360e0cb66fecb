"""The demo's venues and screens: cinemas in every city, theatres, clubs, arenas and stadiums in the large ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from local.demo import halls
from local.demo.chance import dice, named_id
from services.catalog.domain.layouts import Layout, LayoutPlan
from services.catalog.domain.titles import Format
from services.catalog.domain.venues import Amenity, City, Location, Screen, Venue

CHAINS = (
    "Galaxy Cinemas",
    "Regal Talkies",
    "Silver Screen",
    "Aurora Multiplex",
    "Plaza Picture House",
    "Metro Cinemas",
)
PLACES = (
    "Station Road",
    "MG Road",
    "City Mall",
    "Lake View Mall",
    "Ring Road",
    "Old Town",
    "Civil Lines",
    "Garden Square",
)
METROS = 8
"""The largest cities, which have more and larger cinemas, and dearer ones."""
CINEMAS_OF_RANK = (4, 4, 4, 4, 3, 3, 3, 3, *(2,) * 12, *(1,) * 4)
SPREAD_KM = 7.0
KM_A_DEGREE = 111.2


@dataclass(frozen=True, slots=True)
class Hall:
    """A screen where it stands, with every layout that it ever had; the last one is in use."""

    screen: Screen
    venue: Venue
    city: City
    layouts: tuple[Layout, ...]
    metro: bool
    purpose: str = "cinema"
    load_test: bool = False

    @property
    def plan(self) -> LayoutPlan:
        return self.layouts[-1].plan


@dataclass(frozen=True, slots=True)
class EventPlace:
    """A venue for what is not a film: its name, seating plan and the ranks of the cities that have one."""

    purpose: str
    name: str
    plan: LayoutPlan
    amenities: tuple[Amenity, ...]
    ranks: tuple[int, ...]


EVENT_PLACES: Sequence[EventPlace] = (
    EventPlace("theatre", "Rangmanch Theatre", halls.THEATRE, (Amenity.FOOD, Amenity.WHEELCHAIR_ACCESS), (0, 2, 5, 8)),
    EventPlace("club", "Basement Club", halls.CLUB, (Amenity.BAR, Amenity.M_TICKET), (0, 2, 3)),
    EventPlace("arena", "Indoor Arena", halls.ARENA, (Amenity.PARKING, Amenity.FOOD), (0, 1, 2)),
    EventPlace("stadium", "Municipal Stadium", halls.STADIUM, (Amenity.PARKING, Amenity.FOOD), (1, 6)),
)


def all_halls(cities: Sequence[City]) -> list[Hall]:
    """Every demo screen, the cinemas' first."""
    cinemas = [
        hall
        for rank, city in enumerate(cities)
        for number in range(CINEMAS_OF_RANK[rank])
        for hall in _cinema(city, rank, number)
    ]
    return [*cinemas, *(_event_hall(place, cities[rank], rank) for place in EVENT_PLACES for rank in place.ranks)]


def near(city: City, *name: object) -> Location:
    """A point within some kilometres of the city's middle."""
    chance = dice("location", *name)
    distance, angle = SPREAD_KM * math.sqrt(chance.random()), chance.uniform(0, 2 * math.pi)
    north, east = distance * math.sin(angle), distance * math.cos(angle)
    latitude = city.location.latitude + north / KM_A_DEGREE
    longitude = city.location.longitude + east / (KM_A_DEGREE * math.cos(math.radians(city.location.latitude)))
    return Location(round(latitude, 5), round(longitude, 5))


def _cinema(city: City, rank: int, number: int) -> Iterator[Hall]:
    """A multiplex: in a metro four or five screens, the first an IMAX, elsewhere three."""
    metro = rank < METROS
    chance = dice("cinema", city.city_id, number)
    chain = CHAINS[(rank + number) % len(CHAINS)]
    place = PLACES[(rank * 3 + number) % len(PLACES)]
    imax = metro and number < 2
    amenities = {Amenity.M_TICKET, Amenity.FOOD, Amenity.WHEELCHAIR_ACCESS, Amenity.RECLINERS}
    amenities |= {Amenity.IMAX, Amenity.DOLBY_ATMOS} if imax else set()
    amenities |= {each for each in (Amenity.PARKING, Amenity.DOLBY_ATMOS) if chance.random() < 0.6}
    venue = Venue(
        venue_id=named_id("cinema", city.city_id, number),
        name=f"{chain} {place}",
        city_id=city.city_id,
        address=f"{chance.randint(1, 240)} {place}, {city.name}",
        location=near(city, "cinema", city.city_id, number),
        time_zone=city.time_zone,
        amenities=tuple(sorted(amenities)),
        organizer_id=named_id("organizer", chain),
    )
    screens = (5 if number == 0 else 4) if metro else 3
    for screen in range(screens):
        formats: tuple[Format, ...] = (Format.TWO_D,)
        plans = [chance.choice((halls.SMALL, halls.MIDDLE, halls.MIDDLE, halls.STUDIO, halls.RECLINERS))]
        if screen == 0 and imax:
            formats = (Format.TWO_D, Format.THREE_D, Format.IMAX)
            plans = [halls.IMAX_LARGE if number == 0 else halls.IMAX]
        elif screen <= 1:
            formats = (Format.TWO_D, Format.THREE_D)
            plans = [halls.LARGE if metro else halls.MIDDLE]
        if screen == 2 and number == 0:
            plans.insert(0, halls.STUDIO)  # rebuilt once: a second version of its layout
        yield make_hall(venue, city, f"Screen {screen + 1}", formats, plans, metro=metro)


def _event_hall(place: EventPlace, city: City, rank: int) -> Hall:
    venue = Venue(
        venue_id=named_id(place.purpose, city.city_id),
        name=f"{city.name} {place.name}",
        city_id=city.city_id,
        address=f"{place.name}, {PLACES[(rank + 5) % len(PLACES)]}, {city.name}",
        location=near(city, place.purpose, city.city_id),
        time_zone=city.time_zone,
        amenities=place.amenities,
        organizer_id=named_id("organizer", place.purpose, city.city_id),
    )
    metro = rank < METROS
    return make_hall(venue, city, "Main hall", (Format.LIVE,), [place.plan], metro=metro, purpose=place.purpose)


def make_hall(
    venue: Venue,
    city: City,
    name: str,
    formats: tuple[Format, ...],
    plans: Sequence[LayoutPlan],
    *,
    metro: bool,
    purpose: str = "cinema",
    load_test: bool = False,
) -> Hall:
    """A screen with ``plans`` as its layouts' versions 1, 2, ..."""
    screen_id = named_id("screen", venue.venue_id, name)
    layouts = tuple(
        Layout(named_id("layout", screen_id, version), screen_id, version, plan)
        for version, plan in enumerate(plans, start=1)
    )
    screen = Screen(
        screen_id=screen_id,
        venue_id=venue.venue_id,
        name=name,
        formats=formats,
        layout_id=layouts[-1].layout_id,
        layout_version=layouts[-1].layout_version,
        capacity=plans[-1].capacity,
        version=len(layouts),
    )
    return Hall(screen, venue, city, layouts, metro, purpose, load_test)


@dataclass(slots=True)
class Built:
    """What a set of halls consists of, each thing once."""

    venues: dict[UUID, Venue] = field(default_factory=dict)
    screens: dict[UUID, Screen] = field(default_factory=dict)
    layouts: dict[UUID, Layout] = field(default_factory=dict)

    @classmethod
    def of(cls, some: Sequence[Hall]) -> Built:
        built = cls()
        for hall in some:
            built.venues[hall.venue.venue_id] = hall.venue
            built.screens[hall.screen.screen_id] = hall.screen
            built.layouts.update({layout.layout_id: layout for layout in hall.layouts})
        return built
