"""A small model of one show: what booking's functions must do, without a database, a lock or a clock.

Time is a word: what is ``due`` is over by the clock, whether somebody has swept it or not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

from services.booking.domain import BookingState, ReservationState, SeatState

SEATS = 6
FLOOR = range(SEATS, SEATS + 3)
MOST_ACTIVE = 2
MOST_AN_HOUR = 5
PRICE = 200_00


@dataclass
class Hold:
    user: UUID
    seats: tuple[int, ...]
    fence: int
    due: bool
    status: ReservationState = ReservationState.ACTIVE
    holding: bool = True
    booking: UUID | None = None


@dataclass
class Sale:
    hold: UUID
    user: UUID
    seats: tuple[int, ...]
    status: BookingState = BookingState.PENDING_PAYMENT
    version: int = 1
    refund: int | None = None
    captures: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Held:
    """What a hold answers: HELD or REPLAY with a reservation, or the refusal's name, with the seats it names."""

    outcome: str
    hold: UUID | None = None
    taken: frozenset[int] = frozenset()


@dataclass
class Model:
    """One show. ``claims`` are (state, hold, fence) by seat."""

    version: int = 0
    claims: dict[int, tuple[SeatState, UUID | None, int]] = field(default_factory=dict)
    holds: dict[UUID, Hold] = field(default_factory=dict)
    sales: dict[UUID, Sale] = field(default_factory=dict)
    requests: dict[tuple[UUID, UUID], tuple[str, object, UUID | int]] = field(default_factory=dict)
    """By user and request id: what was asked, with which content, and what came of it."""
    expired: int = 0
    refunds: int = 0
    reached: Counter[str] = field(default_factory=Counter)
    """What happened, so that a report can say what was really exercised."""

    def _is_due(self, seat: int) -> bool:
        state, hold, _ = self.claims[seat]
        return state is SeatState.HELD and hold is not None and self.holds[hold].due

    def _taken(self, seat: int) -> bool:
        return seat in self.claims and not self._is_due(seat)

    def earlier(self, user: UUID, request: UUID, method: str, content: object) -> tuple[str, UUID | int | None] | None:
        """("REPLAY", answer) or ("REQUEST_ID_REUSED", None) for a request id that was used before."""
        before = self.requests.get((user, request))
        if before is None:
            return None
        again = before[:2] == (method, content)
        self.reached["repeats" if again else "request ids used for something else"] += 1
        return ("REPLAY", before[2]) if again else ("REQUEST_ID_REUSED", None)

    # --- what changes seats -------------------------------------------------------------------------------------------

    def hold(self, new: UUID, user: UUID, request: UUID, seats: tuple[int, ...], standing: int, *, due: bool) -> Held:
        if earlier := self.earlier(user, request, "hold", (seats, standing)):
            return Held(earlier[0], earlier[1] if isinstance(earlier[1], UUID) else None)
        places = [place for place in FLOOR if not self._taken(place)][:standing]
        if len(places) < standing:
            return Held("STANDING_SOLD_OUT")
        wanted = (*seats, *places)
        if taken := frozenset(seat for seat in wanted if self._taken(seat)):
            return Held("SEAT_TAKEN", taken=taken)
        mine = [hold for hold in self.holds.values() if hold.user == user]
        if sum(hold.status is ReservationState.ACTIVE and not hold.due for hold in mine) >= MOST_ACTIVE:
            return Held("TOO_MANY_HOLDS")
        if len(mine) >= MOST_AN_HOUR:
            return Held("TOO_MANY_AN_HOUR")
        stale = {hold for seat in wanted if seat in self.claims and (hold := self.claims[seat][1])}
        self.reached["takeovers"] += bool(stale)
        self._end(stale, "EXPIRED")
        self.version += 1
        self.holds[new] = Hold(user, wanted, self.version, due)
        for seat in wanted:
            self.claims[seat] = (SeatState.HELD, new, self.version)
        self.requests[user, request] = ("hold", (seats, standing), new)
        return Held("HELD", new)

    def release(self, hold: UUID, user: UUID) -> str:
        mine = self.holds.get(hold)
        if mine is None or mine.user != user:
            return "NOT_FOUND"
        if mine.status is not ReservationState.ACTIVE:
            return "CONVERTED" if mine.status is ReservationState.CONVERTED else "ENDED"
        self._end({hold}, "RELEASED")
        self.version += 1
        return "RELEASED"

    def sweep(self) -> set[int] | None:
        """The seats that become free; None when nothing is due."""
        due = {key for key, hold in self.holds.items() if hold.holding and hold.due}
        if not due:
            return None
        self.reached["sweeps that ended something"] += 1
        freed = self._end(due, "EXPIRED")
        self.version += 1
        return freed

    def book(self, new: UUID, hold: UUID, user: UUID, request: UUID, *, due: bool) -> str:
        mine = self.holds.get(hold)
        if earlier := self.earlier(user, request, "book", hold):
            return earlier[0]
        if mine is None or mine.user != user:
            return "NOT_FOUND"
        if mine.status is ReservationState.CONVERTED:
            return "RESERVATION_CONVERTED"
        if mine.status is ReservationState.RELEASED:
            return "RESERVATION_RELEASED"
        if mine.status is ReservationState.EXPIRED or mine.due:
            return "RESERVATION_EXPIRED"
        mine.status, mine.booking, mine.due = ReservationState.CONVERTED, new, due
        self.sales[new] = Sale(hold, user, mine.seats)
        self.requests[user, request] = ("book", hold, new)
        return "OK"

    def confirm(self, sale: UUID, capture: str, *, right_amount: bool) -> str:
        mine = self.sales[sale]
        if capture in mine.captures:
            return "SEEN"
        mine.captures.add(capture)
        free = not any(seat in self.claims for seat in mine.seats)
        own = all(self.claims.get(seat, (None, None))[:2] == (SeatState.HELD, mine.hold) for seat in mine.seats)
        match mine.status:
            case _ if not right_amount:
                outcome = "MISMATCH"
            case BookingState.CONFIRMED:
                outcome = "DUPLICATE"
            case BookingState.CANCELLED:
                outcome = "CANCELLED"
            case BookingState.PENDING_PAYMENT:
                outcome = "CONFIRMED" if own else "LATE"
            case _:
                outcome = "CONFIRMED" if free else "LATE"
        late = "late, " if mine.status is BookingState.EXPIRED else ""
        self.reached[f"captures: {late}{outcome}"] += 1
        if outcome != "CONFIRMED":
            self.refunds += 1
            return outcome
        self.version += 1
        for seat in mine.seats:
            fence = self.claims[seat][2] if own else self.version
            self.claims[seat] = (SeatState.BOOKED, mine.hold, fence)
        mine.status, mine.version = BookingState.CONFIRMED, mine.version + 1
        self.holds[mine.hold].holding = False
        return outcome

    def cancel(self, sale: UUID, user: UUID, request: UUID, refund: int) -> str:
        mine = self.sales.get(sale)
        if mine is None or mine.user != user:
            return "NOT_FOUND"
        if earlier := self.earlier(user, request, "cancel", sale):
            return earlier[0]
        if mine.status not in (BookingState.PENDING_PAYMENT, BookingState.CONFIRMED):
            return "BOOKING_NOT_CANCELLABLE"
        if mine.status is BookingState.CONFIRMED:
            mine.refund = refund
            self.refunds += 1
        self._free({seat for seat in mine.seats if self.claims.get(seat, (None, None))[1] == mine.hold})
        self.holds[mine.hold].holding = False
        mine.status, mine.version = BookingState.CANCELLED, mine.version + 1
        self.version += 1
        self.requests[user, request] = ("cancel", sale, sale)
        return "OK"

    def block(self, user: UUID, request: UUID, block: tuple[int, ...], unblock: tuple[int, ...]) -> str:
        if earlier := self.earlier(user, request, "block", (block, unblock)):
            return earlier[0]
        if any(seat in self.claims for seat in block):
            return "SEAT_TAKEN"
        if any(self.claims.get(seat, (None,))[0] is not SeatState.BLOCKED for seat in unblock):
            return "INVALID_ARGUMENT"
        self.version += 1
        self._free(set(unblock))
        for seat in block:
            self.claims[seat] = (SeatState.BLOCKED, None, self.version)
        self.requests[user, request] = ("block", (block, unblock), self.version)
        return "OK"

    def _end(self, holds: set[UUID], status: str) -> set[int]:
        """As ``end_holds``: claims freed, reservations ended, bookings that wait for payment expired."""
        freed = {seat for seat, (state, hold, _) in self.claims.items() if hold in holds and state is SeatState.HELD}
        self._free(freed)
        for key in holds:
            hold = self.holds[key]
            if hold.holding and hold.status is ReservationState.ACTIVE:
                hold.status = ReservationState[status]
            hold.holding = False
            sale = self.sales.get(hold.booking) if hold.booking else None
            if sale is not None and sale.status is BookingState.PENDING_PAYMENT:
                sale.status, sale.version = BookingState.EXPIRED, sale.version + 1
                self.expired += 1
        return freed

    def _free(self, seats: set[int]) -> None:
        for seat in seats:
            self.claims.pop(seat, None)
