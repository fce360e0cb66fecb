"""Seat maps as bytes. Of all that is drawn only the statuses change, and each is one byte on the wire: a layout with
its prices is serialized once, and a map is a copy of that in which each seat's byte is set.

Message by message, each map of 20,000 seats kept everybody else waiting for 0.1 s or longer; now the first one does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from google.type import money_pb2

from marquee.booking import v1 as booking_v1
from services.booking.domain import Layout, SeatState, Show
from services.booking.live_map import LiveMap
from services.booking.messages import money

DRAWN_KEPT = 128
"""Layouts with prices; a seat takes some 80 bytes."""
PARTS_DIFFER = re.compile(rb"[^\0]")


@dataclass(frozen=True, slots=True)
class Drawn:
    """The seats of a layout, all available: the serialized field ``seats``, and where in it each one's status is."""

    seats: bytes
    places: tuple[int, ...]


@lru_cache(DRAWN_KEPT)
def _drawn(layout: Layout, prices: tuple[tuple[str, int], ...], currency: str) -> Drawn:
    by_category = _by_category(dict(prices), currency)
    message = booking_v1.SeatMap()
    for seat in layout.seats:
        message.seats.add(
            label=seat.label,
            seat_no=seat.seat_no,
            row=seat.row,
            number=seat.number,
            category=seat.category,
            price=by_category.get(seat.category),
            status=booking_v1.SEAT_STATUS_AVAILABLE,
            x=seat.x,
            y=seat.y,
            wheelchair=seat.wheelchair,
        )
    available = message.SerializeToString()
    for view in message.seats:
        view.status = booking_v1.SEAT_STATUS_HELD
    held = message.SerializeToString()
    differing = (int.from_bytes(available, "big") ^ int.from_bytes(held, "big")).to_bytes(len(available), "big")
    return Drawn(available, tuple(place.start() for place in PARTS_DIFFER.finditer(differing)))


def _by_category(prices: Mapping[str, int], currency: str) -> dict[str, money_pb2.Money]:
    return {category: money(minor, currency) for category, minor in prices.items()}


def seat_map(show: Show, live: LiveMap) -> bytes:
    """A serialized ``SeatMap``."""
    drawn = _drawn(show.layout, tuple(sorted(show.prices.items())), show.currency)
    seats = bytearray(drawn.seats)
    statuses = live.statuses()
    for place, status in zip(drawn.places, statuses, strict=False):  # standing places come behind the seats
        seats[place] = status
    prices = _by_category(show.prices, show.currency)
    rest = booking_v1.SeatMap(
        show_id=str(show.show_id),
        version=live.version,
        layout_version=show.layout_version,
        layout_id=str(show.layout.layout_id),
        available=statuses.count(SeatState.AVAILABLE),
        epoch=live.epoch,
        standing_areas=[
            booking_v1.StandingAreaView(
                name=area.name,
                category=area.category,
                price=prices.get(area.category),
                capacity=area.capacity,
                available=statuses.count(SeatState.AVAILABLE, area.first_seat_no, area.first_seat_no + area.capacity),
                first_seat_no=area.first_seat_no,
            )
            for area in show.layout.areas
        ],
    )
    return rest.SerializeToString() + seats  # one message after the other is both in one
