"""The rules of paying, pure.

A payment is one booking's. Under it stand attempts, each of which is a payment at the provider with its own id; one
that is captured is called a capture. Attempts and refunds only move forward, in the order of their enums, whatever the
order in which the provider's reports arrive.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NewType
from uuid import UUID, uuid5

from marquee.edge import v1 as edge_v1
from services.kit.errors import Refusal
from services.kit.money import Money

AttemptId = NewType("AttemptId", str)
"""The provider's id of a payment (``pay_...``)."""

SERVICE_NAMESPACE = UUID("7d8ad1ce-7d0f-5a3f-9d5a-0f1f0a0c7a11")
BY_PROVIDER = "provider"
"""Who asked for a refund that was made by hand at the provider's."""
MOST_GENERATIONS = 5
"""How often a refund that the provider took and then failed is asked for anew."""


class Method(enum.Enum):
    """What the buyer chose to pay with."""

    UPI = "upi"
    CARD = "card"
    WALLET = "wallet"
    NETBANKING = "netbanking"


class AttemptState(enum.IntEnum):
    """What the provider says of an attempt. A later member wins over an earlier one.

    FAILED comes before AUTHORIZED, because providers report money that they first believed lost ("late
    authorization") and never lose money that was authorized without paying it back.
    """

    CREATED = 1
    FAILED = 2
    AUTHORIZED = 3
    CAPTURED = 4


class PaymentStatus(enum.Enum):
    """What people see of a payment."""

    CREATED = "CREATED"
    AUTHORIZED = "AUTHORIZED"
    CAPTURED = "CAPTURED"
    PARTIALLY_REFUNDED = "PARTIALLY_REFUNDED"
    REFUNDED = "REFUNDED"
    FAILED = "FAILED"


PAYABLE = frozenset({PaymentStatus.CREATED, PaymentStatus.FAILED, PaymentStatus.AUTHORIZED})


class RefundStatus(enum.Enum):
    """Where money that goes back is."""

    # Ours to ask the provider for.
    REQUESTED = "REQUESTED"
    # The provider took it and hasn't ended it.
    PENDING = "PENDING"
    PROCESSED = "PROCESSED"
    # For good; a person has to look.
    FAILED = "FAILED"


class BookingNotPayable(Refusal):
    """The booking is paid, over, or too late to pay."""

    reason = edge_v1.ERROR_REASON_BOOKING_NOT_PAYABLE


class PaymentNotRefundable(Refusal):
    """Nothing was captured, or nothing is left."""

    reason = edge_v1.ERROR_REASON_PAYMENT_NOT_REFUNDABLE


class RefundExceedsCapture(Refusal):
    """More than is left of the capture."""

    reason = edge_v1.ERROR_REASON_REFUND_EXCEEDS_CAPTURE


class BadSignature(Refusal):
    """Whoever sent this doesn't know the webhook secret."""

    reason = edge_v1.ERROR_REASON_BAD_SIGNATURE


class ProviderUnavailable(Refusal):
    """The provider cannot be asked just now; nothing happened that a repeat would do twice."""

    reason = edge_v1.ERROR_REASON_PROVIDER_UNAVAILABLE


class UnknownProvider(Refusal):
    """We don't work with this one."""

    reason = edge_v1.ERROR_REASON_UNKNOWN_PROVIDER


@dataclass(frozen=True, slots=True)
class Payment:
    """The payment of one booking, as stored."""

    payment_id: UUID
    booking_id: UUID
    user_id: UUID
    amount: Money
    method: Method
    status: PaymentStatus
    provider: str
    # None until the provider has answered once.
    order_id: str | None
    pay_by: datetime
    failure: str
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Refund:
    """Money that goes back from one capture. ``payment_id`` is None for a capture that belongs to nothing of ours."""

    refund_id: UUID
    payment_id: UUID | None
    capture_id: AttemptId
    amount: Money
    status: RefundStatus
    reason: str
    generation: int
    provider_refund_id: str | None
    # A user's id, or which part asked.
    requested_by: str
    tries: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Capture:
    """Money that came in, and how much of it is promised back (refunds that didn't fail)."""

    capture_id: AttemptId
    amount: Money
    promised_back: int

    @property
    def left(self) -> int:
        """What may still be paid back, in minor units."""
        return max(0, self.amount.minor - self.promised_back)


def advance(known: AttemptState | None, reported: AttemptState) -> AttemptState:
    """The state of an attempt after a report: the further one, so that the order of reports doesn't matter."""
    return reported if known is None else max(known, reported)


def status_after(
    current: PaymentStatus, newest: AttemptState | None, *, amount: int, captured: int, refunded: int
) -> PaymentStatus:
    """A payment's status after something changed.

    Args:
        newest: the state that an attempt just reached; None when a refund changed.
        amount: what was to be paid, in minor units like the following.
        captured: of all attempts together; more than ``amount`` after a double capture.
        refunded: what went back for good.
    """
    if captured:
        kept = captured - refunded
        if kept <= 0:
            return PaymentStatus.REFUNDED
        # The second capture of a double one going back leaves the booking fully paid.
        return PaymentStatus.CAPTURED if kept >= amount or not refunded else PaymentStatus.PARTIALLY_REFUNDED
    if newest is AttemptState.AUTHORIZED:
        return PaymentStatus.AUTHORIZED
    if newest is AttemptState.FAILED and current is not PaymentStatus.AUTHORIZED:
        return PaymentStatus.FAILED
    return current


def at_checkout(payment: Payment, method: Method, order_id: str, moment: datetime) -> Payment:
    """``payment`` when its buyer goes to the checkout, for the first time or again: what failed before is over.

    Raises:
        BookingNotPayable: its money is there already.
    """
    if payment.status not in PAYABLE:
        raise BookingNotPayable("the booking is paid already")
    status = PaymentStatus.CREATED if payment.status is PaymentStatus.FAILED else payment.status
    after = replace(payment, method=method, order_id=order_id, status=status, failure="")
    return payment if after == payment else replace(after, version=payment.version + 1, updated_at=moment)


def choose_refund(captures: Iterable[Capture], asked: Money | None) -> tuple[Capture, Money]:
    """From which capture to pay back how much, when a person asks: from the oldest that has enough left.

    Args:
        captures: the oldest first.
        asked: all that is left of one capture when None.

    Raises:
        PaymentNotRefundable: nothing was captured, or all of it went back.
        RefundExceedsCapture: no capture has that much left.
    """
    open_captures = [capture for capture in captures if capture.left]
    if not open_captures:
        raise PaymentNotRefundable("there is no captured money left to pay back")
    if asked is None:
        first = open_captures[0]
        return first, Money(first.left, first.amount.currency)
    for capture in open_captures:
        if asked.currency == capture.amount.currency and asked.minor <= capture.left:
            return capture, asked
    most = max(capture.left for capture in open_captures)
    raise RefundExceedsCapture(
        "this is more than is left of the captured money", metadata={"left_minor_units": str(most)}
    )


def automatic_refund_id(capture_id: AttemptId, why: str) -> UUID:
    """The id of a refund that follows from a capture itself: the same one however often the capture is reported."""
    return uuid5(SERVICE_NAMESPACE, f"{why}/{capture_id}")


def refund_key(refund_id: UUID, generation: int) -> str:
    """Our idempotency key and receipt of a refund at the provider. At most 40 characters."""
    return str(refund_id) if generation == 1 else f"{refund_id}-{generation}"


def read_refund_key(key: str) -> tuple[UUID, int] | None:
    """The refund and generation that a receipt names; None when it isn't one of ours."""
    identifier, dash, generation = key[:36], key[36:37], key[37:]
    try:
        return UUID(identifier), int(generation) if dash == "-" else 1
    except ValueError:
        return None


def retry_delay_seconds(tries: int) -> float:
    """How long a refund rests after its ``tries``-th call came to nothing: half a second, doubling to a minute."""
    return float(min(60.0, 0.5 * 2 ** min(tries, 10)))
