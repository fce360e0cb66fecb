"""A whole stack under load: its edge, shows, buyers' tokens, the payment provider's ledger, and what PostgreSQL says.

async with open_stage(folder, seed=7) as stage:
    show = await stage.put_on_sale()
    answer = await stage.ask(stage.booking.CreateReservation, request, buyer)
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import httpx
import psycopg
from google.type.money_pb2 import Money

from local.keys import user_keys
from local.stack import Stack
from local.tokens import SYNTHETIC_TOKEN_LIFE_S, synthetic_access_tokens, synthetic_user
from marquee.booking import v1 as booking_v1
from marquee.catalog import v1 as catalog_v1
from marquee.payment import v1 as payment_v1
from services.kit.errors import reason_of
from services.kit.ids import new_show_id

HOLD_SECONDS = 7.0
PAYMENT_WINDOW_SECONDS = 7.0
POLL_FIRST_SECONDS = 2.0
"""The reconciler asks minutes later in life; here what was never reported must be found while the test lasts."""
CHANNELS = 4
CALL_TIMEOUT_S = 4.0
PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
"""What a client tries again after: nothing is known of the request, and its id makes a repeat harmless."""
REFUSING = {
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT,
}
PROVIDER_TRIES = 5


class Refused(Exception):
    """Marquee understood and said no."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class GaveUp(Exception):
    """No answer in all that time. Whether it happened, the client does not know."""


@dataclass(frozen=True)
class Buyer:
    """A user who exists only in an access token."""

    user_id: UUID
    metadata: tuple[tuple[str, str], ...]


@dataclass
class ShowOnSale:
    """A show of ours, and how its seats are called."""

    show_id: str
    labels: tuple[str, ...]
    asked: int = 0
    """Seats that buyers asked for so far; when it nears the hall's size, most are gone."""


@dataclass
class Stage:
    """What a test of faults works with."""

    stack: Stack
    randomly: random.Random
    channels: list[grpc.aio.Channel]
    provider: httpx.AsyncClient
    tokens: AsyncIterator[Buyer]
    shows: list[ShowOnSale] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    """Every answer that was not OK, by code or reason."""
    provider_mood: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever says what the provider does wrong."""
    surprises: list[str] = field(default_factory=list)
    """Answers that no client should ever get: they say neither no nor later."""

    def __post_init__(self) -> None:
        self._bookings = [booking_v1.BookingServiceStub(channel) for channel in self.channels]
        self._payments = [payment_v1.PaymentServiceStub(channel) for channel in self.channels]

    @property
    def booking(self) -> Any:
        """BookingService through the edge, over one of a few connections."""
        return self.randomly.choice(self._bookings)

    @property
    def payment(self) -> Any:
        """PaymentService through the edge."""
        return self.randomly.choice(self._payments)

    async def new_buyer(self) -> Buyer:
        return await anext(self.tokens)

    async def ask(
        self, method: Callable[..., Any], request: Any, buyer: Buyer, *, patience_s: float = 45.0, once: bool = False
    ) -> Any:
        """Call until there is an answer, as a good client does: the same request, after a growing pause.

        Raises:
            Refused: the answer is no.
            GaveUp: there was none within ``patience_s`` (or on the first try, when only ``once``).
        """
        deadline = time.monotonic() + patience_s
        pause = 0.1
        while True:
            try:
                return await method(request, metadata=buyer.metadata, timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                reason = reason_of(error) or error.code().name
                self.codes[reason] += 1
                if error.code() in REFUSING or reason == "TOO_MANY_HOLDS":
                    raise Refused(reason) from None
                if error.code() not in PASSING:
                    self.surprises.append(f"{type(request).__name__}: {error.code().name} {reason} {error.details()}")
            if once or time.monotonic() + pause > deadline:
                raise GaveUp(type(request).__name__)
            await asyncio.sleep(pause * self.randomly.uniform(0.7, 1.3))
            pause = min(pause * 1.7, 1.0)

    # --- the provider, over its control API ---------------------------------------------------------------------------

    async def pay(self, order_id: str, **how: Any) -> list[dict[str, Any]]:
        """Do what a checkout's button does. The simulator is somebody else's: no fault of ours touches it."""
        for _ in range(PROVIDER_TRIES):
            answer = await self.provider.post(f"/control/pay/{order_id}", json=how)
            if answer.is_success:
                return list(answer.json()["payments"])
        raise AssertionError(f"the simulator does not take payments: {answer.status_code} {answer.text[:200]}")

    async def provider_fault(self, **faults: int) -> None:
        """From now on the provider does these, and only these, wrong."""
        (await self.provider.put("/control/faults", json=faults)).raise_for_status()

    async def ledger(self) -> Mapping[str, Any]:
        """The provider's own books."""
        return dict((await self.provider.get("/control/ledger")).raise_for_status().json())

    async def ledger_summary(self) -> Mapping[str, Any]:
        return dict((await self.provider.get("/control/ledger/summary")).raise_for_status().json())

    # --- PostgreSQL ---------------------------------------------------------------------------------------------------

    async def rows(self, query: str, *parameters: Any, database: str = "booking") -> list[tuple[Any, ...]]:
        """What a service's database itself says."""
        async with await psycopg.AsyncConnection.connect(
            self.stack.database_url(database), autocommit=True, connect_timeout=5
        ) as connection:
            cursor = await connection.execute(query.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

    async def seats_in_postgres(self, show_id: str) -> tuple[int, dict[int, int]]:
        """A show's version and the states of its claimed seats, as of one moment."""
        rows = await self.rows(
            """
            SELECT v.version, c.seat_no, c.status
            FROM show_versions v
            LEFT JOIN seat_claims c USING (show_id)
            WHERE v.show_id = %s
            """,
            show_id,
        )
        return rows[0][0], {row[1]: row[2] for row in rows if row[1] is not None}

    async def seats_at_version(self, show_id: str, version: int) -> dict[int, int]:
        """The states of a show's claimed seats when it had that version, from its log."""
        states: dict[int, int] = {}
        log = await self.rows(
            "SELECT freed, held, booked, blocked FROM show_log WHERE show_id = %s AND version <= %s ORDER BY version",
            show_id,
            version,
        )
        for changes in log:
            for state, seat_nos in zip((1, 2, 3, 4), changes, strict=True):
                states.update(dict.fromkeys(seat_nos, state))
        return {seat_no: state for seat_no, state in states.items() if state != 1}

    # --- the catalogue ------------------------------------------------------------------------------------------------

    async def put_on_sale(self, *, rows: int = 20, seats: int = 20, listed: bool = True) -> ShowOnSale:
        """A new show in a hall of its own: told through the catalogue's outbox, the relay and the bus, as shows are."""
        layout = catalog_v1.Layout(layout_id=str(uuid4()), layout_version=1, capacity=rows * seats)
        for row in range(rows):
            name = chr(ord("A") + row)
            for number in range(1, seats + 1):
                layout.seats.add(
                    seat_no=row * seats + number - 1,
                    label=f"{name}{number}",
                    row=name,
                    number=number,
                    category="REGULAR",
                    x=number,
                    y=row,
                )
        await self.rows(
            "INSERT INTO layouts (layout_id, layout) VALUES (%s, %s)", layout.layout_id, layout.SerializeToString()
        )
        changed = catalog_v1.CatalogChanged(show=_show(layout))
        await self.rows(
            "INSERT INTO outbox (aggregatetype, aggregateid, type, payload) VALUES (%s, %s, %s, %s)",
            "catalog.changed",
            changed.show.show_id,
            changed.DESCRIPTOR.full_name,
            changed.SerializeToString(),
            database="catalog",
        )
        show = ShowOnSale(changed.show.show_id, tuple(seat.label for seat in layout.seats))
        async with asyncio.timeout(20):
            while not await self.rows("SELECT 1 FROM shows WHERE show_id = %s", show.show_id):
                await asyncio.sleep(0.1)
        if listed:
            self.shows.append(show)
        return show


def _show(layout: catalog_v1.Layout) -> catalog_v1.Show:
    now = datetime.now(UTC)
    start = now + timedelta(days=2)
    show = catalog_v1.Show(
        show_id=str(new_show_id(start.date(), 7)),
        title="The Long Night",
        venue_id=str(uuid4()),
        venue_name="Regal",
        screen_name="Screen 1",
        city_id="mumbai",
        time_zone="Asia/Kolkata",
        layout_id=layout.layout_id,
        layout_version=1,
        capacity=layout.capacity,
        state=catalog_v1.SHOW_STATE_SCHEDULED,
        version=1,
        prices=[catalog_v1.CategoryPrice(category="REGULAR", price=Money(currency_code="INR", units=200))],
        refund_policy=catalog_v1.RefundPolicy(tiers=[catalog_v1.RefundTier(minutes_before=60, percent=50)]),
    )
    show.start_time.FromDatetime(start)
    show.off_sale_time.FromDatetime(start)
    show.on_sale_time.FromDatetime(now - timedelta(days=1))
    return show


async def _buyers(stack: Stack) -> AsyncIterator[Buyer]:
    now = time.time()
    tokens = synthetic_access_tokens(user_keys(stack.home.keys).signing(now), 10_000_000, "customer", now)
    assert SYNTHETIC_TOKEN_LIFE_S > 3600, "tokens are made as they are needed, and outlive a long run"
    for number, token in enumerate(tokens):
        yield Buyer(synthetic_user(number), (("authorization", f"Bearer {token}"),))


@asynccontextmanager
async def open_stage(folder: Path, *, seed: int, poll_longest_s: float = 16.0) -> AsyncIterator[Stage]:
    """Everything as `make run` starts it (PostgreSQL and the bus sync to disk), but short windows, no rate limits."""
    environment = {
        "booking": {
            "MARQUEE_HOLD_SECONDS": str(HOLD_SECONDS),
            "MARQUEE_PAYMENT_WINDOW_SECONDS": str(PAYMENT_WINDOW_SECONDS),
        },
        "payment": {
            "MARQUEE_POLL_FIRST_SECONDS": str(POLL_FIRST_SECONDS),
            "MARQUEE_POLL_LONGEST_SECONDS": str(poll_longest_s),
        },
    }
    stack = Stack(folder, rate_limits=False, environment=environment)
    try:
        async with stack:
            channels = [
                grpc.aio.insecure_channel(
                    stack.address("edge"),
                    options=(("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500)),
                )
                for _ in range(CHANNELS)
            ]
            provider_url = f"http://{stack.address('provider')}"
            limits = httpx.Limits(max_connections=32)
            async with httpx.AsyncClient(base_url=provider_url, timeout=20, limits=limits, trust_env=False) as provider:
                try:
                    yield Stage(stack, random.Random(seed), channels, provider, _buyers(stack))
                finally:
                    for channel in channels:
                        await channel.close()
    finally:
        stack.home.wipe()
