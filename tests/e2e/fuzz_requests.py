"""A good request for every RPC of the edge, so that nonsense in one field meets rules and not only missing ids."""

from __future__ import annotations

import copy
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import jwt
from e2e_protocols import EDGE_RPCS, Json
from e2e_system import (
    PASSWORD,
    House,
    System,
    book,
    buy,
    hold,
    in_days,
    initiate,
    new_id,
    new_movie,
    new_screen,
    new_venue,
    rupees,
)

from gateway.contracts import Rpc
from local.keys import SigningKey, user_keys
from marquee.edge import v1 as edge_v1


@dataclass
class Ground:
    """What stands ready: things of one customer and of an administrator, some for each RPC alone."""

    system: System
    key: SigningKey
    customer: str
    """An access token."""
    requests: dict[str, Json]
    fresh: dict[str, Callable[[Json, int], None]] = field(default_factory=dict)
    """Makes the n-th request of an RPC differ from those before where two may not be alike."""
    _numbers: dict[str, int] = field(default_factory=dict)

    def request(self, rpc: Rpc) -> Json:
        """A good one, which was not sent before."""
        request = copy.deepcopy(self.requests[rpc.name])
        if "requestId" in request:
            request["requestId"] = new_id()
        number = self._numbers[rpc.name] = self._numbers.get(rpc.name, 0) + 1
        if rpc.name in self.fresh:
            self.fresh[rpc.name](request, number)
        return request

    def learn(self, rpc: Rpc, answer: Json) -> None:
        """An update took effect, so the next one must name the version that it made."""
        good = self.requests[rpc.name]
        target = next((good[name] for name in ("movie", "event", "venue") if name in good), good)
        if rpc.name.startswith("Update") and "version" in target and "version" in answer:
            target["version"] = answer["version"]

    def token(self, rpc: Rpc) -> str | None:
        """Of somebody who may make this call; for holds of somebody new each time, as one may hold only little."""
        assert rpc.policy is not None
        if rpc.name == "CreateReservation":
            return self.somebody()
        if edge_v1.ROLE_ANYONE in rpc.policy.allow:
            return None
        return self.customer if edge_v1.ROLE_CUSTOMER in rpc.policy.allow else self.system.admin_token

    def somebody(self) -> str:
        now = int(time.time())
        claims = {
            "iss": "https://marquee.invalid/users",
            "aud": "marquee-edge",
            "sub": str(uuid.uuid4()),
            "sid": str(uuid.uuid4()),
            "roles": ["customer"],
            "iat": now,
            "exp": now + 900,
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode(claims, self.key.private, algorithm="ES256", headers={"kid": self.key.kid})


async def prepare(system: System, house: House) -> Ground:
    owner = await system.new_customer()
    buyer, admin = system.rest.by(owner.token), system.admin
    show, other_show = await house.new_bookable_show(), await house.new_bookable_show()
    _, paid = await buy(system, buyer, show, "A1")
    unpaid, pending = await book(buyer, show, "A2"), await book(buyer, other_show, "A1")
    await initiate(buyer, unpaid)
    held, given_back = await hold(buyer, show, "A3"), await hold(buyer, other_show, "A3")
    wide = new_screen(house.venue["venueId"])
    wide["layout"]["rows"] = [{"row": row, "seats": 200, "category": "REGULAR"} for row in ("A", "B", "C", "D", "E")]
    wide_screen = await admin.call("CreateScreen", wide)
    large = await admin.call("CreateShow", {"requestId": new_id(), "show": house.plan(wide_screen)})
    movie, retiring = [await admin.call("CreateMovie", new_movie()) for _ in range(2)]
    event, event_retiring = [await admin.call("CreateEvent", new_event()) for _ in range(2)]
    venue, venue_retiring = [await admin.call("CreateVenue", new_venue("pune")) for _ in range(2)]
    screen, screen_retiring, free, free_too = [
        await admin.call("CreateScreen", new_screen(venue["venueId"])) for _ in range(4)
    ]
    changing, cancelling = await house.new_show(), await house.new_show()
    await admin.call("BlockSeats", {"requestId": new_id(), "showId": other_show["showId"], "block": ["B2"]})

    def of(**more: object) -> Json:
        return {"requestId": "", **more}

    requests: dict[str, Json] = {
        "Register": {
            **of(email="", phone="+919812345678", name="Fuzz", password=PASSWORD),
            "tokenDelivery": "TOKEN_DELIVERY_BODY",
        },
        "Login": {"email": owner.email, "password": PASSWORD, "tokenDelivery": "TOKEN_DELIVERY_BODY"},
        "RefreshSession": {"refreshToken": "unknown"},
        "Logout": {"refreshToken": "unknown"},
        "GetProfile": {},
        "UpdatePreferences": of(language="hi", genres=["Drama"], cityId="pune", notifications={"email": True}),
        "ListSessions": {},
        "RevokeSession": {"sessionId": new_id()},
        "GetJwks": {},
        "ListCities": {"pageSize": 2},
        "ListMovies": {
            "pageSize": 2,
            "cityId": "mumbai",
            "genre": "Drama",
            "language": "en",
            "format": "FORMAT_2D",
            "date": in_days(1)[:10],
            "state": "TITLE_STATE_NOW_SHOWING",
        },
        "GetMovie": {"movieId": movie["movieId"]},
        "ListShows": {"movieId": house.movie["movieId"], "pageSize": 2},
        "GetShow": {"showId": show["showId"]},
        "ListEvents": {"pageSize": 2, "cityId": "mumbai", "kind": "EVENT_KIND_PLAY", "date": in_days(1)[:10]},
        "GetEvent": {"eventId": event["eventId"]},
        "ListVenues": {"pageSize": 2, "cityId": "mumbai"},
        "GetVenue": {"venueId": venue["venueId"]},
        "GetLayout": {"layoutId": screen["layoutId"]},
        "GetSeatMap": {"showId": show["showId"]},
        "WatchSeats": {"showId": show["showId"]},
        "CreateReservation": of(
            showId=large["showId"], seats=["A1", "A2"], standing=[{"area": "Floor", "quantity": 1}]
        ),
        "GetReservation": {"reservationId": held["reservationId"]},
        "ReleaseReservation": of(reservationId=given_back["reservationId"]),
        "CreateBooking": of(reservationId=held["reservationId"]),
        "GetBooking": {"bookingId": unpaid["bookingId"]},
        "ListBookings": {"pageSize": 2},
        "WatchBooking": {"bookingId": unpaid["bookingId"]},
        "CancelBooking": of(bookingId=pending["bookingId"]),
        "BlockSeats": of(showId=other_show["showId"], block=["B1"], unblock=["B2"]),
        "InitiatePayment": of(bookingId=unpaid["bookingId"], method="PAYMENT_METHOD_UPI"),
        "HandleCallback": {"provider": "razorpay", "payload": {"contentType": "application/json", "data": "e30="}},
        "GetPaymentStatus": {"paymentId": paid["paymentId"]},
        "RefundPayment": of(paymentId=paid["paymentId"], amount=rupees(1), reason="fuzz"),
        "CreateMovie": of(movie=whole_movie()),
        "UpdateMovie": of(
            movie={**whole_movie(), "movieId": movie["movieId"], "version": movie["version"]}, updateMask="*"
        ),
        "RetireMovie": of(movieId=retiring["movieId"]),
        "ListMoviesForAdmin": {"pageSize": 2},
        "CreateEvent": of(event=whole_event()),
        "UpdateEvent": of(
            event={**whole_event(), "eventId": event["eventId"], "version": event["version"]}, updateMask="*"
        ),
        "RetireEvent": of(eventId=event_retiring["eventId"]),
        "ListEventsForAdmin": {"pageSize": 2},
        "CreateVenue": of(venue=whole_venue()),
        "UpdateVenue": of(
            venue={**whole_venue(), "venueId": venue["venueId"], "version": venue["version"]}, updateMask="*"
        ),
        "RetireVenue": of(venueId=venue_retiring["venueId"]),
        "ListVenuesForAdmin": {"pageSize": 2, "cityId": "pune"},
        "CreateScreen": new_screen(venue["venueId"]),
        "UpdateScreen": {
            **{name: value for name, value in new_screen(venue["venueId"]).items() if name != "venueId"},
            "screenId": screen["screenId"],
            "version": screen["version"],
        },
        "RetireScreen": of(screenId=screen_retiring["screenId"]),
        "ListScreens": {"venueId": venue["venueId"]},
        "CreateShow": of(show=house.plan(free)),
        "CreateShows": of(shows=[house.plan(free_too)]),
        "UpdateShow": of(
            showId=changing["showId"],
            version=changing["version"],
            prices=house.plan(screen)["prices"],
            onSaleTime=in_days(1),
            offSaleTime=in_days(19),
            refundPolicy={"tiers": [{"minutesBefore": 60, "percent": 75}]},
        ),
        "CancelShow": of(showId=cancelling["showId"], reason="fuzz"),
        "ListShowsForAdmin": {"pageSize": 2, "venueId": venue["venueId"]},
    }
    assert set(requests) == {rpc.name for rpc in EDGE_RPCS}, "every RPC is fuzzed"
    ground = Ground(system, user_keys(system.stack.home.keys).signing(time.time()), owner.token, requests)
    ground.fresh = {
        "Register": lambda request, _: request.update(email=f"{new_id()}@example.org"),
        "CreateReservation": lambda request, n: request.update(seats=[f"{'ABCDE'[n % 5]}{n // 5 % 199 + 1}"]),
        "BlockSeats": lambda request, n: request.update(block=[f"B{2 - n % 2}"], unblock=[f"B{1 + n % 2}"]),
        "CreateShow": lambda request, n: request["show"].update(startTime=in_days(20 + n / 8)),
        "CreateShows": lambda request, n: request["shows"][0].update(startTime=in_days(20 + n / 8)),
    }
    return ground


def new_event() -> Json:
    return {"requestId": new_id(), "event": whole_event()}


def whole_movie() -> Json:
    return {
        "title": "A Film for Nonsense",
        "synopsis": "Things happen.",
        "releaseDate": {"year": 2026, "month": 2, "day": 3},
        "genres": ["Drama", "Comedy"],
        "languages": ["hi", "en"],
        "formats": ["FORMAT_2D"],
        "durationMinutes": 90,
        "certificate": "UA",
        "director": "Somebody",
        "rating": 7.5,
        "votes": 12,
        "state": "TITLE_STATE_NOW_SHOWING",
    }


def whole_event() -> Json:
    return {
        "title": "An Event for Nonsense",
        "description": "Things happen, live.",
        "kind": "EVENT_KIND_PLAY",
        "genres": ["Drama"],
        "languages": ["hi"],
        "durationMinutes": 90,
        "organizerId": str(uuid.uuid4()),
        "state": "TITLE_STATE_NOW_SHOWING",
    }


def whole_venue() -> Json:
    return {
        "name": "A House for Nonsense",
        "cityId": "pune",
        "address": "1 Test Street",
        "location": {"latitude": 18.5, "longitude": 73.8},
        "timeZone": "Asia/Kolkata",
        "amenities": ["AMENITY_FOOD"],
        "organizerId": str(uuid.uuid4()),
    }
