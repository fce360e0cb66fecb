"""Booking's partitions: made before their days come, archived when their shows are over, written to files.

Seats are sold on meanwhile.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from booking_fixtures import keys
from booking_house import House, booking_house
from fixtures_stores import DatabaseFactory
from service_harness import TestKeys

from local.home import CHECKOUT
from marquee.booking import v1 as booking_v1
from services.booking.partitions import AHEAD, ALL, CLAIMS, RESERVATIONS, tend
from services.booking.settings import BookingSettings
from services.kit import partitions
from services.kit.archives import export
from services.kit.ids import new_id_of_show, new_show_id
from services.kit.leadership import lead
from services.kit.migrations import migrate
from services.kit.partitions import Span

__all__ = ["keys"]
TODAY = datetime.now(UTC).date()
FAR = AHEAD + timedelta(days=40)


@pytest.fixture
async def house(migrated_database_url: DatabaseFactory, valkey_cache: str, keys: TestKeys) -> AsyncIterator[House]:
    """A house of its own for each test."""
    async with booking_house(migrated_database_url("booking"), valkey_cache, keys, most_holds_an_hour=10_000) as made:
        yield made


async def lies_in(house: House, table: str, show_id: UUID) -> list[str]:
    """The partitions that hold a show's rows."""
    rows = await house.rows(f"SELECT DISTINCT tableoid::regclass::text FROM {table} WHERE show_id = %s", show_id)
    return [row[0] for row in rows]


def week_of(day: date) -> Span:
    (span,) = CLAIMS.missing([], day, day)
    return span


async def sold(house: House, user: UUID, show_id: UUID, *seats: str) -> booking_v1.Booking:
    booking = await house.book(user, (await house.hold(user, show_id, *seats)).reservation_id)
    await house.money_comes(booking)
    return booking


async def after(house: House, days: timedelta, **settings: Any) -> None:
    """What the service does so many days from now."""
    await tend(house.settings.model_copy(update=settings), today=TODAY + days)


async def archived(house: House) -> set[str]:
    return {row[0] for row in await house.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'archive'")}


def files(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


# --- made -------------------------------------------------------------------------------------------------------------


async def test_every_row_of_a_show_lies_in_the_partition_of_its_days(house: House) -> None:
    show_id = await house.add_show()
    await sold(house, uuid4(), show_id, "A1", "A2")
    (show,) = await house.rows("SELECT start_time FROM shows WHERE show_id = %s", show_id)
    for each in ALL:
        (span,) = each.missing([], show[0].date(), show[0].date())
        assert await lies_in(house, each.table, show_id) == [each.name(span)]


async def test_what_is_sold_far_ahead_is_sold_and_moves_when_its_days_come_into_reach(house: House) -> None:
    show_id, user = await house.add_show(starts_in=FAR), uuid4()
    booking = await sold(house, user, show_id, "A1")
    await house.hold(user, show_id, "B1")
    assert await lies_in(house, "seat_claims", show_id) == ["seat_claims_default"]
    await after(house, FAR - AHEAD + timedelta(days=1))
    for each in ALL:
        assert each.default not in await lies_in(house, each.table, show_id)
    assert (await house.booking(user, booking.booking_id)).status == booking_v1.BOOKING_STATUS_CONFIRMED
    await sold(house, uuid4(), show_id, "A2")
    seats = (await house.seat_map(show_id)).seats
    taken = {seat.label for seat in seats if seat.status != booking_v1.SEAT_STATUS_AVAILABLE}
    assert taken == {"A1", "A2", "B1"}


async def test_there_is_nothing_to_do_a_second_time_and_two_at_once_do_it_once(house: House) -> None:
    count = "SELECT count(*) FROM pg_class WHERE relispartition"
    await asyncio.gather(*(after(house, timedelta(days=20)) for _ in range(3)))
    once = await house.rows(count)
    await after(house, timedelta(days=20))
    assert await house.rows(count) == once


async def test_seats_are_sold_while_partitions_come_and_go(house: House) -> None:
    shows = [await house.add_show(starts_in=timedelta(days=days)) for days in (2, 9, 30, 60)]
    stop = asyncio.Event()
    held = 0

    async def sell(show_id: UUID) -> None:
        nonlocal held
        for seat in (f"{row}{number}" for row in "ABCDEFGHIJ" for number in range(1, 11)):
            await house.hold(uuid4(), show_id, seat)
            held += 1
            if stop.is_set():
                return

    selling = [asyncio.create_task(sell(show_id)) for show_id in shows]
    for days in range(1, 15):
        await after(house, timedelta(days=4 * days), seats_kept_days=80)
    stop.set()
    await asyncio.gather(*selling)
    assert await house.rows("SELECT count(*) FROM seat_claims") == [(held,)]
    assert await house.rows("SELECT count(*) FROM show_log") == [(held,)]


# --- archived ---------------------------------------------------------------------------------------------------------


async def test_seats_are_archived_when_their_shows_are_over_and_bookings_stay(house: House) -> None:
    show_id, user = await house.add_show(), uuid4()
    booking = await sold(house, user, show_id, "A1", "A2")
    week = week_of((datetime.now(UTC) + timedelta(days=2)).date())
    await after(house, week.end - TODAY + timedelta(days=13))
    assert CLAIMS.name(week) not in await archived(house)
    await after(house, week.end - TODAY + timedelta(days=14))
    assert {CLAIMS.name(week), RESERVATIONS.name(week), f"show_log_{week.first:%Y%m%d}"} <= await archived(house)
    assert await house.rows(f"SELECT seat_no, status FROM archive.{CLAIMS.name(week)} ORDER BY 1") == [(0, 3), (1, 3)]
    assert (await house.booking(user, booking.booking_id)).status == booking_v1.BOOKING_STATUS_CONFIRMED


async def test_a_week_in_which_seats_are_held_stays(house: House) -> None:
    show_id, user = await house.add_show(), uuid4()
    held = await house.hold(user, show_id, "A1")
    await after(house, timedelta(days=40))
    assert await lies_in(house, "reservations", show_id)
    assert await lies_in(house, "seat_claims", show_id)
    await house.release(user, held.reservation_id)
    await after(house, timedelta(days=40))
    assert not await lies_in(house, "reservations", show_id)


async def test_money_that_comes_when_the_hold_is_archived_goes_back(house: House) -> None:
    show_id, user = await house.add_show(starts_in=timedelta(seconds=3)), uuid4()
    held = await house.hold(user, show_id, "A1")
    booking = await house.book(user, held.reservation_id)
    await house.execute("UPDATE reservations SET expires_at = clock_timestamp() WHERE show_id = %s", show_id)
    await house.execute("UPDATE shows SET start_time = clock_timestamp() WHERE show_id = %s", show_id)
    async with asyncio.timeout(5):
        while await house.rows("SELECT FROM reservations WHERE holding"):
            await asyncio.sleep(0.05)
    await after(house, timedelta(days=40))
    assert not await lies_in(house, "reservations", show_id)
    await house.money_comes(booking)
    assert len(await house.outbox("payment.refund_requested", booking.booking_id)) == 1


async def test_a_latecomer_of_archived_days_is_taken_and_kept(house: House) -> None:
    show_id, user = await house.add_show(), uuid4()
    await sold(house, user, show_id, "A1")
    await after(house, timedelta(days=40))
    await house.hold(user, show_id, "A1")  # its claims are in the archive
    assert await lies_in(house, "seat_claims", show_id) == ["seat_claims_default"]
    await after(house, timedelta(days=41))
    assert await lies_in(house, "seat_claims", show_id) == ["seat_claims_default"]


async def test_bookings_are_archived_when_that_is_asked_for_and_leave_their_buyers_lists(house: House) -> None:
    show_id, later, user = await house.add_show(), await house.add_show(starts_in=timedelta(days=200)), uuid4()
    for each in (show_id, later):
        booking = await sold(house, user, each, "A1")
        await house.execute(
            "INSERT INTO user_bookings SELECT user_id, created_at, booking_id FROM bookings WHERE booking_id = %s",
            booking.booking_id,
        )
    await after(house, timedelta(days=100), bookings_kept_days=30)
    assert not await lies_in(house, "bookings", show_id)
    assert {name.rpartition("_")[0] for name in await archived(house)} >= {"bookings", "booking_items", "captures"}
    listed = await house.desk.bookings.list_of(user, None, 10)
    assert [row.show_id for row in listed] == [later]
    assert await house.rows("SELECT count(*) FROM user_bookings") == [(1,)]


async def test_nobody_waits_for_partitions_that_somebody_reads_at_length(house: House) -> None:
    show_id = await house.add_show()
    await sold(house, uuid4(), show_id, "A1")
    async with await psycopg.AsyncConnection.connect(house.database_url) as reader:
        await reader.execute("SELECT count(*) FROM seat_claims")
        await asyncio.sleep(1.2)
        await after(house, timedelta(days=40))
        assert await lies_in(house, "seat_claims", show_id)
        assert not await lies_in(house, "reservations", show_id), "what nobody reads is archived"
        later = await house.add_show(starts_in=timedelta(days=60))
        await house.hold(uuid4(), later, "A1")
        assert await lies_in(house, "seat_claims", later) == ["seat_claims_default"], "is sold all the same"
    await after(house, timedelta(days=40))
    assert not await lies_in(house, "seat_claims", show_id)


async def test_who_waits_for_a_lock_gives_up_and_comes_again(house: House) -> None:
    show_id = await house.add_show()
    await sold(house, uuid4(), show_id, "A1")
    async with await psycopg.AsyncConnection.connect(house.database_url) as writer:
        await writer.execute("UPDATE seat_claims SET fence = fence WHERE show_id = %s", (show_id,))
        async with lead(house.database_url, "test") as connection:
            stayed = await partitions.archive(connection, CLAIMS, before=TODAY + timedelta(days=40))
    assert set(await lies_in(house, "seat_claims", show_id)) <= set(stayed)
    await after(house, timedelta(days=40))
    assert not await lies_in(house, "seat_claims", show_id)


# --- written to files -------------------------------------------------------------------------------------------------


async def test_archived_partitions_become_files_that_copy_reads_back(house: House, tmp_path: Path) -> None:
    show_id = await house.add_show()
    for seat in ("A1", "A2", "A3"):
        await sold(house, uuid4(), show_id, seat)
    before = await house.rows("SELECT * FROM reservations ORDER BY reservation_id")
    await after(house, timedelta(days=40))
    (part,) = [name for name in await archived(house) if name.startswith("reservations") and await _count(house, name)]
    async with lead(house.database_url, "test") as connection:
        file = await export(connection, part, tmp_path)
        assert part not in await archived(house)
        assert files(tmp_path) == {f"{part}.csv.gz"}
        async with (
            connection.cursor() as cursor,
            cursor.copy("COPY reservations FROM STDIN (FORMAT csv, HEADER)") as copy,
        ):
            await copy.write(gzip.decompress(file.read_bytes()))
    assert await house.rows("SELECT * FROM reservations ORDER BY reservation_id") == before


async def test_an_export_that_died_is_done_again_and_no_file_is_written_over(house: House, tmp_path: Path) -> None:
    show_id, user = await house.add_show(), uuid4()
    await sold(house, user, show_id, "A1")
    await after(house, timedelta(days=40))
    (part,) = [name for name in await archived(house) if name.startswith("seat_claims") and await _count(house, name)]
    async with lead(house.database_url, "test") as connection:
        await connection.execute("CREATE TABLE copy AS SELECT * FROM archive." + part)
        (tmp_path / f"{part}.csv.gz.unfinished").write_bytes(b"half of it")
        await export(connection, part, tmp_path)
        await connection.execute(f"CREATE TABLE archive.{part} AS SELECT * FROM copy")  # died before it dropped it
        await export(connection, part, tmp_path)
        assert files(tmp_path) == {f"{part}.csv.gz"}
        await connection.execute(f"CREATE TABLE archive.{part} AS SELECT * FROM copy")
        await connection.execute(f"UPDATE archive.{part} SET fence = fence + 1")
        await export(connection, part, tmp_path)
    assert files(tmp_path) == {f"{part}.csv.gz", f"{part}-2.csv.gz"}
    with (
        gzip.open(tmp_path / f"{part}.csv.gz", "rt") as first,
        gzip.open(tmp_path / f"{part}-2.csv.gz", "rt") as second,
    ):
        assert [int(row["fence"]) for row in csv.DictReader(second)] == [
            int(row["fence"]) + 1 for row in csv.DictReader(first)
        ]


async def test_what_cannot_be_written_is_not_dropped(house: House, tmp_path: Path) -> None:
    await after(house, timedelta(days=40))
    part = next(name for name in sorted(await archived(house)))
    async with lead(house.database_url, "test") as connection:
        with pytest.raises(OSError, match="missing"):
            await export(connection, part, tmp_path / "missing")
    assert part in await archived(house)


async def _count(house: House, part: str) -> int:
    ((count,),) = await house.rows(f"SELECT count(*) FROM archive.{part}")
    return int(count)


def test_the_commands_list_tend_and_export(
    migrated_database_url: DatabaseFactory, keys: TestKeys, tmp_path: Path
) -> None:
    url = migrated_database_url("booking")
    settings = BookingSettings(**keys.settings(url))
    environment = {
        **os.environ,
        "COLUMNS": "500",  # an error's text comes in a frame, whose lines are not broken then
        "MARQUEE_DATABASE_URL": url,
        **{f"MARQUEE_{name.upper()}": str(getattr(settings, name)) for name in (
            "user_jwks_file", "service_jwks_file", "service_token_file"
        )},
    }  # fmt: skip

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "services.booking", "partitions", *arguments],
            cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA archive")
        connection.execute("CREATE TABLE archive.seat_claims_20250101 AS SELECT * FROM seat_claims")
    listed = command("list").stdout
    assert "seat_claims_default" in listed
    assert "seat_claims_20250101            archived" in listed
    assert command("tend").returncode == 0
    refused = command("export", str(tmp_path / "nowhere"))
    assert refused.returncode == 2
    assert "nowhere" in refused.stderr
    exported = command("export", str(tmp_path))
    assert exported.returncode == 0, exported.stderr
    assert files(tmp_path) == {"seat_claims_20250101.csv.gz"}
    assert "seat_claims_20250101" not in command("list").stdout


# --- from before there were partitions --------------------------------------------------------------------------------


def test_a_database_from_before_keeps_all_its_rows(database_url: DatabaseFactory, keys: TestKeys) -> None:
    url = database_url("booking")
    migrate("booking", url, revision="0001")
    days = [TODAY + timedelta(days=offset) for offset in (-90, -30, -1, 0, 5, 300)]
    with psycopg.connect(url) as connection:
        for day in days:
            _old_show(connection, new_show_id(day, 3))
        connection.execute("INSERT INTO outbox_sent (id) SELECT id FROM outbox")
    tables = [*(each.table for each in ALL), "outbox", "outbox_sent"]
    before = _everything(url, tables)
    migrate("booking", url)
    assert _everything(url, tables) == before
    settings = BookingSettings(**keys.settings(url)).model_copy(update={"seats_kept_days": 400})
    asyncio.run(tend(settings))
    migrate("booking", url)
    assert _everything(url, tables) == before
    with psycopg.connect(url) as connection:
        for each in ALL:
            lies = connection.execute(f"SELECT DISTINCT tableoid::regclass::text FROM {each.table}").fetchall()
            spans = [each.missing([], day, day)[0] for day in days[:-1]]
            assert {row[0] for row in lies} == {each.default, *(each.name(span) for span in spans)}
        woken = connection.execute("SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'outbox_wake'")
        assert woken.fetchall() == [("outbox",)]


def _everything(url: str, tables: list[str]) -> dict[str, list[tuple[Any, ...]]]:
    with psycopg.connect(url) as connection:
        return {each: sorted(connection.execute(f"SELECT {each}::text FROM {each}").fetchall()) for each in tables}


def _old_show(connection: psycopg.Connection[Any], show_id: UUID) -> None:
    reservation, booking, user = new_id_of_show(show_id), new_id_of_show(show_id), uuid4()
    for statement, values in (
        ("seat_claims VALUES (%s, 1, 3, %s, %s, NULL, 1)", (show_id, reservation, user)),
        ("show_log VALUES (%s, 1, '{}', '{}', '{1}', '{}', 'confirm', %s, now())", (show_id, user)),
        (
            "reservations VALUES (%s, %s, %s, 2, false, '{1}', '', 100, 1, now(), now(), %s)",
            (show_id, reservation, user, booking),
        ),
        (
            "bookings VALUES (%s, %s, %s, %s, 'R', 2, '{1}', '', 100, 'INR', now(), now(), now(), NULL, NULL, NULL, 2,"
            " '')",
            (show_id, booking, reservation, user),
        ),
        ("booking_items VALUES (%s, %s, 1, 'REGULAR', 100, 0, 0, 0)", (show_id, booking)),
        ("captures VALUES (%s, %s, 'pay', %s, 100, 'CONFIRMED', now())", (show_id, booking, uuid4())),
        ("outbox (aggregatetype, aggregateid, type, payload) VALUES ('t', %s, 'x', '')", (str(booking),)),
    ):
        connection.execute(f"INSERT INTO {statement}", values)  # type: ignore[call-overload]
