"""Domain values and rows as messages of the contract."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from google.type import money_pb2

from marquee.booking import v1 as booking_v1
from marquee.catalog import v1 as catalog_v1
from services.booking.domain import Layout, Quote, QuoteItem, Seat, Show, StandingArea
from services.booking.store.bookings import BookingRow
from services.booking.store.holds import ReservationRow
from services.kit.money import Money, to_proto


def timestamp(moment: datetime) -> Timestamp:
    """Four times as fast as ``FromDatetime``."""
    return Timestamp(seconds=int(moment.timestamp()), nanos=moment.microsecond * 1000)


@lru_cache(4096)
def money(minor: int, currency: str) -> money_pb2.Money:
    """An amount, to be put into other messages (which copy it); prices repeat."""
    return to_proto(Money(minor, currency))


def minor_units(amount: money_pb2.Money) -> int:
    """Of an amount that we made ourselves, so it is whole minor units."""
    return int(amount.units * 100 + amount.nanos // 10_000_000)


@lru_cache(16_384)
def _item_bytes(item: QuoteItem, currency: str) -> bytes:
    """A serialized quote of nothing else; a seat has few prices, and is wanted again and again."""
    message = booking_v1.QuoteItem(
        label=item.label,
        category=item.category,
        price=money(item.price, currency),
        price_tax=money(item.price_tax, currency),
        fee=money(item.fee, currency),
        fee_tax=money(item.fee_tax, currency),
        total=money(item.total, currency),
    )
    return booking_v1.Quote(items=[message]).SerializeToString()


@lru_cache(4096)
def _sums_bytes(subtotal: int, fees: int, taxes: int, currency: str) -> bytes:
    """A serialized quote without items."""
    return booking_v1.Quote(
        subtotal=money(subtotal, currency),
        fees=money(fees, currency),
        taxes=money(taxes, currency),
        total=money(subtotal + fees + taxes, currency),
    ).SerializeToString()


def quote_bytes(quote: Quote) -> bytes:
    """A serialized ``Quote``: messages one behind the other are one with the fields of all."""
    items = [_item_bytes(item, quote.currency) for item in quote.items]
    return b"".join((*items, _sums_bytes(quote.subtotal, quote.fees, quote.taxes, quote.currency)))


def quote_items(quote: booking_v1.Quote) -> tuple[QuoteItem, ...]:
    return tuple(
        QuoteItem(
            label=item.label,
            category=item.category,
            price=minor_units(item.price),
            price_tax=minor_units(item.price_tax),
            fee=minor_units(item.fee),
            fee_tax=minor_units(item.fee_tax),
        )
        for item in quote.items
    )


def reservation_message(row: ReservationRow) -> booking_v1.Reservation:
    message = booking_v1.Reservation(
        reservation_id=str(row.reservation_id),
        show_id=str(row.show_id),
        seat_nos=row.seat_nos,
        status=booking_v1.ReservationStatus.ValueType(row.status),
        expire_time=timestamp(row.expires_at),
        fence=row.fence,
        create_time=timestamp(row.created_at),
        booking_id=str(row.booking_id or ""),
    )
    quote = message.quote
    quote.ParseFromString(row.quote)
    message.seats.extend([item.label for item in quote.items])
    return message


def booking_message(row: BookingRow, show: Show | None) -> booking_v1.Booking:
    """``show`` is None only while its own data cannot be read; the summary is left out then."""
    quote = booking_v1.Quote.FromString(row.quote)
    message = booking_v1.Booking(
        booking_id=str(row.booking_id),
        reference=row.reference,
        show_id=str(row.show_id),
        reservation_id=str(row.reservation_id),
        seats=[item.label for item in quote.items],
        seat_nos=row.seat_nos,
        quote=quote,
        status=booking_v1.BookingStatus.ValueType(row.status),
        pay_by_time=timestamp(row.pay_by),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        payment_id=str(row.payment_id or ""),
        version=row.version,
    )
    if row.refund is not None:
        message.refund.CopyFrom(money(row.refund, row.currency))
    if show is not None:
        message.show.CopyFrom(
            booking_v1.ShowSummary(
                show_id=str(show.show_id),
                title=show.title,
                venue_id=show.venue_id,
                venue_name=show.venue_name,
                screen_name=show.screen_name,
                city_id=show.city_id,
                start_time=timestamp(show.start_time),
                time_zone=show.time_zone,
            )
        )
    return message


def layout_of(message: catalog_v1.Layout) -> Layout:
    return Layout.of(
        UUID(message.layout_id),
        [
            Seat(
                seat_no=seat.seat_no,
                label=seat.label,
                row=seat.row,
                number=seat.number,
                category=seat.category,
                x=seat.x,
                y=seat.y,
                wheelchair=seat.wheelchair,
            )
            for seat in sorted(message.seats, key=lambda seat: seat.seat_no)
        ],
        [
            StandingArea(
                name=area.name, category=area.category, first_seat_no=area.first_seat_no, capacity=area.capacity
            )
            for area in message.standing_areas
        ],
    )
