"""Holding seats: all or none, one winner, once a request, and over by PostgreSQL's clock."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from datetime import timedelta
from uuid import UUID, uuid4

import grpc
import pytest
from booking_fixtures import house, keys
from booking_house import House, booking_house
from fixtures_stores import DatabaseFactory
from service_harness import TestKeys, facts, fields, reason

from marquee.booking import v1 as booking_v1
from services.booking.domain import SeatsTaken

__all__ = ["house", "keys"]
CLIENTS = 1_000
ROUNDS = 20
BASKETS = 5_000


async def outcome(call: grpc.aio.UnaryUnaryCall[object, booking_v1.Reservation]) -> booking_v1.Reservation | str:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return reason(error) or str(error.code())


async def test_a_hold_takes_every_seat_with_a_locked_quote(house: House) -> None:
    show_id, user = await house.add_show(), uuid4()
    held = await house.hold(user, show_id, "C7", "C8")
    assert list(held.seats) == ["C7", "C8"]
    assert held.status == booking_v1.RESERVATION_STATUS_ACTIVE
    # 200.00 + 18 % GST, fee 5 % = 10.00 + 18 % GST = 247.80 a seat
    assert (held.quote.total.units, held.quote.total.nanos) == (495, 600_000_000)
    assert held.fence == 1
    seat_map = await house.seat_map(show_id)
    assert {seat.label for seat in seat_map.seats if seat.status == booking_v1.SEAT_STATUS_HELD} == {"C7", "C8"}
    assert seat_map.version == 1
    assert seat_map.available == 98


async def test_a_thousand_clients_at_one_seat_have_one_winner_a_round(house: House) -> None:
    """Point 1."""
    show_id = await house.add_show()
    users = [uuid4() for _ in range(CLIENTS)]
    metadata = [house.served.as_user(user) for user in users]
    winning: list[UUID] = []
    for _ in range(ROUNDS):

        async def attempt(index: int) -> booking_v1.Reservation | tuple[str, str]:
            request = booking_v1.CreateReservationRequest(request_id=str(uuid4()), show_id=str(show_id), seats=["C7"])
            try:
                return await house.stub.CreateReservation(request, metadata=metadata[index])
            except grpc.aio.AioRpcError as error:
                return reason(error) or str(error.code()), facts(error).get("seats", "")

        results = await asyncio.gather(*(attempt(index) for index in range(CLIENTS)))
        winners = [index for index, result in enumerate(results) if isinstance(result, booking_v1.Reservation)]
        losers = Counter(result for result in results if isinstance(result, tuple))
        assert len(winners) == 1
        assert losers == {("SEAT_TAKEN", "C7"): CLIENTS - 1}
        winning.append(users[winners[0]])
        claims = await house.rows("SELECT user_id FROM seat_claims WHERE show_id = %s", show_id)
        assert claims == [(winning[-1],)]
        await house.release(winning[-1], results[winners[0]].reservation_id)


async def test_after_one_refusal_a_crowd_is_refused_without_postgresql(house: House) -> None:
    show_id = await house.add_show()
    await house.hold(uuid4(), show_id, "C7")
    assert await outcome(house.hold(uuid4(), show_id, "C7")) == "SEAT_TAKEN"
    with pytest.raises(SeatsTaken):
        async with asyncio.timeout(10):
            while True:  # the refusal has begun to open the show's map
                house.desk.live.refuse_if_taken(show_id, [26], uuid4())
                await asyncio.sleep(0.01)
    async with house.desk.bookings.transaction() as connection:
        # Whoever asks PostgreSQL now waits for this lock, and is told after 3 s that too many want the show.
        await connection.execute("SELECT FROM show_versions WHERE show_id = %s FOR UPDATE", (show_id,))
        assert await outcome(house.hold(uuid4(), show_id, "C7")) == "SEAT_TAKEN"


async def test_overlapping_baskets_are_held_whole_or_not_at_all(house: House) -> None:
    """Point 2."""
    randomly = random.Random(20_261_122)
    show_ids = [await house.add_show(rows=20, seats=20) for _ in range(4)]
    labels = [f"{chr(ord('A') + row)}{number}" for row in range(20) for number in range(1, 21)]
    users = [uuid4() for _ in range(200)]
    held: list[tuple[UUID, booking_v1.Reservation]] = []
    refusals: Counter[str] = Counter()
    lock = asyncio.Semaphore(100)

    async def attempt() -> None:
        async with lock:
            user, show_id = randomly.choice(users), randomly.choice(show_ids)
            first = randomly.randrange(len(labels) - 8)
            basket = randomly.sample(labels[first : first + 12], randomly.randint(2, 8))
            try:
                reservation = await house.hold(user, show_id, *basket)
            except grpc.aio.AioRpcError as error:
                refusals[reason(error) or str(error.code())] += 1
                return
            assert sorted(reservation.seats) == sorted(basket)
            held.append((user, reservation))
            if randomly.random() < 0.7:
                owner, given_back = held.pop(randomly.randrange(len(held)))
                await house.release(owner, given_back.reservation_id)

    await asyncio.gather(*(attempt() for _ in range(BASKETS)))
    assert set(refusals) <= {"SEAT_TAKEN", "TOO_MANY_HOLDS"}, refusals
    assert len(held) > 20
    partial = await house.rows("""
        SELECT r.reservation_id
        FROM reservations r
        LEFT JOIN seat_claims c ON c.show_id = r.show_id AND c.reservation_id = r.reservation_id
        GROUP BY r.show_id, r.reservation_id, r.holding, r.seat_nos
        HAVING count(c.seat_no) <> CASE WHEN r.holding THEN cardinality(r.seat_nos) ELSE 0 END
    """)
    assert partial == []
    for show_id in show_ids:
        (version,) = (await house.rows("SELECT version FROM show_versions WHERE show_id = %s", show_id))[0]
        logged = await house.rows("SELECT version FROM show_log WHERE show_id = %s ORDER BY version", show_id)
        assert [row[0] for row in logged] == list(range(1, version + 1))
        (taken,) = (await house.rows("SELECT taken FROM show_versions WHERE show_id = %s", show_id))[0]
        (claims,) = (await house.rows("SELECT count(*) FROM seat_claims WHERE show_id = %s", show_id))[0]
        assert taken == claims


async def test_a_repeated_request_has_one_effect_and_one_answer(house: House) -> None:
    """Point 6, for holds."""
    show_id, user, request_id = await house.add_show(), uuid4(), str(uuid4())
    answers = await asyncio.gather(*(house.hold(user, show_id, "B1", request_id=request_id) for _ in range(10)))
    assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1
    rows = await house.rows("SELECT count(*) FROM reservations WHERE show_id = %s", show_id)
    assert rows == [(1,)]
    await house.release(user, answers[0].reservation_id)
    again = await house.hold(user, show_id, "B1", request_id=request_id)
    assert again == answers[0]


async def test_a_request_id_with_other_content_is_refused(house: House) -> None:
    show_id, user, request_id = await house.add_show(), uuid4(), str(uuid4())
    await house.hold(user, show_id, "B1", request_id=request_id)
    for other in (show_id, await house.add_show()):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await house.hold(user, other, "B2", request_id=request_id)
        assert reason(refused.value) == "REQUEST_ID_REUSED"


@pytest.mark.alone
async def test_an_expired_hold_is_seen_as_free_within_two_seconds(
    migrated_database_url: DatabaseFactory, valkey_cache: str, keys: TestKeys
) -> None:
    """Point 5."""
    async with booking_house(migrated_database_url("booking"), valkey_cache, keys, hold_seconds=1.0) as house:
        show_id = await house.add_show()
        stream = house.stub.WatchSeats(booking_v1.WatchSeatsRequest(show_id=str(show_id)))
        updates = aiter(stream)
        assert (await anext(updates)).WhichOneof("update") == "snapshot"
        held = await house.hold(uuid4(), show_id, "A1")
        expires = held.expire_time.ToDatetime().timestamp()
        seen_free = 0.0
        while not seen_free:
            update = await anext(updates)
            for change in update.delta.changes:
                if change.status == booking_v1.SEAT_STATUS_AVAILABLE and 0 in change.seat_nos:
                    seen_free = time.time()
        stream.cancel()
        assert seen_free - expires < 2.0
        again = await house.hold(uuid4(), show_id, "A1")
        assert again.fence > held.fence


async def test_an_expired_hold_is_taken_over_in_one_version(
    migrated_database_url: DatabaseFactory, valkey_cache: str, keys: TestKeys
) -> None:
    """Nobody sweeps here: the next buyer ends the old reservation and frees the rest of it, by PostgreSQL's clock."""
    url = migrated_database_url("booking")
    async with booking_house(url, valkey_cache, keys, sweep=False, hold_seconds=0.3) as house:
        show_id, first, second = await house.add_show(), uuid4(), uuid4()
        old = await house.hold(first, show_id, "A1", "A2")
        await asyncio.sleep(0.35)
        house.desk.live._maps.clear()
        new = await house.hold(second, show_id, "A2", "A3")
        assert new.fence == old.fence + 1
        ended = await house.stub.GetReservation(
            booking_v1.GetReservationRequest(reservation_id=old.reservation_id), metadata=house.served.as_user(first)
        )
        assert ended.status == booking_v1.RESERVATION_STATUS_EXPIRED
        seat_map = await house.seat_map(show_id)
        held = {seat.label for seat in seat_map.seats if seat.status == booking_v1.SEAT_STATUS_HELD}
        assert held == {"A2", "A3"}


async def test_only_two_holds_of_a_show_are_active_at_once(house: House) -> None:
    show_id, user = await house.add_show(), uuid4()
    first = await house.hold(user, show_id, "A1")
    await house.hold(user, show_id, "A2")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.hold(user, show_id, "A3")
    assert reason(refused.value) == "TOO_MANY_HOLDS"
    await house.release(user, first.reservation_id)
    await house.hold(user, show_id, "A3")


async def test_a_show_is_sold_only_in_its_window(house: House) -> None:
    for window in (
        {"on_sale_in": timedelta(hours=1)},
        {"starts_in": timedelta(seconds=-1)},
    ):
        show_id = await house.add_show(**window)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await house.hold(uuid4(), show_id, "A1")
        assert reason(refused.value) == "SHOW_NOT_ON_SALE"


async def test_unknown_seats_and_shows_are_named(house: House) -> None:
    show_id = await house.add_show()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.hold(uuid4(), show_id, "A1", "Z99")
    assert (reason(refused.value), fields(refused.value)) == ("UNKNOWN_SEAT", ["seats[1]"])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.hold(uuid4(), uuid4(), "A1")
    assert reason(refused.value) == "NOT_FOUND"


async def test_standing_places_are_handed_out_until_they_are_gone(house: House) -> None:
    show_id = await house.add_show(rows=1, seats=5, standing=25)
    held = await asyncio.gather(*(house.hold(uuid4(), show_id, standing=5) for _ in range(5)))
    numbers = [seat_no for reservation in held for seat_no in reservation.seat_nos]
    assert sorted(numbers) == list(range(5, 30))
    assert {label for reservation in held for label in reservation.seats} == {"Floor"}
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.hold(uuid4(), show_id, standing=1)
    assert reason(refused.value) == "STANDING_SOLD_OUT"


async def test_somebody_elses_reservation_is_answered_like_a_missing_one(house: House) -> None:
    """Point 7, for reservations."""
    show_id, owner, stranger = await house.add_show(), uuid4(), uuid4()
    held = await house.hold(owner, show_id, "A1")

    async def answers(reservation_id: str) -> list[tuple[object, str | None]]:
        found = []
        for method, request in (
            (house.stub.GetReservation, booking_v1.GetReservationRequest(reservation_id=reservation_id)),
            (house.stub.ReleaseReservation, booking_v1.ReleaseReservationRequest(reservation_id=reservation_id)),
            (
                house.stub.CreateBooking,
                booking_v1.CreateBookingRequest(request_id=str(uuid4()), reservation_id=reservation_id),
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await method(request, metadata=house.served.as_user(stranger))
            found.append((refused.value.code(), refused.value.details()))
        return found

    assert await answers(held.reservation_id) == await answers(str(uuid4()))


async def test_blocked_seats_are_not_sold_until_they_are_unblocked(house: House) -> None:
    show_id, admin = await house.add_show(), uuid4()

    async def block(**seats: list[str]) -> booking_v1.BlockSeatsResponse:
        return await house.stub.BlockSeats(
            booking_v1.BlockSeatsRequest(request_id=str(uuid4()), show_id=str(show_id), **seats),
            metadata=house.served.as_user(admin, roles=["admin"]),
        )

    await block(block=["A1", "A2"])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.hold(uuid4(), show_id, "A2")
    assert facts(refused.value) == {"seats": "A2"}
    await block(unblock=["A2"])
    await house.hold(uuid4(), show_id, "A2")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await block(block=["A2"])
    assert reason(refused.value) == "SEAT_TAKEN"
