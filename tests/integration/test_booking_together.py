"""Bookings that share a transaction: each is answered for itself."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

from booking_fixtures import house, keys
from booking_house import House

from marquee.booking import v1 as booking_v1
from services.booking.conversions import book
from services.booking.domain import ReservationConverted, ReservationReleased
from services.booking.store.conversions import BookWish
from services.kit.errors import NotFound, RequestIdReused
from services.kit.ids import new_id_of_show

__all__ = ["house", "keys"]


def wish_for(user: UUID, reservation: str, *, request: UUID | None = None, content: bytes = b"1") -> BookWish:
    return BookWish(
        UUID(reservation), user, request or uuid4(), content, new_id_of_show(UUID(reservation)), "call-1234"
    )


async def test_each_wish_of_a_batch_has_its_own_outcome(house: House) -> None:
    shows = [await house.add_show() for _ in range(3)]
    user, stranger, request = uuid4(), uuid4(), uuid4()
    first, second, third = [(await house.hold(user, show, "A1", "A2")).reservation_id for show in shows]
    given_back = (await house.hold(stranger, shows[0], "B1")).reservation_id
    await house.release(stranger, given_back)
    wishes = [
        wish_for(user, first, request=request),
        wish_for(user, second),
        wish_for(stranger, third),
        wish_for(user, first, request=request),
        wish_for(user, first, request=request, content=b"2"),
        wish_for(user, second),
        wish_for(stranger, given_back),
        wish_for(user, str(uuid4())),
    ]
    answers = await book(wishes, bookings=house.desk.bookings, shows=house.desk.shows)
    made, other, *rest = answers
    assert isinstance(made, booking_v1.Booking)
    assert isinstance(other, booking_v1.Booking)
    assert (made.booking_id, made.reservation_id) == (str(wishes[0].booking_id), first)
    assert (other.booking_id, other.reservation_id) == (str(wishes[1].booking_id), second)
    assert rest[1] == made
    kinds = [type(answer) for answer in (rest[0], *rest[2:])]
    assert kinds == [NotFound, RequestIdReused, ReservationConverted, ReservationReleased, NotFound]
    assert await house.rows("SELECT count(*) FROM bookings WHERE user_id = ANY (%s)", [user, stranger]) == [(2,)]
    assert (await house.booking(user, made.booking_id)) == made
    for booking in (made, other):
        (payload,) = await house.outbox("booking.created", booking.booking_id)
        assert booking_v1.BookingCreated.FromString(payload).booking == booking
    headers = await house.rows(
        "SELECT headers->>'request_id' FROM outbox WHERE aggregateid = ANY (%s)", [made.booking_id, other.booking_id]
    )
    assert headers == [("call-1234",), ("call-1234",)]


async def test_a_crowd_books_its_holds_of_one_show_at_once(house: House) -> None:
    show_id = await house.add_show()
    users = [uuid4() for _ in range(60)]
    held = [
        await house.hold(user, show_id, f"{'ABCDEFGHIJ'[place // 10]}{place % 10 + 1}")
        for place, user in enumerate(users)
    ]
    booked = await asyncio.gather(
        *(house.book(user, hold.reservation_id) for user, hold in zip(users, held, strict=True))
    )
    assert [list(booking.seats) for booking in booked] == [list(hold.seats) for hold in held]
    assert [booking.quote for booking in booked] == [hold.quote for hold in held]
    items = await house.rows("SELECT booking_id::text, seat_no FROM booking_items WHERE show_id = %s", show_id)
    assert sorted(items) == sorted((booking.booking_id, booking.seat_nos[0]) for booking in booked)
