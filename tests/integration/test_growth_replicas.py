"""Reads that may be old come from a streaming replica; that it lags, freezes or dies is seen by nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from booking_fixtures import keys
from booking_house import booking_house
from fixtures_replicas import Pair
from pydantic import SecretStr
from service_harness import TestKeys
from test_catalog_caches import rename

from marquee.booking import v1 as booking_v1
from marquee.catalog import v1 as catalog_v1
from tests.integration.catalog_fixtures import Catalogue, catalogue

__all__ = ["keys"]
FILMS = "FROM movies"


@asynccontextmanager
async def shop(folder: Path, pair: Pair, database: str, keys: TestKeys | None = None) -> AsyncIterator[Catalogue]:
    """The catalogue with a replica in its settings, once it reads from it."""
    replica_url = SecretStr(pair.replica.url(database))
    async with catalogue(folder, pair.primary.url(database), keys=keys, replica_database_url=replica_url) as made:
        await reads_from_replica(made, pair)
        yield made


async def titles(catalog: Catalogue, *, as_admin: bool = False) -> list[str]:
    """What the list of films says, to a visitor or to the administrator."""
    request = catalog_v1.ListMoviesRequest(state=catalog_v1.TITLE_STATE_NOW_SHOWING, page_size=100)
    answer = await catalog.read.ListMovies(request, metadata=catalog.admin if as_admin else None)
    return [movie.title for movie in answer.movies]


async def reads_from_replica(catalog: Catalogue, pair: Pair) -> None:
    """Read until the replica is asked."""
    before = pair.replica.statements(FILMS)

    async def was_asked() -> bool:
        await titles(catalog)
        return pair.replica.statements(FILMS) > before

    await until(was_asked)


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.05)


async def film(catalog: Catalogue, title: str) -> catalog_v1.Movie:
    return await catalog.movie(title=title, state=catalog_v1.TITLE_STATE_NOW_SHOWING)


# --- what is read where -----------------------------------------------------------------------------------------------


async def test_visitors_read_from_the_replica_and_staff_from_the_primary(pair: Pair, tmp_path: Path) -> None:
    async with shop(tmp_path, pair, pair.migrated("catalog")) as catalog:
        movie = await film(catalog, "Metropolis")
        pair.catch_up()
        await reads_from_replica(catalog, pair)
        on_primary = pair.primary.statements(FILMS)
        for _ in range(5):
            assert await titles(catalog) == ["Metropolis"]
        assert pair.primary.statements(FILMS) == on_primary
        assert await titles(catalog, as_admin=True) == ["Metropolis"]
        assert pair.primary.statements(FILMS) == on_primary + 1
        assert movie.version == 1


async def test_lists_count_seats_on_the_replica_and_holds_are_made_on_the_primary(pair: Pair, keys: TestKeys) -> None:
    database = pair.migrated("booking")
    replica_url = SecretStr(pair.replica.url(database))
    async with booking_house(pair.primary.url(database), "", keys, replica_database_url=replica_url) as house:
        show_id = await house.add_show()
        await house.hold(uuid4(), show_id, "A1", "A2")
        request = booking_v1.GetAvailabilityRequest(show_ids=[str(show_id)])

        async def available() -> int:
            answer = await house.internal.GetAvailability(request, metadata=house.served.as_service())
            return answer.shows[0].available_seats if answer.shows else -1

        async def counted_on_replica() -> bool:
            return await available() == 98 and pair.replica.statements("s.capacity - v.taken") > 0

        await until(counted_on_replica)
        assert pair.replica.statements("hold_seats") == 0
        pair.replica.kill()
        try:
            for _ in range(20):
                assert await available() == 98
        finally:
            pair.replica.start()


# --- read your writes -------------------------------------------------------------------------------------------------


async def test_who_changes_a_film_sees_it_at_once_however_far_behind_the_replica_is(pair: Pair, tmp_path: Path) -> None:
    database, keys = pair.migrated("catalog"), TestKeys.make(tmp_path)
    async with (
        shop(tmp_path / "a", pair, database, keys) as one,
        shop(tmp_path / "b", pair, database, keys) as other,
    ):
        movie = await film(one, "Before")
        pair.catch_up()
        for catalog in (one, other):
            await reads_from_replica(catalog, pair)
        with pair.paused():
            for number in range(10):
                movie = await rename(one, movie, f"After {number}")
                request = catalog_v1.GetMovieRequest(movie_id=movie.movie_id)
                assert (await one.read.GetMovie(request)).title == movie.title
                assert await titles(one) == [movie.title]
                assert await titles(other, as_admin=True) == [movie.title]  # also through another process
        for catalog in (one, other):
            await reads_from_replica(catalog, pair)
            assert await titles(catalog) == ["After 9"]


async def test_a_replica_that_lags_too_far_is_not_read(pair: Pair, tmp_path: Path) -> None:
    database = pair.migrated("catalog")
    async with shop(tmp_path, pair, database) as catalog:
        movie = await film(catalog, "Before")
        pair.catch_up()
        await reads_from_replica(catalog, pair)
        with pair.paused():
            # Behind the service's back, so that nothing but the replica's lag tells it.
            await catalog.sql("UPDATE movies SET title = 'After' WHERE movie_id = %s", movie.movie_id)

            async def is_seen() -> bool:
                return await titles(catalog) == ["After"]

            await until(is_seen)
            on_replica = pair.replica.statements(FILMS)
            for _ in range(5):
                assert await titles(catalog) == ["After"]
            assert pair.replica.statements(FILMS) == on_replica
        await reads_from_replica(catalog, pair)


# --- a replica that is lost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_lost_replica_is_seen_by_nobody_and_comes_back(pair: Pair, tmp_path: Path, how: str) -> None:
    async with shop(tmp_path, pair, pair.migrated("catalog")) as catalog:
        await film(catalog, "Metropolis")
        pair.catch_up()
        await reads_from_replica(catalog, pair)
        reading, answers = True, 0

        async def read() -> None:
            nonlocal answers
            while reading:
                assert await titles(catalog) == ["Metropolis"]
                answers += 1

        readers = [asyncio.create_task(read()) for _ in range(4)]

        async def many_answers(count: int = 100) -> None:
            wanted = answers + count
            await until(lambda: answers >= wanted or any(reader.done() for reader in readers))

        await many_answers()
        if how == "killed":
            pair.replica.kill()
            await many_answers()
            pair.replica.start()
        else:
            with pair.replica.frozen():
                await many_answers()
        await many_answers()
        reading = False
        await asyncio.gather(*readers)
        await reads_from_replica(catalog, pair)


async def test_a_replica_that_is_not_there_when_a_service_starts_costs_nothing(pair: Pair, tmp_path: Path) -> None:
    database = pair.migrated("catalog")
    pair.replica.kill()
    replica_url = SecretStr(pair.replica.url(database))
    try:
        async with catalogue(tmp_path, pair.primary.url(database), replica_database_url=replica_url) as catalog:
            await film(catalog, "Metropolis")
            assert await titles(catalog) == ["Metropolis"]
            pair.replica.start()
            await reads_from_replica(catalog, pair)
    finally:
        pair.replica.stop()
        pair.replica.start()
