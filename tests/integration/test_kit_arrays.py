"""Lists reach PostgreSQL as they are, whatever is in them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.kit.database import open_pool

MOMENT = datetime(2026, 11, 22, tzinfo=UTC)
LISTS = {
    "int[]": st.integers(-(2**31), 2**31 - 1),
    "bigint[]": st.integers(-(2**63), 2**63 - 1),
    "uuid[]": st.uuids(),
    "timestamptz[]": st.integers(0, 2**47).map(lambda micros: MOMENT + timedelta(microseconds=micros)),
    "bytea[]": st.binary(max_size=40),
    "text[]": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.sampled_from(
        ["", "NULL", "null", "{", "}", ",", '"', "\\", ' "a" ', "\\x41", "a,b", "{a}", "\n", "'"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LISTS)
async def test_lists_come_back_as_they_were_sent(kind: str, database_url: Callable[..., str]) -> None:
    elements: st.SearchStrategy[Any] = LISTS[kind]
    samples: list[list[Any]] = [[], [None], [None, None]]

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(elements | st.none() if kind != "bigint[]" else elements, max_size=12))
    def gather(values: list[Any]) -> None:
        samples.append(values)

    gather()
    async with open_pool(database_url("arrays"), size=1) as pool, pool.connection() as connection:
        for values in samples:
            row = await (await connection.execute(f"SELECT %s::{kind}", (values,))).fetchone()  # type: ignore[arg-type]
            assert row is not None
            assert row[0] == values


async def test_long_lists_of_ids_are_found(database_url: Callable[..., str]) -> None:
    wanted = [uuid.uuid4() for _ in range(1_000)]
    async with open_pool(database_url("arrays"), size=1) as pool, pool.connection() as connection:
        cursor = await connection.execute("SELECT count(*) FROM unnest(%s) AS id WHERE id = ANY (%s)", (wanted, wanted))
        assert await cursor.fetchone() == (1_000,)
