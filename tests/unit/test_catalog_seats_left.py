"""Free seats in lists: asked of booking together, kept for moments, and never a reason for a list to fail."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from services.catalog.clients import MOST_AT_ONCE, REST_SECONDS, SeatsLeft


class Booking:
    """Answers from ``seats``, or fails while ``down``; counts questions."""

    def __init__(self) -> None:
        self.seats: dict[str, int] = {}
        self.questions: list[list[str]] = []
        self.down = False

    async def __call__(self, show_ids: Sequence[str]) -> Mapping[str, int]:
        self.questions.append(list(show_ids))
        await asyncio.sleep(0)
        if self.down:
            raise ConnectionError("down")
        return {show_id: self.seats[show_id] for show_id in show_ids if show_id in self.seats}


class Time:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


async def test_readers_of_the_same_shows_share_one_question() -> None:
    booking = Booking()
    booking.seats = {"a": 1, "b": 2, "c": 3}
    left = SeatsLeft(booking, fresh_seconds=2, now=Time())
    answers = await asyncio.gather(left.of(["a", "b"]), left.of(["b", "c"]), left.of(["a"]))
    assert answers == [{"a": 1, "b": 2}, {"b": 2, "c": 3}, {"a": 1}]
    assert booking.questions == [["a", "b"], ["c"]]


async def test_an_answer_is_good_for_some_seconds() -> None:
    booking, time = Booking(), Time()
    booking.seats = {"a": 5}
    left = SeatsLeft(booking, fresh_seconds=2, now=time)
    await left.of(["a"])
    booking.seats = {"a": 4}
    time.seconds += 1.9
    assert await left.of(["a"]) == {"a": 5}
    time.seconds += 0.2
    assert await left.of(["a"]) == {"a": 4}


async def test_while_booking_is_down_the_last_known_number_stands_and_it_is_left_alone() -> None:
    booking, time = Booking(), Time()
    booking.seats = {"a": 5}
    left = SeatsLeft(booking, fresh_seconds=2, now=time)
    await left.of(["a"])
    booking.down = True
    time.seconds += 3
    assert await left.of(["a", "new"]) == {"a": 5}
    assert await left.of(["a", "new"]) == {"a": 5}
    assert len(booking.questions) == 2
    booking.down, booking.seats = False, {"a": 3, "new": 9}
    time.seconds += REST_SECONDS
    assert await left.of(["a", "new"]) == {"a": 3, "new": 9}


async def test_a_long_list_is_asked_in_parts_that_booking_takes() -> None:
    booking = Booking()
    shows = [str(number) for number in range(MOST_AT_ONCE + 1)]
    booking.seats = dict.fromkeys(shows, 7)
    assert len(await SeatsLeft(booking, fresh_seconds=2, now=Time()).of(shows)) == len(shows)
    assert [len(question) for question in booking.questions] == [MOST_AT_ONCE, 1]


async def test_without_booking_nothing_is_known() -> None:
    assert await SeatsLeft(None, fresh_seconds=2).of(["a"]) == {}


async def test_a_reader_that_goes_away_leaves_the_others_their_answer() -> None:
    booking = Booking()
    booking.seats = {"a": 5}
    left = SeatsLeft(booking, fresh_seconds=2, now=Time())
    first = asyncio.create_task(left.of(["a"]))
    await asyncio.sleep(0)
    second = asyncio.create_task(left.of(["a"]))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == {"a": 5}
    assert len(booking.questions) == 1
