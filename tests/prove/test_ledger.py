"""The books are checked by something that does find what is wrong."""

from __future__ import annotations

from dataclasses import replace

from tests.prove.ledger import (
    Capture,
    Refund,
    SeenBooking,
    Status,
    exercised,
    misplaced_captures,
    read_ledger,
    refunds_beyond_their_capture,
    seats_with_two_owners,
    sums,
)

BOOKING = SeenBooking("b1", "show", (1, 2), Status.CONFIRMED, total=500, pay_by_ms=1_000, was_paid=True)
CAPTURE = Capture("c1", "o1", "b1", 500, captured_at_ms=900, failed_first=False)
BACK = (Refund("r1", 500, "processed"),)
SECOND = replace(CAPTURE, capture_id="c2", refunds=BACK)


def wrong(booking: SeenBooking, *captures: Capture) -> list[str]:
    return misplaced_captures(captures, {booking.booking_id: booking})


def test_a_capture_that_confirms_and_a_second_one_that_goes_back_are_right() -> None:
    assert wrong(BOOKING, CAPTURE, SECOND) == []
    assert sums([CAPTURE, SECOND], {"b1": BOOKING}).add_up


def test_a_second_capture_that_stays_is_wrong() -> None:
    captures = [CAPTURE, replace(SECOND, refunds=())]
    assert "all kept for one booking" in wrong(BOOKING, *captures)[0]
    assert not sums(captures, {"b1": BOOKING}).add_up


def test_money_for_a_booking_that_expired_must_go_back_once() -> None:
    expired = replace(BOOKING, status=Status.EXPIRED, was_paid=False)
    assert "is expired" in wrong(expired, CAPTURE)[0]
    assert wrong(expired, SECOND) == []
    twice = replace(SECOND, refunds=BACK * 2)
    assert "2 refunds" in wrong(expired, twice)[0]
    assert len(refunds_beyond_their_capture([twice])) == 1


def test_a_confirmed_booking_without_its_money_is_wrong() -> None:
    assert "no capture was kept" in wrong(BOOKING)[0]
    assert "no capture was kept" in wrong(BOOKING, SECOND)[0]


def test_money_that_went_back_in_part_is_right_only_as_its_cancellation_promised() -> None:
    part = replace(CAPTURE, refunds=(Refund("r1", 200, "processed"),))
    cancelled = replace(BOOKING, status=Status.CANCELLED, refund=200)
    assert wrong(cancelled, part) == []
    assert sums([part], {"b1": cancelled}).add_up
    assert "250 was promised" in wrong(replace(cancelled, refund=250), part)[0]
    assert "was kept for b1" in wrong(BOOKING, part)[0]


def test_money_for_nobodys_booking_is_wrong() -> None:
    assert "which nobody has" in misplaced_captures([CAPTURE], {})[0]


def test_a_refund_that_is_still_pending_is_not_done() -> None:
    waiting = replace(SECOND, refunds=(Refund("r1", 500, "pending"),))
    assert "not done yet" in wrong(BOOKING, CAPTURE, waiting)[0]


def test_a_seat_in_two_confirmed_bookings_has_two_owners() -> None:
    other = replace(BOOKING, booking_id="b2", seat_nos=(2, 3))
    assert seats_with_two_owners([BOOKING, other]) == ["seat 2 of show show: b1, b2"]
    assert seats_with_two_owners([BOOKING, replace(other, status=Status.EXPIRED)]) == []
    assert seats_with_two_owners([BOOKING, replace(other, show_id="another")]) == []


def test_the_simulators_ledger_is_read_with_failed_refunds_left_out() -> None:
    books = {
        "orders": [{"id": "o1", "notes": {"booking_id": "b1"}}],
        "payments": [
            {"id": "c1", "order_id": "o1", "amount": 500, "captured_at_ms": 1_200, "failed_at_ms": 1_100},
            {"id": "c2", "order_id": "o1", "amount": 500, "captured_at_ms": 1_300, "failed_at_ms": None},
            {"id": "f1", "order_id": "o1", "amount": 500, "captured_at_ms": None, "failed_at_ms": 900},
        ],
        "refunds": [
            {"id": "r0", "payment_id": "c2", "amount": 500, "status": "failed"},
            {"id": "r1", "payment_id": "c2", "amount": 500, "status": "processed"},
        ],
    }
    captures = read_ledger(books)
    assert [(each.capture_id, each.failed_first, each.refunds) for each in captures] == [
        ("c1", True, ()),
        ("c2", False, BACK),
    ]
    counts = exercised(captures, {"b1": BOOKING})
    assert (counts.payments, counts.late_captures, counts.double_captures, counts.failed_then_captured) == (1, 2, 1, 1)
