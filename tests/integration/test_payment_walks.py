"""How far the reconciler has looked is kept: no part of the provider's payments is left out, none is walked by two."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import psycopg
import pytest

from services.kit.database import Connection
from services.payment.reconciler import Rhythm
from services.payment.store.walks import claim_walk, end_walk

AGE = timedelta(seconds=15)
NO_REST = timedelta(0)


@pytest.fixture
async def connection(migrated_database_url: Callable[[str], str]) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(migrated_database_url("payment"), autocommit=True) as it:
        yield it


async def test_each_part_begins_where_the_last_one_ended(connection: Connection) -> None:
    first = await claim_walk(connection, "razorpay", [AGE], lease_seconds=60)
    assert first is not None
    await end_walk(connection, "razorpay", first, rest=NO_REST)
    second = await claim_walk(connection, "razorpay", [AGE], lease_seconds=60)
    assert second is not None
    assert (second.age, second.since) == (AGE, first.until)
    assert second.until > first.until


async def test_a_part_is_one_process_s_until_it_ends_or_its_lease_does(connection: Connection) -> None:
    first = await claim_walk(connection, "razorpay", [AGE], lease_seconds=60)
    assert first is not None
    assert await claim_walk(connection, "razorpay", [AGE], lease_seconds=60) is None
    assert await claim_walk(connection, "another", [AGE], lease_seconds=60) is not None

    # Killed in its middle.
    await connection.execute("UPDATE walks SET next_at = clock_timestamp() WHERE provider = 'razorpay'")
    again = await claim_walk(connection, "razorpay", [AGE], lease_seconds=60)
    assert again is not None
    assert again.since == first.since


async def test_the_youngest_age_that_is_due_comes_first(connection: Connection) -> None:
    ages = [timedelta(minutes=1), AGE]
    walked = []
    while walk := await claim_walk(connection, "razorpay", ages, lease_seconds=60):
        walked.append(walk.age)
    assert walked == [AGE, timedelta(minutes=1)]


def test_ages_grow_fourfold_up_to_the_oldest_that_matters() -> None:
    rhythm = Rhythm(
        first_seconds=15, for_seconds=300, capture_after_seconds=30, unmatched_grace_seconds=300, idle_seconds=1
    )
    assert [age.total_seconds() for age in rhythm.ages()] == [15, 60, 240, 300]
