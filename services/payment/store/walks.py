"""How far the reconciler has looked through the provider's payments, at each of their ages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.kit.database import Connection


@dataclass(frozen=True, slots=True)
class Walk:
    """A part of the provider's payments to look through: those made from ``since`` to ``until``, now ``age`` old."""

    age: timedelta
    since: datetime
    until: datetime


async def claim_walk(
    connection: Connection, provider: str, ages: Sequence[timedelta], *, lease_seconds: float
) -> Walk | None:
    """The walk whose turn it is. Nobody else gets it within the lease, in which the provider is asked.

    An age that was never walked begins with what has that age now.
    """
    cursor = await connection.execute(
        """
        WITH turn AS (
            SELECT wanted.age
            FROM unnest(%(ages)s::interval[]) AS wanted (age)
            LEFT JOIN walks ON walks.provider = %(provider)s AND walks.age = wanted.age
            WHERE coalesce(walks.next_at <= clock_timestamp(), true)
            ORDER BY wanted.age
            LIMIT 1
        )
        INSERT INTO walks AS known (provider, age, walked_until, next_at)
        SELECT %(provider)s, age, clock_timestamp() - age, clock_timestamp() + %(lease)s::interval
        FROM turn
        ON CONFLICT (provider, age) DO UPDATE
        SET next_at = excluded.next_at
        WHERE known.next_at <= clock_timestamp()
        RETURNING age, walked_until, clock_timestamp() - age
        """,
        {"provider": provider, "ages": list(ages), "lease": timedelta(seconds=lease_seconds)},
    )
    row = await cursor.fetchone()
    return Walk(*row) if row else None


async def end_walk(connection: Connection, provider: str, walk: Walk, *, rest: timedelta) -> None:
    """All of it was looked at; the next part's turn comes after ``rest``."""
    await connection.execute(
        """
        UPDATE walks
        SET walked_until = greatest(walked_until, %s), next_at = clock_timestamp() + %s::interval
        WHERE provider = %s
          AND age = %s
        """,
        (walk.until, rest, provider, walk.age),
    )
