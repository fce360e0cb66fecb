"""One show's live map: its seats in memory, as the claims and the show's log tell them, and what each viewer lacks."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from marquee.booking import v1 as booking_v1
from services.booking.domain import SeatState, Show
from services.booking.store.seats import Change, Claims
from services.booking.viewers import Viewers

STEPS_KEPT = 256
PATHS_KEPT = 256
STEPS_AFTER_A_PATH = 10
"""About a second of changes. A viewer that would need more gets a newer path."""
STEPS_OUT_OF_ORDER = 1_000
AVAILABLE = bytes((SeatState.AVAILABLE,))
BIT_OF = {state: bytes(ord("1") if value == state else ord("0") for value in range(256)) for state in SeatState}
"""Tables that make each place of a map a binary digit."""


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
        self.told_at = 0.0
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
        self.told_at = time.monotonic()
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
