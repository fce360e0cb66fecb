"""Holds that should all succeed, on many shows or on one, and holds that should all be refused."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator

import grpc
import psycopg
from google.protobuf import json_format

from local.stack import Stack
from marquee.booking import v1 as booking_v1
from marquee.catalog import v1 as catalog_v1

METHOD = "/marquee.booking.v1.BookingService/CreateReservation"
SEATS = 2
CROWDED = 200
"""Shows that are kept for crowds."""


class HoldCalls:
    """An endless supply of calls, none of which wants a seat that another one wants.

    Neighbouring calls are for different shows, as on an ordinary evening.

    Args:
        tokens: access tokens of the customers.
        shows: ids, and the labels of the seats that are free.
        crowded: how many of the shows, the last ones, are kept for crowds.
    """

    def __init__(self, tokens: list[str], shows: list[tuple[str, list[str]]], *, crowded: int = CROWDED) -> None:
        ordinary = len(shows) - crowded
        self._tokens = tokens
        self._crowded = shows[ordinary:]
        self._calls = self._all(tokens, shows[:ordinary])
        self.count = sum(len(labels) // SEATS for _, labels in shows[:ordinary])

    @classmethod
    async def of(cls, stack: Stack, tokens: list[str], *, shows: int, after: int = 0) -> HoldCalls:
        """Calls for ``shows`` shows of the stack's demo data, those furthest away but ``after``, which others use."""
        async with await psycopg.AsyncConnection.connect(stack.database_url("booking")) as connection:
            rows = await (
                await connection.execute(
                    "SELECT show_id, layout_id FROM shows WHERE NOT cancelled AND title <> 'bench'"
                    " AND sale_closes > now() + interval '1 hour'"
                    " ORDER BY start_time DESC, show_id LIMIT %s OFFSET %s",
                    (shows, after),
                )
            ).fetchall()
        labels = await labels_of(stack, {row[1] for row in rows})
        return cls(tokens, [(str(show_id), labels[layout_id]) for show_id, layout_id in rows if labels[layout_id]])

    def take(self, count: int) -> list[tuple[str, bytes]]:
        """The next calls, for many shows."""
        return list(itertools.islice(self._calls, count))

    def take_rest(self, count: int) -> list[tuple[str, bytes]]:
        """The next calls as JSON."""
        return [
            (
                token,
                json_format.MessageToJson(booking_v1.CreateReservationRequest.FromString(raw), indent=None).encode(),
            )
            for token, raw in self.take(count)
        ]

    def sell_out(self) -> tuple[str, list[str], list[tuple[str, bytes]]]:
        """A show that no other call names, its seats, and calls that hold them all, a pair each."""
        show_id, labels = self._crowded.pop()
        pairs = range(0, len(labels) - 1, SEATS)
        return (
            show_id,
            labels,
            [
                _call(self._tokens[(pair // SEATS) % len(self._tokens)], show_id, labels[pair : pair + SEATS])
                for pair in pairs
            ],
        )

    def in_vain(self, show_id: str, labels: list[str], count: int) -> list[tuple[str, bytes]]:
        """Calls for seats that the first half of the users have, by the others."""
        late = self._tokens[len(self._tokens) // 2 :]
        pairs = [labels[first : first + SEATS] for first in range(0, len(labels) - 1, SEATS)]
        return [_call(late[number % len(late)], show_id, pairs[number % len(pairs)]) for number in range(count)]

    @staticmethod
    def _all(tokens: list[str], shows: list[tuple[str, list[str]]]) -> Iterator[tuple[str, bytes]]:
        for first in itertools.count(0, SEATS):
            usable = [(place, *show) for place, show in enumerate(shows) if first + SEATS <= len(show[1])]
            if not usable:
                raise SystemExit("bench: all seats of the demo data are held; `shows` is too small")
            # A user comes back to the same show only after everybody else, and never more than twice.
            for place, show_id, labels in usable:
                user = (place + first // SEATS * 7) % len(tokens)
                yield _call(tokens[user], show_id, labels[first : first + SEATS])


async def labels_of(stack: Stack, layout_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, list[str]]:
    """The labels of each layout's seats, in the order of their numbers."""
    async with grpc.aio.insecure_channel(stack.address("catalog")) as channel:
        catalog = catalog_v1.CatalogServiceStub(channel)
        layouts = [
            await catalog.GetLayout(catalog_v1.GetLayoutRequest(layout_id=str(layout_id))) for layout_id in layout_ids
        ]
    return {uuid.UUID(layout.layout_id): [seat.label for seat in layout.seats] for layout in layouts}


def _call(token: str, show_id: str, seats: list[str]) -> tuple[str, bytes]:
    request = booking_v1.CreateReservationRequest(request_id=str(uuid.uuid4()), show_id=show_id, seats=seats)
    return token, request.SerializeToString()
