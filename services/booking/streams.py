"""The server streams: a show's seats, and a booking's way to its confirmation."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from marquee.booking import v1 as booking_v1
from services.booking.desk import Desk
from services.booking.domain import TooManyStreams, no_such
from services.booking.live import LONGEST_REPAIR, LiveMap
from services.booking.messages import booking_message
from services.booking.usecases import open_map
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
    request: booking_v1.WatchSeatsRequest, *, desk: Desk, lifecycle: Lifecycle, heartbeat_seconds: float
) -> AsyncIterator[bytes]:
    """A show's seats, as serialized ``SeatUpdate``: what is now, or what changed since; then every change.

    A slow reader never has a queue: when it reads again it gets the deltas that are kept, or a fresh snapshot.

    Raises:
        NotFound: there is no such show.
    """
    live = await open_map(UUID(request.show_id), desk=desk)
    live.viewers += 1
    try:
        generation = live.generation
        resumed = await _resume(request, live, desk)
        mine = live.version if resumed is None else resumed[1]
        yield live.snapshot() if resumed is None else resumed[0]
        sent_at = time.monotonic()
        while not live.closed and not lifecycle.draining.is_set():
            frames = live.frames_after(mine) if generation == live.generation else None
            if frames is None:
                generation, mine = live.generation, live.version
                yield live.snapshot()
                sent_at = time.monotonic()
            for frame in frames or ():
                mine = frame.to_version
                yield frame.message
                sent_at = time.monotonic()
            quiet = time.monotonic() - sent_at
            if quiet >= heartbeat_seconds:
                yield _heartbeat(mine)
                sent_at, quiet = time.monotonic(), 0.0
            if live.frames_after(mine) == []:
                await live.changed(heartbeat_seconds - quiet)
        why = booking_v1.StreamEnd.REASON_SHOW_CLOSED if live.closed else booking_v1.StreamEnd.REASON_RECONNECT
        yield booking_v1.SeatUpdate(end=end(why)).SerializeToString()
    finally:
        live.viewers -= 1
        live.used_at = time.monotonic()


async def _resume(request: booking_v1.WatchSeatsRequest, live: LiveMap, desk: Desk) -> tuple[bytes, int] | None:
    """One delta from the viewer's version to now, with the version it leads to; None when a snapshot is better."""
    after = request.after_version
    if not request.HasField("after_version") or request.epoch not in ("", live.epoch) or after > live.version:
        return None
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
    by_status: dict[int, list[int]] = {}
    for seat_no in sorted(states):
        by_status.setdefault(states[seat_no], []).append(seat_no)
    now = changes[-1].version if changes else after
    delta = booking_v1.SeatDelta(
        from_version=after,
        to_version=now,
        changes=[
            booking_v1.SeatChange(status=booking_v1.SeatStatus.ValueType(status), seat_nos=seats)
            for status, seats in by_status.items()
        ],
    )
    return booking_v1.SeatUpdate(delta=delta).SerializeToString(), now


def _heartbeat(version: int) -> bytes:
    now = Timestamp()
    now.GetCurrentTime()
    return booking_v1.SeatUpdate(heartbeat=booking_v1.Heartbeat(version=version, time=now)).SerializeToString()


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
