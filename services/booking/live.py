"""Live maps: the seats of the shows that somebody watches, in this process's memory, kept right by the show's log.

A map begins with PostgreSQL's claims at a version and follows the log step by step. Steps come from this process's own
commits, from other processes' notices, and, whatever gets lost, from a poll of all watched shows once a second.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from marquee.booking import v1 as booking_v1
from services.booking.domain import SeatsTaken, SeatState, Show
from services.booking.notices import Notices
from services.booking.store.seats import Change, Claims, SeatStore, ShowChange
from services.booking.viewers import Viewers

log = structlog.get_logger()

STEPS_KEPT = 256
PATHS_KEPT = 256
STEPS_AFTER_A_PATH = 10
"""About a second of changes. A viewer that would need more gets a newer path."""
STEPS_OUT_OF_ORDER = 1_000
LONGEST_REPAIR = 500
"""Log rows that a map catches up with one by one; beyond, it reads all claims anew."""
AVAILABLE = bytes((SeatState.AVAILABLE,))
BIT_OF = {state: bytes(ord("1") if value == state else ord("0") for value in range(256)) for state in SeatState}
"""Tables that make each place of a map a binary digit."""
TRUSTED_SECONDS = 2.5
"""A map that was compared with PostgreSQL within this time may refuse a hold by itself."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A delta, serialized once for all viewers."""

    from_version: int
    to_version: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Step:
    """A frame, and the status that it gives to seats, by their numbers."""

    frame: Frame
    states: Mapping[int, int]


class LiveMap:
    """One show's seats. Changes only through ``follow`` and ``replace``; ``flush`` makes them visible to viewers."""

    def __init__(self, show: Show, epoch: str) -> None:
        self.show = show
        self.epoch = epoch
        self.version = 0
        self.viewers = Viewers(self)
        self.closed = False
        self.generation = 0
        """Counts the times that history was rewritten, after which viewers need a snapshot."""
        self.used_at = time.monotonic()
        self.compared_at = 0.0
        self._states = bytearray(show.capacity)
        self._holders: dict[int, UUID] = {}
        self._early: dict[int, Change] = {}
        self._dirty: set[int] = set()
        self._flushed = 0
        self._steps: deque[Step] = deque(maxlen=STEPS_KEPT)
        self._snapshot: tuple[int, bytes] | None = None
        self._paths: dict[int, asyncio.Future[Frame | None]] = {}

    # What is true.

    def statuses(self) -> bytes:
        """Every place's status, by its number, as the contract numbers them."""
        return bytes(self._states).replace(b"\0", AVAILABLE)

    def taken_by_others(self, seat_nos: Iterable[int], user_id: UUID) -> list[int]:
        return [seat_no for seat_no in seat_nos if self._states[seat_no] and self._holders.get(seat_no) != user_id]

    # How it changes.

    def follow(self, change: Change) -> None:
        """Take the log's next step. One that comes early waits for those before it; the poll repairs lost ones."""
        if change.version > self.version + 1:
            if len(self._early) < STEPS_OUT_OF_ORDER:
                self._early[change.version] = change
            return
        if change.version == self.version + 1:
            self._apply(change)
        while (early := self._early.pop(self.version + 1, None)) is not None:
            self._apply(early)
        self._forget_early()

    def _apply(self, change: Change) -> None:
        for state, seats in (
            (0, change.freed),
            (SeatState.HELD, change.held),
            (SeatState.BOOKED, change.booked),
            (SeatState.BLOCKED, change.blocked),
        ):
            for seat_no in seats:
                self._set(seat_no, state, change.user_id)
        self.version = change.version

    def _set(self, seat_no: int, state: int, user_id: UUID | None) -> None:
        if self._states[seat_no] != state:
            self._states[seat_no] = state
            self._dirty.add(seat_no)
        if state in (SeatState.HELD, SeatState.BOOKED) and user_id is not None:
            self._holders[seat_no] = user_id
        elif state in (0, SeatState.BLOCKED):
            self._holders.pop(seat_no, None)

    def replace(self, claims: Claims, epoch: str) -> None:
        """Become what PostgreSQL says, however far that is; viewers get the difference."""
        if epoch != self.epoch or claims.version < self.version:
            self.generation += 1
            self._steps.clear()
            self._paths.clear()
            self._early.clear()
            self.epoch = epoch
            self._flushed = claims.version
        claimed = {claim.seat_no: claim for claim in claims.claims}
        for seat_no in range(len(self._states)):
            claim = claimed.get(seat_no)
            self._set(seat_no, claim.state if claim else 0, claim.user_id if claim else None)
        self.version = claims.version
        self._snapshot = None
        self._forget_early()

    def _forget_early(self) -> None:
        for version in [version for version in self._early if version <= self.version]:
            del self._early[version]

    # What viewers see.

    @property
    def unflushed(self) -> bool:
        return self.version != self._flushed or bool(self._dirty)

    def flush(self) -> None:
        """Make one delta of all that changed since the last one."""
        if self.version > self._flushed:
            states = {seat_no: self._states[seat_no] or SeatState.AVAILABLE for seat_no in self._dirty}
            self._steps.append(Step(frame_of(self._flushed, self.version, states), states))
        self._flushed = self.version
        self._dirty.clear()

    def tell_viewers(self) -> None:
        """Have what changed told: in the round that is under way, to those whose turn is still to come."""
        if self.viewers:
            self.viewers.tell()
        else:
            self.flush()

    def message_after(self, version: int, generation: int) -> tuple[bytes | None, int]:
        """What leads a viewer on from ``version`` of ``generation``, and where to: a delta, a snapshot, or nothing."""
        steps = self.steps_after(version) if generation == self.generation else None
        if steps is None:
            return self.snapshot(), self.version
        if not steps:
            return None, version
        frame = steps[0].frame if len(steps) == 1 else joined(steps)
        return frame.message, frame.to_version

    def steps_after(self, version: int) -> Sequence[Step] | None:
        """What leads on from ``version``; None when it does not reach back to it."""
        steps: list[Step] = []
        for step in reversed(self._steps):  # nearly every viewer lacks only the last one
            if step.frame.to_version <= version:
                break
            steps.append(step)
        reaches_back = steps[-1].frame.from_version <= version if steps else version >= self._flushed
        return steps[::-1] if reaches_back else None

    async def path_from(self, version: int, read: Callable[[], Awaitable[Frame | None]]) -> Frame | None:
        """One delta from ``version`` to about now, read once for all who come with that version, as after a restart.

        None when a snapshot is better.
        """
        path = self._paths.get(version)
        if path is None or not self._leads_on(path):
            path = self._paths[version] = asyncio.ensure_future(read())
            if len(self._paths) > PATHS_KEPT:
                del self._paths[next(iter(self._paths))]
        return await asyncio.shield(path)

    def _leads_on(self, path: asyncio.Future[Frame | None]) -> bool:
        """Whether it is still being read, or ends where a few steps lead on."""
        if not path.done():
            return True
        if path.cancelled() or path.exception() is not None:
            return False
        frame = path.result()
        further = self.steps_after(frame.to_version) if frame is not None else ()
        return further is not None and len(further) <= STEPS_AFTER_A_PATH

    def snapshot(self) -> bytes:
        """A serialized snapshot of this version, made once however many ask."""
        if self._snapshot is None or self._snapshot[0] != self.version:
            message = booking_v1.SeatUpdate(
                snapshot=booking_v1.SeatSnapshot(
                    epoch=self.epoch,
                    version=self.version,
                    layout_version=self.show.layout_version,
                    layout_id=str(self.show.layout.layout_id),
                    held=self._bitmap(SeatState.HELD),
                    booked=self._bitmap(SeatState.BOOKED),
                    blocked=self._bitmap(SeatState.BLOCKED),
                    capacity=self.show.capacity,
                )
            )
            self._snapshot = (self.version, message.SerializeToString())
        return self._snapshot[1]

    def _bitmap(self, state: SeatState) -> bytes:
        """A bit for each place, the lowest for the first."""
        digits = self._states[::-1].translate(BIT_OF[state])
        return int(digits or b"0", 2).to_bytes((len(digits) + 7) // 8, "little").rstrip(b"\0")


def frame_of(from_version: int, to_version: int, states: Mapping[int, int]) -> Frame:
    """The delta that gives each seat of ``states`` its status."""
    by_status: dict[int, list[int]] = {}
    for seat_no in sorted(states):
        by_status.setdefault(states[seat_no], []).append(seat_no)
    delta = booking_v1.SeatDelta(
        from_version=from_version,
        to_version=to_version,
        changes=[
            booking_v1.SeatChange(status=booking_v1.SeatStatus.ValueType(status), seat_nos=seats)
            for status, seats in by_status.items()
        ],
    )
    return Frame(from_version, to_version, booking_v1.SeatUpdate(delta=delta).SerializeToString())


def joined(steps: Sequence[Step]) -> Frame:
    """One delta of several that follow each other."""
    states: dict[int, int] = {}
    for step in steps:
        states.update(step.states)
    return frame_of(steps[0].frame.from_version, steps[-1].frame.to_version, states)


def channel_of(show_id: UUID) -> str:
    """The hash tag keeps a show's channel on the shard of its other keys."""
    return f"seats:{{{show_id}}}"


class LiveMaps:
    """All maps of this process.

    Args:
        coalesce_seconds: changes within it become one delta.
        linger_seconds: how long a map is kept that nobody watches.
    """

    def __init__(self, store: SeatStore, notices: Notices, *, coalesce_seconds: float, linger_seconds: float) -> None:
        self._store = store
        self._notices = notices
        self._coalesce_seconds = coalesce_seconds
        self._linger_seconds = linger_seconds
        self._maps: dict[UUID, LiveMap] = {}
        self._opening: dict[UUID, asyncio.Task[LiveMap | None]] = {}
        self._flushing: set[UUID] = set()
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
        if not live.unflushed or live.show.show_id in self._flushing:
            return
        self._flushing.add(live.show.show_id)

        def flush() -> None:
            self._flushing.discard(live.show.show_id)
            live.tell_viewers()

        asyncio.get_running_loop().call_later(self._coalesce_seconds, flush)

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
