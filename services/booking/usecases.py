"""One function for each thing that booking can do. Transactions begin and end here, in sight."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid5

from marquee.booking import v1 as booking_v1
from marquee.payment import v1 as payment_v1
from services.booking import seat_maps
from services.booking.desk import Desk
from services.booking.desks import Desks
from services.booking.domain import (
    BookingNotCancellable,
    BookingState,
    ReservationConverted,
    ReservationState,
    SeatsTaken,
    SeatState,
    Show,
    ShowNotOnSale,
    StandingSoldOut,
    TooManyHolds,
    UnknownSeat,
    Wish,
    no_such,
    owner_refund,
    quote,
    read_wish,
    refund_percent,
)
from services.booking.live_map import LiveMap
from services.booking.messages import (
    booking_message,
    money,
    quote_bytes,
    quote_items,
    reservation_message,
)
from services.booking.store.blocks import claimed_states, write_blocks
from services.booking.store.bookings import (
    BookingRow,
    free_booking,
    keep_answer,
    lock_show,
    mark_cancelled,
    stored_answer,
    write_change,
)
from services.booking.store.conversions import BookWish
from services.booking.store.holds import HoldOutcome, HoldWish, ReservationRow
from services.booking.store.seats import Change, ShowChange
from services.kit import outbox
from services.kit.call import UserId, current_call
from services.kit.database import Connection
from services.kit.errors import InvalidArgument, RequestIdReused, Unavailable
from services.kit.idempotency import content_hash
from services.kit.ids import new_id_of_show
from services.kit.outbox import Event

REFUNDS = UUID("5f0e4c86-5a42-4c3e-9a27-3b0f6f1a7c11")
"""Namespace of refund ids, which are made from what is refunded, so that a refund is asked for once."""
STALE_TRIES = 3


# --- seats ------------------------------------------------------------------------------------------------------------


async def open_map(show_id: UUID, *, desk: Desk) -> LiveMap:
    """The live map of a show.

    Raises:
        NotFound: there is no such show.
    """
    show = await desk.shows.find(show_id)
    live = await desk.live.open(show) if show is not None else None
    if live is None:
        raise no_such("show")
    return live


async def seat_map(show_id: UUID, *, desk: Desk) -> bytes:
    """Every seat of a show with price and status (``SeatMap``), at least as new as this process's last commit.

    Raises:
        NotFound: there is no such show.
    """
    live = await open_map(show_id, desk=desk)
    show = await desk.shows.find(show_id)
    return seat_maps.seat_map(show or live.show, live)


# --- holds ------------------------------------------------------------------------------------------------------------


async def hold_seats(
    request: booking_v1.CreateReservationRequest, user_id: UserId, *, desk: Desk
) -> booking_v1.Reservation:
    """Hold every place that is named, or none; PostgreSQL decides, and its clock ends the hold.

    Raises:
        NotFound: there is no such show.
        UnknownSeat: the show's layout has no such seat or area.
        SeatsTaken: some seats are held, booked or blocked; names them.
        StandingSoldOut: an area has not that many places left.
        ShowNotOnSale: the show is over, cancelled or not yet on sale.
        TooManyHolds: the user's limit for this show is reached.
        RequestIdReused: the request id came before with other content.
    """
    show_id, user = UUID(request.show_id), UUID(user_id)
    for _ in range(STALE_TRIES):
        show = await desk.shows.find(show_id, newer_than_seconds=math.inf)  # the hold compares its version
        if show is None:
            raise no_such("show")
        wish = read_wish(show.layout, request.seats, [(each.area, each.quantity) for each in request.standing])
        desk.live.refuse_if_taken(show_id, wish.seat_nos, user)
        outcome = await desk.hold_batches.add(_priced(request, user, show, wish, desk))
        if outcome.outcome == "SEAT_TAKEN":
            desk.live.expect_crowd(show)
        if outcome.outcome != "STALE_SHOW":
            return _held_or_refused(outcome, show, user)
        desk.shows.forget(show_id)
    raise Unavailable("the show is being changed just now; try again", retry_after_seconds=1)


def _priced(request: booking_v1.CreateReservationRequest, user: UUID, show: Show, wish: Wish, desk: Desk) -> HoldWish:
    priced = quote(wish.places, show.prices, show.currency, desk.rates)
    return HoldWish(
        show_id=show.show_id,
        show_row_version=show.version,
        user_id=user,
        request_id=UUID(request.request_id),
        content=content_hash(request),
        reservation_id=new_id_of_show(show.show_id),
        seat_nos=wish.seat_nos,
        standing=wish.standing,
        quote=quote_bytes(priced),
        total=priced.total,
    )


def _held_or_refused(outcome: HoldOutcome, show: Show, user: UUID) -> booking_v1.Reservation:
    match outcome.outcome:
        case "HELD" | "REPLAY":
            assert outcome.reservation_id is not None
            assert outcome.created_at is not None
            assert outcome.expires_at is not None
            # A replay answers what was answered first, whatever became of the reservation since.
            return reservation_message(
                ReservationRow(
                    show_id=show.show_id,
                    reservation_id=outcome.reservation_id,
                    user_id=user,
                    status=ReservationState.ACTIVE,
                    seat_nos=outcome.seat_nos,
                    quote=outcome.quote,
                    fence=outcome.fence,
                    created_at=outcome.created_at,
                    expires_at=outcome.expires_at,
                    booking_id=None,
                )
            )
        case "SEAT_TAKEN":
            raise SeatsTaken([show.layout.label_of(seat_no) for seat_no in outcome.taken])
        case "STANDING_SOLD_OUT":
            raise StandingSoldOut
        case "SALE_OVER":
            raise ShowNotOnSale("the sale for this show is over")
        case "SALE_NOT_OPEN":
            raise ShowNotOnSale(
                "the sale for this show has not begun", metadata={"on_sale_time": show.sale_opens.isoformat()}
            )
        case "TOO_MANY_HOLDS":
            raise TooManyHolds("you already hold as many baskets of this show as one may", retry_after_seconds=60)
        case "TOO_MANY_AN_HOUR":
            raise TooManyHolds("you have held seats of this show too often; try again later", retry_after_seconds=600)
        case "REQUEST_ID_REUSED":
            raise RequestIdReused
        case _:
            raise no_such("show")


async def get_reservation(reservation_id: UUID, user_id: UserId, *, desk: Desk) -> booking_v1.Reservation:
    """A user's own reservation as it is now.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    row = await desk.holds.find(reservation_id, UUID(user_id))
    if row is None:
        raise no_such("reservation")
    return reservation_message(row)


async def release_seats(reservation_id: UUID, user_id: UserId, *, desk: Desk) -> booking_v1.Reservation:
    """Give a reservation's seats back. One that is over already is answered as it is.

    Raises:
        NotFound: there is none, or it is somebody else's.
        ReservationConverted: a booking has taken it over; cancel that.
    """
    outcome, change = await desk.holds.release(reservation_id, UUID(user_id))
    if outcome == "CONVERTED":
        raise ReservationConverted
    if change is not None:
        desk.tell([change])
    return await get_reservation(reservation_id, user_id, desk=desk)


# --- bookings -----------------------------------------------------------------------------------------------------


async def create_booking(
    request: booking_v1.CreateBookingRequest, user_id: UserId, *, desk: Desk
) -> booking_v1.Booking:
    """Turn a reservation into a booking that waits for its payment, for one payment window.

    Raises:
        NotFound: there is no such reservation, or it is somebody else's.
        ReservationExpired, ReservationReleased, ReservationConverted: it is no longer active.
        RequestIdReused: the request id came before with other content.
    """
    reservation_id = UUID(request.reservation_id)
    return await desk.book_batches.add(
        BookWish(
            reservation_id=reservation_id,
            user_id=UUID(user_id),
            request_id=UUID(request.request_id),
            content=content_hash(request),
            booking_id=new_id_of_show(reservation_id),
            call_id=call.request_id if (call := current_call()) else "",
        )
    )


async def get_booking(booking_id: UUID, user_id: UserId, *, desk: Desk) -> booking_v1.Booking:
    """A user's own booking as it is now.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    row = await desk.bookings.find(booking_id, UUID(user_id))
    if row is None:
        raise no_such("booking")
    return booking_message(row, await desk.shows.find(row.show_id))


async def list_bookings(
    user_id: UserId, before: tuple[datetime, UUID] | None, most: int, *, desks: Desks
) -> tuple[list[booking_v1.Booking], tuple[datetime, UUID] | None]:
    """A page of a user's bookings in all regions, the newest first, and where the next one begins."""
    everywhere = desks.all()
    found = await asyncio.gather(*(desk.bookings.list_of(UUID(user_id), before, most + 1) for desk in everywhere))
    rows = [(row, desk) for desk, own in zip(everywhere, found, strict=True) for row in own]
    rows.sort(key=lambda each: (each[0].created_at, each[0].booking_id), reverse=True)
    page = rows[:most]
    shows: dict[UUID, Show] = {}
    for desk in everywhere:
        shows |= await desk.shows.find_all(row.show_id for row, of_desk in page if of_desk is desk)
    bookings = [booking_message(row, shows.get(row.show_id)) for row, _ in page]
    return bookings, (page[-1][0].created_at, page[-1][0].booking_id) if len(rows) > most else None


async def cancel_booking(
    request: booking_v1.CancelBookingRequest, user_id: UserId, *, desk: Desk
) -> booking_v1.Booking:
    """Cancel a user's own booking. A confirmed one is paid back as the show's refund policy says at this moment.

    Raises:
        NotFound: there is none, or it is somebody else's.
        BookingNotCancellable: it is over already, or the show has begun.
        RequestIdReused: the request id came before with other content.
    """
    user, booking_id, request_id = UUID(user_id), UUID(request.booking_id), UUID(request.request_id)
    content = content_hash(request)
    found = await desk.bookings.find(booking_id, user)
    if found is None:
        raise no_such("booking")
    show = await desk.shows.find(found.show_id, newer_than_seconds=0)  # its refund policy decides about money
    if show is None:
        raise Unavailable("the show cannot be read just now; try again", retry_after_seconds=1)
    async with desk.bookings.transaction() as connection:
        locked = await lock_show(connection, found.show_id)
        assert locked is not None
        version, moment = locked
        stored = await stored_answer(connection, user_id=user, request_id=request_id)
        if stored is not None:
            if stored[:2] != ("cancel", content):
                raise RequestIdReused
            return booking_v1.Booking.FromString(stored[2] or b"")
        row = (await desk.bookings.find_many(connection, [booking_id]))[booking_id]
        if row.status not in (BookingState.PENDING_PAYMENT, BookingState.CONFIRMED):
            raise BookingNotCancellable(f"the booking is {row.status.name.lower()} already")
        refund: int | None = None
        if row.status is BookingState.CONFIRMED:
            if moment >= show.start_time:
                raise BookingNotCancellable("the show has begun")
            items = quote_items(booking_v1.Quote.FromString(row.quote))
            refund = owner_refund(items, refund_percent(show.refund_tiers, show.start_time, moment))
        change = await _cancel(connection, row, version + 1, refund=refund, moment=moment, cause="cancel", actor=user)
        after = (await desk.bookings.find_many(connection, [booking_id]))[booking_id]
        booking = booking_message(after, show)
        events = [cancelled_event(booking, user_id, "owner")]
        if refund:
            events.append(refund_event(row, refund, "cancelled"))
        await outbox.append(connection, events)
        await keep_answer(
            connection,
            user_id=user,
            request_id=request_id,
            show_id=row.show_id,
            method="cancel",
            content=content,
            answer=booking.SerializeToString(),
        )
    desk.tell([change])
    desk.signals.changed([booking_id])
    return booking


async def _cancel(
    connection: Connection,
    row: BookingRow,
    version: int,
    *,
    refund: int | None,
    moment: datetime,
    cause: str,
    actor: UUID | None,
) -> ShowChange:
    freed = await free_booking(connection, row)
    await mark_cancelled(connection, row, refund=refund, at=moment)
    change = Change(version, freed=freed)
    await write_change(connection, row.show_id, change, cause=cause, actor=actor, at=moment, taken=-len(freed))
    return ShowChange(row.show_id, change)


def cancelled_event(booking: booking_v1.Booking, user_id: str, cause: str) -> Event:
    message = booking_v1.BookingCancelled(booking=booking, user_id=user_id, cause=cause)
    return Event("booking.cancelled", booking.booking_id, message)


def refund_event(row: BookingRow, amount: int, reason: str) -> Event:
    """Ask payment to give a confirmed booking's money back; for one booking always the same refund."""
    message = payment_v1.RefundRequested(
        refund_id=str(uuid5(REFUNDS, f"booking/{row.booking_id}")),
        booking_id=str(row.booking_id),
        payment_id=str(row.payment_id),
        capture_id=row.capture_id or "",
        amount=money(amount, row.currency),
        reason=reason,
    )
    return Event("payment.refund_requested", str(row.booking_id), message)


# --- the house --------------------------------------------------------------------------------------------------------


async def block_seats(request: booking_v1.BlockSeatsRequest, user_id: UserId, *, desk: Desk) -> int:
    """Keep seats back from sale, or put blocked ones on sale again; answers the show's version.

    Raises:
        NotFound: there is no such show.
        UnknownSeat: the layout has no such seat; names the field.
        InvalidArgument: nothing is named, a seat is both blocked and unblocked, or one to unblock is not blocked.
        SeatsTaken: a seat to block is held, booked or blocked.
        RequestIdReused: the request id came before with other content.
    """
    user, show_id, request_id = UUID(user_id), UUID(request.show_id), UUID(request.request_id)
    content = content_hash(request)
    show = await desk.shows.find(show_id)
    if show is None:
        raise no_such("show")
    block = _seat_nos(show, "block", request.block)
    unblock = _seat_nos(show, "unblock", request.unblock)
    if not block and not unblock:
        raise InvalidArgument.of("block", "name at least one seat to block or unblock")
    if set(block) & set(unblock):
        raise InvalidArgument.of("unblock", "must not name a seat that `block` names")
    async with desk.bookings.transaction() as connection:
        locked = await lock_show(connection, show_id)
        if locked is None:
            raise no_such("show")
        version, moment = locked
        stored = await stored_answer(connection, user_id=user, request_id=request_id)
        if stored is not None:
            if stored[:2] != ("block", content):
                raise RequestIdReused
            return booking_v1.BlockSeatsResponse.FromString(stored[2] or b"").version
        states = await claimed_states(connection, show_id, [*block, *unblock])
        taken = [show.layout.label_of(seat_no) for seat_no in block if seat_no in states]
        if taken:
            raise SeatsTaken(taken)
        for index, label in enumerate(request.unblock):
            if states.get(show.layout.by_label[label].seat_no) is not SeatState.BLOCKED:
                raise InvalidArgument.of(f"unblock[{index}]", f"{label} is not blocked")
        change = Change(version + 1, freed=tuple(unblock), blocked=tuple(block))
        await write_blocks(connection, show_id, change)
        await write_change(
            connection, show_id, change, cause="block", actor=user, at=moment, taken=len(block) - len(unblock)
        )
        await keep_answer(
            connection,
            user_id=user,
            request_id=request_id,
            show_id=show_id,
            method="block",
            content=content,
            answer=booking_v1.BlockSeatsResponse(version=change.version).SerializeToString(),
        )
    desk.tell([ShowChange(show_id, change)])
    return change.version


def _seat_nos(show: Show, field: str, labels: Sequence[str]) -> list[int]:
    found = []
    for index, label in enumerate(labels):
        seat = show.layout.by_label.get(label)
        if seat is None:
            raise UnknownSeat.of(f"{field}[{index}]", f"{label} is not a seat of this show")
        found.append(seat.seat_no)
    return sorted(found)
