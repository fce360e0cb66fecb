"""The provider's books against bookings as their owners see them. Pure: what both say in, what is wrong out.

Money belongs where somebody can point at it: each capture to exactly one confirmed booking, or back by exactly one
refund. The one exception is policy: who cancels gets a part back, the rest stays as the booking's fee.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    PENDING = "pending payment"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Refund:
    refund_id: str
    amount: int
    status: str


@dataclass(frozen=True)
class Capture:
    """Money that the provider took. ``refunds`` are those that did not fail; amounts are minor units."""

    capture_id: str
    order_id: str
    booking_id: str
    amount: int
    captured_at_ms: int
    failed_first: bool
    refunds: tuple[Refund, ...] = ()

    @property
    def refunded(self) -> int:
        return sum(refund.amount for refund in self.refunds)


@dataclass(frozen=True)
class SeenBooking:
    """A booking as its owner sees it."""

    booking_id: str
    show_id: str
    seat_nos: tuple[int, ...]
    status: Status
    total: int
    refund: int = 0
    """What its owner gets back for cancelling."""
    pay_by_ms: int = 0
    was_paid: bool = False
    """It names the payment that confirmed it."""


def read_ledger(books: Mapping[str, Any]) -> list[Capture]:
    """The captures in the simulator's ``/control/ledger``, with their refunds."""
    booking_of = {order["id"]: str(order["notes"].get("booking_id", "")) for order in books["orders"]}
    refunds: dict[str, list[Refund]] = defaultdict(list)
    for refund in books["refunds"]:
        if refund["status"] != "failed":
            refunds[refund["payment_id"]].append(Refund(refund["id"], refund["amount"], refund["status"]))
    return [
        Capture(
            capture_id=payment["id"],
            order_id=payment["order_id"],
            booking_id=booking_of[payment["order_id"]],
            amount=payment["amount"],
            captured_at_ms=payment["captured_at_ms"],
            failed_first=payment["failed_at_ms"] is not None,
            refunds=tuple(refunds[payment["id"]]),
        )
        for payment in books["payments"]
        if payment["captured_at_ms"] is not None
    ]


def refunds_beyond_their_capture(captures: Iterable[Capture]) -> list[str]:
    """Every refund is at most its capture, all of one capture together too."""
    return [
        f"{capture.capture_id}: {capture.refunded} went back of {capture.amount}"
        for capture in captures
        if capture.refunded > capture.amount
    ]


def misplaced_captures(captures: Sequence[Capture], bookings: Mapping[str, SeenBooking]) -> list[str]:
    """Captures that belong neither to exactly one confirmed booking nor to one refund; bookings without their money."""
    wrong: list[str] = []
    paid_by: dict[str, list[Capture]] = defaultdict(list)
    for capture in captures:
        where = f"{capture.capture_id} of booking {capture.booking_id or '(none)'}"
        if any(refund.status != "processed" for refund in capture.refunds):
            wrong.append(f"{where}: a refund is not done yet")
        if len(capture.refunds) > 1:
            wrong.append(f"{where}: {len(capture.refunds)} refunds")
        elif not capture.refunds or capture.refunded < capture.amount:
            paid_by[capture.booking_id].append(capture)
    for booking_id, kept in paid_by.items():
        booking = bookings.get(booking_id)
        names = ", ".join(capture.capture_id for capture in kept)
        if booking is None:
            wrong.append(f"{names}: kept for booking {booking_id or '(none)'}, which nobody has")
        elif len(kept) > 1:
            wrong.append(f"{names}: all kept for one booking, {booking_id}")
        elif booking.status is Status.CONFIRMED:
            if kept[0].refunds or kept[0].amount != booking.total:
                left = kept[0].amount - kept[0].refunded
                wrong.append(f"{names}: {left} was kept for {booking_id}, which costs {booking.total}")
        elif booking.status is not Status.CANCELLED:
            wrong.append(f"{names}: kept, but booking {booking_id} is {booking.status}")
        elif not booking.was_paid or kept[0].refunded != booking.refund:
            wrong.append(f"{names}: {kept[0].refunded} went back, {booking.refund} was promised for {booking_id}")
    wrong += [
        f"booking {booking.booking_id} is confirmed and no capture was kept for it"
        for booking in bookings.values()
        if booking.status is Status.CONFIRMED and booking.booking_id not in paid_by
    ]
    return wrong


def seats_with_two_owners(bookings: Iterable[SeenBooking]) -> list[str]:
    """Seats that more than one confirmed booking of a show names."""
    owners: dict[tuple[str, int], list[str]] = defaultdict(list)
    for booking in bookings:
        if booking.status is Status.CONFIRMED:
            for seat_no in booking.seat_nos:
                owners[booking.show_id, seat_no].append(booking.booking_id)
    return [
        f"seat {seat_no} of show {show_id}: {', '.join(several)}"
        for (show_id, seat_no), several in owners.items()
        if len(several) > 1
    ]


@dataclass(frozen=True)
class Sums:
    """The money in all, minor units."""

    captured: int
    confirmed: int
    refunded: int
    kept_of_cancelled: int

    @property
    def add_up(self) -> bool:
        return self.captured == self.confirmed + self.refunded + self.kept_of_cancelled


def sums(captures: Iterable[Capture], bookings: Mapping[str, SeenBooking]) -> Sums:
    """Captured and refunded as the provider says, confirmed and kept as the owners' bookings say."""
    captures = list(captures)
    return Sums(
        captured=sum(capture.amount for capture in captures),
        confirmed=sum(each.total for each in bookings.values() if each.status is Status.CONFIRMED),
        refunded=sum(capture.refunded for capture in captures),
        kept_of_cancelled=sum(
            each.total - each.refund for each in bookings.values() if each.status is Status.CANCELLED and each.was_paid
        ),
    )


@dataclass(frozen=True)
class Exercised:
    """How much of each kind really happened, by the provider's books."""

    payments: int
    """Orders that were paid."""
    captures: int
    late_captures: int
    """Taken after their booking's window had ended."""
    late_confirmed: int
    late_refunded: int
    double_captures: int
    """Orders that were paid more than once."""
    failed_then_captured: int
    """The very same payment was reported failed first."""
    refunds: int


def exercised(captures: Sequence[Capture], bookings: Mapping[str, SeenBooking]) -> Exercised:
    by_order: dict[str, int] = defaultdict(int)
    for capture in captures:
        by_order[capture.order_id] += 1
    late = [
        capture
        for capture in captures
        if capture.booking_id in bookings and capture.captured_at_ms > bookings[capture.booking_id].pay_by_ms
    ]
    return Exercised(
        payments=len(by_order),
        captures=len(captures),
        late_captures=len(late),
        late_confirmed=sum(not capture.refunds for capture in late),
        late_refunded=sum(bool(capture.refunds) for capture in late),
        double_captures=sum(count > 1 for count in by_order.values()),
        failed_then_captured=sum(capture.failed_first for capture in captures),
        refunds=sum(len(capture.refunds) for capture in captures),
    )
