"""Reservations become bookings: those that are asked for together share one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import psycopg
import structlog

from marquee.booking import v1 as booking_v1
from services.booking.domain import (
    BookingState,
    ReservationConverted,
    ReservationExpired,
    ReservationReleased,
    Show,
    new_reference,
    no_such,
)
from services.booking.messages import booking_message, quote_items
from services.booking.shows import Shows
from services.booking.store.bookings import BookingRow, BookingStore
from services.booking.store.conversions import BookWish, Conversion, NewBooking, add, convert
from services.kit import outbox
from services.kit.batcher import Batcher
from services.kit.database import SESSION_ENDED, Connection
from services.kit.errors import Overloaded, RequestIdReused
from services.kit.ids import PREFIX_BITS
from services.kit.outbox import Event

log = structlog.get_logger()
BookBatches = Batcher[BookWish, booking_v1.Booking]
Answer = booking_v1.Booking | Exception


def book_batches(
    bookings: BookingStore, shows: Shows, *, at_once: int, most: int, gather_seconds: float
) -> BookBatches:
    """Bookings that are asked for together share a transaction; a refused one leaves the others alone."""

    async def flush(wishes: Sequence[BookWish]) -> Sequence[Answer]:
        try:
            return await book(wishes, bookings=bookings, shows=shows)
        except psycopg.errors.LockNotAvailable:
            raise Overloaded("too many people want this show at once; try again", retry_after_seconds=1) from None
        except psycopg.errors.QueryCanceled:
            raise
        except (psycopg.OperationalError, *SESSION_ENDED) as error:
            # A connection that PostgreSQL closed fails once; the request ids make it safe to ask again on another.
            log.warning("book_batch_repeated", error=f"{type(error).__name__}: {error}"[:200])
            return await book(wishes, bookings=bookings, shows=shows)

    return Batcher(
        flush,
        lane=lambda wish: wish.reservation_id.int >> (128 - PREFIX_BITS),  # its show's
        at_once=at_once,
        most=most,
        gather_seconds=gather_seconds,
    )


async def book(wishes: Sequence[BookWish], *, bookings: BookingStore, shows: Shows) -> list[Answer]:
    """What becomes of each wish: its booking, or why there is none."""
    # A request that comes twice at once finds the first one's answer only after its commit.
    first: dict[tuple[UUID, UUID], int] = {}
    again = []
    for place, wish in enumerate(wishes):
        if first.setdefault((wish.user_id, wish.request_id), place) != place:
            again.append(place)
    answers: dict[int, Answer] = {}
    show_ids = await bookings.shows_of([wish.reservation_id for wish in wishes])
    known = {show_id: await shows.find_or_none(show_id) for show_id in set(show_ids.values())}
    async with bookings.transaction() as connection:
        # The shows' locks are taken in the order of their ids, as by every writer.
        order = sorted(first.values(), key=lambda place: _show_of(wishes[place], show_ids).int)
        conversions = await convert(connection, [wishes[place] for place in order], bookings.pay_within)
        new: list[NewBooking] = []
        for place, conversion in zip(order, conversions, strict=True):
            wish = wishes[place]
            if conversion.outcome == "CONVERTED":
                assert conversion.show_id is not None
                message, made = _new_booking(wish, conversion, known.get(conversion.show_id))
                new.append(made)
                answers[place] = message
            else:
                answers[place] = _replay_or_refusal(conversion)
        if new:
            async with connection.pipeline():  # none of these needs another one's answer
                await add(connection, new)
                await announce(connection, new)
    if again:
        repeated = await book([wishes[place] for place in again], bookings=bookings, shows=shows)
        answers |= dict(zip(again, repeated, strict=True))
    return [answers[place] for place in range(len(wishes))]


def _show_of(wish: BookWish, show_ids: dict[UUID, UUID]) -> UUID:
    return show_ids.get(wish.reservation_id, wish.reservation_id)


async def announce(connection: Connection, new: Sequence[NewBooking]) -> None:
    """Tell of new bookings, in the transaction that makes them."""
    await outbox.append(
        connection,
        [
            Event(
                "booking.created",
                str(made.row.booking_id),
                booking_v1.BookingCreated(
                    booking=booking_v1.Booking.FromString(made.answer), user_id=str(made.row.user_id)
                ),
                {"request_id": made.wish.call_id},
            )
            for made in new
        ],
    )


def _replay_or_refusal(conversion: Conversion) -> Answer:
    match conversion.outcome:
        case "REPLAY":
            return booking_v1.Booking.FromString(conversion.answer or b"")
        case "REQUEST_ID_REUSED":
            return RequestIdReused()
        case "TAKEN_OVER":
            return ReservationConverted()
        case "RELEASED":
            return ReservationReleased()
        case "EXPIRED":
            return ReservationExpired()
        case _:
            return no_such("reservation")


def _new_booking(wish: BookWish, conversion: Conversion, show: Show | None) -> tuple[booking_v1.Booking, NewBooking]:
    assert conversion.show_id is not None
    locked_quote = booking_v1.Quote.FromString(conversion.quote)
    row = BookingRow(
        show_id=conversion.show_id,
        booking_id=wish.booking_id,
        reservation_id=wish.reservation_id,
        user_id=wish.user_id,
        reference=new_reference(),
        status=BookingState.PENDING_PAYMENT,
        seat_nos=conversion.seat_nos,
        quote=conversion.quote,
        total=conversion.total,
        currency=locked_quote.total.currency_code,
        pay_by=conversion.pay_by,
        created_at=conversion.moment,
        updated_at=conversion.moment,
        payment_id=None,
        capture_id=None,
        refund=None,
        version=1,
    )
    message = booking_message(row, show)
    return message, NewBooking(
        row, quote_items(locked_quote), wish, message.SerializeToString(), _expired_event(message, wish.user_id)
    )


def _expired_event(booking: booking_v1.Booking, user_id: UUID) -> bytes:
    """What the sweeper announces, in SQL, if this booking is not paid."""
    expired = booking_v1.BookingExpired(booking=booking, user_id=str(user_id))
    expired.booking.status = booking_v1.BOOKING_STATUS_EXPIRED
    expired.booking.version = booking.version + 1
    expired.booking.ClearField("update_time")
    return expired.SerializeToString()
