"""What reports do to a payment: the same, in whatever order and in however many parts they come."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from services.kit.money import Money
from services.payment.books import Books, settle
from services.payment.domain import AttemptId, AttemptState, Method, Payment, PaymentStatus
from services.payment.provider import AttemptReport

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
PRICE = Money(500)
REPORTS = st.lists(
    st.builds(
        AttemptReport,
        attempt_id=st.sampled_from([AttemptId("pay_1"), AttemptId("pay_2"), AttemptId("pay_3")]),
        order_id=st.just("order_1"),
        amount=st.just(PRICE),
        state=st.sampled_from(list(AttemptState)),
        failure=st.just("declined"),
    ),
    min_size=1,
    max_size=8,
)


def new_books():
    payment = Payment(
        payment_id=uuid4(),
        booking_id=uuid4(),
        user_id=uuid4(),
        amount=PRICE,
        method=Method.UPI,
        status=PaymentStatus.CREATED,
        provider="razorpay",
        order_id="order_1",
        pay_by=NOON,
        failure="",
        version=2,
        created_at=NOON,
        updated_at=NOON,
    )
    return Books(payment, {}, 0, 0)


def enter(books, settlement):
    """The books with a settlement in them, as PostgreSQL keeps it."""
    attempts = dict(books.attempts)
    captured = books.captured
    for attempt in settlement.attempts:
        attempts[attempt.attempt_id] = attempt.state
        captured += attempt.amount.minor if attempt.is_good_capture else 0
    return replace(books, payment=settlement.payment, attempts=attempts, captured=captured)


def after(books, parts):
    """The books after the reports of each part came together, and the captures that were told."""
    told = []
    for part in parts:
        settlement = settle(books, part)
        if settlement is not None:
            told += [attempt.attempt_id for attempt in settlement.attempts if attempt.is_good_capture]
            books = enter(books, settlement)
    return books, told


@given(REPORTS, st.randoms(), st.integers(0, 8))
def test_reports_end_alike_in_any_order_and_in_any_parts(reports, random, cut):
    shuffled = list(reports)
    random.shuffle(shuffled)
    start = new_books()
    one_by_one, told = after(start, [[report] for report in reports])
    together, told_together = after(start, [shuffled[:cut], shuffled[cut:]])
    assert one_by_one.attempts == together.attempts
    assert one_by_one.captured == together.captured
    captured = {report.attempt_id for report in reports if report.state is AttemptState.CAPTURED}
    assert set(told) == set(told_together) == captured
    assert len(told) == len(told_together) == len(captured)
    assert (together.payment.status is PaymentStatus.CAPTURED) == bool(captured)
    assert (one_by_one.payment.status is PaymentStatus.CAPTURED) == bool(captured)


@given(REPORTS)
def test_reports_that_came_before_change_nothing(reports):
    books, _ = after(new_books(), [reports])
    assert settle(books, reports) is None


def test_a_failure_is_not_told_of_a_payment_whose_money_is_there():
    def report(attempt_id, state):
        return AttemptReport(AttemptId(attempt_id), "order_1", PRICE, state, "declined")

    failed, captured = report("pay_1", AttemptState.FAILED), report("pay_2", AttemptState.CAPTURED)
    for reports in ([failed, captured], [captured, failed]):
        settlement = settle(new_books(), reports)
        assert settlement is not None
        assert not settlement.unpaid
        assert (settlement.payment.status, settlement.payment.failure) == (PaymentStatus.CAPTURED, "")


def test_a_capture_of_another_amount_pays_for_nothing():
    wrong = AttemptReport(AttemptId("pay_1"), "order_1", Money(400), AttemptState.CAPTURED)
    settlement = settle(new_books(), [wrong])
    assert settlement is not None
    assert [attempt.mismatched for attempt in settlement.attempts] == [True]
    assert settlement.payment.status is PaymentStatus.CREATED
    assert settlement.unpaid
