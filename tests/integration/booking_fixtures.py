"""Fixtures of the booking tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from booking_house import House, booking_house
from fixtures_stores import DatabaseFactory
from service_harness import TestKeys


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> TestKeys:
    return TestKeys.make(tmp_path_factory.mktemp("keys"))


@pytest_asyncio.fixture(scope="module")
async def house(migrated_database_url: DatabaseFactory, valkey_cache: str, keys: TestKeys) -> AsyncIterator[House]:
    """One booking service for a module's tests; each makes shows of its own."""
    async with booking_house(
        migrated_database_url("booking"), valkey_cache, keys, most_holds_an_hour=10_000, most_streams_a_user=1_000
    ) as made:
        yield made
