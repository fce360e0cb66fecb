"""All live maps: the seats of the shows that somebody watches, in this process's memory, kept right by the shows' logs.

A map begins with PostgreSQL's claims at a version and follows the log step by step. Steps come from this process's own
commits, from other processes' notices, and, whatever gets lost, from a poll of all watched shows once a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

import structlog

from marquee.booking import v1 as booking_v1
from services.booking.domain import SeatsTaken, Show
from services.booking.live_map import LiveMap
from services.booking.notices import Notices
from services.booking.store.seats import Change, SeatStore, ShowChange

log = structlog.get_logger()

LONGEST_REPAIR = 500
"""Log rows that a map catches up with one by one; beyond, it reads all claims anew."""
TRUSTED_SECONDS = 2.5
"""A map that was compared with PostgreSQL within this time may refuse a hold by itself."""


def channel_of(show_id: UUID) -> str:
    """The hash tag keeps a show's channel on the shard of its other keys."""
    return f"seats:{{{show_id}}}"


class LiveMaps:
    """All maps of this process.

    Args:
        coalesce_seconds: the least time between two deltas of a show; what changes sooner is part of the second.
        linger_seconds: how long a map is kept that nobody watches.
    """

    def __init__(self, store: SeatStore, notices: Notices, *, coalesce_seconds: float, linger_seconds: float) -> None:
        self._store = store
        self._notices = notices
        self._coalesce_seconds = coalesce_seconds
        self._linger_seconds = linger_seconds
        self._maps: dict[UUID, LiveMap] = {}
        self._opening: dict[UUID, asyncio.Task[LiveMap | None]] = {}
        self._flushing: set[LiveMap] = set()
        self._early: dict[UUID, list[Change]] = {}
        self.epoch = ""

    async def open(self, show: Show) -> LiveMap | None:
        """The map of ``show``; read from PostgreSQL when this process has none. None for a show it does not know."""
        live = self._maps.get(show.show_id)
        if live is not None:
            live.used_at = time.monotonic()
            return live
        return await asyncio.shield(self._begin_to_open(show))

    def expect_crowd(self, show: Show) -> None:
        """Somebody was refused a seat of ``show``, and others will be: with a map, that takes no I/O."""
        live = self._maps.get(show.show_id)
        if live is not None:
            live.used_at = time.monotonic()
        else:
            self._begin_to_open(show)

    def _begin_to_open(self, show: Show) -> asyncio.Task[LiveMap | None]:
        opening = self._opening.get(show.show_id)
        if opening is None:
            opening = asyncio.create_task(self._open(show))
            self._opening[show.show_id] = opening
            opening.add_done_callback(lambda done: self._end_opening(show.show_id, done))
        return opening

    def _end_opening(self, show_id: UUID, opening: asyncio.Task[LiveMap | None]) -> None:
        self._opening.pop(show_id, None)
        if not opening.cancelled() and (error := opening.exception()) is not None:
            log.warning("map_not_opened", show_id=str(show_id), error=f"{type(error).__name__}: {error}"[:200])

    async def _open(self, show: Show) -> LiveMap | None:
        if not self.epoch:
            self.epoch = await self._store.epoch()
        live = LiveMap(show, self.epoch)
        # Subscribe first and read second: what is committed in between arrives as a notice, and waits here.
        self._early[show.show_id] = []
        try:
            await self._notices.subscribe(channel_of(show.show_id), self._receive)
            compared_at = time.monotonic()
            claims = await self._store.claims(show.show_id)
        except BaseException:
            del self._early[show.show_id]
            raise
        early = self._early.pop(show.show_id)
        if claims is None:
            await self._notices.unsubscribe(channel_of(show.show_id))
            return None
        live.replace(claims, self.epoch)
        live.flush()
        live.compared_at = compared_at
        self._maps[show.show_id] = live
        for change in early:
            self._follow(live, change)
        return live

    def refuse_if_taken(self, show_id: UUID, seat_nos: Sequence[int], user_id: UUID) -> None:
        """Refuse at once, without I/O, what a watched show's map knows to be somebody else's.

        Raises:
            SeatsTaken: names them.
        """
        live = self._maps.get(show_id)
        if live is None or time.monotonic() - live.compared_at > TRUSTED_SECONDS:
            return
        taken = live.taken_by_others(seat_nos, user_id)
        if taken:
            live.used_at = time.monotonic()
            raise SeatsTaken([live.show.layout.label_of(seat_no) for seat_no in taken])

    def publish(self, changes: Sequence[ShowChange]) -> None:
        """Tell viewers, here and in other processes, of changes that are committed. Never waits, never fails."""
        outgoing: dict[UUID, list[booking_v1.HeldDelta]] = {}
        for show_id, change in ((each.show_id, each.change) for each in changes):
            live = self._maps.get(show_id)
            if live is not None:
                self._follow(live, change)
            elif show_id in self._early:
                self._early[show_id].append(change)
            outgoing.setdefault(show_id, []).append(_to_notice(change))
        self._notices.publish(
            (
                channel_of(show_id),
                booking_v1.SeatNotice(show_id=str(show_id), epoch=self.epoch, deltas=deltas).SerializeToString(),
            )
            for show_id, deltas in outgoing.items()
        )

    def close_show(self, show_id: UUID) -> None:
        """The show was cancelled: end its streams."""
        live = self._maps.get(show_id)
        if live is not None:
            live.closed = True
            live.viewers.end()

    def wake_all(self) -> None:
        """End all streams: the process stops, and its viewers are to come back to another one."""
        for live in self._maps.values():
            live.viewers.end()

    def _receive(self, channel: str, message: bytes) -> None:
        notice = booking_v1.SeatNotice.FromString(message)
        if notice.epoch not in ("", self.epoch):
            return  # one of us does not know the new epoch yet; the poll tells both
        show_id = UUID(notice.show_id)
        changes = [_from_notice(delta) for delta in notice.deltas]
        live = self._maps.get(show_id)
        if live is None:
            self._early.get(show_id, []).extend(changes)
            return
        for change in changes:
            self._follow(live, change)

    def _follow(self, live: LiveMap, change: Change) -> None:
        live.follow(change)
        self._flush_soon(live)

    def _flush_soon(self, live: LiveMap) -> None:
        if not live.unflushed or live in self._flushing:
            return
        self._flushing.add(live)

        def flush() -> None:
            self._flushing.discard(live)
            live.tell_viewers()

        delay = live.told_at + self._coalesce_seconds - time.monotonic()
        asyncio.get_running_loop().call_later(max(0.0, delay), flush)

    async def compare(self) -> None:
        """Bring every map up to PostgreSQL's version, and let go of those that nobody has used for a while.

        To be called about once a second. While PostgreSQL is away it raises, and the maps are soon not trusted.
        """
        now = time.monotonic()
        for show_id, live in list(self._maps.items()):
            if not live.viewers and now - live.used_at > self._linger_seconds:
                del self._maps[show_id]
                await self._notices.unsubscribe(channel_of(show_id))
        if not self._maps:
            return
        epoch = await self._store.epoch()
        if epoch != self.epoch:
            log.warning("epoch_changed", old=self.epoch, new=epoch)
            self.epoch = epoch
        versions = await self._store.versions(list(self._maps))
        for show_id, version in versions.items():
            known = self._maps.get(show_id)
            if known is None:
                continue
            if version > known.version or epoch != known.epoch:
                await self._repair(known)
            known.compared_at = now

    async def _repair(self, live: LiveMap) -> None:
        show_id = live.show.show_id
        if live.epoch == self.epoch:
            changes = await self._store.changes(show_id, live.version, LONGEST_REPAIR)
            if changes is not None:
                for change in changes:
                    live.follow(change)
                self._flush_soon(live)
                return
        claims = await self._store.claims(show_id)
        # A commit of our own may have overtaken the read; an older state must not come back under the same epoch.
        if claims is not None and (claims.version >= live.version or live.epoch != self.epoch):
            live.replace(claims, self.epoch)
            live.tell_viewers()


def _to_notice(change: Change) -> booking_v1.HeldDelta:
    by_status = (
        (booking_v1.SEAT_STATUS_AVAILABLE, change.freed),
        (booking_v1.SEAT_STATUS_HELD, change.held),
        (booking_v1.SEAT_STATUS_BOOKED, change.booked),
        (booking_v1.SEAT_STATUS_BLOCKED, change.blocked),
    )
    delta = booking_v1.SeatDelta(
        from_version=change.version - 1,
        to_version=change.version,
        changes=[booking_v1.SeatChange(status=status, seat_nos=seats) for status, seats in by_status if seats],
    )
    return booking_v1.HeldDelta(delta=delta, user_id=str(change.user_id or ""))


def _from_notice(notice: booking_v1.HeldDelta) -> Change:
    seats = {change.status: tuple(change.seat_nos) for change in notice.delta.changes}
    return Change(
        version=notice.delta.to_version,
        freed=seats.get(booking_v1.SEAT_STATUS_AVAILABLE, ()),
        held=seats.get(booking_v1.SEAT_STATUS_HELD, ()),
        booked=seats.get(booking_v1.SEAT_STATUS_BOOKED, ()),
        blocked=seats.get(booking_v1.SEAT_STATUS_BLOCKED, ()),
        user_id=UUID(notice.user_id) if notice.user_id else None,
    )
