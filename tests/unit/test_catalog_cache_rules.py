"""The read caches' rules, with a shelf in memory whose turns the tests decide."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from services.kit.caches import TABLE, TOMBSTONE, Cached, Caches

KIND = Cached("thing", process_seconds=5, shared_seconds=100, process_entries=3)


class Shelf:
    """A shared place in memory; ``down`` makes it an empty one."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.down = False

    async def get(self, key: str) -> bytes | None:
        await asyncio.sleep(0)
        return None if self.down else self.values.get(key)

    async def put(self, key: str, value: bytes, seconds: float) -> None:
        await asyncio.sleep(0)
        if not self.down:
            self.values.setdefault(key, value)

    async def bury(self, keys: Sequence[str]) -> bool:
        await asyncio.sleep(0)
        if self.down:
            return False
        self.values.update(dict.fromkeys(keys, TOMBSTONE))
        return True


class Source:
    """Where values come from: counts loads, and waits at a gate when told to."""

    def __init__(self, value: bytes | None = b"1") -> None:
        self.value = value
        self.loads = 0
        self.gate: asyncio.Event | None = None

    async def __call__(self) -> bytes | None:
        self.loads += 1
        value = self.value
        if self.gate is not None:
            await self.gate.wait()
        return value


class Time:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def process(shelf: Shelf, now: Callable[[], float] | None = None) -> Caches:
    return Caches(shelf, now=now or Time(), chance=lambda: 0.0)


async def test_readers_of_one_key_share_one_load() -> None:
    caches, source = process(Shelf()), Source()
    source.gate = asyncio.Event()
    readers = [asyncio.create_task(caches.get(KIND, "a", source)) for _ in range(20)]
    await asyncio.sleep(0.01)
    readers[0].cancel()
    source.gate.set()
    assert await asyncio.gather(*readers[1:]) == [b"1"] * 19
    assert source.loads == 1


async def test_a_value_is_kept_for_seconds_here_and_longer_on_the_shelf() -> None:
    shelf, time, source = Shelf(), Time(), Source()
    caches = process(shelf, time)
    await caches.get(KIND, "a", source)
    source.value = b"2"
    time.seconds = 4.9
    assert await caches.get(KIND, "a", source) == b"1"
    time.seconds = 5.1
    shelf.values["thing:a"] = b"of another process"
    assert await caches.get(KIND, "a", source) == b"of another process"
    assert source.loads == 1


async def test_what_is_forgotten_is_loaded_anew_and_stays_forgotten_for_late_readers() -> None:
    shelf, source = Shelf(), Source(b"old")
    here, there = process(shelf), process(shelf)
    source.gate = asyncio.Event()
    late = asyncio.create_task(there.get(KIND, "a", source))  # has loaded the old row, and not stored it yet
    await asyncio.sleep(0.01)
    await here.forget(KIND, ["a"])
    source.gate.set()
    assert await late == b"old"
    assert shelf.values["thing:a"] == TOMBSTONE
    source.value = b"new"
    assert await here.get(KIND, "a", source) == b"new"


async def test_a_reader_under_way_in_the_writers_process_leaves_nothing_old_behind() -> None:
    caches, source = process(Shelf()), Source(b"old")
    source.gate = asyncio.Event()
    late = asyncio.create_task(caches.get(KIND, "a", source))
    await asyncio.sleep(0.01)
    await caches.forget(KIND, ["a"])
    fresh = Source(b"new")
    assert await caches.get(KIND, "a", fresh) == b"new"
    source.gate.set()
    assert await late == b"old"
    assert await caches.get(KIND, "a", fresh) == b"new"
    assert fresh.loads == 1


async def test_what_could_not_be_forgotten_is_read_past_and_forgotten_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.kit.caches.FORGET_RETRY_SECONDS", 0.01)
    shelf, source = Shelf(), Source(b"new")
    shelf.values["thing:a"] = b"old"
    caches = process(shelf)
    shelf.down = True
    await caches.forget(KIND, ["a"])
    shelf.down = False  # it comes back with what it had
    assert await caches.get(KIND, "a", source) == b"new"
    await asyncio.sleep(0.05)
    assert shelf.values["thing:a"] == TOMBSTONE
    await caches.close()


async def test_what_does_not_exist_is_not_kept() -> None:
    caches, source = process(Shelf()), Source(None)
    assert await caches.get(KIND, "a", source) is None
    source.value = b"made"
    assert await caches.get(KIND, "a", source) == b"made"


async def test_a_failure_reaches_all_who_wait_and_is_not_kept() -> None:
    caches, source = process(Shelf()), Source()

    async def fail() -> bytes | None:
        await asyncio.sleep(0)
        raise ConnectionError("database")

    answers = await asyncio.gather(*(caches.get(KIND, "a", fail) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, ConnectionError) for each in answers)
    assert await caches.get(KIND, "a", source) == b"1"


async def test_a_process_keeps_a_bounded_number() -> None:
    caches, source = process(Shelf()), Source()
    for key in "abcd":
        await caches.get(KIND, key, source)
    assert len(caches._copies["thing"]) == KIND.process_entries


def test_every_kind_has_a_name_of_its_own() -> None:
    assert len({kind.name for kind in TABLE}) == len(TABLE)
