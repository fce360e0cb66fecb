"""What the provider's reports do to a payment, pure: right for reports that come twice, late, at once, in any order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.kit.money import Money
from services.payment.domain import AttemptId, AttemptState, Payment, PaymentStatus, advance, status_after
from services.payment.provider import AttemptReport


@dataclass(frozen=True, slots=True)
class Books:
    """A payment with what is under it.

    Args:
        captured: of all attempts, in minor units; without captures of a wrong amount, which pay for nothing.
        refunded: what of it went back for good.
    """

    payment: Payment
    attempts: Mapping[AttemptId, AttemptState]
    captured: int
    refunded: int


@dataclass(frozen=True, slots=True)
class SettledAttempt:
    """An attempt in a state that it had not reached before."""

    attempt_id: AttemptId
    state: AttemptState
    amount: Money
    failure: str
    # Captured, but not what the order asked for.
    mismatched: bool

    @property
    def is_good_capture(self) -> bool:
        return self.state is AttemptState.CAPTURED and not self.mismatched


@dataclass(frozen=True, slots=True)
class Settlement:
    """A payment after reports, and the attempts that they moved on.

    Args:
        unpaid: nothing good was captured so far, so a failure is worth telling.
    """

    payment: Payment
    attempts: Sequence[SettledAttempt]
    unpaid: bool


def settle(books: Books, reports: Sequence[AttemptReport]) -> Settlement | None:
    """What ``reports`` of the payment's order change; None when they say nothing new."""
    furthest: dict[AttemptId, AttemptReport] = {}
    for report in reports:
        known = furthest.get(report.attempt_id)
        if known is None or report.state > known.state:
            furthest[report.attempt_id] = report

    payment, captured, status = books.payment, books.captured, books.payment.status
    failure = payment.failure
    moved: list[SettledAttempt] = []
    for report in furthest.values():
        before = books.attempts.get(report.attempt_id)
        state = advance(before, report.state)
        if state is before:
            continue
        mismatched = state is AttemptState.CAPTURED and report.amount != payment.amount
        attempt = SettledAttempt(report.attempt_id, state, report.amount, report.failure, mismatched)
        moved.append(attempt)
        if attempt.is_good_capture:
            captured += report.amount.minor
        status = status_after(status, state, amount=payment.amount.minor, captured=captured, refunded=books.refunded)
        failure = report.failure if status is PaymentStatus.FAILED else ""
    if not moved:
        return None
    return Settlement(dataclasses.replace(payment, status=status, failure=failure), tuple(moved), unpaid=not captured)
