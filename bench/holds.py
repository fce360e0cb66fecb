"""Holds: distinct users and seats, so that every one of them should succeed."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator

import grpc
import psycopg

from local.stack import Stack
from marquee.booking import v1 as booking_v1
from marquee.catalog import v1 as catalog_v1

METHOD = "/marquee.booking.v1.BookingService/CreateReservation"
SEATS = 2
HOLDS_A_USER_AND_SHOW = 2


class HoldCalls:
    """An endless supply of calls, none of which wants a seat that another one wants.

    Neighbouring calls are for different shows, as on an ordinary evening.
    """

    def __init__(self, tokens: list[str], shows: list[tuple[str, list[str]]]) -> None:
        self._calls = self._all(tokens, shows)

    @classmethod
    async def of(cls, stack: Stack, tokens: list[str], *, shows: int) -> HoldCalls:
        """Calls for ``shows`` shows of the stack's demo data, the ones furthest away."""
        async with await psycopg.AsyncConnection.connect(stack.database_url("booking")) as connection:
            rows = await (
                await connection.execute(
                    "SELECT show_id, layout_id FROM shows WHERE NOT cancelled AND title <> 'bench'"
                    " ORDER BY start_time DESC, show_id LIMIT %s",
                    (shows,),
                )
            ).fetchall()
        labels: dict[uuid.UUID, list[str]] = {}
        async with grpc.aio.insecure_channel(stack.address("catalog")) as channel:
            catalog = catalog_v1.CatalogServiceStub(channel)
            for layout_id in {row[1] for row in rows}:
                layout = await catalog.GetLayout(catalog_v1.GetLayoutRequest(layout_id=str(layout_id)))
                labels[layout_id] = [seat.label for seat in layout.seats]
        return cls(tokens, [(str(show_id), labels[layout_id]) for show_id, layout_id in rows if labels[layout_id]])

    def take(self, count: int) -> list[tuple[str, bytes]]:
        return list(itertools.islice(self._calls, count))

    @staticmethod
    def _all(tokens: list[str], shows: list[tuple[str, list[str]]]) -> Iterator[tuple[str, bytes]]:
        number = 0
        for first in itertools.count(0, SEATS):
            usable = [(show_id, labels) for show_id, labels in shows if first + SEATS <= len(labels)]
            if not usable:
                raise SystemExit("bench: all seats of the demo data are held; `shows` is too small")
            # A user comes back to the same show only after everybody else, and never more than twice.
            for place, (show_id, labels) in enumerate(usable):
                user = (place + first // SEATS * 7) % len(tokens)
                request = booking_v1.CreateReservationRequest(
                    request_id=str(uuid.uuid4()), show_id=show_id, seats=labels[first : first + SEATS]
                )
                number += 1
                yield tokens[user], request.SerializeToString()
