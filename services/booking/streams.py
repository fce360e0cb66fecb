"""The server streams: a show's seats, and a booking's way to its confirmation."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from uuid import UUID

from marquee.booking import v1 as booking_v1
from services.booking.desk import Desk
from services.booking.domain import TooManyStreams, no_such
from services.booking.live_map import Frame, LiveMap, frame_of
from services.booking.live_maps import LONGEST_REPAIR
from services.booking.messages import booking_message
from services.booking.usecases import open_map
from services.booking.viewers import Viewer, Write
from services.kit.call import Call, UserCaller, UserId
from services.kit.lifecycle import Lifecycle

FINAL = (
    booking_v1.BOOKING_STATUS_CONFIRMED,
    booking_v1.BOOKING_STATUS_CANCELLED,
    booking_v1.BOOKING_STATUS_EXPIRED,
)


class StreamLimits:
    """How many streams one user, and one client address, may have open in this process."""

    def __init__(self, *, most_a_user: int, most_an_address: int) -> None:
        self._most_a_user = most_a_user
        self._most_an_address = most_an_address
        self._open: Counter[str] = Counter()

    @contextmanager
    def entered(self, call: Call | None) -> Iterator[None]:
        """Count a stream while the block lasts.

        Raises:
            TooManyStreams: the user or the address has as many as it may.
        """
        limits: dict[str, int] = {}
        if call is not None:
            limits[f"address/{_host(call.peer)}"] = self._most_an_address
            if isinstance(call.caller, UserCaller):
                limits[f"user/{call.caller.user_id}"] = self._most_a_user
        if any(self._open[key] >= most for key, most in limits.items()):
            raise TooManyStreams
        self._open.update(limits.keys())
        try:
            yield
        finally:
            self._open.subtract(limits.keys())
            for key in limits:
                if self._open[key] <= 0:
                    del self._open[key]


def _host(peer: str) -> str:
    """Without the port that gRPC adds to a direct connection's peer (``ipv4:1.2.3.4:5678``)."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer


def end(reason: booking_v1.StreamEnd.Reason.ValueType) -> booking_v1.StreamEnd:
    return booking_v1.StreamEnd(reason=reason)


async def watch_seats(
    request: booking_v1.WatchSeatsRequest,
    write: Write,
    *,
    desk: Desk,
    lifecycle: Lifecycle,
    heartbeat_seconds: float,
) -> AsyncIterator[bytes]:
    """A show's seats, as serialized ``SeatUpdate``: what is now, or what changed since; then every change.

    The first and the last message are yielded. Changes are sent by ``write``, as all viewers are told in turn. A slow
    reader never has a queue: when it reads again it gets what it lacks as one delta, or a fresh snapshot.

    Raises:
        NotFound: there is no such show.
    """
    live = await open_map(UUID(request.show_id), desk=desk)
    viewer = Viewer(write, heartbeat_seconds)
    try:
        with live.viewers.entered(viewer):
            generation = live.generation
            path = await _resume(request, live, desk)
            if path is None or generation != live.generation:
                viewer.version, first = live.version, live.snapshot()
            else:
                viewer.version, first = path.to_version, path.message
            viewer.generation = live.generation
            yield first
            if not live.closed and not lifecycle.draining.is_set():
                viewer.busy = False
                if live.message_after(viewer.version, viewer.generation)[0] is not None:
                    live.viewers.tell_one(viewer)
                await viewer.over
                if not await viewer.reads():
                    return
        why = booking_v1.StreamEnd.REASON_SHOW_CLOSED if live.closed else booking_v1.StreamEnd.REASON_RECONNECT
        yield booking_v1.SeatUpdate(end=end(why)).SerializeToString()
    finally:
        live.used_at = time.monotonic()


async def _resume(request: booking_v1.WatchSeatsRequest, live: LiveMap, desk: Desk) -> Frame | None:
    """One delta from the viewer's version to about now; None when a snapshot is better."""
    after = request.after_version
    if not request.HasField("after_version") or request.epoch not in ("", live.epoch) or after > live.version:
        return None
    return await live.path_from(after, partial(_read_path, live, after, desk))


async def _read_path(live: LiveMap, after: int, desk: Desk) -> Frame | None:
    """The log from version ``after`` as one delta; None when it does not reach back, or is long."""
    changes = await desk.seats.changes(live.show.show_id, after, LONGEST_REPAIR)
    if changes is None or (not changes and after < live.version):
        return None
    states: dict[int, int] = {}
    for change in changes:
        for status, seats in (
            (booking_v1.SEAT_STATUS_AVAILABLE, change.freed),
            (booking_v1.SEAT_STATUS_HELD, change.held),
            (booking_v1.SEAT_STATUS_BOOKED, change.booked),
            (booking_v1.SEAT_STATUS_BLOCKED, change.blocked),
        ):
            states.update(dict.fromkeys(seats, status))
    return frame_of(after, changes[-1].version if changes else after, states)


async def watch_booking(
    booking_id: UUID,
    user_id: UserId,
    *,
    desk: Desk,
    lifecycle: Lifecycle,
    poll_seconds: float,
    heartbeat_seconds: float,
) -> AsyncIterator[booking_v1.BookingUpdate]:
    """A user's own booking now and at each change, until it is confirmed, cancelled or expired.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    changed = await desk.signals.enter(booking_id)
    try:
        sent = 0
        sent_at = time.monotonic()
        while not lifecycle.draining.is_set():
            changed.clear()
            row = await desk.bookings.find(booking_id, UUID(user_id))
            if row is None:
                raise no_such("booking")
            if row.version != sent:
                sent, sent_at = row.version, time.monotonic()
                yield booking_v1.BookingUpdate(booking=booking_message(row, await desk.shows.find(row.show_id)))
                if booking_v1.BookingStatus.ValueType(row.status) in FINAL:
                    yield booking_v1.BookingUpdate(end=end(booking_v1.StreamEnd.REASON_FINAL))
                    return
            if time.monotonic() - sent_at >= heartbeat_seconds:
                sent_at = time.monotonic()
                heartbeat = booking_v1.Heartbeat(version=sent)
                heartbeat.time.GetCurrentTime()
                yield booking_v1.BookingUpdate(heartbeat=heartbeat)
            await desk.signals.wait(changed, poll_seconds)
        yield booking_v1.BookingUpdate(end=end(booking_v1.StreamEnd.REASON_RECONNECT))
    finally:
        await desk.signals.leave(booking_id, changed)
