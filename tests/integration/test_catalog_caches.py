"""The read caches over the real Valkey: flushed, frozen or gone, reads go on and old values do not come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from local import ports
from marquee.catalog import v1 as catalog_v1
from services.kit.caches import MOVIE, SHARED_TIMEOUT_SECONDS, TOMBSTONE, open_caches
from tests.integration.catalog_fixtures import Catalogue, catalogue, mask, new_id


@pytest.fixture
async def valkey(valkey_cache: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(valkey_cache)
    await client.flushall()
    yield client
    await client.aclose()


async def rename(catalog: Catalogue, movie: catalog_v1.Movie, title: str) -> catalog_v1.Movie:
    request = catalog_v1.UpdateMovieRequest(
        request_id=new_id(),
        movie=catalog_v1.Movie(movie_id=movie.movie_id, version=movie.version, title=title),
        update_mask=mask("title"),
    )
    return await catalog.write.UpdateMovie(request, metadata=catalog.admin)


async def read(catalog: Catalogue, movie: catalog_v1.Movie) -> catalog_v1.Movie:
    return await catalog.read.GetMovie(catalog_v1.GetMovieRequest(movie_id=movie.movie_id))


async def test_a_film_is_served_from_valkey_until_it_changes(
    migrated_database_url: Callable[[str], str], tmp_path: Path, valkey: Redis, valkey_cache: str
) -> None:
    url = migrated_database_url("catalog")
    async with (
        catalogue(tmp_path / "a", url, cache_url=valkey_cache) as one,
        catalogue(tmp_path / "b", url, cache_url=valkey_cache) as other,
    ):
        movie = await one.movie(title="Before")
        key = f"cache:{MOVIE.name}:{movie.movie_id}"
        await valkey.delete(key)  # as it is once the tombstone of its making is gone
        await read(one, movie)
        assert catalog_v1.Movie.FromString(await valkey.get(key)) == movie
        assert 0.85 * MOVIE.shared_seconds < await valkey.ttl(key) <= MOVIE.shared_seconds
        # Changed behind everyone's back: the other process still finds the copy in Valkey.
        await one.sql("UPDATE movies SET title = 'Unseen' WHERE movie_id = %s", movie.movie_id)
        assert (await read(other, movie)).title == "Before"
        renamed = await rename(one, movie, "After")
        assert await valkey.get(key) == TOMBSTONE
        assert await read(one, movie) == renamed


async def test_a_flush_costs_no_read(
    migrated_database_url: Callable[[str], str], tmp_path: Path, valkey: Redis, valkey_cache: str
) -> None:
    async with catalogue(tmp_path, migrated_database_url("catalog"), cache_url=valkey_cache) as catalog:
        movies = [await catalog.movie() for _ in range(5)]
        for _ in range(20):
            await valkey.flushall()
            assert await asyncio.gather(*(read(catalog, movie) for movie in movies)) == movies


async def test_without_valkey_reads_and_changes_go_on_quickly(
    migrated_database_url: Callable[[str], str], tmp_path: Path
) -> None:
    nobody = f"redis://127.0.0.1:{ports.pick()}/0"
    async with catalogue(tmp_path, migrated_database_url("catalog"), cache_url=nobody) as catalog:
        movie = await catalog.movie()
        began = time.monotonic()
        for number in range(5):
            movie = await rename(catalog, movie, f"Title {number}")
            assert await read(catalog, movie) == movie
        assert time.monotonic() - began < 3


async def test_a_frozen_valkey_costs_one_timeout_and_then_nothing(valkey: Redis, valkey_cache: str) -> None:
    async def load() -> bytes | None:
        return b"value"

    async with open_caches(valkey_cache) as caches:
        assert await caches.get(MOVIE, "warm", load) == b"value"
        await valkey.client_pause(1_000)
        began = time.monotonic()
        for number in range(50):
            assert await caches.get(MOVIE, str(number), load) == b"value"
        assert time.monotonic() - began < SHARED_TIMEOUT_SECONDS + 0.5


async def test_an_old_value_does_not_come_back_with_valkey(valkey: Redis, valkey_cache: str) -> None:
    value = b"old"

    async def load() -> bytes | None:
        return value

    async with open_caches(valkey_cache) as caches:
        await caches.get(MOVIE, "a", load)
        await valkey.client_pause(600)
        value = b"new"
        await caches.forget(MOVIE, ["a"])  # cannot be done just now
        await asyncio.sleep(2)
        assert await caches.get(MOVIE, "a", load) == b"new"
        assert await valkey.get(f"cache:{MOVIE.name}:a") != b"old"
