"""What is stored when all is over: booking's tables, the events of all outboxes, and the provider's own books."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from services.booking.domain import BookingState, ReservationState, SeatState
from tests.prove.ledger import Capture, SeenBooking, Status

STATUSES = {
    BookingState.PENDING_PAYMENT: Status.PENDING,
    BookingState.CONFIRMED: Status.CONFIRMED,
    BookingState.CANCELLED: Status.CANCELLED,
    BookingState.EXPIRED: Status.EXPIRED,
}


@dataclass(frozen=True, slots=True)
class LogRow:
    """A step of a show's log: the new states of the seats that changed."""

    version: int
    freed: tuple[int, ...]
    held: tuple[int, ...]
    booked: tuple[int, ...]
    blocked: tuple[int, ...]
    cause: str
    actor: UUID | None
    at: datetime


@dataclass(frozen=True, slots=True)
class ReservationRow:
    reservation_id: UUID
    user_id: UUID
    status: ReservationState
    holding: bool
    seat_nos: tuple[int, ...]
    total: int
    fence: int
    created_at: datetime
    expires_at: datetime
    booking_id: UUID | None


@dataclass(frozen=True, slots=True)
class BookingRow:
    booking_id: UUID
    reservation_id: UUID
    user_id: UUID
    reference: str
    status: BookingState
    seat_nos: tuple[int, ...]
    total: int
    pay_by: datetime
    payment_id: UUID | None
    capture_id: str | None
    refund: int
    version: int


@dataclass(frozen=True, slots=True)
class CaptureRow:
    """What booking made of a capture: CONFIRMED, or why it goes back."""

    booking_id: UUID
    capture_id: str
    amount: int
    outcome: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    seat_no: int
    state: SeatState
    reservation_id: UUID | None
    fence: int


@dataclass(frozen=True)
class ShowRecord:
    """Everything about one show."""

    show_id: str
    capacity: int
    version: int
    taken: int
    claims: Sequence[Claim]
    log: Sequence[LogRow]
    reservations: Mapping[UUID, ReservationRow]
    bookings: Mapping[UUID, BookingRow]
    captures: Sequence[CaptureRow]


@dataclass(frozen=True, slots=True)
class Announced:
    """A row of an outbox."""

    topic: str
    key: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer kept for repeats of its request."""

    user_id: UUID
    request_id: str
    method: str
    answer_id: UUID | None


@dataclass(frozen=True)
class Evidence:
    """What the checker is given besides the history.

    Args:
        captures: the provider's own books, with refunds.
        listed: (user, booking) of every entry in the users' lists.
        unsent: events that no relay has carried yet.
    """

    shows: Mapping[str, ShowRecord]
    events: Sequence[Announced]
    captures: Sequence[Capture]
    kept: Sequence[Kept] = ()
    listed: frozenset[tuple[UUID, UUID]] = frozenset()
    unsent: int = 0
    dead: int = 0
    """Events that a consumer gave up on."""
    seen_bookings: Mapping[str, SeenBooking] = field(init=False)

    def __post_init__(self) -> None:
        seen = {
            str(booking.booking_id): SeenBooking(
                booking_id=str(booking.booking_id),
                show_id=show.show_id,
                seat_nos=booking.seat_nos,
                status=STATUSES[booking.status],
                total=booking.total,
                refund=booking.refund,
                pay_by_ms=int(booking.pay_by.timestamp() * 1000),
                was_paid=booking.payment_id is not None,
            )
            for show in self.shows.values()
            for booking in show.bookings.values()
        }
        object.__setattr__(self, "seen_bookings", seen)

    def told(self, topic: str) -> list[Announced]:
        return [event for event in self.events if event.topic == topic]
