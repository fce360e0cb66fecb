"""The batcher: together, in order, one lane at a time, and nobody waits for another lane's slow batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from services.kit.batcher import Batcher
from services.kit.errors import Overloaded

Wish = tuple[str, int]


class Flushes:
    """Records batches; those of a lane in ``stuck`` wait until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[Wish]] = []
        self.under_way: list[str] = []
        self.twice_at_once: set[str] = set()
        self.stuck: dict[str, asyncio.Event] = {}

    async def __call__(self, wishes: Sequence[Wish]) -> Sequence[int | Exception]:
        self.batches.append(list(wishes))
        lanes = {lane for lane, _ in wishes}
        self.twice_at_once |= lanes & set(self.under_way)
        self.under_way += lanes
        for lane in lanes & self.stuck.keys():
            await self.stuck[lane].wait()
        await asyncio.sleep(0)
        for lane in lanes:
            self.under_way.remove(lane)
        return [ValueError(str(number)) if number < 0 else number * 10 for _, number in wishes]


def batcher(flush: Flushes, **limits: int) -> Batcher[Wish, int]:
    return Batcher(flush, lane=lambda wish: wish[0], gather_seconds=0.001, **limits)


async def test_each_caller_gets_its_own_result_or_exception() -> None:
    adding = batcher(Flushes())
    results = await asyncio.gather(
        *(adding.add((f"show {number % 3}", number)) for number in range(100)),
        adding.add(("show 1", -7)),
        return_exceptions=True,
    )
    assert results[:100] == [number * 10 for number in range(100)]
    assert isinstance(results[100], ValueError)


async def test_what_comes_while_a_batch_is_under_way_shares_the_next() -> None:
    flush = Flushes()
    flush.stuck["a"] = asyncio.Event()
    adding = batcher(flush, at_once=1)
    first = asyncio.create_task(adding.add(("a", 0)))
    await asyncio.sleep(0.01)
    rest = [asyncio.create_task(adding.add((lane, number))) for lane in "abc" for number in range(3)]
    await asyncio.sleep(0.05)
    assert flush.batches == [[("a", 0)]]
    flush.stuck.pop("a").set()
    await asyncio.gather(first, *rest)
    assert [len(batch) for batch in flush.batches] == [1, 9]


async def test_a_batch_that_follows_another_waits_while_company_comes() -> None:
    flush = Flushes()
    adding = Batcher(flush, lane=lambda wish: wish[0], gather_seconds=0.3)
    await adding.add(("first", 0))
    coming = []
    for number in range(4):  # each within a third of the time after the last
        coming.append(asyncio.create_task(adding.add((f"show {number}", number))))
        await asyncio.sleep(0.05)
    await asyncio.gather(*coming)
    assert [len(batch) for batch in flush.batches] == [1, 4]


async def test_a_batch_that_fills_up_waits_no_longer() -> None:
    flush = Flushes()
    adding = Batcher(flush, lane=lambda wish: wish[0], gather_seconds=30, most=3)
    await adding.add(("first", 0))
    began = time.monotonic()
    await asyncio.gather(*(adding.add((f"show {number}", number)) for number in range(3)))
    assert time.monotonic() - began < 9
    assert [len(batch) for batch in flush.batches] == [1, 3]


async def test_too_few_results_are_everybodys_error() -> None:
    async def flush(wishes: Sequence[Wish]) -> Sequence[int]:
        return []

    adding: Batcher[Wish, int] = Batcher(flush, lane=lambda wish: wish[0])
    results = await asyncio.gather(*(adding.add(("a", number)) for number in range(3)), return_exceptions=True)
    assert all(isinstance(result, ValueError) for result in results)


async def test_a_lane_never_runs_twice_at_once_and_keeps_its_order() -> None:
    flush = Flushes()
    adding = batcher(flush, most=4)
    await asyncio.gather(*(adding.add((f"show {number % 5}", number)) for number in range(200)))
    assert flush.twice_at_once == set()
    for show in range(5):
        numbers = [number for batch in flush.batches for lane, number in batch if lane == f"show {show}"]
        assert numbers == sorted(numbers)
    assert max(map(len, flush.batches)) == 4


async def test_a_slow_batch_is_overtaken_by_other_lanes_only() -> None:
    flush = Flushes()
    flush.stuck["hot"] = asyncio.Event()
    adding = batcher(flush)
    slow = [asyncio.create_task(adding.add(("hot", number))) for number in range(2)]
    await asyncio.sleep(0.01)
    late = asyncio.create_task(adding.add(("hot", 5)))
    assert await asyncio.wait_for(adding.add(("calm", 3)), 5) == 30
    assert not any(task.done() for task in [*slow, late])
    flush.stuck["hot"].set()
    assert await asyncio.gather(*slow, late) == [0, 10, 50]


async def test_a_full_lane_refuses_and_the_others_do_not() -> None:
    flush = Flushes()
    flush.stuck["hot"] = asyncio.Event()
    adding = batcher(flush, waiting=3)
    first = asyncio.create_task(adding.add(("hot", 0)))
    await asyncio.sleep(0.01)
    waiting = [asyncio.create_task(adding.add(("hot", number))) for number in range(3)]
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded):
        await adding.add(("hot", 9))
    assert await asyncio.wait_for(adding.add(("calm", 1)), 5) == 10
    flush.stuck["hot"].set()
    await asyncio.gather(first, *waiting)


async def test_a_caller_that_goes_away_is_left_out_and_the_rest_goes_on() -> None:
    flush = Flushes()
    flush.stuck["a"] = asyncio.Event()
    adding = batcher(flush)
    first = asyncio.create_task(adding.add(("a", 0)))
    await asyncio.sleep(0.01)
    gone = asyncio.create_task(adding.add(("a", 1)))
    stays = asyncio.create_task(adding.add(("a", 2)))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    flush.stuck["a"].set()
    assert await asyncio.gather(first, stays) == [0, 20]
    assert ("a", 1) not in [wish for batch in flush.batches for wish in batch]


@pytest.mark.parametrize(
    ("error", "spoilt"), [(ValueError("9"), {9}), (Overloaded("try again", retry_after_seconds=1), {7, 8, 9})]
)
async def test_one_that_cannot_be_done_spoils_the_others_only_when_it_is_the_moment(
    error: Exception, spoilt: set[int]
) -> None:
    async def flush(wishes: Sequence[Wish]) -> Sequence[int | Exception]:
        if any(number == 9 for _, number in wishes):
            raise error
        return [number for _, number in wishes]

    adding: Batcher[Wish, int] = Batcher(flush, lane=lambda wish: wish[0])
    results = await asyncio.gather(*(adding.add(("a", number)) for number in (7, 8, 9)), return_exceptions=True)
    assert {number for number, result in zip((7, 8, 9), results, strict=True) if result is error} == spoilt
