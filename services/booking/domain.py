"""Booking's rules and values. Pure: no I/O, no clock; whoever needs the time is given PostgreSQL's.

What is checked under the show's lock stands in ``migrations/*_functions.sql``; it compares instants and counts that
the rules here give it (``sale_window``, ``SeatLimits``).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from uuid import UUID

from marquee.edge import v1 as edge_v1
from services.kit.errors import InvalidArgument, NotFound, Refusal

MOST_SEATS_A_HOLD = 10
REFERENCE_ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Without 0/O, 1/I/L: references are read out at counters."""
REFERENCE_LETTERS = 8
FULL = 10_000
"""A hundred percent, in basis points."""


class SeatState(IntEnum):
    """``marquee.booking.v1.SeatStatus``; AVAILABLE is never stored."""

    AVAILABLE = 1
    HELD = 2
    BOOKED = 3
    BLOCKED = 4


class ReservationState(IntEnum):
    ACTIVE = 1
    CONVERTED = 2
    RELEASED = 3
    EXPIRED = 4


class BookingState(IntEnum):
    PENDING_PAYMENT = 1
    CONFIRMED = 2
    CANCELLED = 3
    EXPIRED = 4


# --- refusals -------------------------------------------------------------------------------------------------------


class SeatsTaken(Refusal):
    """Some seats are held, booked or blocked; ``metadata["seats"]`` names them."""

    reason = edge_v1.ERROR_REASON_SEAT_TAKEN

    def __init__(self, labels: Sequence[str]) -> None:
        names = ", ".join(labels)
        super().__init__(
            f"{names} {'is' if len(labels) == 1 else 'are'} no longer available", metadata={"seats": ",".join(labels)}
        )


class StandingSoldOut(Refusal):
    reason = edge_v1.ERROR_REASON_STANDING_SOLD_OUT

    def __init__(self) -> None:
        super().__init__("there are not that many standing places left")


class UnknownSeat(InvalidArgument):
    """A label or area that the show's layout does not have."""

    reason = edge_v1.ERROR_REASON_UNKNOWN_SEAT


class ShowNotOnSale(Refusal):
    reason = edge_v1.ERROR_REASON_SHOW_NOT_ON_SALE


class TooManyHolds(Refusal):
    reason = edge_v1.ERROR_REASON_TOO_MANY_HOLDS


class ReservationExpired(Refusal):
    reason = edge_v1.ERROR_REASON_RESERVATION_EXPIRED

    def __init__(self) -> None:
        super().__init__("the reservation has expired; choose seats again")


class ReservationReleased(Refusal):
    reason = edge_v1.ERROR_REASON_RESERVATION_RELEASED

    def __init__(self) -> None:
        super().__init__("the reservation was given back; choose seats again")


class ReservationConverted(Refusal):
    reason = edge_v1.ERROR_REASON_RESERVATION_CONVERTED

    def __init__(self) -> None:
        super().__init__("the reservation already belongs to a booking")


class BookingNotPayable(Refusal):
    reason = edge_v1.ERROR_REASON_BOOKING_NOT_PAYABLE


class BookingNotCancellable(Refusal):
    reason = edge_v1.ERROR_REASON_BOOKING_NOT_CANCELLABLE


class TooManyStreams(Refusal):
    reason = edge_v1.ERROR_REASON_TOO_MANY_STREAMS

    def __init__(self) -> None:
        super().__init__("too many live streams are open; close one first", retry_after_seconds=5)


def no_such(what: str) -> NotFound:
    """Missing and somebody else's are answered alike."""
    return NotFound(f"there is no such {what}")


# --- shows and layouts ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seat:
    seat_no: int
    label: str
    row: str
    number: int
    category: str
    x: float
    y: float
    wheelchair: bool


@dataclass(frozen=True, slots=True)
class StandingArea:
    name: str
    category: str
    first_seat_no: int
    capacity: int


@dataclass(frozen=True, eq=False)
class Layout:
    """A seating plan; never changes, and is large: one is told from another by identity."""

    layout_id: UUID
    seats: tuple[Seat, ...]
    areas: tuple[StandingArea, ...]
    by_label: Mapping[str, Seat] = field(repr=False)
    by_area: Mapping[str, StandingArea] = field(repr=False)

    @classmethod
    def of(cls, layout_id: UUID, seats: Sequence[Seat], areas: Sequence[StandingArea]) -> Layout:
        return cls(
            layout_id,
            tuple(seats),
            tuple(areas),
            {seat.label: seat for seat in seats},
            {area.name: area for area in areas},
        )

    def label_of(self, seat_no: int) -> str:
        """A seat's label, or the name of the area that a standing place is in."""
        if seat_no < len(self.seats):
            return self.seats[seat_no].label
        for area in self.areas:
            if area.first_seat_no <= seat_no < area.first_seat_no + area.capacity:
                return area.name
        raise LookupError(f"layout {self.layout_id} has no seat {seat_no}")


@dataclass(frozen=True)
class Show:
    """Booking's copy of a show, with its layout."""

    show_id: UUID
    version: int
    title: str
    city_id: str
    venue_id: str
    venue_name: str
    screen_name: str
    time_zone: str
    start_time: datetime
    sale_opens: datetime
    sale_closes: datetime
    layout: Layout = field(repr=False)
    layout_version: int
    capacity: int
    currency: str
    prices: Mapping[str, int]
    refund_tiers: tuple[tuple[int, int], ...]
    cancelled: bool


def sale_window(on_sale: datetime, off_sale: datetime, start: datetime) -> tuple[datetime, datetime]:
    """From when until when (exclusive) seats are sold: never after the show has started."""
    return on_sale, min(off_sale, start)


@dataclass(frozen=True, slots=True)
class SeatLimits:
    """How much one user may keep from others."""

    active_holds: int
    holds_an_hour: int


# --- a wish -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """One seat or standing place that a wish names, with its category."""

    label: str
    category: str


@dataclass(frozen=True, slots=True)
class Wish:
    """What a wish means in a layout: seat numbers, and (area, quantity) for standing places."""

    seat_nos: tuple[int, ...]
    standing: tuple[tuple[StandingArea, int], ...]
    places: tuple[Place, ...]


def read_wish(layout: Layout, labels: Sequence[str], standing: Sequence[tuple[str, int]]) -> Wish:
    """Find the places that a wish names.

    Raises:
        UnknownSeat: the layout has no such seat or area; names the field.
        InvalidArgument: more than 10 places, or one area twice.
    """
    quantity = len(labels) + sum(count for _, count in standing)
    if quantity > MOST_SEATS_A_HOLD:
        raise InvalidArgument.of("seats", f"must not be more than {MOST_SEATS_A_HOLD} places in all")
    seats: list[Seat] = []
    for index, label in enumerate(labels):
        seat = layout.by_label.get(label)
        if seat is None:
            raise UnknownSeat.of(f"seats[{index}]", f"{label} is not a seat of this show")
        seats.append(seat)
    seats.sort(key=lambda seat: seat.seat_no)
    areas: list[tuple[StandingArea, int]] = []
    for index, (name, count) in enumerate(standing):
        area = layout.by_area.get(name)
        if area is None:
            raise UnknownSeat.of(f"standing[{index}].area", "is not an area of this show")
        if any(area is other for other, _ in areas):
            raise InvalidArgument.of(f"standing[{index}].area", "must not come twice")
        areas.append((area, count))
    areas.sort(key=lambda wanted: wanted[0].first_seat_no)
    places = [Place(seat.label, seat.category) for seat in seats]
    for area, count in areas:
        places += [Place(area.name, area.category)] * count
    return Wish(tuple(seat.seat_no for seat in seats), tuple(areas), tuple(places))


# --- money --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rates:
    """What is added to prices. Basis points are hundredths of a percent; amounts are minor units.

    The default GST rates are those on cinema tickets and services in India since 22 September 2025 (56th GST Council):
    5 % up to 100 rupees, 18 % above, 18 % on the convenience fee.
    """

    fee: int
    most_fee: int
    gst_threshold: int
    gst_low: int
    gst_high: int
    gst_fee: int


@dataclass(frozen=True, slots=True)
class QuoteItem:
    """One place's amounts, in minor units."""

    label: str
    category: str
    price: int
    price_tax: int
    fee: int
    fee_tax: int

    @property
    def total(self) -> int:
        return self.price + self.price_tax + self.fee + self.fee_tax


@dataclass(frozen=True, slots=True)
class Quote:
    """What a reservation costs. Each amount was rounded once, an item at a time, so sums are exact."""

    currency: str
    items: tuple[QuoteItem, ...]

    @property
    def subtotal(self) -> int:
        return sum(item.price for item in self.items)

    @property
    def fees(self) -> int:
        return sum(item.fee for item in self.items)

    @property
    def taxes(self) -> int:
        return sum(item.price_tax + item.fee_tax for item in self.items)

    @property
    def total(self) -> int:
        return sum(item.total for item in self.items)


def share(amount: int, basis_points: int) -> int:
    """``basis_points`` of ``amount`` (both not negative), rounded half up to whole minor units."""
    return (amount * basis_points + FULL // 2) // FULL


@lru_cache(16_384)
def _priced(place: Place, price: int, rates: Rates) -> QuoteItem:
    """A place has few prices, and is wanted again and again."""
    fee = min(share(price, rates.fee), rates.most_fee)
    return QuoteItem(
        label=place.label,
        category=place.category,
        price=price,
        price_tax=share(price, rates.gst_high if price > rates.gst_threshold else rates.gst_low),
        fee=fee,
        fee_tax=share(fee, rates.gst_fee),
    )


def quote(places: Sequence[Place], prices: Mapping[str, int], currency: str, rates: Rates) -> Quote:
    """Price every place by its category, with fee and GST.

    Raises:
        ShowNotOnSale: a category has no price.
    """
    items = []
    for place in places:
        price = prices.get(place.category)
        if price is None:
            raise ShowNotOnSale(f"places of category {place.category} are not on sale")
        items.append(_priced(place, price, rates))
    return Quote(currency, tuple(items))


def refund_percent(tiers: Sequence[tuple[int, int]], start: datetime, now: datetime) -> int:
    """Percent of the price that an owner gets back who cancels at ``now``: the best tier that still holds."""
    return max((percent for minutes, percent in tiers if now <= start - timedelta(minutes=minutes)), default=0)


def owner_refund(items: Sequence[QuoteItem], percent: int) -> int:
    """What an owner who cancels gets back: ``percent`` of price and its tax, an item at a time; never the fee."""
    return sum(share(item.price + item.price_tax, percent * 100) for item in items)


def new_reference() -> str:
    """A booking reference for people: MQ and 8 characters of 39 random bits, drawn at once."""
    letters = []
    number = secrets.randbelow(len(REFERENCE_ALPHABET) ** REFERENCE_LETTERS)
    for _ in range(REFERENCE_LETTERS):
        number, place = divmod(number, len(REFERENCE_ALPHABET))
        letters.append(REFERENCE_ALPHABET[place])
    return "MQ" + "".join(letters)
