"""The whole journey, through the edge, once in each protocol: from an account to a ticket, and back to the money.

``client`` is each protocol in turn (conftest.py); a test says what happens, not how it is carried.
"""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from e2e_protocols import Client, Json, Refused, Updates
from e2e_system import (
    PASSWORD,
    House,
    System,
    book,
    buy,
    confirmed,
    hold,
    initiate,
    minor,
    new_id,
    new_movie,
    new_screen,
    new_venue,
    open_house,
    rupees,
    until,
)


@pytest.fixture
async def buyer(system: System, client: Client) -> Client:
    """``client``, signed in as a customer nobody knows yet."""
    return client.by((await system.new_customer()).token)


# --- accounts -------------------------------------------------------------------------------------------------------


async def test_somebody_registers_signs_in_refreshes_and_signs_out(client: Client) -> None:
    email = f"{new_id()}@example.org"
    wish = {"requestId": new_id(), "email": email, "phone": "+919812345678", "name": "आशा Rao", "password": PASSWORD}
    registered = await client.call("Register", wish)
    assert registered["expiresIn"] == 900
    assert registered["user"]["email"] == email
    assert registered["user"]["name"] == "आशा Rao"
    assert registered["user"]["roles"] == ["customer"]

    signed_in = await client.call("Login", {"email": email.upper(), "password": PASSWORD})
    assert set(signed_in) == {"accessToken", "refreshToken", "expiresIn", "user"}
    asha = client.by(signed_in["accessToken"])
    assert (await asha.call("GetProfile"))["userId"] == registered["user"]["userId"]
    sessions = (await asha.call("ListSessions"))["sessions"]
    assert [each["current"] for each in sessions] == [True, False]

    refreshed = await client.call("RefreshSession", {"refreshToken": signed_in["refreshToken"]})
    assert refreshed["refreshToken"] != signed_in["refreshToken"]
    await client.call("Logout", {"refreshToken": refreshed["refreshToken"]})
    over = await client.ask("RefreshSession", {"refreshToken": refreshed["refreshToken"]})
    assert over.reason == "SESSION_ENDED"

    await client.by(registered["accessToken"]).call("Logout")  # its own session, by the access token alone
    assert (await client.ask("RefreshSession", {"refreshToken": registered["refreshToken"]})).reason == "SESSION_ENDED"


async def test_a_browser_keeps_its_refresh_token_in_a_cookie_that_scripts_cannot_read(
    system: System, client: Client
) -> None:
    email = (await system.new_customer()).email
    wish = {"email": email, "password": PASSWORD, "tokenDelivery": "TOKEN_DELIVERY_COOKIE"}
    answer = await client.ask("Login", wish)
    assert answer.body["refreshToken"] == ""
    cookie, attributes = read_cookie(answer.headers["set-cookie"])
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= attributes

    again = await client.with_headers(cookie=cookie).ask("RefreshSession")
    assert again.body["accessToken"]
    assert again.body["refreshToken"] == ""
    cookie, _ = read_cookie(again.headers["set-cookie"])

    out = await client.with_headers(cookie=cookie).ask("Logout")
    assert out.code == 0
    assert "Max-Age=0" in read_cookie(out.headers["set-cookie"])[1]
    assert (await client.with_headers(cookie=cookie).ask("RefreshSession")).reason == "SESSION_ENDED"


def read_cookie(header: str) -> tuple[str, set[str]]:
    """``name=value``, and the attributes."""
    cookie, *attributes = (part.strip() for part in header.split(";"))
    return cookie, set(attributes)


async def test_preferences_are_kept(buyer: Client) -> None:
    wish = {
        "requestId": new_id(),
        "language": "hi",
        "genres": ["Drama", "Comedy"],
        "cityId": "mumbai",
        "notifications": {"email": True, "sms": False, "push": True, "marketing": False},
    }
    kept = await buyer.call("UpdatePreferences", wish)
    assert kept == {name: wish[name] for name in ("language", "genres", "cityId", "notifications")}
    assert (await buyer.call("GetProfile"))["preferences"] == kept


async def test_sessions_are_listed_and_ended(system: System, client: Client) -> None:
    customer = await system.new_customer()
    other = await client.call("Login", {"email": customer.email, "password": PASSWORD})
    owner = client.by(customer.token)
    lost = next(each for each in (await owner.call("ListSessions"))["sessions"] if not each["current"])
    await owner.call("RevokeSession", {"sessionId": lost["sessionId"]})
    assert [each["current"] for each in (await owner.call("ListSessions"))["sessions"]] == [True]
    assert (await client.ask("RefreshSession", {"refreshToken": other["refreshToken"]})).reason == "SESSION_ENDED"


async def test_the_keys_of_access_tokens_are_public(client: Client) -> None:
    answer = await client.call("GetJwks")
    assert answer["contentType"] == "application/jwk-set+json"
    assert b'"ES256"' in base64.b64decode(answer["data"])


# --- what is on -----------------------------------------------------------------------------------------------------


async def test_a_city_has_films_and_a_film_has_shows_there(client: Client) -> None:
    cities = (await client.call("ListCities"))["cities"]
    assert len(cities) >= 20
    assert cities[0]["population"] >= cities[-1]["population"]
    city = cities[0]["cityId"]

    movies = (await client.call("ListMovies", {"cityId": city}))["movies"]
    assert movies, "the largest city has films"
    movie = await client.call("GetMovie", {"movieId": movies[0]["movieId"]})
    assert movie == movies[0]

    shows = (await client.call("ListShows", {"movieId": movie["movieId"], "cityId": city}))["shows"]
    assert shows == sorted(shows, key=lambda each: each["startTime"])
    assert {each["cityId"] for each in shows} == {city}
    show = await client.call("GetShow", {"showId": shows[-1]["showId"]})
    assert show["title"] == movie["title"]
    assert 0 <= show["availableSeats"] <= show["capacity"]

    venue = await client.call("GetVenue", {"venueId": show["venueId"]})
    assert venue["name"] == show["venueName"]
    assert show["screenId"] in [each["screenId"] for each in venue["screens"]]
    assert venue["venueId"] in [
        each["venueId"] for each in (await client.call("ListVenues", {"cityId": city, "pageSize": 200}))["venues"]
    ]
    there = await client.call("ListShows", {"venueId": venue["venueId"], "pageSize": 200})
    assert {each["venueId"] for each in there["shows"]} == {venue["venueId"]}

    layout = await client.call("GetLayout", {"layoutId": show["layoutId"]})
    assert layout["capacity"] == show["capacity"]
    assert [each["seatNo"] for each in layout["seats"]] == list(range(len(layout["seats"])))


async def test_films_are_found_by_genre_language_format_and_day(client: Client) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    wanted = {"cityId": "mumbai", "genre": "Drama", "language": "en", "format": "FORMAT_2D", "date": tomorrow}
    movies = (await client.call("ListMovies", wanted))["movies"]
    assert movies
    for movie in movies:
        assert "Drama" in movie["genres"]
        assert "en" in movie["languages"]
        assert "FORMAT_2D" in movie["formats"]
    coming = (await client.call("ListMovies", {"state": "TITLE_STATE_COMING_SOON"}))["movies"]
    assert {each["state"] for each in coming} <= {"TITLE_STATE_COMING_SOON"}
    assert (await client.call("ListMovies", {"genre": "No such genre"}))["movies"] == []


async def test_pages_follow_each_other_without_gap_or_repeat(client: Client) -> None:
    wanted: Json = {"cityId": "mumbai", "pageSize": 7}
    seen: list[str] = []
    for _ in range(3):
        page = await client.call("ListMovies", wanted)
        seen += [each["movieId"] for each in page["movies"]]
        wanted = {**wanted, "pageToken": page["nextPageToken"]}
    all_at_once = await client.call("ListMovies", {"cityId": "mumbai", "pageSize": 21})
    assert seen == [each["movieId"] for each in all_at_once["movies"]]
    assert len(set(seen)) == 21
    other = await client.ask("ListMovies", {**wanted, "cityId": "delhi"})
    assert other.reason == "INVALID_PAGE_TOKEN", "a page token belongs to its filters"
    assert list(other.violations) == ["page_token"]


async def test_events_have_shows_and_standing_areas(client: Client) -> None:
    events = (await client.call("ListEvents", {"pageSize": 100}))["events"]
    assert len(events) >= 20
    event = await client.call("GetEvent", {"eventId": events[0]["eventId"]})
    assert event == events[0]
    concerts = (await client.call("ListEvents", {"kind": "EVENT_KIND_CONCERT", "pageSize": 100}))["events"]
    assert {each["kind"] for each in concerts} == {"EVENT_KIND_CONCERT"}
    standing = []
    for concert in concerts:
        for show in (await client.call("ListShows", {"eventId": concert["eventId"], "pageSize": 1}))["shows"]:
            assert show["format"] == "FORMAT_LIVE"
            standing += (await client.call("GetSeatMap", {"showId": show["showId"]}))["standingAreas"]
    assert standing, "some concerts have places without numbers"


# --- seats ----------------------------------------------------------------------------------------------------------


async def test_the_seat_map_tells_every_seat(client: Client, house: House) -> None:
    show = await house.new_bookable_show()
    seat_map = await client.call("GetSeatMap", {"showId": show["showId"]})
    assert seat_map["showId"] == show["showId"]
    assert seat_map["layoutVersion"] == show["layoutVersion"]
    assert seat_map["available"] == show["capacity"] == 50
    seat = next(each for each in seat_map["seats"] if each["label"] == "B3")
    assert {**seat, "x": 0, "y": 0} == {
        "label": "B3",
        "seatNo": 12,
        "row": "B",
        "number": 3,
        "category": "REGULAR",
        "price": {**rupees(250), "nanos": 0},
        "status": "SEAT_STATUS_AVAILABLE",
        "x": 0,
        "y": 0,
        "wheelchair": False,
    }
    assert (seat_map["standingAreas"][0]["name"], seat_map["standingAreas"][0]["available"]) == ("Floor", 30)


async def test_a_viewer_sees_what_others_do_and_goes_on_where_it_left_off(
    client: Client, system: System, house: House
) -> None:
    show = await house.new_bookable_show()
    other = system.rest.by((await system.new_customer()).token)
    async with client.watch("WatchSeats", {"showId": show["showId"]}) as updates:
        snapshot = (await updates.next())["snapshot"]
        assert snapshot["held"] == snapshot["booked"] == ""
        reservation = await hold(other, show, "A3", "A4")
        delta = await next_of(updates, "delta")
        assert delta["changes"] == [{"status": "SEAT_STATUS_HELD", "seatNos": [2, 3]}]
        assert delta["fromVersion"] == snapshot["version"]
        assert delta["toVersion"] == reservation["fence"]

    await other.call("ReleaseReservation", {"reservationId": reservation["reservationId"]})
    resumed = {"showId": show["showId"], "afterVersion": delta["toVersion"], "epoch": snapshot["epoch"]}
    async with client.watch("WatchSeats", resumed) as updates:
        missed = (await updates.next())["delta"]
        assert missed["fromVersion"] == delta["toVersion"]
        assert missed["changes"] == [{"status": "SEAT_STATUS_AVAILABLE", "seatNos": [2, 3]}]
    elsewhere = {"showId": show["showId"], "afterVersion": 0, "epoch": "another database's"}
    async with client.watch("WatchSeats", elsewhere) as updates:
        assert "snapshot" in await updates.next()


async def test_quiet_streams_have_heartbeats(system: System, house: House) -> None:
    show = await house.new_bookable_show()

    async def beat(client: Client) -> int:
        async with client.watch("WatchSeats", {"showId": show["showId"]}) as updates:
            await updates.next()
            return int((await updates.next(patience_s=8))["heartbeat"]["version"])

    assert await asyncio.gather(*map(beat, system.clients.values())) == [0, 0, 0, 0]


async def next_of(updates: Updates, kind: str) -> Json:
    """The next update that is a ``kind``."""
    while True:
        update = await updates.next()
        if kind in update:
            found: Json = update[kind]
            return found


# --- holds ----------------------------------------------------------------------------------------------------------


async def test_a_hold_is_quoted_found_again_and_given_back(buyer: Client, system: System, house: House) -> None:
    show = await house.new_bookable_show()
    wish = {
        "requestId": new_id(),
        "showId": show["showId"],
        "seats": ["B2", "B1"],
        "standing": [{"area": "Floor", "quantity": 2}],
    }
    reservation = await buyer.call("CreateReservation", wish)
    assert reservation["seats"] == ["B1", "B2", "Floor", "Floor"]
    assert reservation["status"] == "RESERVATION_STATUS_ACTIVE"
    assert reservation["bookingId"] == ""
    assert reservation["fence"] == 1
    quote = reservation["quote"]
    assert minor(quote["subtotal"]) == 2 * 25_000 + 2 * 9_000
    assert minor(quote["total"]) == sum(minor(each["total"]) for each in quote["items"])
    assert minor(quote["total"]) == minor(quote["subtotal"]) + minor(quote["fees"]) + minor(quote["taxes"])
    assert 590 < seconds_until(reservation["expireTime"]) <= 600

    one = {"reservationId": reservation["reservationId"]}
    assert await buyer.call("GetReservation", one) == reservation
    rival = system.rest.by((await system.new_customer()).token)
    with pytest.raises(Refused) as refused:
        await hold(rival, show, "B3", "B2", "B1")
    assert refused.value.answer.reason == "SEAT_TAKEN"
    assert refused.value.answer.http_status == 409
    assert refused.value.answer.metadata["seats"] == "B1,B2"

    released = await buyer.call("ReleaseReservation", one)
    assert released["status"] == "RESERVATION_STATUS_RELEASED"
    assert await buyer.call("ReleaseReservation", one) == released
    await hold(rival, show, "B3", "B2", "B1")


def seconds_until(moment: str) -> float:
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


# --- from a booking to a ticket -------------------------------------------------------------------------------------


async def test_somebody_finds_a_show_pays_and_sees_the_confirmation_arrive(buyer: Client, system: System) -> None:
    """With a show of the demo data, which a person finds as people do."""
    movie = (await buyer.call("ListMovies", {"cityId": "mumbai"}))["movies"][0]
    wanted = {"movieId": movie["movieId"], "cityId": "mumbai", "pageSize": 200}
    show = (await buyer.call("ListShows", wanted))["shows"][-1]
    seats = (await buyer.call("GetSeatMap", {"showId": show["showId"]}))["seats"]
    free = [each["label"] for each in seats if each["status"] == "SEAT_STATUS_AVAILABLE"]
    booking = await book(buyer, show, *free[:2])
    assert booking["status"] == "BOOKING_STATUS_PENDING_PAYMENT"
    assert booking["seats"] == free[:2]
    assert booking["show"]["title"] == movie["title"]
    assert booking["reference"]

    one = {"bookingId": booking["bookingId"]}
    async with buyer.watch("WatchBooking", one) as updates:
        assert (await updates.next())["booking"] == booking
        payment = await initiate(buyer, booking)
        assert payment["status"] == "PAYMENT_STATUS_CREATED"
        assert payment["amount"] == booking["quote"]["total"]
        assert payment["refunds"] == []
        page = await system.provider.get(payment["checkoutUrl"])
        assert page.status_code == 200
        assert f"{minor(payment['amount']) / 100:,.2f}" in page.text
        await system.pay(payment["checkoutUrl"])
        arrived = await next_of(updates, "booking")
        assert arrived["status"] == "BOOKING_STATUS_CONFIRMED"
        assert arrived["paymentId"] == payment["paymentId"]
        assert arrived["version"] == booking["version"] + 1
        assert (await next_of(updates, "end"))["reason"] == "REASON_FINAL"

    assert await buyer.call("GetBooking", one) == arrived
    await until(lambda: buyer.call("ListBookings"), lambda it: it["bookings"] == [arrived])
    status = await buyer.call("GetPaymentStatus", {"paymentId": payment["paymentId"]})
    assert status["status"] == "PAYMENT_STATUS_CAPTURED"
    after = (await buyer.call("GetSeatMap", {"showId": show["showId"]}))["seats"]
    assert {each["status"] for each in after if each["label"] in free[:2]} == {"SEAT_STATUS_BOOKED"}
    captures, refunds = await system.ledger(payment["providerOrderId"])
    assert [each["amount"] for each in captures] == [minor(booking["quote"]["total"])]
    assert refunds == []


async def test_a_failed_payment_is_tried_again(buyer: Client, system: System, house: House) -> None:
    show = await house.new_bookable_show()
    booking = await book(buyer, show, "A1")
    payment = await initiate(buyer, booking, "PAYMENT_METHOD_CARD")
    one = {"paymentId": payment["paymentId"]}

    await system.pay(payment["checkoutUrl"], "failure")
    failed = await until(
        lambda: buyer.call("GetPaymentStatus", one), lambda it: it["status"] == "PAYMENT_STATUS_FAILED"
    )
    assert failed["failure"], "it says why"
    again = await initiate(buyer, booking, "PAYMENT_METHOD_UPI")
    assert again["paymentId"] == payment["paymentId"]
    assert again["method"] == "PAYMENT_METHOD_UPI"

    await system.pay(again["checkoutUrl"], "success")
    assert (await confirmed(buyer, booking))["paymentId"] == payment["paymentId"]
    assert (await buyer.call("GetPaymentStatus", one))["failure"] == ""


async def test_bookings_are_listed_the_newest_first_a_page_at_a_time(buyer: Client, house: House) -> None:
    show = await house.new_bookable_show()
    made = [(await book(buyer, show, seat))["bookingId"] for seat in ("A1", "A2", "A3")]
    await until(lambda: buyer.call("ListBookings"), lambda it: len(it["bookings"]) == 3)  # the list follows by an event
    first = await buyer.call("ListBookings", {"pageSize": 2})
    second = await buyer.call("ListBookings", {"pageSize": 2, "pageToken": first["nextPageToken"]})
    assert [each["bookingId"] for each in first["bookings"] + second["bookings"]] == made[::-1]
    assert second["nextPageToken"] == ""


# --- the way back ---------------------------------------------------------------------------------------------------


async def test_an_owner_cancels_and_the_administrator_pays_back_the_rest(
    buyer: Client, client: Client, system: System, house: House
) -> None:
    show = await house.new_bookable_show()
    booking, payment = await buy(system, buyer, show, "A1", "A2")
    total = minor(booking["quote"]["total"])

    cancelled = await buyer.call("CancelBooking", {"requestId": new_id(), "bookingId": booking["bookingId"]})
    assert cancelled["status"] == "BOOKING_STATUS_CANCELLED"
    due = minor(cancelled["refund"])
    # 75 % of the seats' price (and its tax), as the show's policy says; fees stay.
    assert 0.75 * minor(booking["quote"]["subtotal"]) <= due < 0.75 * total

    one = {"paymentId": payment["paymentId"]}
    partly = await until(lambda: buyer.call("GetPaymentStatus", one), processed(1))
    assert partly["status"] == "PAYMENT_STATUS_PARTIALLY_REFUNDED"
    assert minor(partly["refunded"]) == due
    seat_map = await until(
        lambda: buyer.call("GetSeatMap", {"showId": show["showId"]}), lambda it: it["available"] == show["capacity"]
    )
    assert {each["status"] for each in seat_map["seats"]} == {"SEAT_STATUS_AVAILABLE"}

    admin = client.by(system.admin_token)
    too_much = {**one, "requestId": new_id(), "amount": booking["quote"]["total"], "reason": "goodwill"}
    assert (await admin.ask("RefundPayment", too_much)).reason == "REFUND_EXCEEDS_CAPTURE"
    refund = await admin.call("RefundPayment", {**one, "requestId": new_id(), "reason": "goodwill"})
    assert minor(refund["amount"]) == total - due
    whole = await until(lambda: admin.call("GetPaymentStatus", one), processed(2))
    assert whole["status"] == "PAYMENT_STATUS_REFUNDED"
    assert (await admin.ask("RefundPayment", {**one, "requestId": new_id(), "reason": "more"})).reason == (
        "PAYMENT_NOT_REFUNDABLE"
    )
    captures, refunds = await system.ledger(payment["providerOrderId"])
    assert sum(each["amount"] for each in captures) == sum(each["amount"] for each in refunds) == total


def processed(count: int) -> Any:
    """Whether a payment's ``count`` refunds have all gone through."""
    return lambda payment: [each["status"] for each in payment["refunds"]] == ["REFUND_STATUS_PROCESSED"] * count


async def test_a_booking_that_is_not_paid_is_cancelled_without_money(buyer: Client, house: House) -> None:
    show = await house.new_bookable_show()
    booking = await book(buyer, show, "A1")
    cancelled = await buyer.call("CancelBooking", {"requestId": new_id(), "bookingId": booking["bookingId"]})
    assert cancelled["status"] == "BOOKING_STATUS_CANCELLED"
    assert "refund" not in cancelled
    over = await buyer.ask("CancelBooking", {"requestId": new_id(), "bookingId": booking["bookingId"]})
    assert over.reason == "BOOKING_NOT_CANCELLABLE"


# --- administration -------------------------------------------------------------------------------------------------


async def test_an_administrator_opens_a_house_and_people_buy_there(client: Client, system: System) -> None:
    admin = client.by(system.admin_token)
    own = await open_house(system, admin)
    assert (own.movie["version"], own.movie["state"]) == (1, "TITLE_STATE_NOW_SHOWING")
    assert own.screen["capacity"] == 50
    show = await own.new_bookable_show(client=admin)
    assert show["capacity"] == show["availableSeats"] == 50

    assert (await client.call("GetMovie", {"movieId": own.movie["movieId"]})) == own.movie
    public = (await client.call("ListShows", {"movieId": own.movie["movieId"]}))["shows"]
    assert [each["showId"] for each in public] == [show["showId"]]
    buyer = client.by((await system.new_customer()).token)
    booking, _ = await buy(system, buyer, show, "A1")
    assert booking["show"]["venueName"] == own.venue["name"]
    seats_left = await until(
        lambda: client.call("GetShow", {"showId": show["showId"]}), lambda it: it["availableSeats"] == 49
    )
    assert seats_left["showId"] == show["showId"]


async def test_an_administrator_keeps_the_catalogue(client: Client, system: System) -> None:
    admin = client.by(system.admin_token)
    movie = await admin.call("CreateMovie", new_movie("First Title"))
    change = {"movieId": movie["movieId"], "version": movie["version"], "title": "Second Title"}
    changed = await admin.call("UpdateMovie", {"requestId": new_id(), "movie": change, "updateMask": "title"})
    assert (changed["title"], changed["version"]) == ("Second Title", 2)
    stale = await admin.ask("UpdateMovie", {"requestId": new_id(), "movie": change, "updateMask": "title"})
    assert stale.reason == "CONFLICT"
    assert (await client.call("GetMovie", {"movieId": movie["movieId"]}))["title"] == "Second Title"
    retired = await admin.call("RetireMovie", {"requestId": new_id(), "movieId": movie["movieId"]})
    assert retired["state"] == "TITLE_STATE_RETIRED"
    listed = await admin.call("ListMoviesForAdmin", {"state": "TITLE_STATE_RETIRED", "pageSize": 1})
    assert [each["movieId"] for each in listed["movies"]] == [movie["movieId"]]

    event = await admin.call(
        "CreateEvent",
        {"requestId": new_id(), "event": {"title": "A Concert", "kind": "EVENT_KIND_CONCERT", "durationMinutes": 90}},
    )
    change = {"eventId": event["eventId"], "version": event["version"], "description": "Loud."}
    changed = await admin.call("UpdateEvent", {"requestId": new_id(), "event": change, "updateMask": "description"})
    assert changed["description"] == "Loud."
    await admin.call("RetireEvent", {"requestId": new_id(), "eventId": event["eventId"]})
    listed = await admin.call("ListEventsForAdmin", {"pageSize": 1})
    assert [each["state"] for each in listed["events"]] == ["TITLE_STATE_RETIRED"]


async def test_an_administrator_keeps_venues_screens_and_shows(client: Client, system: System) -> None:
    admin = client.by(system.admin_token)
    movie = await admin.call("CreateMovie", new_movie())
    venue = await admin.call("CreateVenue", new_venue("mumbai"))
    change = {"venueId": venue["venueId"], "version": venue["version"], "name": "The Big House"}
    changed = await admin.call("UpdateVenue", {"requestId": new_id(), "venue": change, "updateMask": "name"})
    assert changed["name"] == "The Big House"
    screen = await admin.call("CreateScreen", new_screen(venue["venueId"]))
    one = {"screenId": screen["screenId"]}
    rename = {**one, "requestId": new_id(), "version": screen["version"], "name": "Screen One"}
    assert (await admin.call("UpdateScreen", rename))["name"] == "Screen One"
    own = House(system, admin, movie, venue, screen)

    plans = [own.plan(screen, days=days) for days in (20, 21)]
    shows = (await admin.call("CreateShows", {"requestId": new_id(), "shows": plans}))["shows"]
    busy = await admin.ask("CreateShow", {"requestId": new_id(), "show": plans[0]})
    assert busy.reason == "SCREEN_BUSY"
    cheaper = {
        "requestId": new_id(),
        "showId": shows[0]["showId"],
        "version": shows[0]["version"],
        "prices": [{"category": "REGULAR", "price": rupees(100)}, {"category": "FLOOR", "price": rupees(50)}],
    }
    assert minor((await admin.call("UpdateShow", cheaper))["prices"][0]["price"]) == 10_000
    await until(
        lambda: client.ask("GetSeatMap", {"showId": shows[0]["showId"]}),
        lambda it: not it.code and minor(it.body["seats"][0]["price"]) == 10_000,
    )
    listed = (await admin.call("ListShowsForAdmin", {"venueId": venue["venueId"]}))["shows"]
    assert [each["showId"] for each in listed] == [each["showId"] for each in shows]

    assert (await admin.ask("RetireScreen", {**one, "requestId": new_id()})).reason == "IN_USE"
    for show in shows:
        await admin.call("CancelShow", {"requestId": new_id(), "showId": show["showId"], "reason": "a leaking roof"})
    assert (await admin.call("RetireScreen", {**one, "requestId": new_id()}))["retired"]
    assert [each["retired"] for each in (await admin.call("ListScreens", {"venueId": venue["venueId"]}))["screens"]]
    assert (await admin.call("RetireVenue", {"requestId": new_id(), "venueId": venue["venueId"]}))["retired"]
    retired = (await admin.call("ListVenuesForAdmin", {"pageSize": 1}))["venues"]
    assert [(each["venueId"], each["retired"]) for each in retired] == [(venue["venueId"], True)]


async def test_seats_are_kept_back_and_put_on_sale_again(client: Client, system: System, house: House) -> None:
    show = await house.new_bookable_show()
    admin = client.by(system.admin_token)
    one = {"showId": show["showId"]}
    await admin.call("BlockSeats", {**one, "requestId": new_id(), "block": ["A1", "A2"]})
    buyer = client.by((await system.new_customer()).token)
    with pytest.raises(Refused, match="SEAT_TAKEN"):
        await hold(buyer, show, "A1")
    seats = {each["label"]: each["status"] for each in (await client.call("GetSeatMap", one))["seats"]}
    assert (seats["A2"], seats["A3"]) == ("SEAT_STATUS_BLOCKED", "SEAT_STATUS_AVAILABLE")
    await admin.call("BlockSeats", {**one, "requestId": new_id(), "unblock": ["A1"]})
    await hold(buyer, show, "A1")


async def test_cancelling_a_show_gives_everybody_all_their_money_back(
    client: Client, system: System, house: House
) -> None:
    show = await house.new_bookable_show()
    buyers = [client.by((await system.new_customer()).token) for _ in range(3)]
    bought = [await buy(system, buyer, show, seat) for buyer, seat in zip(buyers, ("A1", "A2", "A3"), strict=True)]
    waiting = await book(buyers[0], show, "B1")
    held = await hold(buyers[1], show, "B2")

    admin = client.by(system.admin_token)
    cancelled = await admin.call(
        "CancelShow", {"requestId": new_id(), "showId": show["showId"], "reason": "a leaking roof"}
    )
    assert cancelled["state"] == "SHOW_STATE_CANCELLED"
    for buyer, (booking, payment) in zip(buyers, bought, strict=True):
        paid_back = await until(
            lambda buyer=buyer, payment=payment: buyer.call("GetPaymentStatus", {"paymentId": payment["paymentId"]}),
            processed(1),
        )
        assert paid_back["status"] == "PAYMENT_STATUS_REFUNDED"
        over = await buyer.call("GetBooking", {"bookingId": booking["bookingId"]})
        assert over["status"] == "BOOKING_STATUS_CANCELLED"
        assert over["refund"] == booking["quote"]["total"], "fees too: it was not the buyer's wish"
        captures, refunds = await system.ledger(payment["providerOrderId"])
        total = minor(booking["quote"]["total"])
        assert [each["amount"] for each in captures] == [each["amount"] for each in refunds] == [total]
    assert (await buyers[0].call("GetBooking", {"bookingId": waiting["bookingId"]}))["status"] == (
        "BOOKING_STATUS_CANCELLED"
    )
    assert (await buyers[1].call("GetReservation", {"reservationId": held["reservationId"]}))["status"] in (
        "RESERVATION_STATUS_RELEASED",
        "RESERVATION_STATUS_EXPIRED",
    )
    with pytest.raises(Refused, match="SHOW_NOT_ON_SALE"):
        await hold(buyers[2], show, "B5")
    assert (await client.call("GetShow", {"showId": show["showId"]}))["state"] == "SHOW_STATE_CANCELLED"
    mine = {"movieId": show["movieId"], "pageSize": 200}
    assert show["showId"] not in [each["showId"] for each in (await client.call("ListShows", mine))["shows"]]
