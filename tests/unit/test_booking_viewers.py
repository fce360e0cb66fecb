"""A show's viewers: told a few at a time, past those that do not read, and only while their calls are open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from uuid import UUID

import pytest

from marquee.booking import v1 as booking_v1
from services.booking.domain import Layout, Seat, Show
from services.booking.live_map import Frame, LiveMap, frame_of
from services.booking.store.seats import Change
from services.booking.viewers import AT_ONCE, Viewer

SEATS = 20
START = datetime(2026, 1, 1, tzinfo=UTC)
LONG = 3_600.0


class Screen:
    """A viewer's end of a stream. It reads nothing while ``reading`` is not set."""

    def __init__(self, heartbeat_seconds: float = LONG) -> None:
        self.messages: list[booking_v1.SeatUpdate] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.viewer = Viewer(self._take, heartbeat_seconds)
        self.viewer.busy = False
        self.at_once = 0

    async def _take(self, message: bytes) -> None:
        self.at_once += 1
        assert self.at_once == 1, "gRPC sends one message of a stream at a time"
        await self.reading.wait()
        self.messages.append(booking_v1.SeatUpdate.FromString(message))
        self.at_once -= 1

    @property
    def version(self) -> int:
        """What the deltas add up to; a gap fails."""
        version = 0
        for message in self.messages:
            assert message.delta.from_version <= version < message.delta.to_version
            version = message.delta.to_version
        return version

    @property
    def held(self) -> set[int]:
        return {seat_no for message in self.messages for change in message.delta.changes for seat_no in change.seat_nos}


class Hall:
    """A live map that seats are held in, one a version."""

    def __init__(self) -> None:
        seats = [Seat(n, f"A{n + 1}", "A", n + 1, "REGULAR", float(n), 0.0, False) for n in range(SEATS)]
        layout = Layout.of(UUID(int=1), seats, [])
        show = Show(
            UUID(int=2), 1, "", "", "", "", "", "UTC", START, START, START, layout, 1, SEATS, "INR", {}, (), False
        )  # fmt: skip
        self.live = LiveMap(show, "epoch")

    def hold(self) -> None:
        version = self.live.version + 1
        self.live.follow(Change(version, held=(version - 1,)))
        self.live.tell_viewers()

    @contextmanager
    def shown(self, *screens: Screen) -> Iterator[None]:
        with ExitStack() as entered:
            for screen in screens:
                entered.enter_context(self.live.viewers.entered(screen.viewer))
            yield


@pytest.fixture
async def hall() -> AsyncIterator[Hall]:
    yield Hall()


async def until_all_know(version: int, *screens: Screen) -> None:
    async with asyncio.timeout(10):
        while any(screen.version != version for screen in screens):
            await asyncio.sleep(0.001)


async def test_the_others_are_told_past_viewers_that_do_not_read(hall: Hall) -> None:
    screens = [Screen() for _ in range(30)]
    stuck, reading = screens[::3], [screen for place, screen in enumerate(screens) if place % 3]
    for screen in stuck:
        screen.reading.clear()
    with hall.shown(*screens):
        for version in (1, 2, 3):
            hall.hold()
            await until_all_know(version, *reading)
        assert [screen.version for screen in stuck] == [0] * len(stuck)
        for screen in stuck:
            screen.reading.set()
        hall.hold()
        await until_all_know(4, *screens)
    assert all(screen.held == {0, 1, 2, 3} for screen in screens)


async def test_whoever_reads_again_gets_at_once_what_it_lacks_though_nothing_changes_any_more(hall: Hall) -> None:
    slow = Screen()
    slow.reading.clear()
    with hall.shown(slow):
        hall.hold()
        while not slow.viewer.busy:
            await asyncio.sleep(0.001)
        hall.hold()
        await asyncio.sleep(0.01)  # its turn comes and goes
        slow.reading.set()
        async with asyncio.timeout(0.5):  # viewers are looked after each second
            while slow.viewer.version != 2:
                await asyncio.sleep(0.001)
    assert slow.held == {0, 1}


async def test_changes_before_a_round_are_one_delta(hall: Hall) -> None:
    screen = Screen()
    with hall.shown(screen):
        for _ in range(5):
            hall.hold()
        await until_all_know(5, screen)
    assert len(screen.messages) == 1


async def test_nothing_is_sent_on_a_call_that_is_over(hall: Hall) -> None:
    """gRPC would take the process down."""
    staying, going = Screen(), Screen()
    with hall.shown(staying):
        with hall.shown(going):
            hall.hold()
            hall.live.flush()
        await until_all_know(1, staying)
    assert going.messages == []


async def test_what_a_viewer_lacks_is_one_delta(hall: Hall) -> None:
    screen = Screen()
    for _ in range(3):
        hall.hold()
        hall.live.flush()
    with hall.shown(screen):
        hall.live.tell_viewers()
        await until_all_know(3, screen)
    assert len(screen.messages) == 1
    assert screen.held == {0, 1, 2}


async def test_a_change_meanwhile_goes_first_to_those_whose_turn_is_still_to_come(hall: Hall) -> None:
    screens = [Screen() for _ in range(10)]
    told: list[Screen] = []

    def watched(screen: Screen) -> Screen:
        take = screen.viewer.write

        async def tell(message: bytes) -> None:
            await take(message)
            told.append(screen)
            if len(told) == 4:
                hall.hold()

        screen.viewer.write = tell
        return screen

    with hall.shown(*map(watched, screens)):
        hall.hold()
        await until_all_know(2, *screens)
    assert len(set(map(id, told[:10]))) == 10, "everybody once, before anybody is told again"
    assert [len(screen.messages) for screen in told[:4]] == [2] * 4
    assert [len(screen.messages) for screen in told[4:10]] == [1] * 6
    assert told[10:] == told[:4], "in the order in which they were told before"


def counting(screens: list[Screen]) -> list[int]:
    """Each message takes a moment from now on. As each begins: how many of ``screens`` are being sent something."""
    under_way: list[int] = []

    def watch(screen: Screen) -> None:
        take = screen.viewer.write

        async def tell(message: bytes) -> None:
            under_way.append(sum(each.viewer.busy for each in screens))
            await asyncio.sleep(0.001)
            await take(message)

        screen.viewer.write = tell

    for screen in screens:
        watch(screen)
    return under_way


async def test_several_are_told_at_once_but_not_all(hall: Hall) -> None:
    screens = [Screen() for _ in range(3 * AT_ONCE)]
    under_way = counting(screens)
    with hall.shown(*screens):
        hall.hold()
        await until_all_know(1, *screens)
    assert max(under_way) == AT_ONCE


async def test_viewers_that_do_not_read_leave_the_others_as_many_at_once(hall: Hall) -> None:
    stuck, reading = [Screen() for _ in range(AT_ONCE - 1)], [Screen() for _ in range(3 * AT_ONCE)]
    under_way = counting(reading)
    for screen in stuck:
        screen.reading.clear()
    with hall.shown(*stuck, *reading):
        hall.hold()
        await until_all_know(1, *reading)
        under_way.clear()
        hall.hold()
        await until_all_know(2, *reading)
    assert max(under_way) == AT_ONCE


async def test_who_joins_and_lacks_something_is_told_and_nobody_else(hall: Hall) -> None:
    there, joins = Screen(), Screen()
    with hall.shown(there):
        hall.hold()
        await until_all_know(1, there)
        with hall.shown(joins):
            hall.live.viewers.tell_one(joins.viewer)
            await until_all_know(1, joins)
    assert (len(there.messages), len(joins.messages)) == (1, 1)


async def test_a_stream_that_cannot_be_written_to_ends_alone(hall: Hall) -> None:
    async def fail(_: bytes) -> None:
        raise ConnectionResetError

    screen, broken = Screen(), Viewer(fail, LONG)
    broken.busy = False
    with hall.shown(screen), hall.live.viewers.entered(broken):
        hall.hold()
        await until_all_know(1, screen)
        await asyncio.wait_for(broken.over, 10)


async def test_the_end_of_a_stream_waits_for_what_is_being_sent_but_not_for_ever(hall: Hall) -> None:
    screen = Screen()
    screen.reading.clear()
    with hall.shown(screen):
        hall.hold()
        while not screen.viewer.busy:
            await asyncio.sleep(0.001)
        assert not await screen.viewer.reads()
        asyncio.get_running_loop().call_later(0.01, screen.reading.set)
        assert await screen.viewer.reads()
    assert screen.version == 1


async def test_a_path_from_a_version_is_read_once_for_all_who_have_it(hall: Hall) -> None:
    reads = 0

    async def read() -> Frame:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0.01)
        return frame_of(3, hall.live.version, {7: 2})

    for _ in range(8):
        hall.hold()
    frames = await asyncio.gather(*(hall.live.path_from(3, read) for _ in range(100)))
    assert reads == 1
    assert set(frames) == {frame_of(3, 8, {7: 2})}
    for _ in range(SEATS - 8):
        hall.hold()
    assert (await hall.live.path_from(3, read), reads) == (frame_of(3, SEATS, {7: 2}), 2), "too far behind by now"


async def test_a_path_that_could_not_be_read_is_read_again(hall: Hall) -> None:
    async def fail() -> Frame:
        raise ConnectionResetError

    async def read() -> Frame | None:
        return None

    with pytest.raises(ConnectionResetError):
        await hall.live.path_from(0, fail)
    assert await hall.live.path_from(0, read) is None


async def test_whose_stream_is_to_end_is_sent_nothing_more(hall: Hall) -> None:
    """The end of the stream is the next thing that it gets."""
    staying, ending = Screen(), Screen()
    with hall.shown(staying, ending):
        ending.viewer.end()
        hall.hold()
        await until_all_know(1, staying)
        assert await ending.viewer.reads()
    assert ending.messages == []
