"""The whole system as its users meet it: the edge's address, accounts, the provider's checkout, its ledger."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import grpc
import httpx
from e2e_protocols import Client, Grpc, GrpcWeb, Json, Rest

from local.stack import Stack

PASSWORD = "a-long-enough-password"
DEMO_PASSWORD = "marquee-demo"
Found = TypeVar("Found")


def new_id() -> str:
    return str(uuid.uuid4())


def rupees(amount: int) -> Json:
    return {"currencyCode": "INR", "units": str(amount)}


def minor(money: Json | None) -> int:
    """Paise."""
    return int(money["units"]) * 100 + money["nanos"] // 10_000_000 if money else 0


@dataclass(frozen=True)
class Customer:
    """Somebody with an account."""

    user_id: str
    email: str
    token: str


@dataclass
class System:
    """One running stack with demo data, reached as a client reaches it."""

    stack: Stack
    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    provider: httpx.AsyncClient
    admin_token: str = ""

    @property
    def rest(self) -> Rest:
        return Rest(self.http)

    @property
    def clients(self) -> dict[str, Client]:
        return {
            each.name: each
            for each in (self.rest, Grpc(self.channel), GrpcWeb(self.http), GrpcWeb(self.http, text=True))
        }

    @property
    def admin(self) -> Client:
        return self.rest.by(self.admin_token)

    async def sign_in(self, email: str, password: str = DEMO_PASSWORD) -> str:
        signed_in = await self.rest.call("Login", {"email": email, "password": password})
        return str(signed_in["accessToken"])

    async def new_customer(self) -> Customer:
        email = f"{uuid.uuid4().hex}@example.org"
        wish = {"requestId": new_id(), "email": email, "name": "A Customer", "password": PASSWORD}
        signed_in = await self.rest.call("Register", wish)
        return Customer(signed_in["user"]["userId"], email, signed_in["accessToken"])

    async def pay(self, checkout_url: str, outcome: str = "success") -> httpx.Response:
        """What a button of the provider's checkout page does."""
        return await self.provider.post(checkout_url, data={"outcome": outcome})

    async def ledger(self, order_id: str) -> tuple[list[Json], list[Json]]:
        """The provider's own captures and refunds of one order."""
        everything = (await self.provider.get("/control/ledger")).json()
        payments = [each for each in everything["payments"] if each["order_id"] == order_id and each["captured"]]
        ids = {each["id"] for each in payments}
        return payments, [each for each in everything["refunds"] if each["payment_id"] in ids]

    def log_lines(self, containing: str) -> list[str]:
        """What the services logged."""
        return [
            line
            for log in sorted(self.stack.home.log.glob("*.log"))
            for line in log.read_text(errors="replace").splitlines()
            if containing in line
        ]


@dataclass(frozen=True)
class House:
    """A film, a venue and a screen of a test's own: rows A and B of ten seats, and a standing area."""

    system: System
    admin: Client
    movie: Json
    venue: Json
    screen: Json

    async def new_show(self, client: Client | None = None, *, days: int = 20, **more: Any) -> Json:
        """A show that is on sale; as no two may meet on a screen, each gets a screen of its own."""
        admin = client or self.admin
        screen = await admin.call("CreateScreen", new_screen(self.venue["venueId"]))
        return await admin.call("CreateShow", {"requestId": new_id(), "show": self.plan(screen, days=days, **more)})

    def plan(self, screen: Json, *, days: int = 20, **more: Any) -> Json:
        return {
            "movieId": self.movie["movieId"],
            "screenId": screen["screenId"],
            "startTime": in_days(days),
            "format": "FORMAT_2D",
            "prices": [
                {"category": "REGULAR", "price": rupees(250)},
                {"category": "FLOOR", "price": rupees(90)},
            ],
            "refundPolicy": {"tiers": [{"minutesBefore": 60, "percent": 75}]},
            **more,
        }

    async def new_bookable_show(self, **more: Any) -> Json:
        """A show that booking has heard of."""
        show = await self.new_show(**more)
        await until(lambda: self.system.rest.ask("GetSeatMap", {"showId": show["showId"]}), lambda it: not it.code)
        return show


def in_days(days: float) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:00:00Z")


def new_screen(venue_id: str) -> Json:
    return {
        "requestId": new_id(),
        "venueId": venue_id,
        "name": f"Screen {uuid.uuid4().hex[:6]}",
        "formats": ["FORMAT_2D"],
        "layout": {
            "name": "Small",
            "rows": [
                {"row": "A", "seats": 10, "category": "REGULAR", "aislesAfter": [5]},
                {"row": "B", "seats": 10, "category": "REGULAR", "wheelchairs": [1]},
            ],
            "standingAreas": [{"name": "Floor", "category": "FLOOR", "capacity": 30}],
        },
    }


def new_movie(title: str = "A Film of Our Own") -> Json:
    return {
        "requestId": new_id(),
        "movie": {"title": title, "durationMinutes": 100, "formats": ["FORMAT_2D"], "state": "TITLE_STATE_NOW_SHOWING"},
    }


def new_venue(city_id: str, name: str = "The Little House") -> Json:
    return {"requestId": new_id(), "venue": {"name": name, "cityId": city_id, "address": "1 Test Street"}}


async def open_house(system: System, client: Client) -> House:
    """``client`` speaks for an administrator."""
    cities = (await client.call("ListCities"))["cities"]
    movie = await client.call("CreateMovie", new_movie())
    venue = await client.call("CreateVenue", new_venue(cities[0]["cityId"]))
    screen = await client.call("CreateScreen", new_screen(venue["venueId"]))
    return House(system, client, movie, venue, screen)


async def until(
    ask: Callable[[], Awaitable[Found]], is_it: Callable[[Found], object], patience_s: float = 10.0
) -> Found:
    """Ask until the answer is the right one."""
    ends = time.monotonic() + patience_s
    while True:
        found = await ask()
        if is_it(found):
            return found
        assert time.monotonic() < ends, f"not within {patience_s} s; last: {found}"
        await asyncio.sleep(0.1)


# --- what a buyer does ----------------------------------------------------------------------------------------------


async def hold(buyer: Client, show: Json, *seats: str) -> Json:
    wish = {"requestId": new_id(), "showId": show["showId"], "seats": list(seats)}
    return await buyer.call("CreateReservation", wish)


async def book(buyer: Client, show: Json, *seats: str) -> Json:
    reservation = await hold(buyer, show, *seats)
    wish = {"requestId": new_id(), "reservationId": reservation["reservationId"]}
    return await buyer.call("CreateBooking", wish)


async def initiate(buyer: Client, booking: Json, method: str = "PAYMENT_METHOD_UPI") -> Json:
    wish = {"requestId": new_id(), "bookingId": booking["bookingId"], "method": method}
    return await buyer.call("InitiatePayment", wish)


async def buy(system: System, buyer: Client, show: Json, *seats: str) -> tuple[Json, Json]:
    """A confirmed booking and its payment."""
    booking = await book(buyer, show, *seats)
    payment = await initiate(buyer, booking)
    assert (await system.pay(payment["checkoutUrl"])).status_code == 200
    return await confirmed(buyer, booking), payment


async def confirmed(buyer: Client, booking: Json) -> Json:
    return await until(
        lambda: buyer.call("GetBooking", {"bookingId": booking["bookingId"]}),
        lambda it: it["status"] == "BOOKING_STATUS_CONFIRMED",
    )
