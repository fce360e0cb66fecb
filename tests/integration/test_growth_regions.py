"""Two databases sell the shows of their regions; an id alone finds the right one, and a region can be moved."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from booking_fixtures import keys
from booking_house import House, booking_house, event
from fixtures_stores import DatabaseFactory
from pydantic import SecretStr, ValidationError
from service_harness import TestKeys, reason
from test_booking_watch import Viewer, watching

from marquee.booking import v1 as booking_v1
from services.booking.regions import MoveFailed, move
from services.booking.settings import BookingSettings
from services.booking.store.holds import HoldWish
from tests.integration.test_growth_replicas import until

__all__ = ["keys"]
SOUTH, NORTH = 7, 9
SELLS = {"region_databases": {}, "regions": {}, "most_holds_an_hour": 10_000, "poll_seconds": 0.2}


def directory(north_url: str, *, moved: bool) -> dict[str, Any]:
    """Settings of a process that knows the database, and whether the region is sold from it."""
    return {
        **SELLS,
        "region_databases": {"north": SecretStr(north_url)},
        "regions": {NORTH: "north"} if moved else {},
    }


def rows(url: str, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode(), parameters).fetchall()


async def bought(house: House, user: UUID, show_id: UUID, seat: str, *, paid: bool = True) -> booking_v1.Booking:
    booking = await house.book(user, (await house.hold(user, show_id, seat)).reservation_id)
    created = booking_v1.BookingCreated(booking=booking, user_id=str(user))
    await house.take(event("booking.created", booking.booking_id, created))
    if paid:
        await house.money_comes(booking)
    return booking


async def listed(house: House, user: UUID, page_size: int = 2) -> list[str]:
    """All pages of a user's bookings."""
    found, token = [], ""
    while True:
        page = await house.stub.ListBookings(
            booking_v1.ListBookingsRequest(page_size=page_size, page_token=token), metadata=house.served.as_user(user)
        )
        found += [booking.booking_id for booking in page.bookings]
        token = page.next_page_token
        if not token:
            return found


# --- two regions ------------------------------------------------------------------------------------------------------


async def test_an_id_alone_finds_the_database(migrated_database_url: DatabaseFactory, keys: TestKeys) -> None:
    urls = {SOUTH: migrated_database_url("booking"), NORTH: migrated_database_url("booking")}
    async with booking_house(urls[SOUTH], "", keys, **directory(urls[NORTH], moved=True)) as house:
        user = uuid4()
        shows = {region: await house.add_show(region=region) for region in urls}
        bookings = []
        for seat in ("A1", "A2"):
            for region in urls:
                bookings.append(await bought(house, user, shows[region], seat))
        for region, url in urls.items():
            assert rows(url, "SELECT show_id FROM shows") == [(shows[region],)]
            assert rows(url, "SELECT DISTINCT show_id FROM seat_claims") == [(shows[region],)]
            assert rows(url, "SELECT count(*), min(status), max(status) FROM bookings") == [(2, 2, 2)]
            assert rows(url, "SELECT count(*) FROM outbox WHERE aggregatetype = 'booking.confirmed'") == [(2,)]
        assert await listed(house, user) == [booking.booking_id for booking in reversed(bookings)]
        for booking in bookings:
            assert (await house.booking(user, booking.booking_id)).status == booking_v1.BOOKING_STATUS_CONFIRMED
        await house.cancel(user, bookings[1].booking_id)
        assert rows(urls[NORTH], "SELECT count(*) FROM bookings WHERE status = 3") == [(1,)]

        request = booking_v1.GetAvailabilityRequest(show_ids=[str(show_id) for show_id in shows.values()])
        answer = await house.internal.GetAvailability(request, metadata=house.served.as_service())
        assert {show.show_id: show.available_seats for show in answer.shows} == {
            str(shows[SOUTH]): 98,
            str(shows[NORTH]): 99,
        }
        viewers = [Viewer(house, show_id) for show_id in shows.values()]
        async with watching(*viewers):
            await until(lambda: all(viewer.version >= 0 for viewer in viewers))
            held = [await house.hold(uuid4(), show_id, "C1") for show_id in shows.values()]
            await until(lambda: all(viewer.seen().get(20) == 2 for viewer in viewers))
        assert {UUID(each.show_id) for each in held} == set(shows.values())


def test_a_region_needs_a_database_that_is_named(keys: TestKeys) -> None:
    with pytest.raises(ValidationError, match="region 2 is in `west`, which region_databases does not name"):
        BookingSettings(**keys.settings("postgresql:///booking", regions={2: "west"}))


# --- a region moves ---------------------------------------------------------------------------------------------------


class Buyers:
    """They hold seats of a show until told to stop, and count what they are told."""

    def __init__(self, house: House, show_id: UUID) -> None:
        self._house = house
        self._show_id = show_id
        self.held: list[str] = []
        self.refused: list[str] = []

    async def __aenter__(self) -> Buyers:
        self._buying = asyncio.create_task(self._buy())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._buying.cancel()
        await asyncio.gather(self._buying, return_exceptions=True)

    async def _buy(self) -> None:
        for seat in (f"{row}{number}" for row in "CDEFGHIJKLMNOPQRSTUVWXYZ" for number in range(1, 51)):
            try:
                self.held.append((await self._house.hold(uuid4(), self._show_id, seat)).reservation_id)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE, error
                self.refused.append(seat)
            await asyncio.sleep(0.02)


async def command(home_url: str, north_url: str, keys: TestKeys, *arguments: str, moved: bool) -> tuple[int, str]:
    """An operator's command with the directory as it is before; its exit code and all that it says."""
    environment = {
        **os.environ,
        "MARQUEE_DATABASE_URL": home_url,
        "MARQUEE_REGION_DATABASES": json.dumps({"north": north_url}),
        "MARQUEE_REGIONS": json.dumps({NORTH: "north"} if moved else {}),
        "MARQUEE_USER_JWKS_FILE": str(keys.users.jwks),
        "MARQUEE_SERVICE_JWKS_FILE": str(keys.services.jwks),
        "MARQUEE_SERVICE_TOKEN_FILE": str(keys.folder / "service.token"),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.booking", *arguments),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_a_region_moves_with_all_that_was_sold_while_the_others_go_on(
    migrated_database_url: DatabaseFactory, keys: TestKeys
) -> None:
    home, north = migrated_database_url("booking"), migrated_database_url("booking")
    user = uuid4()
    async with booking_house(home, "", keys, **directory(north, moved=False)) as before:
        south_show, north_show = [await before.add_show(rows=26, seats=50, region=each) for each in (SOUTH, NORTH)]
        paid = await bought(before, user, north_show, "A1")
        unpaid = await bought(before, user, north_show, "A2", paid=False)
        elsewhere = await bought(before, user, south_show, "A1")
        async with Buyers(before, south_show) as southern, Buyers(before, north_show) as northern:
            await until(lambda: len(southern.held) > 5 and len(northern.held) > 5)
            code, said = await command(home, north, keys, "move-region", str(NORTH), "north", moved=False)
            assert code == 0, said
            assert "moved; it is sold again by processes" in said
            sold = len(southern.held)
            await until(lambda: len(southern.held) > sold and bool(northern.refused))
        assert southern.refused == []

        async with booking_house(home, "", keys, **directory(north, moved=True)) as after:
            held = {str(row[0]) for row in rows(north, "SELECT reservation_id FROM seat_claims WHERE status = 2")}
            assert set(northern.held) <= held
            assert rows(north, "SELECT show_id FROM shows") == [(north_show,)]
            version = rows(north, "SELECT version FROM show_versions")[0][0]
            assert rows(north, "SELECT count(*), max(version) FROM show_log") == [(version, version)]

            await after.money_comes(unpaid)
            for booking in (paid, unpaid):
                assert (await after.booking(user, booking.booking_id)).status == booking_v1.BOOKING_STATUS_CONFIRMED
            everything = [elsewhere.booking_id, unpaid.booking_id, paid.booking_id]
            assert await listed(after, user) == everything
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await after.hold(uuid4(), north_show, "A1")
            assert reason(refused.value) == "SEAT_TAKEN"
            await after.hold(uuid4(), north_show, "B1")

            # Who still has the old directory sells nothing: it says so, and if it did not know, PostgreSQL would.
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await before.hold(uuid4(), north_show, "B2")
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
                await before.desk.holds.add([await stale_wish(before, north_show)])
            assert await before.desk.holds.expire_due() == []
            code, said = await command(home, north, keys, "reopen-region", str(NORTH), moved=False)
            assert (code, said.strip()) == (1, "region 9 was moved from there; what remains of it is old")
            code, said = await command(home, north, keys, "move-region", str(NORTH), "north", moved=False)
            assert code == 0, said  # nothing is left to finish

            code, said = await command(home, north, keys, "move-region", str(NORTH), "home", moved=True)
            assert code == 0, said
        async with booking_house(home, "", keys, **directory(north, moved=False)) as back:
            assert await listed(back, user) == everything
            await back.hold(uuid4(), north_show, "B2")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await back.hold(uuid4(), north_show, "B1")
            assert reason(refused.value) == "SEAT_TAKEN"


async def stale_wish(house: House, show_id: UUID) -> HoldWish:
    """What a process would ask PostgreSQL for that has not heard of the move."""
    show = await house.desk.shows.find(show_id)
    assert show is not None
    seat = show.layout.by_label["B2"].seat_no
    return HoldWish(show_id, show.version, uuid4(), uuid4(), b"", uuid4(), (seat,), (), b"", 0)


async def test_a_move_that_was_killed_after_the_copy_is_open_in_one_database_only(
    migrated_database_url: DatabaseFactory, keys: TestKeys
) -> None:
    home, north = migrated_database_url("booking"), migrated_database_url("booking")
    async with booking_house(home, "", keys, **directory(north, moved=False)) as house:
        show_id = await house.add_show(region=NORTH)
        await house.hold(uuid4(), show_id, "A1")
    # Its last step cannot be done, and neither can it be undone: as if it had been killed between the two.
    with psycopg.connect(home) as connection:
        connection.execute("CREATE RULE kept AS ON UPDATE TO closed_regions DO INSTEAD SELECT 1 / 0")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await asyncio.to_thread(move, home, north, NORTH, wait=lambda: None)
    for url in (home, north):
        assert rows(url, "SELECT region FROM closed_regions") == [(NORTH,)]
        assert rows(url, "SELECT count(*) FROM seat_claims") == [(1,)]
    with psycopg.connect(home) as connection:
        connection.execute("DROP RULE kept ON closed_regions")
    with pytest.raises(MoveFailed, match="`reopen-region` first"):
        await asyncio.to_thread(move, home, north, NORTH, wait=lambda: None)
    code, said = await command(home, north, keys, "reopen-region", str(NORTH), moved=False)
    assert code == 0, said
    async with (
        booking_house(home, "", keys, **directory(north, moved=False)) as right,
        booking_house(home, "", keys, **directory(north, moved=True)) as wrong,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await wrong.hold(uuid4(), show_id, "A2")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await right.hold(uuid4(), show_id, "A2")
    await asyncio.to_thread(move, home, north, NORTH, wait=lambda: None)
    assert rows(north, "SELECT count(*) FROM seat_claims") == [(2,)]
    assert rows(north, "SELECT region FROM closed_regions") == []


async def test_a_move_that_fails_leaves_the_region_where_it_was(
    migrated_database_url: DatabaseFactory, keys: TestKeys
) -> None:
    home, north = migrated_database_url("booking"), migrated_database_url("booking")
    async with booking_house(home, "", keys, **SELLS) as house:
        show_id = await house.add_show(region=NORTH)
        await house.hold(uuid4(), show_id, "A1")
        closed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait() -> None:
            asyncio.run_coroutine_threadsafe(refused(), loop).result()

        async def refused() -> None:
            async with asyncio.timeout(20):
                while not closed.is_set():
                    try:
                        await house.seat_map(show_id)
                    except grpc.aio.AioRpcError as error:
                        assert error.code() is grpc.StatusCode.UNAVAILABLE
                        closed.set()
                    await asyncio.sleep(0.05)

        with psycopg.connect(north) as connection:
            # A target that loses what it is given.
            connection.execute("CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
            connection.execute("CREATE TRIGGER lose BEFORE INSERT ON requests FOR EACH ROW EXECUTE FUNCTION lose()")
        with pytest.raises(MoveFailed, match="requests differs after copying: 1 rows became 0"):
            await asyncio.to_thread(move, home, north, NORTH, wait=wait)
        assert closed.is_set()
        assert rows(north, "SELECT count(*) FROM shows") == [(0,)]

        async def is_open() -> bool:
            try:
                await house.hold(uuid4(), show_id, "A2")
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                return False
            return True

        await until(is_open)
        for target, region, why in ((home, NORTH, "same database"), (north, 3, "no shows of region 3")):
            with pytest.raises(MoveFailed, match=why):
                await asyncio.to_thread(move, home, target, region, wait=lambda: None)
