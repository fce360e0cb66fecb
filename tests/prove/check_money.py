"""The provider's own books against the bookings, and against what payment tells its owners."""

from __future__ import annotations

from collections import Counter, defaultdict

from marquee.payment import v1 as payment_v1
from services.booking.messages import minor_units
from tests.prove import ledger
from tests.prove.evidence import Evidence
from tests.prove.findings import Findings, Rule
from tests.prove.history import Act, History
from tests.prove.ledger import Capture


def check_money(history: History, evidence: Evidence, findings: Findings) -> None:
    """Each capture belongs to one confirmed booking or to one refund; no refund is lost, doubled or too large."""
    bookings = evidence.seen_bookings
    findings.look(Rule.MONEY, len(evidence.captures) + len(bookings))
    for problem in (
        *ledger.misplaced_captures(evidence.captures, bookings),
        *ledger.refunds_beyond_their_capture(evidence.captures),
        *ledger.seats_with_two_owners(bookings.values()),
    ):
        findings.object(Rule.MONEY, problem)
    sums = ledger.sums(evidence.captures, bookings)
    findings.demand(sums.add_up, Rule.MONEY, f"the sums do not add up: {sums}")
    _what_booking_made_of_them(evidence, findings)
    _what_was_paid_is_in_the_books(history, evidence, findings)
    _payments_as_their_owners_see_them(history, evidence, findings)


def _what_booking_made_of_them(evidence: Evidence, findings: Findings) -> None:
    """Every capture reached booking, where at most one of a booking's confirmed it."""
    known = {row.capture_id: row for show in evidence.shows.values() for row in show.captures}
    for capture in evidence.captures:
        row = known.get(capture.capture_id)
        if capture.booking_id in evidence.seen_bookings and findings.demand(
            row is not None, Rule.MONEY, f"{capture.capture_id} never reached booking {capture.booking_id}"
        ):
            assert row is not None
            kept = row.outcome == "CONFIRMED"
            findings.demand(
                kept or capture.refunded == capture.amount,
                Rule.MONEY,
                f"{capture.capture_id} was to go back ({row.outcome}), {capture.refunded} of {capture.amount} did",
            )
    confirmed = Counter(row.booking_id for row in known.values() if row.outcome == "CONFIRMED")
    for booking_id, count in confirmed.items():
        findings.demand(count == 1, Rule.MONEY, f"booking {booking_id} was confirmed by {count} captures")


def _what_was_paid_is_in_the_books(history: History, evidence: Evidence, findings: Findings) -> None:
    captured = {capture.capture_id for capture in evidence.captures}
    for each in history.answered(Act.PAY):
        for payment in each.answer:
            if payment["status"] == "captured":
                findings.demand(
                    payment["id"] in captured, Rule.ACKNOWLEDGED, f"{each.client}'s {payment['id']} is not in the books"
                )


def _payments_as_their_owners_see_them(history: History, evidence: Evidence, findings: Findings) -> None:
    """The last look at each payment: its status and what went back are what the books say."""
    by_order: dict[str, list[Capture]] = defaultdict(list)
    for capture in evidence.captures:
        by_order[capture.order_id].append(capture)
    last = {each.answer.payment_id: each for each in history.answered(Act.SEE_PAYMENT)}
    for each in history.answered(Act.INITIATE):
        told: payment_v1.Payment = each.answer
        seen = last.get(told.payment_id)
        if not findings.demand(
            seen is not None, Rule.ACKNOWLEDGED, f"{each.client}'s payment {told.payment_id} is lost"
        ):
            continue
        assert seen is not None
        now: payment_v1.Payment = seen.answer
        findings.demand(
            _identity(told) == _identity(now),
            Rule.ACKNOWLEDGED,
            f"payment {told.payment_id}: acknowledged as {_identity(told)}, now {_identity(now)}",
        )
        problem = _disagreement(now, by_order[now.provider_order_id])
        findings.demand(not problem, Rule.MONEY, problem)


def _identity(payment: payment_v1.Payment) -> tuple[object, ...]:
    return payment.booking_id, payment.provider_order_id, minor_units(payment.amount), payment.checkout_url


def _disagreement(payment: payment_v1.Payment, captures: list[Capture]) -> str:
    refunded, captured = sum(each.refunded for each in captures), sum(each.amount for each in captures)
    kept, amount = captured - refunded, minor_units(payment.amount)
    fits = {
        payment_v1.PAYMENT_STATUS_CREATED: not captures,
        payment_v1.PAYMENT_STATUS_FAILED: not captures,
        # The second capture of a double one going back leaves it paid in full.
        payment_v1.PAYMENT_STATUS_CAPTURED: bool(captures) and kept >= amount,
        payment_v1.PAYMENT_STATUS_PARTIALLY_REFUNDED: 0 < kept < amount,
        payment_v1.PAYMENT_STATUS_REFUNDED: bool(captures) and kept == 0,
    }
    if fits.get(payment.status, False) and minor_units(payment.refunded) == refunded:
        return ""
    status = payment_v1.PaymentStatus.Name(payment.status)
    return f"payment {payment.payment_id} is {status}, {captured} was captured and {refunded} went back"
