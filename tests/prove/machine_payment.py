"""The pure rules of paying as a state machine: reports in any order, refunds that are asked for, done and failed."""

from __future__ import annotations

from uuid import UUID, uuid5

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.kit.money import Money
from services.payment.domain import (
    AttemptId,
    AttemptState,
    Capture,
    PaymentNotRefundable,
    PaymentStatus,
    RefundExceedsCapture,
    RefundStatus,
    advance,
    choose_refund,
    read_refund_key,
    refund_key,
    status_after,
)

ATTEMPTS = [AttemptId(f"pay_{number}") for number in range(3)]
OPEN = (RefundStatus.REQUESTED, RefundStatus.PENDING)


class Paying(RuleBasedStateMachine):
    """One payment. The model keeps every report, and knows what must follow from all of them."""

    @initialize(amount=st.integers(1, 1_000_000))
    def begin(self, amount: int) -> None:
        self.amount = amount
        self.reports: list[tuple[AttemptId, AttemptState]] = []
        self.known: dict[AttemptId, AttemptState] = {}
        self.order: list[AttemptId] = []
        self.status = PaymentStatus.CREATED
        self.refunds: list[tuple[AttemptId, int, RefundStatus]] = []

    @property
    def captured(self) -> int:
        return self.amount * len(self.order)

    @property
    def refunded(self) -> int:
        return sum(amount for _, amount, status in self.refunds if status is RefundStatus.PROCESSED)

    def _promised(self, capture: AttemptId) -> int:
        return sum(amount for of, amount, status in self.refunds if of == capture and status is not RefundStatus.FAILED)

    def _refresh(self, newest: AttemptState | None) -> None:
        before = self.status
        self.status = status_after(
            self.status, newest, amount=self.amount, captured=self.captured, refunded=self.refunded
        )
        if before in (PaymentStatus.CAPTURED, PaymentStatus.PARTIALLY_REFUNDED, PaymentStatus.REFUNDED):
            assert self.captured, "captured money was forgotten"

    @rule(attempt=st.sampled_from(ATTEMPTS), state=st.sampled_from(AttemptState))
    def report(self, attempt: AttemptId, state: AttemptState) -> None:
        self.reports.append((attempt, state))
        known = self.known.get(attempt)
        after = advance(known, state)
        assert known is None or after >= known, "an attempt went back"
        if after is known:
            return
        self.known[attempt] = after
        if after is AttemptState.CAPTURED:
            self.order.append(attempt)
        self._refresh(after)

    @rule(share=st.none() | st.integers(1, 2_000_000))
    def ask_back(self, share: int | None) -> None:
        captures = [Capture(each, Money(self.amount, "INR"), self._promised(each)) for each in self.order]
        left = [capture.left for capture in captures]
        try:
            capture, paid_back = choose_refund(captures, None if share is None else Money(share, "INR"))
        except PaymentNotRefundable:
            assert sum(left) == 0
        except RefundExceedsCapture as refusal:
            assert share is not None
            assert share > max(left)
            assert refusal.metadata["left_minor_units"] == str(max(left))
        else:
            assert 0 < paid_back.minor <= capture.left
            assert paid_back.minor == (share or capture.left)
            fitting = [each for each in captures if each.left >= (share or 1)]
            assert capture is fitting[0], "not the oldest that has enough left"
            self.refunds.append((capture.capture_id, paid_back.minor, RefundStatus.REQUESTED))

    @precondition(lambda self: any(status in OPEN for _, _, status in self.refunds))
    @rule(data=st.data(), status=st.sampled_from([RefundStatus.PENDING, RefundStatus.PROCESSED, RefundStatus.FAILED]))
    def refund_ends(self, data: st.DataObject, status: RefundStatus) -> None:
        waiting = [number for number, refund in enumerate(self.refunds) if refund[2] in OPEN]
        number = data.draw(st.sampled_from(waiting))
        self.refunds[number] = (*self.refunds[number][:2], status)
        self._refresh(None)

    @rule(number=st.integers(0, 50), generation=st.integers(1, 9))
    def key(self, number: int, generation: int) -> None:
        refund_id = uuid5(UUID(int=0), str(number))
        written = refund_key(refund_id, generation)
        assert read_refund_key(written) == (refund_id, generation)
        assert len(written) <= 40

    @invariant()
    def no_more_goes_back_than_came(self) -> None:
        for capture in getattr(self, "order", ()):
            assert 0 <= self._promised(capture) <= self.amount

    @invariant()
    def the_status_tells_where_the_money_is(self) -> None:
        if not hasattr(self, "order"):
            return
        kept = self.captured - self.refunded
        match self.status:
            case PaymentStatus.REFUNDED:
                assert self.captured > 0
                assert kept == 0
            case PaymentStatus.PARTIALLY_REFUNDED:
                assert 0 < kept < self.amount
            case PaymentStatus.CAPTURED:
                assert kept >= self.amount
            case _:
                assert self.captured == 0

    def teardown(self) -> None:
        """The order in which reports came did not matter."""
        backwards: dict[AttemptId, AttemptState] = {}
        for attempt, state in reversed(getattr(self, "reports", [])):
            backwards[attempt] = advance(backwards.get(attempt), state)
        assert backwards == getattr(self, "known", {})
