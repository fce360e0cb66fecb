"""Every change and its events: in the outboxes together, each once, and heard where it matters."""

from __future__ import annotations

from collections import Counter

from marquee.payment import v1 as payment_v1
from services.booking.domain import BookingState
from tests.prove.evidence import Evidence
from tests.prove.findings import Findings, Rule


def check_events(evidence: Evidence, findings: Findings) -> None:
    """Bookings' events, refunds that were asked for, captures that were told, and the users' lists."""
    by_key = {
        topic: Counter(event.key for event in evidence.told(topic))
        for topic in ("booking.created", "booking.confirmed", "booking.cancelled", "booking.expired")
    }
    confirmations = Counter(
        str(row.booking_id) for show in evidence.shows.values() for row in show.captures if row.outcome == "CONFIRMED"
    )

    def told(topic: str, booking_id: str, expected: int) -> None:
        count = by_key[topic][booking_id]
        findings.demand(
            count == expected, Rule.EVENTS, f"booking {booking_id} has {count} {topic}, and should have {expected}"
        )

    for show in evidence.shows.values():
        for row in show.bookings.values():
            key = str(row.booking_id)
            told("booking.created", key, 1)
            told("booking.confirmed", key, confirmations[key])
            told("booking.cancelled", key, int(row.status is BookingState.CANCELLED))
            if row.status is BookingState.EXPIRED:
                told("booking.expired", key, 1)
            findings.demand(
                (row.user_id, row.booking_id) in evidence.listed,
                Rule.EVENTS,
                f"booking {key} is not in its owner's list: its booking.created had no effect",
            )
    _refunds(evidence, findings)
    _captures(evidence, findings)
    findings.demand(evidence.unsent == 0, Rule.EVENTS, f"{evidence.unsent} events were never sent")
    findings.demand(evidence.dead == 0, Rule.EVENTS, f"{evidence.dead} events were given up on")


def _refunds(evidence: Evidence, findings: Findings) -> None:
    """What booking does not keep it asks back, once for each capture, in the transaction that decides so."""
    asked = Counter(
        payment_v1.RefundRequested.FromString(event.payload).capture_id
        for event in evidence.told("payment.refund_requested")
    )
    for show in evidence.shows.values():
        cancelled = {
            row.capture_id: row.refund for row in show.bookings.values() if row.status is BookingState.CANCELLED
        }
        for row in show.captures:
            back = row.outcome != "CONFIRMED" or cancelled.get(row.capture_id, 0) > 0
            findings.demand(
                asked[row.capture_id] == int(back),
                Rule.EVENTS,
                f"{row.capture_id} ({row.outcome}) was asked back {asked[row.capture_id]} times, not {int(back)}",
            )


def _captures(evidence: Evidence, findings: Findings) -> None:
    """Payment tells of each capture once, and of each refund that is done."""
    completed = Counter(
        payment_v1.PaymentCompleted.FromString(event.payload).capture_id for event in evidence.told("payment.completed")
    )
    refunded = Counter(
        payment_v1.PaymentRefunded.FromString(event.payload).capture_id for event in evidence.told("payment.refunded")
    )
    for capture in evidence.captures:
        count = completed[capture.capture_id]
        findings.demand(count == 1, Rule.EVENTS, f"{capture.capture_id} has {count} payment.completed")
        done = sum(refund.status == "processed" for refund in capture.refunds)
        said = refunded[capture.capture_id]
        findings.demand(said == done, Rule.EVENTS, f"{capture.capture_id} has {said} payment.refunded, {done} are done")
