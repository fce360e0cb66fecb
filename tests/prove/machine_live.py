"""A live map as a state machine: steps come in any order, twice or never, and viewers still see the log's map."""

from __future__ import annotations

from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from marquee.booking import v1 as booking_v1
from services.booking.domain import Layout, Seat, SeatState, Show
from services.booking.live_map import LiveMap
from services.booking.store.seats import Change, Claim, Claims
from tests.prove.machine_till import START

SEATS = 9
FREE = int(SeatState.AVAILABLE)
STATES = [SeatState.AVAILABLE, SeatState.HELD, SeatState.BOOKED, SeatState.BLOCKED]


def _show() -> Show:
    seats = [Seat(n, f"A{n + 1}", "A", n + 1, "REGULAR", float(n), 0.0, False) for n in range(SEATS)]
    layout = Layout.of(UUID(int=1), seats, [])
    return Show(
        UUID(int=2), 1, "", "", "", "", "", "UTC", START, START, START, layout, 1, SEATS, "INR", {}, (), False
    )  # fmt: skip


class LiveMaps(RuleBasedStateMachine):
    """One map and its viewer. ``maps[v]`` is the log's map at version v."""

    @initialize()
    def open(self) -> None:
        self.maps = [bytes([FREE]) * SEATS]
        self.log: list[Change] = []
        self.live = LiveMap(_show(), "epoch")
        self.live.replace(Claims(0, ()), "epoch")
        self.live.flush()
        self.screen, self.version = bytearray([FREE]) * SEATS, 0
        self.generation = self.live.generation

    @rule(seats=st.dictionaries(st.integers(0, SEATS - 1), st.sampled_from(STATES), min_size=1, max_size=4))
    def commit(self, seats: dict[int, SeatState]) -> None:
        """A change of the show, which the map may hear of at once, later or never."""
        after = bytearray(self.maps[-1])
        for seat_no, state in seats.items():
            after[seat_no] = state
        self.maps.append(bytes(after))

        def those(state: SeatState) -> tuple[int, ...]:
            return tuple(seat_no for seat_no, new in seats.items() if new is state)

        freed, held, booked, blocked = map(those, STATES)
        self.log.append(Change(len(self.log) + 1, freed, held, booked, blocked))

    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        """Any step, of any age."""
        if self.log:
            self.live.follow(data.draw(st.sampled_from(self.log)))

    @rule()
    def hear_the_newest(self) -> None:
        if self.log:
            self.live.follow(self.log[-1])

    @rule()
    def repair(self) -> None:
        """What the poll does: all steps that the map lacks."""
        for change in self.log[self.live.version :]:
            self.live.follow(change)

    @rule()
    def read_anew(self) -> None:
        claims = [Claim(n, SeatState(state), None) for n, state in enumerate(self.maps[-1]) if state != FREE]
        self.live.replace(Claims(len(self.log), tuple(claims)), "epoch")

    @rule()
    def flush(self) -> None:
        self.live.flush()

    @rule()
    def look(self) -> None:
        """The viewer reads what there is for it: a delta that leads on, or a snapshot."""
        message, version = self.live.message_after(self.version, self.generation)
        if message is None:
            assert version == self.version
            return
        update = booking_v1.SeatUpdate.FromString(message)
        if update.HasField("snapshot"):
            self._show_snapshot()
            return
        assert update.delta.from_version <= self.version < update.delta.to_version == version
        for change in update.delta.changes:
            for seat_no in change.seat_nos:
                self.screen[seat_no] = change.status
        self.version = version
        assert bytes(self.screen) == self.maps[self.version], f"wrong at version {self.version}"

    @rule()
    def connect(self) -> None:
        self._show_snapshot()

    def _show_snapshot(self) -> None:
        snapshot = booking_v1.SeatUpdate.FromString(self.live.snapshot()).snapshot
        self.screen = bytearray([FREE]) * SEATS
        for state, bits in ((2, snapshot.held), (3, snapshot.booked), (4, snapshot.blocked)):
            for seat_no in range(len(bits) * 8):
                if bits[seat_no // 8] >> (seat_no % 8) & 1:
                    self.screen[seat_no] = state
        self.version, self.generation = snapshot.version, self.live.generation
        assert bytes(self.screen) == self.maps[self.version], f"wrong at version {self.version}"

    @invariant()
    def the_map_is_the_logs(self) -> None:
        if hasattr(self, "live"):
            assert self.live.statuses() == self.maps[self.live.version]
