"""The live seat map: every viewer ends with exactly what PostgreSQL has."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import grpc
import pytest
import redis.asyncio as redis
from booking_fixtures import house, keys
from booking_house import House, booking_house
from fixtures_stores import DatabaseFactory
from service_harness import TestKeys, reason

from bench import wire
from bench.streams_crowd import METHOD, Audience, Crowd
from bench.streams_wire import RedialledLine
from marquee.booking import v1 as booking_v1
from services.booking.notices import open_notices
from services.booking.usecases import open_map

__all__ = ["house", "keys"]
CHANGES = 500
STALLED_WINDOW = 128
"""Bytes of a stream: a snapshot and a few deltas."""


@dataclass
class Viewer:
    """A client of WatchSeats that does what the contract says, and nothing else."""

    house: House
    show_id: UUID
    version: int = -1
    epoch: str = ""
    states: dict[int, int] = field(default_factory=dict)
    updates: int = 0
    gaps: int = 0
    task: asyncio.Task[None] | None = None

    def request(self) -> booking_v1.WatchSeatsRequest:
        request = booking_v1.WatchSeatsRequest(show_id=str(self.show_id), epoch=self.epoch)
        if self.version >= 0:
            request.after_version = self.version
        return request

    def connect(self) -> None:
        self.task = asyncio.create_task(self._run())

    async def disconnect(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _run(self) -> None:
        async for update in self.house.stub.WatchSeats(self.request()):
            self.apply(update)

    def apply(self, update: booking_v1.SeatUpdate) -> None:
        self.updates += 1
        match update.WhichOneof("update"):
            case "snapshot":
                self.version, self.epoch = update.snapshot.version, update.snapshot.epoch
                self.states = {
                    seat_no: status
                    for status, bits in (
                        (2, update.snapshot.held),
                        (3, update.snapshot.booked),
                        (4, update.snapshot.blocked),
                    )
                    for seat_no in range(len(bits) * 8)
                    if bits[seat_no // 8] >> (seat_no % 8) & 1
                }
            case "delta":
                if update.delta.from_version > self.version:
                    self.gaps += 1
                if update.delta.from_version <= self.version < update.delta.to_version:
                    for change in update.delta.changes:
                        for seat_no in change.seat_nos:
                            self.states[seat_no] = change.status
                    self.version = update.delta.to_version

    def seen(self) -> dict[int, int]:
        return {seat_no: status for seat_no, status in self.states.items() if status != 1}


@asynccontextmanager
async def watching(*viewers: Viewer) -> AsyncIterator[None]:
    for viewer in viewers:
        viewer.connect()
    try:
        yield
    finally:
        for viewer in viewers:
            await viewer.disconnect()


async def truth(house: House, show_id: UUID) -> tuple[int, dict[int, int]]:
    (version,) = (await house.rows("SELECT version FROM show_versions WHERE show_id = %s", show_id))[0]
    claims = await house.rows("SELECT seat_no, status FROM seat_claims WHERE show_id = %s", show_id)
    return version, dict(claims)


async def change_at_random(house: House, show_id: UUID, changes: int, randomly: random.Random) -> None:
    """Holds, releases, bookings, confirmations, cancellations, blocks."""
    users = [uuid4() for _ in range(20)]
    labels = [f"{row}{number}" for row in "ABCDEFGHIJ" for number in range(1, 11)]
    held: list[tuple[UUID, str]] = []
    confirmed: list[tuple[UUID, str]] = []
    start = (await truth(house, show_id))[0]
    while (await truth(house, show_id))[0] - start < changes:
        user = randomly.choice(users)
        try:
            match randomly.choice(["hold", "hold", "hold", "release", "release", "confirm", "cancel"]):
                case "hold":
                    reservation = await house.hold(user, show_id, *randomly.sample(labels, randomly.randint(1, 4)))
                    held.append((user, reservation.reservation_id))
                case "release" if held:
                    owner, reservation_id = held.pop(randomly.randrange(len(held)))
                    await house.release(owner, reservation_id)
                case "confirm" if held:
                    owner, reservation_id = held.pop(randomly.randrange(len(held)))
                    booking = await house.book(owner, reservation_id)
                    await house.money_comes(booking)
                    confirmed.append((owner, booking.booking_id))
                case "cancel" if confirmed:
                    owner, booking_id = confirmed.pop(randomly.randrange(len(confirmed)))
                    await house.cancel(owner, booking_id)
        except grpc.aio.AioRpcError as error:
            assert reason(error) in ("SEAT_TAKEN", "TOO_MANY_HOLDS")


async def settled(house: House, show_id: UUID, *viewers: Viewer) -> None:
    """Until every viewer has the show's version, 10 s at most."""
    version, _ = await truth(house, show_id)
    async with asyncio.timeout(10):
        while any(viewer.version < version for viewer in viewers):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("published", [True, False], ids=["published", "publishes suppressed"])
async def test_viewers_end_with_exactly_postgresqls_map(
    migrated_database_url: DatabaseFactory, valkey_cache: str, keys: TestKeys, published: bool
) -> None:
    """Point 8. Two processes: the viewers' one is told by the sellers' one, or finds out by polling alone."""
    url = migrated_database_url("booking")
    cache_url = valkey_cache if published else ""
    limits = {"most_holds_an_hour": 10_000}
    async with (
        booking_house(url, cache_url, keys, **limits) as selling,
        booking_house(url, cache_url, keys, sweep=False) as showing,
    ):
        show_id = await selling.add_show()
        randomly = random.Random(8)
        early, dropping = Viewer(showing, show_id), Viewer(showing, show_id)
        async with watching(early):
            dropping.connect()
            await change_at_random(selling, show_id, CHANGES // 2, randomly)
            await dropping.disconnect()
            left_at = dropping.version
            await change_at_random(selling, show_id, CHANGES // 2, randomly)
            async with watching(dropping):
                await settled(selling, show_id, early, dropping)
                version, states = await truth(selling, show_id)
                assert left_at < version
                assert (early.version, early.seen()) == (version, states)
                assert (dropping.version, dropping.seen()) == (version, states)
                assert early.gaps == dropping.gaps == 0


async def test_a_viewer_that_resumes_gets_only_what_changed(house: House) -> None:
    show_id, user = await house.add_show(), uuid4()
    await house.hold(user, show_id, "A1")
    held = await house.hold(user, show_id, "A2")
    await house.release(user, held.reservation_id)
    stream = house.stub.WatchSeats(booking_v1.WatchSeatsRequest(show_id=str(show_id), after_version=1))
    update = await anext(aiter(stream))
    assert (update.delta.from_version, update.delta.to_version) == (1, 3)
    assert [list(change.seat_nos) for change in update.delta.changes] == [[1]]
    for request in (
        booking_v1.WatchSeatsRequest(show_id=str(show_id), after_version=1, epoch="another"),
        booking_v1.WatchSeatsRequest(show_id=str(show_id), after_version=99),
    ):
        update = await anext(aiter(house.stub.WatchSeats(request)))
        assert update.snapshot.version == 3


async def test_the_first_change_is_told_at_once_and_those_that_soon_follow_together(
    migrated_database_url: DatabaseFactory, valkey_cache: str, keys: TestKeys
) -> None:
    async with booking_house(migrated_database_url("booking"), valkey_cache, keys, coalesce_seconds=3.0) as house:
        show_id = await house.add_show()
        updates = aiter(house.stub.WatchSeats(booking_v1.WatchSeatsRequest(show_id=str(show_id))))
        assert (await anext(updates)).snapshot.version == 0
        await house.hold(uuid4(), show_id, "A1")
        first = (await asyncio.wait_for(anext(updates), 2)).delta
        assert (first.from_version, first.to_version) == (0, 1)
        for seat in ("A2", "A3"):
            await house.hold(uuid4(), show_id, seat)
        second = (await asyncio.wait_for(anext(updates), 4)).delta
        assert (second.from_version, second.to_version) == (1, 3)


async def listeners(cache: redis.Redis) -> set[str]:
    """The connections that listen, by Valkey's numbers of them."""
    return {client["id"] for client in await cache.client_list(_type="pubsub")}


async def test_many_may_begin_to_listen_at_once_when_nobody_has_for_a_while(valkey_cache: str) -> None:
    """A connection without a channel that was quiet for longer than its interval is checked by whoever subscribes next:
    by reading from it, as the listener does at that moment."""
    heard: set[str] = set()
    channels = {f"seats:{{{number}}}" for number in range(50)}
    async with (
        redis.Redis.from_url(valkey_cache, protocol=2) as cache,
        open_notices(f"{valkey_cache}?health_check_interval=1") as notices,
    ):
        before = await listeners(cache)
        await notices.subscribe("seats:{first}", lambda channel, message: None)
        async with asyncio.timeout(10):
            while not (ours := await listeners(cache) - before):
                await asyncio.sleep(0.02)
        await notices.unsubscribe("seats:{first}")
        await asyncio.sleep(1.5)
        await asyncio.gather(
            *(notices.subscribe(each, lambda channel, message: heard.add(channel)) for each in channels)
        )
        async with asyncio.timeout(10):
            while heard != channels:
                notices.publish((channel, b"") for channel in channels)
                await asyncio.sleep(0.05)
        assert ours <= await listeners(cache), "the connection was lost, and what was told meanwhile with it"


async def test_a_restored_database_gives_viewers_a_new_snapshot(
    migrated_database_url: DatabaseFactory, valkey_cache: str, keys: TestKeys
) -> None:
    async with booking_house(migrated_database_url("booking"), valkey_cache, keys) as house:
        show_id = await house.add_show()
        await house.hold(uuid4(), show_id, "A1")
        viewer = Viewer(house, show_id)
        async with watching(viewer):
            await settled(house, show_id, viewer)
            old = viewer.epoch
            await house.execute("UPDATE epoch SET epoch = 'restored'")
            async with asyncio.timeout(5):
                while viewer.epoch == old:
                    await asyncio.sleep(0.05)
            assert viewer.epoch.startswith("restored/")
            assert viewer.seen() == {0: 2}


async def test_a_quiet_stream_has_heartbeats_and_says_when_the_service_stops(
    migrated_database_url: DatabaseFactory, valkey_cache: str, keys: TestKeys
) -> None:
    url = migrated_database_url("booking")
    async with booking_house(url, valkey_cache, keys, heartbeat_seconds=0.2) as house:
        show_id = await house.add_show()
        updates = aiter(house.stub.WatchSeats(booking_v1.WatchSeatsRequest(show_id=str(show_id))))
        kinds = [(await anext(updates)).WhichOneof("update") for _ in range(3)]
        assert kinds == ["snapshot", "heartbeat", "heartbeat"]
        house.lifecycle.draining.set()
        house.desk.live.wake_all()
        async for update in updates:
            last = update
        assert last.end.reason == booking_v1.StreamEnd.REASON_RECONNECT


async def test_streams_are_limited_for_a_user(
    migrated_database_url: DatabaseFactory, valkey_cache: str, keys: TestKeys
) -> None:
    url = migrated_database_url("booking")
    async with booking_house(url, valkey_cache, keys, most_streams_a_user=2) as house:
        show_id, metadata = await house.add_show(), house.served.as_user(uuid4())
        request = booking_v1.WatchSeatsRequest(show_id=str(show_id))
        streams = [house.stub.WatchSeats(request, metadata=metadata) for _ in range(2)]
        for stream in streams:
            await anext(aiter(stream))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(house.stub.WatchSeats(request, metadata=metadata)))
        assert reason(refused.value) == "TOO_MANY_STREAMS"
        streams[0].cancel()
        async with asyncio.timeout(5):
            while True:
                stream = house.stub.WatchSeats(request, metadata=metadata)
                try:
                    await anext(aiter(stream))
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.05)


async def end_streams(house: House) -> None:
    """What the process does when its server drains."""
    await house.lifecycle.draining.wait()
    house.desk.live.wake_all()


@asynccontextmanager
async def stalled(
    house: House, show_id: UUID, count: int, *, window: int = STALLED_WINDOW, greeted: bool = True
) -> AsyncIterator[Crowd]:
    """Viewers who read a snapshot (when ``greeted``), and then nothing more."""
    address = f"127.0.0.1:{house.served.port}"
    token = house.served.keys.user_token(uuid4())
    audience = Audience(address, [str(show_id)], [token], count, connections=2, window=window)
    crowd = Crowd()
    lines = [RedialledLine(crowd, audience) for _ in range(audience.connections)]
    try:
        crowd.enter(audience, lines, [wire.head(address, METHOD, token)])
        if greeted:
            await crowd.all_greeted()
        yield crowd
    finally:
        for line in lines:
            line.close()


@pytest.fixture
async def patient(migrated_database_url: DatabaseFactory, valkey_cache: str, keys: TestKeys) -> AsyncIterator[House]:
    """A service whose end would wait ten minutes for calls that are at work."""
    limits = {"most_streams_a_user": 1_000, "stop_seconds": 600.0}
    async with booking_house(migrated_database_url("booking"), valkey_cache, keys, **limits) as house:
        yield house


async def stop_within_a_minute(house: House) -> None:
    async with asyncio.timeout(60):
        await asyncio.gather(house.served.server.stop(drain_seconds=0), end_streams(house))


async def test_viewers_who_do_not_read_keep_neither_the_others_nor_the_end_of_the_service_waiting(
    patient: House,
) -> None:
    show_id = await patient.add_show()
    viewer = Viewer(patient, show_id)
    async with watching(viewer), stalled(patient, show_id, 20) as crowd:
        for seat in range(1, 11):
            await patient.hold(uuid4(), show_id, f"A{seat}")
            await settled(patient, show_id, viewer)
        assert viewer.gaps == 0
        assert max(each.knows.version for each in crowd.viewers) < 5
        await stop_within_a_minute(patient)
        assert (crowd.lost, crowd.refused) == (20, 0)


async def test_viewers_who_do_not_even_read_a_first_message_do_not_keep_the_end_waiting(patient: House) -> None:
    show_id = await patient.add_show()
    viewer = Viewer(patient, show_id)
    async with watching(viewer), stalled(patient, show_id, 20, window=1, greeted=False):
        live = await open_map(show_id, desk=patient.desk)
        async with asyncio.timeout(10):
            while len(live.viewers) < 21:
                await asyncio.sleep(0.01)
        await stop_within_a_minute(patient)


async def test_viewers_who_do_not_read_may_go(
    migrated_database_url: DatabaseFactory, valkey_cache: str, keys: TestKeys
) -> None:
    async with booking_house(migrated_database_url("booking"), valkey_cache, keys, most_streams_a_user=1_000) as house:
        show_id = await house.add_show()
        viewer = Viewer(house, show_id)
        async with watching(viewer):
            async with stalled(house, show_id, 20):
                for seat in range(1, 11):
                    await house.hold(uuid4(), show_id, f"A{seat}")
                    await settled(house, show_id, viewer)
            await house.hold(uuid4(), show_id, "B1")
            await settled(house, show_id, viewer)
            assert viewer.seen() == (await truth(house, show_id))[1]
