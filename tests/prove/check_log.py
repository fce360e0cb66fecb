"""A show's log played again, step by step: who owned which seat at each version, and whether each step was allowed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from services.booking.domain import BookingState, ReservationState, SeatState
from tests.prove.evidence import LogRow, ReservationRow, ShowRecord
from tests.prove.findings import Findings, Rule

FREE = int(SeatState.AVAILABLE)
ENDS = {
    "release": {ReservationState.RELEASED},
    "expire": {ReservationState.EXPIRED, ReservationState.CONVERTED},
    "hold": {ReservationState.EXPIRED, ReservationState.CONVERTED},
    "cancel": {ReservationState.CONVERTED},
    "show_cancelled": {ReservationState.RELEASED, ReservationState.CONVERTED},
}
"""What a reservation may be after a step of that cause took its seats away; ``hold`` is somebody else's takeover."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has a seat; a blocked one has no reservation."""

    state: SeatState
    reservation_id: UUID | None


@dataclass
class Replayed:
    """What the log says happened, for the other checks.

    Args:
        maps: by version (0 is the empty hall), the state of each seat by seat_no.
        taken: by seat_no, the spans of versions (first, last) at which it was not for sale.
        released, cancelled: by reservation and by booking, the version at which it was given back.
    """

    maps: dict[int, bytes] = field(default_factory=dict)
    taken: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    released: dict[UUID, int] = field(default_factory=dict)
    cancelled: dict[UUID, int] = field(default_factory=dict)


class Replay:
    """Plays one show's log."""

    def __init__(self, show: ShowRecord, findings: Findings) -> None:
        self._show = show
        self._findings = findings
        self._owners: dict[int, Owner] = {}
        self._map = bytearray([FREE]) * show.capacity
        self._since: dict[int, int] = {}
        self._by_fence = {row.fence: row for row in show.reservations.values()}
        self._confirmed = {row.at: row for row in show.captures if row.outcome == "CONFIRMED"}
        self._ended: dict[UUID, tuple[str, int]] = {}
        self._sold: dict[UUID, int] = {}
        self._replayed = Replayed()

    def run(self) -> Replayed:
        """Play all of it, and compare the end with what is stored."""
        show, findings = self._show, self._findings
        logged = [row.version for row in show.log]
        findings.look(Rule.VERSIONS, len(logged))
        if logged != list(range(1, show.version + 1)):
            missing = sorted(set(range(1, show.version + 1)) ^ set(logged))
            self._object(Rule.VERSIONS, show.version, f"the log has gaps or repeats; look at versions {missing[:5]}")
        self._replayed.maps[0] = bytes(self._map)
        latest: datetime | None = None
        for row in show.log:
            findings.look(Rule.CLOCK)
            if latest is not None and row.at < latest:
                self._object(Rule.CLOCK, row.version, f"its time {row.at} is before its predecessor's, {latest}")
            latest = row.at
            self._step(row)
            self._replayed.maps[row.version] = bytes(self._map)
        for seat_no, since in self._since.items():
            self._replayed.taken[seat_no].append((since, show.version))
        self._compare_claims()
        self._compare_reservations()
        self._compare_bookings()
        return self._replayed

    # --- steps --------------------------------------------------------------------------------------------------------

    def _step(self, row: LogRow) -> None:
        self._findings.look(Rule.CHANGE)
        match row.cause:
            case "hold":
                self._hold(row)
            case "release" | "expire":
                self._give_up(row)
            case "confirm":
                self._confirm(row)
            case "cancel":
                self._cancel(row)
            case "block":
                self._block(row)
            case "show_cancelled":
                for seat_no in row.freed:
                    owner = self._owners.get(seat_no)
                    if owner is not None and owner.reservation_id is not None:
                        self._ended[owner.reservation_id] = (row.cause, row.version)
                    self._set(seat_no, None, row.version)
            case other:
                self._object(Rule.CHANGE, row.version, f"its cause {other!r} is not known to the checker")

    def _hold(self, row: LogRow) -> None:
        own = self._by_fence.get(row.version)
        if own is None or set(own.seat_nos) != set(row.held) or own.user_id != row.actor:
            self._object(Rule.CHANGE, row.version, f"seats {row.held} were held, and no reservation has that fence")
        stale: set[UUID] = set()
        for seat_no in (*row.held, *row.freed):
            self._findings.look(Rule.OWNER)
            owner = self._owners.get(seat_no)
            if owner is None:
                if seat_no in row.freed:
                    self._object(Rule.CHANGE, row.version, f"seat {seat_no} was freed and was free")
                continue
            holder = self._show.reservations.get(owner.reservation_id) if owner.reservation_id else None
            if owner.state is not SeatState.HELD or holder is None:
                self._object(Rule.OWNER, row.version, f"seat {seat_no} was held while it was {_said(owner)}")
            else:
                self._must_be_due(holder, row, f"seat {seat_no} was taken over from")
                stale.add(holder.reservation_id)
        for reservation_id in stale:
            self._must_lose_all(reservation_id, {*row.held, *row.freed}, row)
            self._ended[reservation_id] = ("hold", row.version)
        for seat_no in row.freed:
            self._set(seat_no, None, row.version)
        for seat_no in row.held:
            self._set(seat_no, Owner(SeatState.HELD, own.reservation_id if own else None), row.version)

    def _give_up(self, row: LogRow) -> None:
        """A release, or an expiry: whole reservations lose what they hold."""
        if not row.freed:
            self._object(Rule.CHANGE, row.version, f"{row.cause} freed nothing")
        whose: set[UUID] = set()
        for seat_no in row.freed:
            self._findings.look(Rule.OWNER)
            owner = self._owners.get(seat_no)
            if owner is None or owner.state is not SeatState.HELD or owner.reservation_id is None:
                self._object(Rule.OWNER, row.version, f"{row.cause} freed seat {seat_no}, which was {_said(owner)}")
            else:
                whose.add(owner.reservation_id)
        for reservation_id in whose:
            holder = self._show.reservations[reservation_id]
            if row.cause == "expire":
                self._must_be_due(holder, row, "it ended")
            else:
                self._replayed.released[reservation_id] = row.version
                if holder.user_id != row.actor:
                    self._object(Rule.CHANGE, row.version, f"{row.actor} released {reservation_id} of another user")
            self._must_lose_all(reservation_id, set(row.freed), row)
            self._ended[reservation_id] = (row.cause, row.version)
        if row.cause == "release" and len(whose) > 1:
            self._object(Rule.CHANGE, row.version, f"one release ended {len(whose)} reservations")
        for seat_no in row.freed:
            self._set(seat_no, None, row.version)

    def _confirm(self, row: LogRow) -> None:
        capture = self._confirmed.get(row.at)
        booking = self._show.bookings.get(capture.booking_id) if capture else None
        if booking is None or set(booking.seat_nos) != set(row.booked) or booking.user_id != row.actor:
            self._object(Rule.CHANGE, row.version, f"seats {row.booked} were booked, and no capture paid for them then")
        before = {self._owners.get(seat_no) for seat_no in row.booked}
        own = Owner(SeatState.HELD, booking.reservation_id if booking else None)
        self._findings.look(Rule.OWNER, len(row.booked))
        for owner in before - {own, None}:
            self._object(Rule.OWNER, row.version, f"seats {row.booked} were booked while one was {_said(owner)}")
        if before >= {own, None}:
            self._object(Rule.OWNER, row.version, f"seats {row.booked} were booked, of which only some were held")
        for seat_no in row.booked:
            self._set(seat_no, Owner(SeatState.BOOKED, own.reservation_id), row.version)
        if booking is not None:
            self._sold[booking.booking_id] = row.version

    def _cancel(self, row: LogRow) -> None:
        whose = {owner.reservation_id for seat_no in row.freed if (owner := self._owners.get(seat_no)) is not None}
        self._findings.look(Rule.OWNER, len(row.freed))
        reservation_id = next(iter(whose), None)
        holder = self._show.reservations.get(reservation_id) if reservation_id else None
        if len(whose) != 1 or holder is None or holder.user_id != row.actor or holder.booking_id is None:
            self._object(Rule.CHANGE, row.version, f"{row.actor} cancelled seats {row.freed}, not those of one booking")
        else:
            self._must_lose_all(holder.reservation_id, set(row.freed), row)
            self._ended[holder.reservation_id] = ("cancel", row.version)
            self._replayed.cancelled[holder.booking_id] = row.version
        for seat_no in row.freed:
            self._set(seat_no, None, row.version)

    def _block(self, row: LogRow) -> None:
        for seat_no in row.freed:
            owner = self._owners.get(seat_no)
            if owner is None or owner.state is not SeatState.BLOCKED:
                self._object(Rule.OWNER, row.version, f"seat {seat_no} was unblocked while it was {_said(owner)}")
            self._set(seat_no, None, row.version)
        for seat_no in row.blocked:
            self._findings.look(Rule.OWNER)
            if (owner := self._owners.get(seat_no)) is not None:
                self._object(Rule.OWNER, row.version, f"seat {seat_no} was blocked while it was {_said(owner)}")
            self._set(seat_no, Owner(SeatState.BLOCKED, None), row.version)

    def _must_be_due(self, holder: ReservationRow, row: LogRow, what: str) -> None:
        self._findings.look(Rule.CLOCK)
        if holder.expires_at > row.at:
            early = (holder.expires_at - row.at).total_seconds()
            self._object(Rule.CLOCK, row.version, f"{what} {holder.reservation_id} {early:.3f} s before its time")

    def _must_lose_all(self, reservation_id: UUID, gone: set[int], row: LogRow) -> None:
        mine = {seat_no for seat_no, owner in self._owners.items() if owner.reservation_id == reservation_id}
        if not mine <= gone:
            self._object(Rule.OWNER, row.version, f"{row.cause} took only some of {reservation_id}'s seats {mine}")

    def _set(self, seat_no: int, owner: Owner | None, version: int) -> None:
        if owner is None:
            self._owners.pop(seat_no, None)
            if (since := self._since.pop(seat_no, None)) is not None:
                self._replayed.taken[seat_no].append((since, version - 1))
        else:
            self._owners[seat_no] = owner
            self._since.setdefault(seat_no, version)
        self._map[seat_no] = FREE if owner is None else int(owner.state)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _compare_claims(self) -> None:
        show = self._show
        stored = {claim.seat_no: Owner(claim.state, claim.reservation_id) for claim in show.claims}
        self._findings.look(Rule.END, len(stored) + 1)
        for seat_no in sorted(stored.keys() | self._owners.keys()):
            if stored.get(seat_no) != self._owners.get(seat_no):
                said, is_now = _said(self._owners.get(seat_no)), _said(stored.get(seat_no))
                self._object(Rule.END, show.version, f"by its log seat {seat_no} is {said}, its claim says {is_now}")
        if show.taken != len(stored):
            self._object(Rule.END, show.version, f"{show.taken} seats are counted as taken, {len(stored)} are")

    def _compare_reservations(self) -> None:
        log = {row.version: row.cause for row in self._show.log}
        for row in self._show.reservations.values():
            self._findings.look(Rule.END)
            if log.get(row.fence) != "hold":
                self._object(Rule.CHANGE, row.fence, f"reservation {row.reservation_id} is not in the log")
            ended = self._ended.get(row.reservation_id)
            if row.holding:
                self._object(
                    Rule.END, self._show.version, f"reservation {row.reservation_id} holds long after its time"
                )
            elif row.status is ReservationState.ACTIVE:
                where = f"its seats left it at version {ended[1]} ({ended[0]})" if ended else "it holds nothing"
                self._object(Rule.END, self._show.version, f"reservation {row.reservation_id} is active, yet {where}")
            elif ended and row.status not in ENDS[ended[0]]:
                how = f"is {row.status.name} after its {ended[0]} at version {ended[1]}"
                self._object(Rule.END, self._show.version, f"reservation {row.reservation_id} {how}")

    def _compare_bookings(self) -> None:
        for row in self._show.bookings.values():
            self._findings.look(Rule.END)
            mine = {n for n, owner in self._owners.items() if owner == Owner(SeatState.BOOKED, row.reservation_id)}
            what = f"booking {row.booking_id} is {row.status.name}"
            if row.status is BookingState.PENDING_PAYMENT:
                self._object(Rule.END, self._show.version, f"{what} long after its time")
            elif row.status is BookingState.CONFIRMED and mine != set(row.seat_nos):
                self._object(Rule.OWNER, self._show.version, f"{what} with seats {row.seat_nos}, and has {mine}")
            elif row.status is not BookingState.CONFIRMED and mine:
                self._object(Rule.OWNER, self._show.version, f"{what}, and still has {mine}")
            sold = row.booking_id in self._sold
            if sold != (row.capture_id is not None) or (row.status is BookingState.CONFIRMED and not sold):
                self._object(Rule.END, self._show.version, f"{what}, paid by {row.capture_id}; in the log: {sold}")

    def _object(self, rule: Rule, version: int, what: str) -> None:
        self._findings.object(rule, f"show {self._show.show_id} at version {version}: {what}")


def _said(owner: Owner | None) -> str:
    if owner is None:
        return "free"
    return f"{owner.state.name}" + (f" for {owner.reservation_id}" if owner.reservation_id else "")
