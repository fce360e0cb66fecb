"""What a show's size costs: holds, seat maps, the first message of a live stream, confirmations.

Shows are made through the catalogue's contract, which takes 20,000 numbered seats a layout at most; places above that
stand, in one area. Half of the places of each show are booked before, and holds take the numbered others. The shows of
every size are as many, and so are the holds.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc
import psycopg
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money
from rich.table import Table

from bench.confirms import Confirmations
from bench.holds import METHOD, HoldCalls, labels_of
from bench.rounds import Round
from bench.stage import Stage, client_core
from bench.wire import Load
from local.demo.halls import row_name
from local.keys import user_keys
from local.tokens import synthetic_access_tokens
from marquee.booking import v1 as booking_v1
from marquee.catalog import v1 as catalog_v1

SEAT_MAP = "/marquee.booking.v1.BookingService/GetSeatMap"
MOST_NUMBERED = 20_000
"""The catalogue's limit of a layout (``services/catalog/domain/layouts.py``)."""
MOST_A_ROW = 200
SHOWS = 60
BETWEEN_SHOWS = timedelta(hours=4)
HELD_BEFORE = SHOWS
"""Holds that are not measured: a process reads each show, and its layout, once."""
HOLDS = 1_400
MAPPED = 10
"""Shows whose seat maps are read: so few that the process still has the first one's map when it is asked for again."""
SEATS_MAPPED = 200_000
"""Seats that are drawn in a measurement of seat maps, so that large ones do not take for ever."""
FEWEST_MAPS, MOST_MAPS = 30, 600
CONFIRMS = 1_000
NEWS_SECONDS = 60.0

FILL = """
    WITH show AS (
        SELECT unnest(%(shows)s::uuid[]) AS show_id
    ), claimed AS (
        INSERT INTO seat_claims (show_id, seat_no, status, reservation_id, user_id, fence)
        SELECT show_id, seat_no, 3, gen_random_uuid(), gen_random_uuid(), 1
        FROM show
        CROSS JOIN generate_series(0, %(seats)s - 1) AS seat_no
        WHERE seat_no %% 4 < 2
        RETURNING show_id, seat_no
    ), logged AS (
        INSERT INTO show_log (show_id, version, booked, cause, at)
        SELECT show_id, 1, array_agg(seat_no ORDER BY seat_no), 'confirm', clock_timestamp()
        FROM claimed
        GROUP BY show_id
        RETURNING show_id, cardinality(booked) AS booked
    )
    UPDATE show_versions v
    SET version = 1, taken = logged.booked
    FROM logged
    WHERE v.show_id = logged.show_id
"""


@dataclass(frozen=True)
class Size:
    """What shows of ``seats`` places cost. ``round`` has the rates, times and CPU; sizes of messages are bytes."""

    seats: int
    numbered: int
    seat_map_bytes: int
    snapshot_bytes: int
    round: Round


async def measure(stage: Stage, sizes: Iterable[int], say: Callable[[str], None]) -> list[Size]:
    """Each of ``sizes``, which are places a show."""
    found = []
    for seats in sizes:
        found.append(await _measure(stage, seats))
        say(f"{seats:,} seats: {found[-1].round.line()}")
    return found


def table(found: Sequence[Size]) -> Table:
    """A row for each size; CPU is a call's, in microseconds, of booking and of PostgreSQL."""
    made = Table(
        *("seats a show", "holds/s", "hold p50; p99 ms", "its CPU us: booking; PG"),
        *("first seat map ms", "seat map p50 ms", "its CPU us: booking; PG", "its KiB", "snapshot bytes"),
        *("confirms/s", "its CPU us: booking; PG"),
        title=f"growth with seats: {SHOWS} shows of each size, half of each booked",
    )
    for each in found:
        tail, cpu = each.round.tail, each.round.spent
        seats = f"{each.seats:,}" + (f" ({each.numbered:,} numbered)" if each.numbered < each.seats else "")
        made.add_row(
            seats,
            f"{each.round.rates['hold']:,.0f}" + ("*" if "hold" in each.round.void else ""),
            f"{tail['hold'][0] * 1e3:.1f}; {tail['hold'][1] * 1e3:.1f}",
            _micros(cpu["hold"]),
            f"{tail['first seat map'][0] * 1e3:.1f}",
            f"{tail['seat map'][0] * 1e3:.1f}" + ("*" if "seat map" in each.round.void else ""),
            _micros(cpu["seat map"]),
            f"{each.seat_map_bytes / 1024:,.1f}",
            f"{each.snapshot_bytes:,}",
            f"{each.round.rates['confirm']:,.0f}",
            _micros(cpu["confirm"]),
        )
    void = [f"{each.seats:,} seats, {name}: {why}" for each in found for name, why in each.round.void.items()]
    made.caption = "* void: " + "; ".join(void) if void else None
    return made


def _micros(cpu: dict[str, float]) -> str:
    return f"{cpu.get('booking', 0) * 1e6:,.0f}; {cpu.get('postgres', 0) * 1e6:,.0f}"


async def _measure(stage: Stage, seats: int) -> Size:
    numbered = min(seats, MOST_NUMBERED)
    shows, layout_id = await _make_shows(stage, seats, numbered)
    await _fill(stage, shows, seats)
    labels = (await labels_of(stage.stack, [layout_id]))[layout_id]
    free = [label for number, label in enumerate(labels) if number % 4 >= 2]
    calls = HoldCalls(stage.users, [(show_id, free) for show_id in shows], crowded=0)
    made, booking = Round(), stage.stack.address("booking")

    await stage.fire(Round(), "", Load(booking, METHOD, calls.take(HELD_BEFORE), core=client_core()))
    await stage.fire(made, "hold", Load(booking, METHOD, calls.take(HOLDS), core=client_core()))
    # The first one of a show reads its claims; the others are drawn from memory.
    mapped = shows[:MAPPED]
    await stage.fire(made, "first seat map", _maps(stage, mapped, len(mapped)))
    count = max(FEWEST_MAPS, min(MOST_MAPS, SEATS_MAPPED // seats))
    await stage.fire(made, "seat map", _maps(stage, mapped, count))
    seat_map, snapshot = await _sizes(stage, shows[0])

    confirmations = Confirmations(stage, CONFIRMS, uuid.UUID(shows[0]))
    await confirmations.prepare(CONFIRMS)
    spending = stage.spending()
    confirmed = await confirmations.by_service()
    made.rates["confirm"] = confirmed.rate
    made.spent["confirm"] = {part: cpu / confirmed.count for part, cpu in spending.so_far().items()}
    return Size(seats, numbered, seat_map, snapshot, made)


def _maps(stage: Stage, shows: Sequence[str], count: int) -> Load:
    """``count`` seat maps, of each show in turn, one at a time."""
    users, show_ids = itertools.cycle(stage.users), itertools.cycle(shows)
    calls = [
        (next(users), booking_v1.GetSeatMapRequest(show_id=next(show_ids)).SerializeToString()) for _ in range(count)
    ]
    address = stage.stack.address("booking")
    return Load(address, SEAT_MAP, calls, connections=1, in_flight=1, core=client_core())


async def _sizes(stage: Stage, show_id: str) -> tuple[int, int]:
    """Bytes of a show's seat map, and of the first message of its live stream."""
    metadata = [("authorization", f"Bearer {stage.users[0]}")]
    unlimited = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(stage.stack.address("booking"), options=unlimited) as channel:
        stub = booking_v1.BookingServiceStub(channel)
        drawn = await stub.GetSeatMap(booking_v1.GetSeatMapRequest(show_id=show_id), metadata=metadata)
        watching = stub.WatchSeats(booking_v1.WatchSeatsRequest(show_id=show_id), metadata=metadata)
        async for update in watching:
            assert update.HasField("snapshot")
            return drawn.ByteSize(), update.ByteSize()
    raise SystemExit("bench: a live stream ended before it had begun")


# --- making the shows -------------------------------------------------------------------------------------------------


async def _make_shows(stage: Stage, seats: int, numbered: int) -> tuple[list[str], uuid.UUID]:
    """Shows on a new screen, every four hours from tomorrow on, and their layout; booking knows them."""
    key = user_keys(stage.stack.home.keys).signing(time.time())
    (token,) = synthetic_access_tokens(key, 1, "admin", time.time())
    metadata = [("authorization", f"Bearer {token}")]
    async with grpc.aio.insecure_channel(stage.stack.address("catalog")) as channel:
        catalog, admin = catalog_v1.CatalogServiceStub(channel), catalog_v1.CatalogAdminServiceStub(channel)
        venues = await catalog.ListVenues(catalog_v1.ListVenuesRequest(city_id="mumbai", page_size=1))
        screen = await admin.CreateScreen(
            catalog_v1.CreateScreenRequest(
                request_id=str(uuid.uuid4()),
                venue_id=venues.venues[0].venue_id,
                name=f"Bench, {seats} seats",
                formats=[catalog_v1.FORMAT_2D],
                layout=_plan(seats, numbered),
            ),
            metadata=metadata,
        )
        movie = await admin.CreateMovie(
            catalog_v1.CreateMovieRequest(
                request_id=str(uuid.uuid4()),
                movie=catalog_v1.Movie(
                    title="bench", languages=["en"], formats=[catalog_v1.FORMAT_2D], duration_minutes=120
                ),
            ),
            metadata=metadata,
        )
        first = datetime.now(UTC) + timedelta(days=1)
        made = await admin.CreateShows(
            catalog_v1.CreateShowsRequest(
                request_id=str(uuid.uuid4()),
                shows=[
                    catalog_v1.ShowPlan(
                        movie_id=movie.movie_id,
                        screen_id=screen.screen_id,
                        start_time=_timestamp(first + number * BETWEEN_SHOWS),
                        language="en",
                        format=catalog_v1.FORMAT_2D,
                        prices=[
                            catalog_v1.CategoryPrice(category=category, price=Money(currency_code="INR", units=200))
                            for category in (["SEAT", "FLOOR"] if seats > numbered else ["SEAT"])
                        ],
                    )
                    for number in range(SHOWS)
                ],
            ),
            metadata=metadata,
        )
    shows = [show.show_id for show in made.shows]
    await _known_to_booking(stage, shows)
    return shows, uuid.UUID(made.shows[0].layout_id)


def _plan(seats: int, numbered: int) -> catalog_v1.LayoutPlan:
    rows = [min(MOST_A_ROW, numbered - first) for first in range(0, numbered, MOST_A_ROW)]
    areas = [catalog_v1.StandingAreaPlan(name="Floor", category="FLOOR", capacity=seats - numbered)]
    return catalog_v1.LayoutPlan(
        name=f"Bench, {seats} seats",
        rows=[
            catalog_v1.RowPlan(row=row_name(number), seats=count, category="SEAT") for number, count in enumerate(rows)
        ],
        standing_areas=areas if seats > numbered else [],
    )


def _timestamp(moment: datetime) -> Timestamp:
    return Timestamp(seconds=int(moment.timestamp()))


async def _known_to_booking(stage: Stage, shows: Sequence[str]) -> None:
    deadline = time.monotonic() + NEWS_SECONDS
    url = stage.stack.database_url("booking")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            cursor = await connection.execute(
                "SELECT count(*) FROM shows WHERE show_id = ANY (%s::uuid[])", (list(shows),)
            )
            row = await cursor.fetchone()
            if row is not None and row[0] == len(shows):
                return
            await asyncio.sleep(0.1)
    raise SystemExit("bench: booking does not learn of new shows")


async def _fill(stage: Stage, shows: Sequence[str], seats: int) -> None:
    """Have half of each show booked."""
    url = stage.stack.database_url("booking")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(FILL, {"shows": list(shows), "seats": seats})
        await connection.execute("VACUUM ANALYZE seat_claims, show_versions")
        await connection.execute("CHECKPOINT")
