"""Real commits at a steady pace, so that viewers have something to see."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import psycopg

from bench.stage import Stage
from marquee.booking import v1 as booking_v1

LEAST_SEATS = 100
SEATS = 2


@dataclass(frozen=True)
class WatchedShow:
    show_id: str
    labels: Sequence[str]


async def shows_to_watch(stage: Stage, count: int) -> list[WatchedShow]:
    """The first ``count`` shows from tomorrow on; other subjects take the last ones."""
    async with await psycopg.AsyncConnection.connect(stage.stack.database_url("booking")) as connection:
        cursor = await connection.execute(
            """
            SELECT show_id
            FROM shows
            WHERE NOT cancelled
              AND capacity >= %s
              AND start_time > now() + interval '1 day'
            ORDER BY start_time, show_id
            LIMIT %s
            """,
            (LEAST_SEATS, count),
        )
        show_ids = [str(row[0]) for row in await cursor.fetchall()]
    async with grpc.aio.insecure_channel(stage.stack.address("booking")) as channel:
        booking = booking_v1.BookingServiceStub(channel)
        seat_maps = [
            await booking.GetSeatMap(booking_v1.GetSeatMapRequest(show_id=show_id), metadata=_as(stage.users[0]))
            for show_id in show_ids
        ]
    return [WatchedShow(each.show_id, [seat.label for seat in each.seats]) for each in seat_maps]


class Changes:
    """Holds and their releases, in turn, each by another customer and the next show. Use ``changing``."""

    def __init__(
        self, stub: booking_v1.BookingServiceStub, shows: Sequence[WatchedShow], tokens: Sequence[str]
    ) -> None:
        self._stub = stub
        self._tokens = itertools.cycle(tokens)
        self._pairs = itertools.cycle(
            (show.show_id, show.labels[first : first + SEATS])
            for first in range(0, LEAST_SEATS, SEATS)
            for show in shows
        )
        self._held: list[tuple[str, str]] = []
        self.failed = 0
        self.seconds: list[float] = []
        """How long each change's call took."""

    async def run(self, a_second: float) -> None:
        """Make ``a_second`` changes until cancelled; one that is slow does not delay the next."""
        due = time.monotonic()
        async with asyncio.TaskGroup() as under_way:
            for number in itertools.count():
                due += 1 / a_second
                await asyncio.sleep(due - time.monotonic())
                under_way.create_task(self._hold() if number % 2 == 0 or not self._held else self._release())

    async def _hold(self) -> None:
        token = next(self._tokens)
        show_id, seats = next(self._pairs)
        request = booking_v1.CreateReservationRequest(request_id=str(uuid.uuid4()), show_id=show_id, seats=seats)
        reservation = await self._timed(self._stub.CreateReservation(request, metadata=_as(token), timeout=5))
        if reservation is not None:
            self._held.append((token, reservation.reservation_id))

    async def _release(self) -> None:
        token, reservation_id = self._held.pop(0)
        request = booking_v1.ReleaseReservationRequest(reservation_id=reservation_id)
        await self._timed(self._stub.ReleaseReservation(request, metadata=_as(token), timeout=5))

    async def _timed(self, call: Awaitable[booking_v1.Reservation]) -> booking_v1.Reservation | None:
        started = time.perf_counter()
        try:
            answer = await call
        except grpc.aio.AioRpcError:
            self.failed += 1
            return None
        self.seconds.append(time.perf_counter() - started)
        return answer


@asynccontextmanager
async def changing(stage: Stage, shows: Sequence[WatchedShow], a_second: float) -> AsyncIterator[Changes]:
    """Change ``shows`` while the block lasts."""
    async with grpc.aio.insecure_channel(stage.stack.address("booking")) as channel:
        changes = Changes(booking_v1.BookingServiceStub(channel), shows, stage.users)
        running = asyncio.create_task(changes.run(a_second))
        try:
            yield changes
        finally:
            running.cancel()
            await asyncio.wait((running,))


def _as(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]
