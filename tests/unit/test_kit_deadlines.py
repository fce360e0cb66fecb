"""One clock ends whatever takes too long."""

from __future__ import annotations

import asyncio
import contextvars
import time

import pytest

from services.kit.deadlines import TICK_SECONDS, Deadline, Deadlines


async def test_what_takes_too_long_ends_and_may_clean_up() -> None:
    deadlines, cleaned = Deadlines(), asyncio.Event()

    async def call() -> None:
        with deadlines.within(0.1):
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(TICK_SECONDS * 3)  # longer than a tick: it is not cancelled again
                cleaned.set()

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await call()
    assert cleaned.is_set()
    assert time.monotonic() - began < 2


async def test_what_is_in_time_is_left_alone_beside_what_is_not() -> None:
    deadlines = Deadlines()

    async def call(takes: float, limit: float) -> str:
        with deadlines.within(limit):
            await asyncio.sleep(takes)
            return "done"

    answers = await asyncio.gather(call(0.2, 10), call(10, 0.1), call(0, 10), call(10, 0), return_exceptions=True)
    assert [type(each) for each in answers] == [str, TimeoutError, str, TimeoutError]
    await asyncio.sleep(TICK_SECONDS * 2)  # the clock stands still meanwhile, and goes on for the next one
    with pytest.raises(TimeoutError):
        await call(10, 0.1)


async def test_a_caller_that_goes_away_is_no_timeout() -> None:
    deadlines = Deadlines()

    async def call(limit: float) -> None:
        with deadlines.within(limit):
            await asyncio.sleep(60)

    task = asyncio.create_task(call(60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_late_and_has_gone_away_as_well_stays_cancelled() -> None:
    deadlines, late = Deadlines(), asyncio.Event()

    async def call() -> None:
        with deadlines.within(0.1):
            try:
                await asyncio.sleep(60)
            finally:
                late.set()
                await asyncio.sleep(60)

    task = asyncio.create_task(call())
    await late.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadline_in_the_clean_up_after_another_one_is_its_own() -> None:
    deadlines, inner = Deadlines(), asyncio.Event()

    async def call() -> None:
        with deadlines.within(0.1):
            try:
                await asyncio.sleep(60)
            finally:
                with pytest.raises(TimeoutError), deadlines.within(0.1):
                    await asyncio.sleep(60)
                inner.set()

    with pytest.raises(TimeoutError):
        await call()
    assert inner.is_set()


async def test_the_clock_belongs_to_no_call_and_outlives_one_that_cannot_be_ended() -> None:
    deadlines, of_the_call = Deadlines(), contextvars.ContextVar[str]("of_the_call", default="nobody")
    seen: list[str] = []

    class Stubborn(Deadline):
        def expire(self) -> None:
            seen.append(of_the_call.get())
            raise RuntimeError("cannot be ended")

    async def call() -> None:
        of_the_call.set("somebody")
        stubborn = Stubborn(deadlines, 0)
        deadlines.add(stubborn)
        while not seen:
            await asyncio.sleep(0.01)
        deadlines.remove(stubborn)

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    await asyncio.create_task(call())
    assert seen[0] == "nobody"
    with pytest.raises(TimeoutError), deadlines.within(0.1):
        await asyncio.sleep(60)
