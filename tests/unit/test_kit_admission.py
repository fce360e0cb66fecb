"""Calls that cannot be answered in time, by a clock that the test sets."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from services.kit.admission import FORGET_SECONDS, Admission
from services.kit.errors import Overloaded

HOLD = "/marquee.booking.v1.BookingService/CreateReservation"


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Calls:
    """Calls of one RPC, each of which takes ``seconds``."""

    clock: Clock
    admission: Admission

    def calls(self, count: int, *, seconds: float) -> None:
        for _ in range(count):
            entered = self.admission.enter(HOLD, 60)
            self.clock.now += seconds
            self.admission.leave(HOLD, entered)


@pytest.fixture
def door() -> Calls:
    clock = Clock()
    return Calls(clock, Admission(clock))


def test_a_call_with_less_time_than_others_took_is_refused(door: Calls) -> None:
    door.calls(20, seconds=0.5)
    door.admission.enter(HOLD, 60)
    with pytest.raises(Overloaded) as refused:
        door.admission.enter(HOLD, 0.4)
    assert refused.value.retry_after_seconds == 1
    door.admission.enter(HOLD, 0.6)


def test_a_call_alone_is_let_in_and_finds_out(door: Calls) -> None:
    door.calls(20, seconds=0.5)
    entered = door.admission.enter(HOLD, 0.1)
    door.clock.now += 0.01
    door.admission.leave(HOLD, entered)


def test_a_call_whose_time_is_over_is_refused_even_alone(door: Calls) -> None:
    with pytest.raises(Overloaded):
        door.admission.enter(HOLD, 0)


def test_refused_calls_are_not_under_way(door: Calls) -> None:
    door.calls(20, seconds=0.5)
    entered = door.admission.enter(HOLD, 60)
    for _ in range(3):
        with pytest.raises(Overloaded):
            door.admission.enter(HOLD, 0.1)
    door.admission.leave(HOLD, entered)
    door.admission.enter(HOLD, 0.1)


def test_an_rpc_says_nothing_of_another(door: Calls) -> None:
    door.calls(20, seconds=0.5)
    door.admission.enter(HOLD, 60)
    other = "/marquee.booking.v1.BookingService/GetBooking"
    door.admission.enter(other, 60)
    door.admission.enter(other, 0.1)


def test_what_was_long_ago_is_forgotten(door: Calls) -> None:
    door.calls(20, seconds=0.5)
    door.admission.enter(HOLD, 60)
    door.clock.now += FORGET_SECONDS
    door.admission.enter(HOLD, 0.1)


def test_it_follows_when_calls_get_faster(door: Calls) -> None:
    door.calls(20, seconds=0.5)
    door.calls(30, seconds=0.01)
    door.admission.enter(HOLD, 60)
    door.admission.enter(HOLD, 0.1)
