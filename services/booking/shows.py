"""The shows that this process knows, with their layouts: booking's own copy, kept in memory while it is used."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import grpc
import structlog

from marquee.catalog import v1 as catalog_v1
from services.booking.clients import CatalogClient
from services.booking.domain import Layout, Show
from services.booking.messages import layout_of
from services.booking.store.shows import ShowRow, ShowStore

log = structlog.get_logger()

MOST_SHOWS = 20_000
MOST_LAYOUTS = 1_000
KEPT_SECONDS = 10.0
"""Another process may have taken the event that a show changed; what is shown is no older than this."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Shows that are being read, since ``at`` (``time.monotonic``)."""

    at: float
    shows: asyncio.Task[dict[UUID, Show]]


class Shows:
    """Shows by id. A show that changed is noticed by the hold function, which compares versions, or by the event."""

    def __init__(self, store: ShowStore, catalog: CatalogClient) -> None:
        self._store = store
        self._catalog = catalog
        self._shows: OrderedDict[UUID, tuple[Show, float]] = OrderedDict()
        self._layouts: OrderedDict[UUID, Layout] = OrderedDict()
        self._reading: dict[UUID, Reading] = {}

    async def find(self, show_id: UUID, *, newer_than_seconds: float = KEPT_SECONDS) -> Show | None:
        """The show as it was at most ``newer_than_seconds`` ago, or None when booking has not heard of it.

        Raises:
            grpc.aio.AioRpcError: its layout is not known yet and the catalogue does not answer.
        """
        kept = self._kept(show_id, newer_than_seconds)
        if kept is not None:
            return kept
        return (await self.find_all((show_id,), newer_than_seconds=newer_than_seconds)).get(show_id)

    async def find_all(self, show_ids: Iterable[UUID], *, newer_than_seconds: float = KEPT_SECONDS) -> dict[UUID, Show]:
        """The same for several; those that must be read are read together, and unknown ones are missing."""
        found: dict[UUID, Show] = {}
        reading: dict[UUID, asyncio.Task[dict[UUID, Show]]] = {}
        unread = []
        for show_id in set(show_ids):
            kept = self._kept(show_id, newer_than_seconds)
            if kept is not None:
                found[show_id] = kept
                continue
            begun = self._reading.get(show_id)
            if begun is not None and time.monotonic() - begun.at < newer_than_seconds:
                reading[show_id] = begun.shows
            else:
                unread.append(show_id)
        if unread:
            begun = Reading(time.monotonic(), asyncio.create_task(self._read(unread)))
            reading |= dict.fromkeys(unread, begun.shows)
            self._reading |= dict.fromkeys(unread, begun)
            begun.shows.add_done_callback(lambda done: self._end_reading(unread, done))
        for show_id, task in reading.items():
            show = (await asyncio.shield(task)).get(show_id)
            if show is not None:
                found[show_id] = show
        return found

    async def find_or_none(self, show_id: UUID) -> Show | None:
        """For a title or a summary, which may be as old as what a hold saw, and is left out while it cannot be read."""
        try:
            return await self.find(show_id, newer_than_seconds=math.inf)
        except grpc.aio.AioRpcError as error:
            log.warning("show_not_read", show_id=str(show_id), error=str(error.code()))
            return None

    def forget(self, show_id: UUID) -> None:
        """Read it anew next time. What is being read just now may be older than the change: it is not kept."""
        self._shows.pop(show_id, None)
        self._reading.pop(show_id, None)

    def _kept(self, show_id: UUID, newer_than_seconds: float) -> Show | None:
        kept = self._shows.get(show_id)
        return kept[0] if kept is not None and time.monotonic() - kept[1] < newer_than_seconds else None

    def _end_reading(self, show_ids: Sequence[UUID], reading: asyncio.Task[dict[UUID, Show]]) -> None:
        for show_id in show_ids:
            if self._is_read_by(reading, show_id):
                del self._reading[show_id]
        if not reading.cancelled():
            reading.exception()  # whoever asked is told; nobody may be left who did

    def _is_read_by(self, reading: asyncio.Task[Any] | None, show_id: UUID) -> bool:
        begun = self._reading.get(show_id)
        return begun is not None and begun.shows is reading

    async def _read(self, show_ids: Sequence[UUID]) -> dict[UUID, Show]:
        read_at = time.monotonic()
        shows = [_show(row, await self._layout(row.layout_id)) for row in await self._store.find_many(show_ids)]
        for show in shows:
            if self._is_read_by(asyncio.current_task(), show.show_id):
                self._shows[show.show_id] = (show, read_at)
                self._shows.move_to_end(show.show_id)
                if len(self._shows) > MOST_SHOWS:
                    self._shows.popitem(last=False)
        return {show.show_id: show for show in shows}

    async def _layout(self, layout_id: UUID) -> Layout:
        known = self._layouts.get(layout_id)
        if known is not None:
            return known
        stored = await self._store.find_layout(layout_id)
        if stored is None:
            message = await self._catalog.layout(layout_id)
            await self._store.keep_layout(layout_id, message.SerializeToString())
        else:
            message = catalog_v1.Layout.FromString(stored)
        layout = layout_of(message)
        self._layouts[layout_id] = layout
        if len(self._layouts) > MOST_LAYOUTS:
            self._layouts.popitem(last=False)
        return layout


def _show(row: ShowRow, layout: Layout) -> Show:
    return Show(
        show_id=row.show_id,
        version=row.version,
        title=row.title,
        city_id=row.city_id,
        venue_id=row.venue_id,
        venue_name=row.venue_name,
        screen_name=row.screen_name,
        time_zone=row.time_zone,
        start_time=row.start_time,
        sale_opens=row.sale_opens,
        sale_closes=row.sale_closes,
        layout=layout,
        layout_version=row.layout_version,
        capacity=row.capacity,
        currency=row.currency,
        prices=row.prices,
        refund_tiers=tuple((minutes, percent) for minutes, percent in row.refund_tiers),
        cancelled=row.cancelled,
    )
