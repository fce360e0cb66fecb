"""A show's seats as they are, and the log of how they became so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from services.booking.domain import SeatState
from services.kit.database import Pool
from services.kit.replicas import Reads

Availability = tuple[UUID, int, int]


@dataclass(frozen=True, slots=True)
class Claim:
    """A seat that is not for sale, and who has it (None when the house blocked it)."""

    seat_no: int
    state: SeatState
    user_id: UUID | None


@dataclass(frozen=True, slots=True)
class Claims:
    """All claims of a show at a version."""

    version: int
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """The step of a show's log to ``version``: the seats' new states."""

    version: int
    freed: tuple[int, ...] = ()
    held: tuple[int, ...] = ()
    booked: tuple[int, ...] = ()
    blocked: tuple[int, ...] = ()
    user_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class ShowChange:
    """A change and its show, to be told to viewers after the commit."""

    show_id: UUID
    change: Change


class SeatStore:
    """``reads`` is for what may be some seconds old; without it, that comes from ``pool`` too."""

    def __init__(self, pool: Pool, reads: Reads[Pool] | None = None) -> None:
        self._pool = pool
        self._reads = reads or Reads(pool)

    async def epoch(self) -> str:
        """Changes when the database may have lost versions: restored from a copy, or served by a promoted replica.

        The log's timeline, the beginning of its files' names, changes with the promotion itself, so that nobody can
        forget it and no write comes before it. Clients send an epoch back in 40 characters: enough for 4,095 of them.
        """
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT epoch || '/' || ltrim(left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), '0') FROM epoch"
            )
            row = await cursor.fetchone()
        assert row is not None
        return str(row[0])

    async def claims(self, show_id: UUID) -> Claims | None:
        """Version and claims, of one moment (one statement sees one snapshot). None for an unknown show."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                """
                SELECT v.version, c.seat_no, c.status, c.user_id
                FROM show_versions v
                LEFT JOIN seat_claims c ON c.show_id = v.show_id
                WHERE v.show_id = %s
                """,
                (show_id,),
            )
            rows = await cursor.fetchall()
        if not rows:
            return None
        claims = tuple(Claim(row[1], SeatState(row[2]), row[3]) for row in rows if row[1] is not None)
        return Claims(rows[0][0], claims)

    async def changes(self, show_id: UUID, after: int, most: int) -> list[Change] | None:
        """The log after version ``after`` up to now; None when it does not reach back, or is longer than ``most``."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                """
                SELECT version, freed, held, booked, blocked, actor
                FROM show_log
                WHERE show_id = %s
                  AND version > %s
                ORDER BY version
                LIMIT %s
                """,
                (show_id, after, most + 1),
            )
            rows = await cursor.fetchall()
        if len(rows) > most or (rows and rows[0][0] != after + 1):
            return None
        return [Change(row[0], tuple(row[1]), tuple(row[2]), tuple(row[3]), tuple(row[4]), row[5]) for row in rows]

    async def versions(self, show_ids: Sequence[UUID]) -> dict[UUID, int]:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT show_id, version FROM show_versions WHERE show_id = ANY (%s)", (list(show_ids),)
            )
            return {row[0]: row[1] for row in await cursor.fetchall()}

    async def available(self, show_ids: Sequence[UUID]) -> list[Availability]:
        """(show, seats for sale, version) of the shows that are known."""
        return await _available(self._pool, show_ids)

    async def available_lately(self, show_ids: Sequence[UUID]) -> list[Availability]:
        """The same as it was some seconds ago at most, for lists."""
        return await self._reads(lambda pool: _available(pool, show_ids))


async def _available(pool: Pool, show_ids: Sequence[UUID]) -> list[Availability]:
    async with pool.connection() as connection:
        cursor = await connection.execute(
            """
            SELECT v.show_id, CASE WHEN s.cancelled THEN 0 ELSE s.capacity - v.taken END, v.version
            FROM show_versions v
            JOIN shows s ON s.show_id = v.show_id
            WHERE v.show_id = ANY (%s)
            """,
            (list(show_ids),),
        )
        return [(row[0], row[1], row[2]) for row in await cursor.fetchall()]
