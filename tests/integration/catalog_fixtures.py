"""The catalogue as its tests meet it: served in this process on a database of its own, and what it needs around it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import psycopg
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.latlng_pb2 import LatLng
from google.type.money_pb2 import Money
from psycopg.rows import TupleRow
from pydantic import SecretStr

from marquee.catalog import v1 as catalog_v1
from services.catalog.__main__ import SERVICES, add_servicers
from services.catalog.settings import CatalogSettings
from services.kit.clock import Clock, system_clock
from tests.integration.service_harness import Metadata, Served, TestKeys, serving

CITIES = (
    ("mumbai", "Mumbai", 19.07, 72.88, 12_691_836, 1),
    ("delhi", "Delhi", 28.65, 77.23, 11_034_555, 2),
    ("pune", "Pune", 18.52, 73.86, 3_124_458, 9),
)


@dataclass(frozen=True)
class Catalogue:
    """A served catalogue, with an administrator's token."""

    read: catalog_v1.CatalogServiceAsyncStub
    write: catalog_v1.CatalogAdminServiceAsyncStub
    served: Served
    database_url: str
    admin: Metadata

    async def sql(self, statement: str, *parameters: Any) -> list[TupleRow]:
        """What the catalogue's database answers."""
        async with await psycopg.AsyncConnection.connect(self.database_url, autocommit=True) as connection:
            cursor = await connection.execute(statement.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

    async def announced(self, key: str) -> list[catalog_v1.CatalogChanged]:
        """The events of one thing, in order."""
        rows = await self.sql(
            "SELECT payload FROM outbox WHERE aggregatetype = 'catalog.changed' AND aggregateid = %s ORDER BY id", key
        )
        return [catalog_v1.CatalogChanged.FromString(row[0]) for row in rows]

    async def movie(self, **fields: Any) -> catalog_v1.Movie:
        """A new film."""
        wish: dict[str, Any] = {
            "title": f"Film {uuid.uuid4().hex[:8]}",
            "languages": ["en", "hi"],
            "formats": [catalog_v1.FORMAT_2D, catalog_v1.FORMAT_IMAX],
            "duration_minutes": 120,
        }
        request = catalog_v1.CreateMovieRequest(request_id=new_id(), movie=catalog_v1.Movie(**{**wish, **fields}))
        return await self.write.CreateMovie(request, metadata=self.admin)

    async def event(self, **fields: Any) -> catalog_v1.Event:
        """A new event."""
        wish: dict[str, Any] = {"title": f"Event {uuid.uuid4().hex[:8]}", "duration_minutes": 90}
        request = catalog_v1.CreateEventRequest(request_id=new_id(), event=catalog_v1.Event(**{**wish, **fields}))
        return await self.write.CreateEvent(request, metadata=self.admin)

    async def venue(self, **fields: Any) -> catalog_v1.Venue:
        """A new venue, in Mumbai unless said otherwise."""
        wish: dict[str, Any] = {
            "name": f"Venue {uuid.uuid4().hex[:8]}",
            "city_id": "mumbai",
            "location": LatLng(latitude=19.1, longitude=72.9),
            "organizer_id": new_id(),
        }
        request = catalog_v1.CreateVenueRequest(request_id=new_id(), venue=catalog_v1.Venue(**{**wish, **fields}))
        return await self.write.CreateVenue(request, metadata=self.admin)

    async def screen(self, venue_id: str = "", **fields: Any) -> catalog_v1.Screen:
        """A new screen, in a new venue unless said otherwise."""
        wish: dict[str, Any] = {
            "venue_id": venue_id or (await self.venue()).venue_id,
            "name": "Screen 1",
            "formats": [catalog_v1.FORMAT_2D, catalog_v1.FORMAT_LIVE],
            "layout": a_layout(),
        }
        request = catalog_v1.CreateScreenRequest(request_id=new_id(), **{**wish, **fields})
        return await self.write.CreateScreen(request, metadata=self.admin)

    async def show(self, **fields: Any) -> catalog_v1.Show:
        """A new show, of a new film on a new screen unless said otherwise."""
        if "movie_id" not in fields and "event_id" not in fields:
            fields["movie_id"] = (await self.movie()).movie_id
        if "screen_id" not in fields:
            fields["screen_id"] = (await self.screen()).screen_id
        request = catalog_v1.CreateShowRequest(request_id=new_id(), show=a_show(**fields))
        return await self.write.CreateShow(request, metadata=self.admin)


def new_id() -> str:
    return str(uuid.uuid4())


def a_layout(**fields: Any) -> catalog_v1.LayoutPlan:
    """Two rows and a standing area: 4 + 3 seats, 50 places."""
    wish: dict[str, Any] = {
        "name": "Small",
        "rows": [
            catalog_v1.RowPlan(row="A", seats=4, category="REGULAR", aisles_after=[2], wheelchairs=[1]),
            catalog_v1.RowPlan(row="B", seats=3, category="RECLINER"),
        ],
        "standing_areas": [catalog_v1.StandingAreaPlan(name="Floor", category="FLOOR", capacity=50)],
    }
    return catalog_v1.LayoutPlan(**{**wish, **fields})


def rupees(amount: int) -> Money:
    return Money(currency_code="INR", units=amount)


PRICES = [
    catalog_v1.CategoryPrice(category="REGULAR", price=rupees(200)),
    catalog_v1.CategoryPrice(category="RECLINER", price=rupees(450)),
    catalog_v1.CategoryPrice(category="FLOOR", price=rupees(150)),
]


def a_show(**fields: Any) -> catalog_v1.ShowPlan:
    """A plan for tomorrow."""
    wish: dict[str, Any] = {
        "start_time": at(datetime.now(UTC) + timedelta(days=1)),
        "format": catalog_v1.FORMAT_2D if "event_id" not in fields else catalog_v1.FORMAT_LIVE,
        "prices": PRICES,
    }
    return catalog_v1.ShowPlan(**{**wish, **fields})


def at(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def mask(*paths: str) -> FieldMask:
    return FieldMask(paths=paths)


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    """The error of a call that must be refused."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError(f"it was not refused, but answered {answer}")


async def add_cities(database_url: str, cities: Sequence[tuple[Any, ...]] = CITIES) -> None:
    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        await cursor.executemany(
            """
            INSERT INTO cities (city_id, name, latitude, longitude, population, region, time_zone)
            VALUES (%s, %s, %s, %s, %s, %s, 'Asia/Kolkata')
            ON CONFLICT DO NOTHING
            """,
            cities,
        )


@asynccontextmanager
async def catalogue(
    folder: Path,
    database_url: str,
    *,
    cache_url: str = "",
    booking_address: str = "",
    keys: TestKeys | None = None,
    clock: Clock = system_clock,
    **more: Any,
) -> AsyncIterator[Catalogue]:
    """The service on a migrated database, with three cities. ``more`` are ``CatalogSettings``'s."""
    await add_cities(database_url)
    keys = keys or TestKeys.make(folder)
    settings = CatalogSettings(
        **keys.settings(database_url, cache_url=SecretStr(cache_url), booking_address=booking_address, **more)
    )
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(
            serving(settings, SERVICES, lambda server: add_servicers(server, settings, stack, clock=clock), keys)
        )
        yield Catalogue(
            catalog_v1.CatalogServiceStub(served.channel),
            catalog_v1.CatalogAdminServiceStub(served.channel),
            served,
            database_url,
            served.as_user(uuid.uuid4(), roles=["admin"]),
        )
