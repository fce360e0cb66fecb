"""Waking those who watch a booking when it changes, in this process and in others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from uuid import UUID

from services.booking.notices import Notices


def channel_of(booking_id: UUID) -> str:
    return f"booking:{{{booking_id}}}"


class BookingSignals:
    """One event a watched booking. A lost notice costs a watcher until its next poll."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._waiting: dict[UUID, set[asyncio.Event]] = {}

    def changed(self, booking_ids: Iterable[UUID]) -> None:
        """Wake the watchers of bookings that changed; never waits, never fails."""
        ids = list(booking_ids)
        for booking_id in ids:
            self._wake(booking_id)
        self._notices.publish((channel_of(booking_id), booking_id.bytes) for booking_id in ids)

    async def enter(self, booking_id: UUID) -> asyncio.Event:
        """An event that is set at each change; hand it back with ``leave``."""
        event = asyncio.Event()
        watchers = self._waiting.setdefault(booking_id, set())
        watchers.add(event)
        if len(watchers) == 1:
            await self._notices.subscribe(channel_of(booking_id), lambda _, message: self._wake(UUID(bytes=message)))
        return event

    async def leave(self, booking_id: UUID, event: asyncio.Event) -> None:
        watchers = self._waiting.get(booking_id, set())
        watchers.discard(event)
        if not watchers and self._waiting.pop(booking_id, None) is not None:
            await self._notices.unsubscribe(channel_of(booking_id))

    @staticmethod
    async def wait(event: asyncio.Event, seconds: float) -> None:
        """Until the booking changes, at most ``seconds``."""
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)

    def wake_all(self) -> None:
        for booking_id in self._waiting:
            self._wake(booking_id)

    def _wake(self, booking_id: UUID) -> None:
        for event in self._waiting.get(booking_id, ()):
            event.set()
