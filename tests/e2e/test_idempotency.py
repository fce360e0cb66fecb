"""Point 6: the same request id ten times at once has one effect and ten identical answers; with other content, none.

The ten calls come in all protocols, because a client that lost its connection may come back in any.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from e2e_protocols import EDGE_RPCS, Client, Json, message_class
from e2e_system import (
    PASSWORD,
    House,
    System,
    book,
    buy,
    hold,
    initiate,
    minor,
    new_id,
    new_movie,
    new_screen,
    new_venue,
    rupees,
    until,
)

TIMES = 10


async def nothing_to_count() -> int:
    return 1


@dataclass
class Wish:
    """A call that is to have one effect."""

    token: str | None
    request: Json
    other: Json
    """What is exchanged in ``request`` to make its content another one."""
    count: Callable[[], Awaitable[int]] = nothing_to_count
    """How often it took effect."""
    fresh: tuple[str, ...] = ()
    """Fields that are new in each answer by design."""


Make = Callable[[System, House], Awaitable[Wish]]
WISHES: dict[str, Make] = {}


def wish(rpc: str) -> Callable[[Make], Make]:
    def keep(make: Make) -> Make:
        WISHES[rpc] = make
        return make

    return keep


@wish("Register")
async def _register(system: System, house: House) -> Wish:
    email = f"{new_id()}@example.org"
    request = {"requestId": new_id(), "email": email, "name": "Twice", "password": PASSWORD}
    return Wish(None, request, {"name": "Another"}, fresh=("accessToken", "refreshToken"))


@wish("UpdatePreferences")
async def _preferences(system: System, house: House) -> Wish:
    return Wish((await system.new_customer()).token, {"requestId": new_id(), "language": "hi"}, {"language": "en"})


@wish("CreateReservation")
async def _hold(system: System, house: House) -> Wish:
    show = await house.new_bookable_show()
    request = {
        "requestId": new_id(),
        "showId": show["showId"],
        "seats": ["A1", "A2"],
        "standing": [{"area": "Floor", "quantity": 2}],
    }

    async def count() -> int:
        seat_map = await system.rest.call("GetSeatMap", {"showId": show["showId"]})
        return int((show["capacity"] - seat_map["available"]) / 4)

    return Wish((await system.new_customer()).token, request, {"seats": ["A3"]}, count)


@wish("CreateBooking")
async def _book(system: System, house: House) -> Wish:
    token = (await system.new_customer()).token
    buyer, show = system.rest.by(token), await house.new_bookable_show()
    reservation, other = await hold(buyer, show, "A1"), await hold(buyer, show, "A2")
    request = {"requestId": new_id(), "reservationId": reservation["reservationId"]}

    async def count() -> int:
        found = await until(lambda: buyer.call("ListBookings"), lambda it: it["bookings"])
        return len(found["bookings"])

    return Wish(token, request, {"reservationId": other["reservationId"]}, count)


@wish("CancelBooking")
async def _cancel(system: System, house: House) -> Wish:
    token = (await system.new_customer()).token
    buyer, show = system.rest.by(token), await house.new_bookable_show()
    booking, payment = await buy(system, buyer, show, "A1")
    other = await book(buyer, show, "A2")

    async def count() -> int:
        paid_back = await until(
            lambda: buyer.call("GetPaymentStatus", {"paymentId": payment["paymentId"]}), lambda it: it["refunds"]
        )
        return len(paid_back["refunds"])

    request = {"requestId": new_id(), "bookingId": booking["bookingId"]}
    return Wish(token, request, {"bookingId": other["bookingId"]}, count)


@wish("BlockSeats")
async def _block(system: System, house: House) -> Wish:
    show = await house.new_bookable_show()

    async def count() -> int:
        return int((await system.rest.call("GetSeatMap", {"showId": show["showId"]}))["version"])

    request = {"requestId": new_id(), "showId": show["showId"], "block": ["A1"]}
    return Wish(system.admin_token, request, {"block": ["A2"]}, count)


@wish("InitiatePayment")
async def _initiate(system: System, house: House) -> Wish:
    token = (await system.new_customer()).token
    buyer, show = system.rest.by(token), await house.new_bookable_show()
    booking = await book(buyer, show, "A1")

    async def count() -> int:
        orders = (await system.provider.get("/control/ledger")).json()["orders"]
        return sum(booking["bookingId"] in str(order) for order in orders)

    request = {"requestId": new_id(), "bookingId": booking["bookingId"], "method": "PAYMENT_METHOD_UPI"}
    return Wish(token, request, {"method": "PAYMENT_METHOD_CARD"}, count)


@wish("RefundPayment")
async def _refund(system: System, house: House) -> Wish:
    buyer = system.rest.by((await system.new_customer()).token)
    _, payment = await buy(system, buyer, await house.new_bookable_show(), "A1")
    captures, _ = await system.ledger(payment["providerOrderId"])
    assert len(captures) == 1

    async def count() -> int:
        paid_back = await until(
            lambda: buyer.call("GetPaymentStatus", {"paymentId": payment["paymentId"]}),
            lambda it: {each["status"] for each in it["refunds"]} == {"REFUND_STATUS_PROCESSED"},
        )
        _, refunds = await system.ledger(payment["providerOrderId"])
        assert sum(each["amount"] for each in refunds) == minor(paid_back["refunded"])
        return len(refunds)

    request = {
        "requestId": new_id(),
        "paymentId": payment["paymentId"],
        "amount": {**rupees(10), "nanos": 0},
        "reason": "goodwill",
    }
    return Wish(system.admin_token, request, {"reason": "another"}, count)


@wish("CreateMovie")
async def _create_movie(system: System, house: House) -> Wish:
    request = new_movie(f"Once {new_id()}")

    async def count() -> int:
        listed = (await system.admin.call("ListMoviesForAdmin", {"pageSize": 50}))["movies"]
        return sum(each["title"] == request["movie"]["title"] for each in listed)

    return Wish(system.admin_token, request, {"movie": {"title": "Another"}}, count)


@wish("UpdateMovie")
async def _update_movie(system: System, house: House) -> Wish:
    movie = await system.admin.call("CreateMovie", new_movie())
    changed = {"movieId": movie["movieId"], "version": 1, "title": "Changed"}
    request = {"requestId": new_id(), "movie": changed, "updateMask": "title"}
    return Wish(system.admin_token, request, {"movie": {**changed, "title": "Another"}})


@wish("RetireMovie")
async def _retire_movie(system: System, house: House) -> Wish:
    movie = await system.admin.call("CreateMovie", new_movie())
    return Wish(
        system.admin_token,
        {"requestId": new_id(), "movieId": movie["movieId"]},
        {"movieId": house.movie["movieId"]},
    )


def new_event() -> Json:
    event = {"title": f"Once {new_id()}", "kind": "EVENT_KIND_PLAY", "durationMinutes": 60}
    return {"requestId": new_id(), "event": event}


@wish("CreateEvent")
async def _create_event(system: System, house: House) -> Wish:
    request = new_event()

    async def count() -> int:
        listed = (await system.admin.call("ListEventsForAdmin", {"pageSize": 50}))["events"]
        return sum(each["title"] == request["event"]["title"] for each in listed)

    return Wish(system.admin_token, request, {"event": {"title": "Another"}}, count)


@wish("UpdateEvent")
async def _update_event(system: System, house: House) -> Wish:
    event = await system.admin.call("CreateEvent", new_event())
    changed = {"eventId": event["eventId"], "version": 1, "title": "Changed"}
    request = {"requestId": new_id(), "event": changed, "updateMask": "title"}
    return Wish(system.admin_token, request, {"event": {**changed, "title": "Another"}})


@wish("RetireEvent")
async def _retire_event(system: System, house: House) -> Wish:
    event = await system.admin.call("CreateEvent", new_event())
    return Wish(system.admin_token, {"requestId": new_id(), "eventId": event["eventId"]}, {"eventId": new_id()})


@wish("CreateVenue")
async def _create_venue(system: System, house: House) -> Wish:
    request = new_venue("pune", f"Once {new_id()}")

    async def count() -> int:
        listed = (await system.admin.call("ListVenuesForAdmin", {"pageSize": 50}))["venues"]
        return sum(each["name"] == request["venue"]["name"] for each in listed)

    return Wish(system.admin_token, request, {"venue": {"name": "Another", "cityId": "pune"}}, count)


@wish("UpdateVenue")
async def _update_venue(system: System, house: House) -> Wish:
    venue = await system.admin.call("CreateVenue", new_venue("pune"))
    changed = {"venueId": venue["venueId"], "version": 1, "name": "Changed"}
    request = {"requestId": new_id(), "venue": changed, "updateMask": "name"}
    return Wish(system.admin_token, request, {"venue": {**changed, "name": "Another"}})


@wish("RetireVenue")
async def _retire_venue(system: System, house: House) -> Wish:
    venue = await system.admin.call("CreateVenue", new_venue("pune"))
    return Wish(system.admin_token, {"requestId": new_id(), "venueId": venue["venueId"]}, {"venueId": new_id()})


@wish("CreateScreen")
async def _create_screen(system: System, house: House) -> Wish:
    venue = await system.admin.call("CreateVenue", new_venue("pune"))

    async def count() -> int:
        return len((await system.admin.call("ListScreens", {"venueId": venue["venueId"]}))["screens"])

    return Wish(system.admin_token, new_screen(venue["venueId"]), {"name": "Another"}, count)


@wish("UpdateScreen")
async def _update_screen(system: System, house: House) -> Wish:
    made = await system.admin.call("CreateScreen", new_screen(house.venue["venueId"]))
    request = {"requestId": new_id(), "screenId": made["screenId"], "version": 1, "name": "Changed"}
    return Wish(system.admin_token, request, {"name": "Another"})


@wish("RetireScreen")
async def _retire_screen(system: System, house: House) -> Wish:
    made = await system.admin.call("CreateScreen", new_screen(house.venue["venueId"]))
    return Wish(system.admin_token, {"requestId": new_id(), "screenId": made["screenId"]}, {"screenId": new_id()})


@wish("CreateShow")
async def _create_show(system: System, house: House) -> Wish:
    venue = await system.admin.call("CreateVenue", new_venue("pune"))
    screen = await system.admin.call("CreateScreen", new_screen(venue["venueId"]))
    plan = house.plan(screen)

    async def count() -> int:
        return len((await system.admin.call("ListShowsForAdmin", {"venueId": venue["venueId"]}))["shows"])

    return Wish(system.admin_token, {"requestId": new_id(), "show": plan}, {"show": house.plan(screen, days=30)}, count)


@wish("CreateShows")
async def _create_shows(system: System, house: House) -> Wish:
    venue = await system.admin.call("CreateVenue", new_venue("pune"))
    screen = await system.admin.call("CreateScreen", new_screen(venue["venueId"]))
    plans = [house.plan(screen, days=days) for days in (20, 21, 22)]

    async def count() -> int:
        return len((await system.admin.call("ListShowsForAdmin", {"venueId": venue["venueId"]}))["shows"]) // 3

    return Wish(system.admin_token, {"requestId": new_id(), "shows": plans}, {"shows": plans[:1]}, count)


@wish("UpdateShow")
async def _update_show(system: System, house: House) -> Wish:
    show = await house.new_show()
    request = {
        "requestId": new_id(),
        "showId": show["showId"],
        "version": 1,
        "refundPolicy": {"tiers": [{"minutesBefore": 5, "percent": 5}]},
    }
    return Wish(system.admin_token, request, {"refundPolicy": {"tiers": []}})


@wish("CancelShow")
async def _cancel_show(system: System, house: House) -> Wish:
    show = await house.new_show()
    request = {"requestId": new_id(), "showId": show["showId"], "reason": "rain"}
    return Wish(system.admin_token, request, {"reason": "snow"})


def test_every_call_with_a_request_id_is_tried() -> None:
    named = {
        rpc.name
        for rpc in EDGE_RPCS
        if any(field.name == "request_id" for field in message_class(rpc.request).DESCRIPTOR.fields)
    }
    # Releasing names the one thing that it ends, and ending it again is no second effect; it needs no memory of ids.
    assert named - set(WISHES) == {"ReleaseReservation"}


@pytest.mark.parametrize("rpc", WISHES)
async def test_ten_at_once_have_one_effect_and_one_answer(rpc: str, system: System, house: House) -> None:
    wanted = await WISHES[rpc](system, house)
    clients = [client.by(wanted.token) for client in system.clients.values()]
    callers = [clients[number % len(clients)] for number in range(TIMES)]
    answers = await asyncio.gather(*(client.call(rpc, wanted.request) for client in callers))
    late = await clients[0].call(rpc, wanted.request)
    said = [without(each, wanted.fresh) for each in (*answers, late)]
    assert all(each == said[0] for each in said)
    assert await wanted.count() == 1

    for client in clients:
        other = await client.ask(rpc, {**copy.deepcopy(wanted.request), **wanted.other})
        assert (other.code, other.reason) == (6, "REQUEST_ID_REUSED"), client.name
        assert other.http_status == (409 if client.name == "rest" else 200)
    assert await wanted.count() == 1


def without(answer: Json, names: tuple[str, ...]) -> Json:
    return {name: value for name, value in answer.items() if name not in names}


async def test_ten_releases_at_once_are_one(system: System, house: House) -> None:
    token = (await system.new_customer()).token
    show = await house.new_bookable_show()
    reservation = await hold(system.rest.by(token), show, "A1")
    one = {"requestId": new_id(), "reservationId": reservation["reservationId"]}
    clients: list[Client] = [client.by(token) for client in system.clients.values()]
    answers = await asyncio.gather(*(clients[n % len(clients)].call("ReleaseReservation", one) for n in range(TIMES)))
    assert all(each == answers[0] for each in answers)
    seat_map = await system.rest.call("GetSeatMap", {"showId": show["showId"]})
    assert (seat_map["version"], seat_map["available"]) == (2, 50)


async def test_a_refused_request_id_may_be_used_again(system: System, house: House) -> None:
    """Refusals aren't kept: once the seat is free, the very same call succeeds."""
    show = await house.new_bookable_show()
    rival, buyer = [system.rest.by((await system.new_customer()).token) for _ in range(2)]
    reservation = await hold(rival, show, "A1")
    one = {"requestId": new_id(), "showId": show["showId"], "seats": ["A1"]}
    assert (await buyer.ask("CreateReservation", one)).reason == "SEAT_TAKEN"
    await rival.call("ReleaseReservation", {"reservationId": reservation["reservationId"]})
    assert (await buyer.call("CreateReservation", one))["status"] == "RESERVATION_STATUS_ACTIVE"


async def test_initiating_again_goes_on_with_the_same_payment(system: System, house: House) -> None:
    """A booking has one payment, whatever the request ids are."""
    buyer = system.rest.by((await system.new_customer()).token)
    booking = await book(buyer, await house.new_bookable_show(), "A1")
    first = await initiate(buyer, booking)
    again = await initiate(buyer, booking)
    assert (again["paymentId"], again["checkoutUrl"]) == (first["paymentId"], first["checkoutUrl"])
