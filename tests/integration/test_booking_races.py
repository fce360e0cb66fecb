"""What booking's locks, clocks and guards are for: writers that wait for each other, and writes that must go together.

A test that waits for a lock holds the show's row itself, as any other writer of the show would.
"""

from __future__ import annotations

import ast
import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from booking_fixtures import house, keys
from booking_house import House, booking_house
from fixtures_stores import DatabaseFactory
from service_harness import TestKeys, reason

from marquee.booking import v1 as booking_v1
from marquee.payment import v1 as payment_v1
from services.booking.store.conversions import BookWish, convert

__all__ = ["house", "keys"]
BOOKING = Path(__file__).resolve().parents[2] / "services" / "booking"


@asynccontextmanager
async def show_locked(house: House, show_id: UUID) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Another writer, which has the show's row until the block ends and then commits."""
    async with await psycopg.AsyncConnection.connect(house.database_url) as writer:
        await writer.execute("SELECT FROM show_versions WHERE show_id = %s FOR UPDATE", (show_id,))
        yield writer


async def until_waiting(house: House, count: int = 1) -> None:
    """Until so many sessions wait for a lock."""
    async with asyncio.timeout(2.5):  # services give up after 3 s
        while True:
            waiting = await house.rows(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if waiting[0][0] >= count:
                return
            await asyncio.sleep(0.02)


async def answer(call: Awaitable[Any]) -> str:
    """The refusal's reason, or OK."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return reason(error) or error.code().name
    return "OK"


async def booked(house: House, user: UUID, show_id: UUID, *seats: str) -> booking_v1.Booking:
    return await house.book(user, (await house.hold(user, show_id, *seats)).reservation_id)


async def refund_reasons(house: House, booking_id: str) -> list[str]:
    payloads = await house.outbox("payment.refund_requested", booking_id)
    return [payment_v1.RefundRequested.FromString(payload).reason for payload in payloads]


# --- the row lock -----------------------------------------------------------------------------------------------------


async def test_a_hold_waits_for_the_shows_writer_and_sees_what_it_did(house: House) -> None:
    show_id = await house.add_show()
    async with show_locked(house, show_id) as writer:
        await writer.execute(
            """
            INSERT INTO seat_claims (show_id, seat_no, status, reservation_id, user_id, expires_at, fence)
            VALUES (%s, 0, 2, %s, %s, clock_timestamp() + interval '1 minute', 1)
            """,
            (show_id, uuid4(), uuid4()),
        )
        await writer.execute("UPDATE show_versions SET version = 1, taken = 1 WHERE show_id = %s", (show_id,))
        holding = asyncio.create_task(answer(house.hold(uuid4(), show_id, "A1")))
        await until_waiting(house)
    assert await holding == "SEAT_TAKEN"


async def test_two_captures_that_come_at_once_confirm_once(house: House) -> None:
    show_id, user = await house.add_show(), uuid4()
    booking = await booked(house, user, show_id, "A1")
    async with show_locked(house, show_id):
        both = asyncio.gather(*(house.money_comes(booking) for _ in range(2)))
        await until_waiting(house, 2)
    await both
    assert len(await house.outbox("booking.confirmed", booking.booking_id)) == 1
    assert await refund_reasons(house, booking.booking_id) == ["duplicate"]


async def test_a_release_waits_for_the_booking_that_takes_the_hold_over(house: House) -> None:
    show_id, user = await house.add_show(), uuid4()
    held = await house.hold(user, show_id, "A1")
    async with show_locked(house, show_id) as writer:
        await writer.execute(
            "UPDATE reservations SET status = 2, booking_id = %s WHERE reservation_id = %s",
            (uuid4(), held.reservation_id),
        )
        releasing = asyncio.create_task(answer(house.release(user, held.reservation_id)))
        await until_waiting(house)
    assert await releasing == "RESERVATION_CONVERTED"


# --- the clock --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def brief(migrated_database_url: DatabaseFactory, valkey_cache: str, keys: TestKeys) -> AsyncIterator[House]:
    """A house whose holds and payment windows end after half a second, and where nobody sweeps."""
    url = migrated_database_url("booking")
    async with booking_house(
        url, valkey_cache, keys, sweep=False, hold_seconds=0.5, payment_window_seconds=0.5
    ) as made:
        yield made


async def test_a_hold_that_waited_for_the_lock_sees_what_expired_meanwhile(brief: House) -> None:
    """Time is read after the lock: the transaction's own time, from before it waited, would be too old."""
    show_id = await brief.add_show()
    await brief.hold(uuid4(), show_id, "A1")
    brief.desk.live._maps.clear()  # PostgreSQL shall decide, not what this process remembers
    async with show_locked(brief, show_id):
        holding = asyncio.create_task(answer(brief.hold(uuid4(), show_id, "A1")))
        await until_waiting(brief)
        await asyncio.sleep(0.7)
    assert await holding == "OK"


async def test_a_booking_that_waited_past_its_holds_end_comes_too_late(brief: House) -> None:
    show_id, user = await brief.add_show(), uuid4()
    held = await brief.hold(user, show_id, "A1")
    async with show_locked(brief, show_id):
        booking = asyncio.create_task(answer(brief.book(user, held.reservation_id)))
        await until_waiting(brief)
        await asyncio.sleep(0.7)
    assert await booking == "RESERVATION_EXPIRED"


async def test_a_hold_that_nobody_swept_cannot_be_booked_after_its_time(brief: House) -> None:
    show_id, user = await brief.add_show(), uuid4()
    held = await brief.hold(user, show_id, "A1")
    await asyncio.sleep(0.6)
    assert await answer(brief.book(user, held.reservation_id)) == "RESERVATION_EXPIRED"


async def test_a_cancellation_that_waited_past_the_shows_start_comes_too_late(house: House) -> None:
    show_id, user = await house.add_show(starts_in=timedelta(seconds=1.5)), uuid4()
    booking = await booked(house, user, show_id, "A1")
    await house.money_comes(booking)
    async with show_locked(house, show_id):
        cancelling = asyncio.create_task(answer(house.cancel(user, booking.booking_id)))
        await until_waiting(house)
        await asyncio.sleep(1.6)
    assert await cancelling == "BOOKING_NOT_CANCELLABLE"


def calls_of_a_clock(source: str) -> list[str]:
    """``datetime.now``, ``time.time`` and their like in Python code."""
    clocks = {"now", "utcnow", "today", "time", "time_ns", "system_clock"}
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")) in clocks
    ]


def test_nothing_that_decides_about_seats_asks_pythons_clock() -> None:
    """An application's clock may be wrong by minutes; PostgreSQL's is one for all."""
    deciding = [
        BOOKING / f"{name}.py" for name in ("usecases", "conversions", "consumers", "domain", "desk", "sweeper")
    ]
    files = [*deciding, *sorted((BOOKING / "store").glob("*.py"))]
    assert {file.name: found for file in files if (found := calls_of_a_clock(file.read_text()))} == {}


# --- the guards -------------------------------------------------------------------------------------------------------


async def test_ending_a_hold_leaves_what_is_booked_alone(house: House) -> None:
    """Whoever comes late to end a hold ends nothing that was paid for."""
    show_id, user = await house.add_show(), uuid4()
    booking = await booked(house, user, show_id, "A1", "A2")
    await house.money_comes(booking)
    freed = await house.rows(
        "SELECT end_holds(%s, ARRAY[%s]::uuid[], 4::smallint, 4::smallint, clock_timestamp())",
        show_id,
        booking.reservation_id,
    )
    assert freed == [([],)]
    assert (await house.booking(user, booking.booking_id)).status == booking_v1.BOOKING_STATUS_CONFIRMED
    assert await house.outbox("booking.expired", booking.booking_id) == []
    claims = await house.rows("SELECT status FROM seat_claims WHERE show_id = %s", show_id)
    assert claims == [(3,), (3,)]


async def test_a_sweep_that_finds_nothing_due_changes_nothing(brief: House) -> None:
    show_id, user = await brief.add_show(), uuid4()
    paid, unpaid = await booked(brief, user, show_id, "A1"), await booked(brief, user, show_id, "A2")
    await brief.money_comes(paid)
    await asyncio.sleep(0.6)
    assert [expiry.booking_ids for expiry in await brief.desk.holds.expire_due()] == [(UUID(unpaid.booking_id),)]
    assert await brief.desk.holds.expire_due() == []
    assert (await brief.booking(user, paid.booking_id)).status == booking_v1.BOOKING_STATUS_CONFIRMED


async def test_nobody_else_changes_a_reservation_or_a_booking(house: House) -> None:
    """The functions that write check the owner themselves, whatever was asked before they were called."""
    show_id, owner, stranger = await house.add_show(), uuid4(), uuid4()
    held = await house.hold(owner, show_id, "A1")
    reservation_id = UUID(held.reservation_id)
    assert await house.desk.holds.release(reservation_id, stranger) == ("NOT_FOUND", None)
    async with house.desk.bookings.transaction() as connection:
        wish = BookWish(reservation_id, stranger, uuid4(), b"", uuid4())
        conversions = await convert(connection, [wish], house.desk.bookings.pay_within)
    assert [conversion.outcome for conversion in conversions] == ["NOT_FOUND"]
    assert await answer(house.book(owner, held.reservation_id)) == "OK"


async def test_a_takeover_ends_the_old_booking_and_its_late_money_goes_back(brief: House) -> None:
    show_id, first, second = await brief.add_show(), uuid4(), uuid4()
    old = await booked(brief, first, show_id, "A1", "A2")
    await asyncio.sleep(0.6)
    brief.desk.live._maps.clear()
    await brief.hold(second, show_id, "A2")
    assert (await brief.booking(first, old.booking_id)).status == booking_v1.BOOKING_STATUS_EXPIRED
    assert len(await brief.outbox("booking.expired", old.booking_id)) == 1
    await brief.money_comes(old)
    assert await refund_reasons(brief, old.booking_id) == ["late"]


# --- the outbox -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def outbox_refusing(house: House, topics: Sequence[str]) -> AsyncIterator[None]:
    """PostgreSQL takes no event of ``topics``: what a crash between two commits would leave behind shows itself."""
    await house.execute(
        """
        CREATE OR REPLACE FUNCTION refuse_event() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE EXCEPTION ''no event today''; END'
        """
    )
    condition = " OR ".join(f"NEW.aggregatetype = '{topic}'" for topic in topics)
    await house.execute(
        f"CREATE TRIGGER refuse BEFORE INSERT ON outbox FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse_event()"
    )
    try:
        yield
    finally:
        await house.execute("DROP TRIGGER refuse ON outbox")


async def test_a_booking_exists_only_with_its_event(house: House) -> None:
    show_id, user = await house.add_show(), uuid4()
    held = await house.hold(user, show_id, "A1")
    async with outbox_refusing(house, ["booking.created"]):
        assert await answer(house.book(user, held.reservation_id)) != "OK"
    assert await house.rows("SELECT booking_id FROM bookings WHERE show_id = %s", show_id) == []
    booking = await house.book(user, held.reservation_id)
    assert len(await house.outbox("booking.created", booking.booking_id)) == 1


async def test_a_confirmation_exists_only_with_its_event(house: House) -> None:
    show_id, user = await house.add_show(), uuid4()
    booking = await booked(house, user, show_id, "A1")
    async with outbox_refusing(house, ["booking.confirmed"]):
        with pytest.raises(psycopg.Error, match="no event today"):
            await house.money_comes(booking)
    assert (await house.booking(user, booking.booking_id)).status == booking_v1.BOOKING_STATUS_PENDING_PAYMENT
    await house.money_comes(booking)
    assert len(await house.outbox("booking.confirmed", booking.booking_id)) == 1


async def test_a_cancellation_exists_only_with_its_refund(house: House) -> None:
    show_id, user = await house.add_show(), uuid4()
    booking = await booked(house, user, show_id, "A1")
    await house.money_comes(booking)
    async with outbox_refusing(house, ["payment.refund_requested"]):
        assert await answer(house.cancel(user, booking.booking_id)) != "OK"
    assert (await house.booking(user, booking.booking_id)).status == booking_v1.BOOKING_STATUS_CONFIRMED
