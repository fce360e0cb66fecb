"""A whole stack to sell on: its edge, shows, people's tokens, the payment provider, and what PostgreSQL says.

async with open_stage(folder, seed=7) as stage:
    show = await stage.put_on_sale()
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import httpx
import psycopg

from local.home import Home
from local.keys import user_keys
from local.stack import Stack
from local.tokens import SYNTHETIC_TOKEN_LIFE_S, synthetic_access_tokens, synthetic_user
from marquee.booking import v1 as booking_v1
from marquee.catalog import v1 as catalog_v1
from marquee.payment import v1 as payment_v1
from tests.prove.halls import new_layout, new_show

CHANNELS = 4
PROVIDER_TRIES = 5
CHANNEL_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500))


@dataclass(frozen=True)
class Pace:
    """How quick life is on a stage: minutes are seconds, so that much can end in little time.

    Args:
        sweep_s: between looks for holds that are over; long enough, and others take over what nobody swept.
        poll_first_s: the reconciler asks minutes later in life; here what was never reported must be found soon.
    """

    hold_s: float = 7.0
    payment_window_s: float = 7.0
    sweep_s: float = 0.25
    poll_first_s: float = 2.0
    poll_longest_s: float = 16.0

    def environment(self) -> dict[str, dict[str, str]]:
        return {
            "booking": {
                "MARQUEE_HOLD_SECONDS": str(self.hold_s),
                "MARQUEE_PAYMENT_WINDOW_SECONDS": str(self.payment_window_s),
                "MARQUEE_SWEEP_SECONDS": str(self.sweep_s),
            },
            "payment": {
                "MARQUEE_POLL_FIRST_SECONDS": str(self.poll_first_s),
                "MARQUEE_POLL_LONGEST_SECONDS": str(self.poll_longest_s),
            },
        }


@dataclass(frozen=True)
class Person:
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
    """What a proof works with."""

    stack: Stack
    pace: Pace
    randomly: random.Random
    channels: Sequence[grpc.aio.Channel]
    provider: httpx.AsyncClient
    people: Iterator[Person]
    staff: Person
    shows: list[ShowOnSale] = field(default_factory=list)
    halls: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The labels of every show's seats, also of those that are not listed."""
    met: dict[UUID, Person] = field(default_factory=dict)
    provider_mood: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever says what the provider does wrong."""

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

    def somebody(self) -> Person:
        """A user whom nobody met before."""
        person = next(self.people)
        self.met[person.user_id] = person
        return person

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

    async def books(self) -> Mapping[str, Any]:
        """The provider's own books."""
        return dict((await self.provider.get("/control/ledger")).raise_for_status().json())

    async def books_summary(self) -> Mapping[str, Any]:
        return dict((await self.provider.get("/control/ledger/summary")).raise_for_status().json())

    # --- PostgreSQL ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def database(self, service: str = "booking") -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A session of a service's own database."""
        async with await psycopg.AsyncConnection.connect(
            self.stack.database_url(service), autocommit=True, connect_timeout=5
        ) as connection:
            yield connection

    async def rows(self, query: str, *parameters: Any, database: str = "booking") -> list[tuple[Any, ...]]:
        """What a service's database itself says."""
        async with self.database(database) as connection:
            cursor = await connection.execute(query.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

    async def version(self, show_id: str) -> int:
        """A show's version."""
        return int((await self.rows("SELECT version FROM show_versions WHERE show_id = %s", show_id))[0][0])

    # --- the catalogue ------------------------------------------------------------------------------------------------

    async def put_on_sale(self, *, rows: int = 20, seats: int = 20, listed: bool = True) -> ShowOnSale:
        """A new show in a hall of its own: told through the catalogue's outbox, the relay and the bus, as shows are."""
        layout = new_layout(rows, seats)
        await self.rows(
            "INSERT INTO layouts (layout_id, layout) VALUES (%s, %s)", layout.layout_id, layout.SerializeToString()
        )
        changed = catalog_v1.CatalogChanged(show=new_show(layout))
        await self.rows(
            "INSERT INTO outbox (aggregatetype, aggregateid, type, payload) VALUES (%s, %s, %s, %s)",
            "catalog.changed",
            changed.show.show_id,
            changed.DESCRIPTOR.full_name,
            changed.SerializeToString(),
            database="catalog",
        )
        show = ShowOnSale(changed.show.show_id, tuple(seat.label for seat in layout.seats))
        self.halls[show.show_id] = show.labels
        async with asyncio.timeout(20):
            while not await self.rows("SELECT 1 FROM shows WHERE show_id = %s", show.show_id):
                await asyncio.sleep(0.1)
        if listed:
            self.shows.append(show)
        return show


def _people(stack: Stack, role: str) -> Iterator[Person]:
    now = time.time()
    tokens = synthetic_access_tokens(user_keys(stack.home.keys).signing(now), 10_000_000, role, now)
    assert SYNTHETIC_TOKEN_LIFE_S > 3600, "tokens are made as they are needed, and outlive a long run"
    for number, token in enumerate(tokens):
        yield Person(synthetic_user(number), (("authorization", f"Bearer {token}"),))


@asynccontextmanager
async def on_stage(stack: Stack, *, seed: int, pace: Pace) -> AsyncIterator[Stage]:
    """Clients of a stack that runs."""
    channels = [grpc.aio.insecure_channel(stack.address("edge"), options=CHANNEL_OPTIONS) for _ in range(CHANNELS)]
    provider_url = f"http://{stack.address('provider')}"
    limits = httpx.Limits(max_connections=32)
    async with httpx.AsyncClient(base_url=provider_url, timeout=20, limits=limits, trust_env=False) as provider:
        customers, staff = _people(stack, "customer"), next(_people(stack, "admin"))
        next(customers)  # who has the administrator's id
        try:
            yield Stage(stack, pace, random.Random(seed), channels, provider, customers, staff)
        finally:
            for channel in channels:
                await channel.close()


@asynccontextmanager
async def open_stage(
    folder: Path,
    *,
    seed: int,
    pace: Pace | None = None,
    environment: Mapping[str, Mapping[str, str]] | None = None,
    around: Callable[[Home], AbstractContextManager[object]] = nullcontext,
    **options: Any,
) -> AsyncIterator[Stage]:
    """Everything as `make run` starts it (PostgreSQL and the bus sync to disk), but short windows, no rate limits.

    Args:
        environment: more variables, by part.
        around: entered before the stack starts and left when it has stopped, before its folder is wiped.
        options: more of `Stack`'s.
    """
    pace = pace or Pace()
    variables = pace.environment()
    for part, more in (environment or {}).items():
        variables[part] = {**variables.get(part, {}), **more}
    stack = Stack(folder, rate_limits=False, environment=variables, **options)
    try:
        with around(stack.home):
            async with stack, on_stage(stack, seed=seed, pace=pace) as stage:
                yield stage
    finally:
        stack.home.wipe()
