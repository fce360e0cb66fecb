"""``seat.availability``: how many seats are for sale, told now and then for lists and search."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from marquee.booking import v1 as booking_v1
from services.booking.store.seats import SeatStore
from services.kit import outbox
from services.kit.database import Pool
from services.kit.outbox import Event

MOST_AT_ONCE = 500


class Announcer:
    """Gathers the shows whose seats changed, and announces each once in a while however often they change.

    A crash loses what was gathered; the next change of the show makes up for it, and those who must be exact ask
    ``GetAvailability``.
    """

    def __init__(self, pool: Pool, seats: SeatStore) -> None:
        self._pool = pool
        self._seats = seats
        self._changed: set[UUID] = set()

    def changed(self, show_ids: Iterable[UUID]) -> None:
        self._changed.update(show_ids)

    async def announce(self) -> None:
        """Announce what has gathered."""
        while self._changed:
            some = [self._changed.pop() for _ in range(min(MOST_AT_ONCE, len(self._changed)))]
            try:
                events = [
                    Event(
                        "seat.availability",
                        str(show_id),
                        booking_v1.SeatAvailability(show_id=str(show_id), version=version, available_seats=available),
                    )
                    for show_id, available, version in await self._seats.available(some)
                ]
                async with self._pool.connection() as connection, connection.transaction():
                    await outbox.append(connection, events)
            except BaseException:
                self._changed.update(some)
                raise
