"""The rules of paying."""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from itertools import permutations
from uuid import UUID, uuid4

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.money import Money
from services.kit.validation import looks_like_card
from services.payment.clients import HttpTransport
from services.payment.domain import (
    PAYABLE,
    AttemptId,
    AttemptState,
    BadSignature,
    BookingNotPayable,
    Capture,
    Method,
    Payment,
    PaymentNotRefundable,
    PaymentStatus,
    RefundExceedsCapture,
    RefundStatus,
    advance,
    at_checkout,
    automatic_refund_id,
    choose_refund,
    read_refund_key,
    refund_key,
    retry_delay_seconds,
    status_after,
)
from services.payment.providers.razorpay import Razorpay

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(seconds=1)
STATES = st.sampled_from(list(AttemptState))
CAPTURES = st.lists(
    st.tuples(st.integers(1, 10_000_000), st.integers(0, 10_000_000)).map(
        lambda pair: Capture(AttemptId(f"pay_{pair}"), Money(pair[0]), min(pair))
    ),
    max_size=4,
)


@given(st.lists(STATES, min_size=1, max_size=5), st.randoms())
def test_the_order_of_reports_does_not_matter(reports, random):
    def settle(order):
        known = None
        for report in order:
            known = advance(known, report)
        return known

    shuffled = list(reports)
    random.shuffle(shuffled)
    assert settle(shuffled) == settle(reports) == max(reports)


def test_captured_stays_captured_whatever_comes_later():
    for order in permutations(AttemptState):
        known = None
        for report in order:
            known = advance(known, report)
        assert known is AttemptState.CAPTURED


@given(
    st.sampled_from(list(PaymentStatus)),
    st.none() | STATES,
    st.integers(1, 1_000),
    st.integers(0, 3_000),
    st.integers(0, 3_000),
)
def test_a_payments_status_follows_the_money(current, newest, amount, captured, refunded):
    refunded = min(refunded, captured)
    status = status_after(current, newest, amount=amount, captured=captured, refunded=refunded)
    if captured:
        assert (status is PaymentStatus.REFUNDED) == (captured == refunded)
        if captured - refunded >= amount:
            assert status is PaymentStatus.CAPTURED
        if status is PaymentStatus.PARTIALLY_REFUNDED:
            assert 0 < captured - refunded < amount
            assert refunded
    elif newest not in (AttemptState.FAILED, AttemptState.AUTHORIZED):
        assert status is current


def test_a_second_capture_that_goes_back_leaves_the_payment_captured():
    status = status_after(PaymentStatus.CAPTURED, None, amount=500, captured=1_000, refunded=500)
    assert status is PaymentStatus.CAPTURED


@given(CAPTURES, st.none() | st.integers(1, 20_000_000).map(Money))
def test_no_refund_is_more_than_what_is_left_of_its_capture(captures, asked):
    try:
        capture, amount = choose_refund(captures, asked)
    except PaymentNotRefundable:
        assert not any(each.left for each in captures)
    except RefundExceedsCapture as refusal:
        assert asked is not None
        assert all(asked.minor > each.left for each in captures)
        assert refusal.metadata["left_minor_units"] == str(max(each.left for each in captures))
    else:
        assert 0 < amount.minor <= capture.left
        assert asked in (None, amount)


@given(st.integers(1, 10_000_000), st.lists(st.integers(1, 5_000_000), max_size=20))
def test_refunds_in_parts_add_up_to_the_capture_exactly(captured, parts):
    promised = 0
    for part in [*parts, None, None]:
        asked = None if part is None else Money(part)
        try:
            _, amount = choose_refund([Capture(AttemptId("pay_1"), Money(captured), promised)], asked)
        except (PaymentNotRefundable, RefundExceedsCapture):
            continue
        promised += amount.minor
        assert promised <= captured
    assert promised == captured


@given(st.uuids(), st.integers(1, 99))
def test_a_refunds_key_is_read_back_and_fits_the_provider(refund_id, generation):
    key = refund_key(refund_id, generation)
    assert read_refund_key(key) == (refund_id, generation)
    assert 10 <= len(key) <= 40


@given(st.text(max_size=60))
def test_nonsense_is_no_refund_key(text):
    found = read_refund_key(text)
    assert found is None or isinstance(found[0], UUID)


def test_automatic_refunds_have_one_id_for_a_capture_and_a_cause():
    one = automatic_refund_id(AttemptId("pay_1"), "amount_mismatch")
    assert one == automatic_refund_id(AttemptId("pay_1"), "amount_mismatch")
    assert one != automatic_refund_id(AttemptId("pay_2"), "amount_mismatch")
    assert one != automatic_refund_id(AttemptId("pay_1"), "unknown_capture")


@given(st.integers(0, 1_000))
def test_pauses_grow_and_end_growing(turns):
    assert retry_delay_seconds(turns) <= retry_delay_seconds(turns + 1)
    assert 0 < retry_delay_seconds(turns) <= 60


@pytest.mark.parametrize(
    "number", ["4111111111111111", "4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005"]
)
def test_card_numbers_are_known_by_their_shape(number):
    assert looks_like_card(number)
    assert looks_like_card(f"my card is {number}, thanks")


def test_ids_that_are_not_cards_pass():
    assert not looks_like_card("4111111111111112")  # fails Luhn
    assert not any(looks_like_card(str(uuid4())) for _ in range(2_000))


# The checkout


def payment(status=PaymentStatus.CREATED, method=Method.UPI, order_id=None, failure=""):
    return Payment(
        payment_id=uuid4(),
        booking_id=uuid4(),
        user_id=uuid4(),
        amount=Money(500),
        method=method,
        status=status,
        provider="razorpay",
        order_id=order_id,
        pay_by=NOON,
        failure=failure,
        version=3,
        created_at=NOON,
        updated_at=NOON,
    )


def test_going_to_the_checkout_again_ends_what_failed_and_changes_the_method():
    failed = payment(PaymentStatus.FAILED, order_id="order_1", failure="declined")
    again = at_checkout(failed, Method.CARD, "order_1", LATER)
    assert (again.status, again.failure, again.method) == (PaymentStatus.CREATED, "", Method.CARD)
    assert (again.version, again.updated_at) == (4, LATER)


def test_a_payment_that_is_at_the_checkout_stays_as_it_is():
    there = payment(order_id="order_1")
    assert at_checkout(there, Method.UPI, "order_1", LATER) is there


@pytest.mark.parametrize("status", sorted(set(PaymentStatus) - PAYABLE, key=lambda each: each.value))
def test_what_is_paid_does_not_go_to_the_checkout(status):
    with pytest.raises(BookingNotPayable):
        at_checkout(payment(status, order_id="order_1"), Method.UPI, "order_1", LATER)


# Razorpay's webhooks


def webhook(event, entity_name="payment", **fields):
    entity = {"id": "pay_1", "order_id": "order_1", "amount": 500, "currency": "INR", "status": "captured", **fields}
    return json.dumps({"event": event, "payload": {entity_name: {"entity": entity}}}).encode()


def signed(body, secret="new", event_id="evt_1"):
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"x-razorpay-signature": signature, "x-razorpay-event-id": event_id}


@pytest.fixture
async def transport():
    async with aiohttp.ClientSession() as session:
        yield HttpTransport(session, tries=1)


@pytest.fixture
def razorpay(transport):
    return Razorpay(transport, ["new", "old"])


def test_a_webhook_is_read_when_either_secret_signed_it(razorpay):
    body = webhook("payment.captured")
    for secret in ("new", "old"):
        event = razorpay.read_webhook(body, signed(body, secret))
        assert event.event_id == "evt_1"
        assert event.attempt is not None
        assert (event.attempt.state, event.attempt.amount) == (AttemptState.CAPTURED, Money(500))


def test_every_changed_byte_of_a_webhook_is_noticed(razorpay):
    body = webhook("payment.captured")
    headers = signed(body)
    for place in range(len(body)):
        changed = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        with pytest.raises(BadSignature):
            razorpay.read_webhook(changed, headers)


@pytest.mark.parametrize("signature", ["", "é", "0" * 64, "00"])
def test_other_signatures_are_refused(razorpay, signature):
    with pytest.raises(BadSignature):
        razorpay.read_webhook(b"{}", {"x-razorpay-signature": signature})


def test_without_secrets_nothing_is_believed(transport):
    body = webhook("payment.captured")
    with pytest.raises(BadSignature):
        Razorpay(transport, []).read_webhook(body, signed(body, ""))


def test_signed_events_of_other_kinds_are_taken_and_mean_nothing(razorpay):
    for body in (b"", b"[]", b"{}", b'"x"', webhook("invoice.paid"), webhook("payment.captured", status="odd")):
        event = razorpay.read_webhook(body, signed(body))
        assert event.attempt is None
        assert event.refund is None


def test_a_refund_event_is_read(razorpay):
    refund = {"id": "rfnd_1", "payment_id": "pay_1", "status": "processed", "receipt": "r"}
    event_body = webhook("refund.processed", "refund", **refund)
    event = razorpay.read_webhook(event_body, signed(event_body))
    assert event.refund is not None
    assert (event.refund.status, event.refund.capture_id) == (RefundStatus.PROCESSED, "pay_1")
