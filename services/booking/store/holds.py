"""Holding, releasing and expiring seats: calls of the functions in ``migrations/0001_functions.sql``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services.booking.domain import ReservationState, SeatLimits, StandingArea
from services.booking.store.seats import Change, ShowChange
from services.kit.database import Pool
from services.kit.ids import shows_around


@dataclass(frozen=True, slots=True)
class HoldWish:
    """One user's wish to hold places of a show, priced and ready for the database."""

    show_id: UUID
    show_row_version: int
    user_id: UUID
    request_id: UUID
    content: bytes
    reservation_id: UUID
    seat_nos: tuple[int, ...]
    standing: tuple[tuple[StandingArea, int], ...]
    quote: bytes
    total: int


@dataclass(frozen=True, slots=True)
class HoldOutcome:
    """What became of a wish. ``outcome`` is HELD or REPLAY with a reservation, otherwise the refusal's name."""

    outcome: str
    reservation_id: UUID | None = None
    fence: int = 0
    seat_nos: tuple[int, ...] = ()
    quote: bytes = b""
    created_at: datetime | None = None
    expires_at: datetime | None = None
    taken: tuple[int, ...] = ()
    freed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ReservationRow:
    show_id: UUID
    reservation_id: UUID
    user_id: UUID
    status: ReservationState
    seat_nos: tuple[int, ...]
    quote: bytes
    fence: int
    created_at: datetime
    expires_at: datetime
    booking_id: UUID | None


@dataclass(frozen=True, slots=True)
class Expiry:
    """What a sweep ended in one show."""

    change: ShowChange
    booking_ids: tuple[UUID, ...]


class HoldStore:
    def __init__(self, pool: Pool, *, hold_for: timedelta, limits: SeatLimits) -> None:
        self._pool = pool
        self._hold_for = hold_for
        self._limits = limits

    async def add(self, wishes: Sequence[HoldWish]) -> list[HoldOutcome]:
        """Hold each wish wholly or not at all, in one call and one commit. Outcomes stand in the wishes' order."""
        # The function takes the shows' locks in the order in which it meets them; every writer uses the ids' order.
        order = sorted(range(len(wishes)), key=lambda index: wishes[index].show_id.int)
        sorted_wishes = [wishes[index] for index in order]
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                """
                SELECT place, outcome, reservation_id, fence, seat_nos, quote, created_at, expires_at, taken, freed
                FROM hold_seats(
                    %s::uuid[], %s::int[], %s::uuid[], %s::uuid[], %s::bytea[], %s::uuid[],
                    %s::int[], %s::int[], %s::int[], %s::int[], %s::bytea[], %s::bigint[], %s, %s, %s
                )
                """,
                (
                    [wish.show_id for wish in sorted_wishes],
                    [wish.show_row_version for wish in sorted_wishes],
                    [wish.user_id for wish in sorted_wishes],
                    [wish.request_id for wish in sorted_wishes],
                    [wish.content for wish in sorted_wishes],
                    [wish.reservation_id for wish in sorted_wishes],
                    [len(wish.seat_nos) for wish in sorted_wishes],
                    [seat_no for wish in sorted_wishes for seat_no in wish.seat_nos],
                    [len(wish.standing) for wish in sorted_wishes],
                    [
                        number
                        for wish in sorted_wishes
                        for area, quantity in wish.standing
                        for number in (area.first_seat_no, area.capacity, quantity)
                    ],
                    [wish.quote for wish in sorted_wishes],
                    [wish.total for wish in sorted_wishes],
                    self._hold_for,
                    self._limits.active_holds,
                    self._limits.holds_an_hour,
                ),
                binary=True,
            )
            rows = await cursor.fetchall()
        outcomes: list[HoldOutcome] = [HoldOutcome("")] * len(wishes)
        for row in rows:
            outcomes[order[row[0] - 1]] = HoldOutcome(
                outcome=row[1],
                reservation_id=row[2],
                fence=row[3] or 0,
                seat_nos=tuple(row[4] or ()),
                quote=bytes(row[5] or b""),
                created_at=row[6],
                expires_at=row[7],
                taken=tuple(row[8] or ()),
                freed=tuple(row[9] or ()),
            )
        return outcomes

    async def find(self, reservation_id: UUID, user_id: UUID) -> ReservationRow | None:
        """A user's own reservation; somebody else's is not found."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                """
                SELECT show_id, reservation_id, user_id, status, seat_nos, quote, fence, created_at, expires_at,
                       booking_id
                FROM reservations
                WHERE reservation_id = %s
                  AND user_id = %s
                  AND show_id BETWEEN %s AND %s
                """,
                (reservation_id, user_id, *shows_around([reservation_id])),
            )
            row = await cursor.fetchone()
        if row is None:
            return None
        return ReservationRow(row[0], row[1], row[2], ReservationState(row[3]), tuple(row[4]), bytes(row[5]), *row[6:])

    async def release(self, reservation_id: UUID, user_id: UUID) -> tuple[str, ShowChange | None]:
        """Give a reservation back. Answers RELEASED with the change; or ENDED, CONVERTED, NOT_FOUND without."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT outcome, show_id, version, freed FROM release_hold(%s, %s)", (reservation_id, user_id)
            )
            row = await cursor.fetchone()
        assert row is not None
        outcome, show_id, version, freed = row
        change = ShowChange(show_id, Change(version, freed=tuple(freed))) if outcome == "RELEASED" else None
        return outcome, change

    async def expire_due(self, most_shows: int = 100) -> list[Expiry]:
        """End holds and unpaid bookings whose time is over, by PostgreSQL's clock."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT show_id, version, freed, booking_ids FROM expire_due(%s)", (most_shows,)
            )
            rows = await cursor.fetchall()
        return [Expiry(ShowChange(row[0], Change(row[1], freed=tuple(row[2]))), tuple(row[3] or ())) for row in rows]
