"""A primary that dies in the middle of a sale: what was acknowledged is on its synchronous standby, which goes on."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from booking_fixtures import keys
from booking_house import House, booking_house
from fixtures_replicas import REPLICA, Pair, replicated
from fixtures_stores import DatabaseFactory
from service_harness import TestKeys
from sqlalchemy import text
from test_booking_watch import Viewer, truth, watching

from marquee.booking import v1 as booking_v1
from services.kit.engine import open_engine
from tests.integration.test_growth_replicas import until

__all__ = ["keys"]
SHOWS = 4
BUYERS = 12
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture
def sync_pair(tmp_path: Path) -> Iterator[Pair]:
    """A primary whose commits wait for its replica, with everything synced to disk as in production."""
    with replicated(tmp_path, {"synchronous_standby_names": REPLICA}, {}) as made:
        yield made


class Sale:
    """Buyers who hold, book and pay, and what they were told."""

    def __init__(self, house: House, show_ids: list[UUID]) -> None:
        self._house = house
        self._show_ids = show_ids
        self.held: dict[str, tuple[UUID, list[str]]] = {}
        self.booked: dict[str, str] = {}
        self.confirmed: dict[str, str] = {}
        self.failures = 0
        self._is_open = True

    async def __aenter__(self) -> Sale:
        self._buyers = [asyncio.create_task(self._buy(number)) for number in range(BUYERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_open = False
        await asyncio.gather(*self._buyers)

    async def more(self, count: int) -> None:
        """Until so many bookings more are confirmed."""
        wanted = len(self.confirmed) + count
        await until(lambda: len(self.confirmed) >= wanted or any(buyer.done() for buyer in self._buyers), 60)

    async def _buy(self, number: int) -> None:
        """Each buyer has seats of their own, so nobody is refused but by a server that is not there."""
        seats = [f"{row}{place}" for row in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" for place in range(1, 61)][number::BUYERS]
        for show_id, seat in itertools.product(self._show_ids, seats):
            if not self._is_open:
                return
            try:
                await self._buy_seat(uuid4(), show_id, seat)
            except (grpc.aio.AioRpcError, psycopg.OperationalError) as error:
                if isinstance(error, grpc.aio.AioRpcError):
                    assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), error
                self.failures += 1
                await asyncio.sleep(0.1)

    async def _buy_seat(self, user: UUID, show_id: UUID, seat: str) -> None:
        reservation = await self._house.hold(user, show_id, seat)
        self.held[reservation.reservation_id] = (show_id, list(reservation.seats))
        booking = await self._house.book(user, reservation.reservation_id)
        self.booked[booking.booking_id] = reservation.reservation_id
        await self._house.money_comes(booking)
        self.confirmed[booking.booking_id] = reservation.reservation_id


async def test_a_killed_primary_loses_nothing_that_was_acknowledged(sync_pair: Pair, keys: TestKeys) -> None:
    primary, standby = sync_pair.primary, sync_pair.replica
    database = sync_pair.migrated("booking")
    url = sync_pair.url(database)
    async with (
        booking_house(
            url, "", keys, most_holds_an_hour=100_000, poll_seconds=0.3, database_pool_wait_seconds=2
        ) as house,
        open_engine(url, size=2) as engine,
    ):
        show_ids = [await house.add_show(rows=26, seats=60) for _ in range(SHOWS)]
        viewers = [Viewer(house, show_id) for show_id in show_ids]
        async with watching(*viewers):
            await until(lambda: all(viewer.version >= 0 for viewer in viewers))
            before = {viewer.epoch for viewer in viewers}
            async with engine.connect() as connection:
                assert (await connection.execute(text("SELECT inet_server_port()"))).scalar() == primary.port
            async with Sale(house, show_ids) as sale:
                await sale.more(60)
                primary.kill()
                told_before = dict(sale.confirmed)
                standby.sql("SELECT pg_promote()")
                await sale.more(60)
            async with engine.connect() as connection:
                assert (await connection.execute(text("SELECT inet_server_port()"))).scalar() == standby.port

            await check_books(house, sale)
            assert told_before.keys() < sale.confirmed.keys()
            assert sale.failures > 0  # nobody was lucky enough not to notice

            for viewer in viewers:
                version, states = await truth(house, viewer.show_id)
                await until(lambda viewer=viewer, version=version: viewer.version == version)
                assert viewer.seen() == states
            (after,) = {viewer.epoch for viewer in viewers}
            assert {after}.isdisjoint(before)


async def check_books(house: House, sale: Sale) -> None:
    """Every acknowledged step is in the promoted database, and no seat has two owners."""
    claims = {
        (show_id, seat_no): (str(reservation_id), status)
        for show_id, seat_no, reservation_id, status in await house.rows(
            "SELECT show_id, seat_no, reservation_id, status FROM seat_claims"
        )
    }
    reservations = {
        str(row[0]): (row[1], row[2])
        for row in await house.rows("SELECT reservation_id, show_id, seat_nos FROM reservations")
    }
    statuses = {
        str(booking_id): (status, str(reservation_id))
        for booking_id, status, reservation_id in await house.rows(
            "SELECT booking_id, status, reservation_id FROM bookings"
        )
    }
    for reservation_id, (show_id, seats) in sale.held.items():
        of_show, seat_nos = reservations[reservation_id]
        assert of_show == show_id and len(seat_nos) == len(seats)
        for seat_no in seat_nos:
            assert claims[show_id, seat_no][0] == reservation_id
    for booking_id, reservation_id in sale.booked.items():
        assert statuses[booking_id][1] == reservation_id
    for booking_id, reservation_id in sale.confirmed.items():
        assert statuses[booking_id][0] == booking_v1.BOOKING_STATUS_CONFIRMED
        show_id, seat_nos = reservations[reservation_id]
        assert all(claims[show_id, seat_no] == (reservation_id, 3) for seat_no in seat_nos)
    owned = [seat for show_id, seat_nos in reservations.values() for seat in ((show_id, no) for no in seat_nos)]
    assert len(owned) == len(set(owned))
    gaps = await house.rows(
        """
        SELECT show_id
        FROM show_log
        GROUP BY show_id
        HAVING count(*) <> max(version) OR min(version) <> 1
        """
    )
    assert gaps == []


async def test_holds_and_confirmations_wait_for_the_standby(sync_pair: Pair, keys: TestKeys) -> None:
    """Also longer than a statement may take; and what waits is seen by nobody."""
    primary, standby = sync_pair.primary, sync_pair.replica
    database = sync_pair.migrated("booking")
    async with booking_house(sync_pair.url(database), "", keys, sweep=False) as house:
        show_id, user = await house.add_show(), uuid4()
        first = await house.book(user, (await house.hold(user, show_id, "A1")).reservation_id)
        with standby.frozen():
            waiting: list[asyncio.Task[Any]] = [asyncio.create_task(house.hold(uuid4(), show_id, "B1"))]
            await until(lambda: primary.sql(WAITING) == [1])
            other = asyncio.create_task(house.seat_map(show_id))
            assert [seat.label for seat in (await other).seats if seat.label == "B1" and seat.status == 2] == []
            # The statement's own limit does not end the wait: the server has nothing left to cancel but the promise.
            waiting.append(asyncio.create_task(asyncio.to_thread(_insert_with_limit, primary.url(database))))
            await until(lambda: primary.sql(f"{WAITING} AND query_start < clock_timestamp() - interval '1 s'") == [2])
            assert not any(each.done() for each in waiting)
        reservation, _ = await asyncio.gather(*waiting)
        assert list(reservation.seats) == ["B1"]
        with standby.frozen():
            paying = asyncio.create_task(house.money_comes(first))
            await until(lambda: primary.sql(WAITING) == [1])
            assert not paying.done()
            assert (await house.booking(user, first.booking_id)).status == booking_v1.BOOKING_STATUS_PENDING_PAYMENT
        await paying
        assert (await house.booking(user, first.booking_id)).status == booking_v1.BOOKING_STATUS_CONFIRMED


def _insert_with_limit(url: str) -> None:
    with psycopg.connect(url, autocommit=True, options="-c statement_timeout=200") as connection:
        connection.execute(
            "INSERT INTO requests (user_id, request_id, show_id, method, content) "
            "VALUES (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'test', '')"
        )


async def test_a_database_that_was_put_back_from_a_copy_gets_a_new_epoch_by_command(
    migrated_database_url: DatabaseFactory, keys: TestKeys
) -> None:
    url = migrated_database_url("booking")
    async with booking_house(url, "", keys, poll_seconds=0.2) as house:
        viewer = Viewer(house, await house.add_show())
        async with watching(viewer):
            await until(lambda: viewer.version >= 0)
            old = viewer.epoch
            made = await new_epoch(url, keys)
            await until(lambda: viewer.epoch != old)
            assert viewer.epoch.startswith(made)


async def new_epoch(url: str, keys: TestKeys) -> str:
    """What the operator's command prints."""
    environment = {
        **os.environ,
        "MARQUEE_DATABASE_URL": url,
        "MARQUEE_USER_JWKS_FILE": str(keys.users.jwks),
        "MARQUEE_SERVICE_JWKS_FILE": str(keys.services.jwks),
        "MARQUEE_SERVICE_TOKEN_FILE": str(keys.folder / "service.token"),
    }
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.booking", "new-epoch"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await command.communicate()
    assert command.returncode == 0
    return output.decode().strip()
