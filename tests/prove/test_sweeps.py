"""Sweeps end what is due in all shows, also while somebody keeps the lock of one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from services.booking.domain import SeatLimits
from services.booking.store.holds import HoldStore
from services.kit.database import LASTING_PLANS, Connection, open_pool

pytestmark = pytest.mark.alone

SWEEPERS = 5
SEEN_AS_FREE_S = 2.0
MANY = 101
"""More than the shows that a sweep takes."""
LOCK_SHOW = "SELECT version FROM show_versions WHERE show_id = %s FOR UPDATE"


async def holds_that_are_over(connection: Connection, show_id: UUID, *, holds: int = 1) -> None:
    """A new show, and holds of a seat each."""
    await connection.execute("INSERT INTO show_versions (show_id, version, taken) VALUES (%s, 1, %s)", (show_id, holds))
    for seat_no in range(holds):
        reservation_id, user_id = uuid4(), uuid4()
        await connection.execute(
            """
            INSERT INTO seat_claims (show_id, seat_no, status, reservation_id, user_id, expires_at, fence)
            VALUES (%s, %s, 2, %s, %s, clock_timestamp(), 1)
            """,
            (show_id, seat_no, reservation_id, user_id),
        )
        await connection.execute(
            """
            INSERT INTO reservations (
                show_id, reservation_id, user_id, status, holding, seat_nos, quote, total, fence, created_at, expires_at
            ) VALUES (%s, %s, %s, 1, true, %s, '', 1, 1, clock_timestamp(), clock_timestamp())
            """,
            (show_id, reservation_id, user_id, [seat_no]),
        )


@asynccontextmanager
async def sweeping(url: str, sweepers: int) -> AsyncIterator[None]:
    """As so many processes do it."""
    async with open_pool(url, size=sweepers, options=LASTING_PLANS) as pool:
        limits = SeatLimits(active_holds=2, holds_an_hour=30)
        holds = HoldStore(pool, hold_for=timedelta(minutes=10), limits=limits)
        tasks = [asyncio.create_task(_sweep(holds)) for _ in range(sweepers)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _sweep(holds: HoldStore) -> None:
    while True:
        await holds.expire_due()
        await asyncio.sleep(0.1)


async def until_free(connection: Connection, shows: Sequence[UUID]) -> None:
    async with asyncio.timeout(SEEN_AS_FREE_S):
        while True:
            claims = "SELECT FROM seat_claims WHERE show_id = ANY (%s)"
            if await (await connection.execute(claims, (list(shows),))).fetchone() is None:
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("number", range(3))
async def test_a_show_that_is_stuck_keeps_no_other_shows_seats(
    migrated_database_url: Callable[[str], str], number: int
) -> None:
    url, shows = migrated_database_url("booking"), sorted(uuid4() for _ in range(3))
    async with (
        await psycopg.AsyncConnection.connect(url, autocommit=True) as looking,
        await psycopg.AsyncConnection.connect(url) as keeping,
    ):
        stuck = shows.pop(number)
        await holds_that_are_over(looking, stuck, holds=MANY)  # before the others
        for show_id in shows:
            await holds_that_are_over(looking, show_id)
        await keeping.execute(LOCK_SHOW, (stuck,))
        async with sweeping(url, SWEEPERS):
            await until_free(looking, shows)
            await keeping.rollback()
            await until_free(looking, [stuck])


async def test_a_show_whose_lock_is_always_taken_is_swept_all_the_same(
    migrated_database_url: Callable[[str], str],
) -> None:
    url, show_id = migrated_database_url("booking"), uuid4()

    async def keep_it_busy() -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            while True:
                async with connection.transaction():
                    await connection.execute(LOCK_SHOW, (show_id,))
                    await asyncio.sleep(0.02)

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as looking:
        await holds_that_are_over(looking, show_id)
        crowd = [asyncio.create_task(keep_it_busy()) for _ in range(3)]
        await asyncio.sleep(0.1)
        try:
            async with sweeping(url, 1):
                await until_free(looking, [show_id])
        finally:
            for each in crowd:
                each.cancel()
            await asyncio.gather(*crowd, return_exceptions=True)
