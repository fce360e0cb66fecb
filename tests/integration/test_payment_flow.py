"""Paying, as the buyer, the provider and an administrator see it."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from payment_harness import PRICE, PaymentStack, eventually, payment_stack
from provider_process import SECRET
from service_harness import reason

from marquee.payment import v1 as payment_v1
from services.kit.database import Connection
from services.payment import usecases
from services.payment.domain import Refund, automatic_refund_id
from services.payment.store.refunds import refunds_of_payment

CREATED, CAPTURED, REFUNDED, PARTLY, FAILED = (
    payment_v1.PAYMENT_STATUS_CREATED,
    payment_v1.PAYMENT_STATUS_CAPTURED,
    payment_v1.PAYMENT_STATUS_REFUNDED,
    payment_v1.PAYMENT_STATUS_PARTIALLY_REFUNDED,
    payment_v1.PAYMENT_STATUS_FAILED,
)
REQUESTED, PROCESSED = payment_v1.REFUND_STATUS_REQUESTED, payment_v1.REFUND_STATUS_PROCESSED


@pytest.fixture
async def stack(tmp_path: Path, migrated_database_url: Callable[[str], str]) -> AsyncIterator[PaymentStack]:
    async with payment_stack(tmp_path, migrated_database_url("payment")) as it:
        yield it


async def captures(stack: PaymentStack, order_id: str) -> list[dict[str, Any]]:
    return [each for each in (await stack.ledger())["payments"] if each["order_id"] == order_id and each["captured"]]


async def test_a_booking_is_paid_at_the_checkout(stack: PaymentStack) -> None:
    booking_id = stack.bookings.book(stack.user)
    payment = await stack.initiate(booking_id, method=payment_v1.PAYMENT_METHOD_CARD)
    assert (payment.status, payment.amount.units, payment.provider) == (CREATED, 500, "razorpay")
    assert payment.checkout_url.endswith(f"/checkout/{payment.provider_order_id}?method=card")

    async with httpx.AsyncClient(trust_env=False) as browser:
        assert "INR 500.00" in (await browser.get(payment.checkout_url)).text
        await browser.post(payment.checkout_url, data={"outcome": "success"})

    paid = await stack.reaches(payment.payment_id, CAPTURED)
    assert paid.version > payment.version
    await stack.webhooks_settled()
    [completed] = await stack.completed(booking_id)
    [captured] = await captures(stack, payment.provider_order_id)
    assert (completed.capture_id, completed.amount.units) == (captured["id"], 500)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.initiate(booking_id)
    assert reason(refused.value) == "BOOKING_NOT_PAYABLE"


async def test_the_same_request_ten_times_at_once_has_one_effect(stack: PaymentStack) -> None:
    booking_id, request_id = stack.bookings.book(stack.user), str(uuid.uuid4())
    answers = await asyncio.gather(*[stack.initiate(booking_id, request_id=request_id) for _ in range(10)])
    assert len({answer.SerializeToString() for answer in answers}) == 1
    assert len((await stack.ledger())["orders"]) == 1

    stack.bookings.closed.add(booking_id)
    assert await stack.initiate(booking_id, request_id=request_id) == answers[0]
    with pytest.raises(grpc.aio.AioRpcError) as reused:
        await stack.initiate(booking_id, request_id=request_id, method=payment_v1.PAYMENT_METHOD_CARD)
    assert reason(reused.value) == "REQUEST_ID_REUSED"


async def test_ten_different_requests_at_once_share_one_payment_and_order(stack: PaymentStack) -> None:
    booking_id = stack.bookings.book(stack.user)
    answers = await asyncio.gather(*[stack.initiate(booking_id) for _ in range(10)])
    assert len({(answer.payment_id, answer.provider_order_id) for answer in answers}) == 1
    assert len((await stack.ledger())["orders"]) == 1


async def test_another_users_booking_and_payment_are_not_found(stack: PaymentStack) -> None:
    payment = await stack.initiate()
    stranger = str(uuid.uuid4())
    refusals = []
    for call in (
        stack.initiate(payment.booking_id, user=stranger),
        stack.initiate(str(uuid.uuid4()), user=stranger),
        stack.status(payment.payment_id, user=stranger),
        stack.status(str(uuid.uuid4()), user=stranger),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        refusals.append((refused.value.code(), refused.value.details(), reason(refused.value)))
    assert refusals[0] == refusals[1]
    assert refusals[2] == refusals[3]
    assert {each[2] for each in refusals} == {"NOT_FOUND"}
    request = payment_v1.GetPaymentStatusRequest(payment_id=payment.payment_id)
    assert (await stack.stub.GetPaymentStatus(request, metadata=stack.as_admin())).payment_id == payment.payment_id


async def test_a_booking_that_is_over_cannot_be_paid(stack: PaymentStack) -> None:
    booking_id = stack.bookings.book(stack.user)
    stack.bookings.closed.add(booking_id)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.initiate(booking_id)
    assert reason(refused.value) == "BOOKING_NOT_PAYABLE"


async def test_a_failed_attempt_is_told_and_another_one_may_succeed(stack: PaymentStack) -> None:
    payment = await stack.initiate()
    await stack.simulator.pay(payment.provider_order_id, outcome="failure")
    failed = await stack.reaches(payment.payment_id, FAILED)
    assert "declined" in failed.failure
    assert len(await stack.events("payment.failed", payment.booking_id, payment_v1.PaymentFailed)) == 1

    again = await stack.initiate(payment.booking_id, method=payment_v1.PAYMENT_METHOD_WALLET)
    assert (again.payment_id, again.status, again.failure) == (payment.payment_id, CREATED, "")
    await stack.simulator.pay(again.provider_order_id)
    await stack.reaches(payment.payment_id, CAPTURED)
    await stack.webhooks_settled()
    assert len(await stack.completed(payment.booking_id)) == 1


async def test_a_payment_reported_failed_and_then_captured_is_captured(stack: PaymentStack) -> None:
    await stack.simulator.faults(webhook_repeat=3, webhook_shuffle_ms=300)
    payments = await asyncio.gather(*[stack.initiate() for _ in range(10)])
    for payment in payments:
        await stack.simulator.pay(payment.provider_order_id, outcome="failure_then_success")
    await stack.webhooks_settled()
    for payment in payments:
        assert (await stack.status(payment.payment_id)).status == CAPTURED
        assert len(await stack.completed(payment.booking_id)) == 1


async def test_every_capture_of_a_double_payment_is_told_once_and_the_second_goes_back(stack: PaymentStack) -> None:
    await stack.simulator.faults(webhook_repeat=3, webhook_shuffle_ms=200)
    payment = await stack.initiate()
    pair = await stack.simulator.pay(payment.provider_order_id, count=2)
    await stack.webhooks_settled()
    told = await stack.completed(payment.booking_id)
    assert {each.capture_id for each in told} == {each["id"] for each in pair}
    assert len(told) == 2

    refund_id = await stack.request_refund(told[1].capture_id, PRICE.minor)
    await stack.request_refund(told[1].capture_id, PRICE.minor, refund_id)
    await stack.simulator.faults()

    async def paid_back() -> bool:
        return len(await stack.refunded(payment.booking_id)) == 1

    await eventually(paid_back)
    assert (await stack.status(payment.payment_id)).status == CAPTURED  # the booking stays paid
    [refund] = (await stack.ledger())["refunds"]
    assert (refund["payment_id"], refund["amount"], refund["receipt"]) == (told[1].capture_id, PRICE.minor, refund_id)


async def test_a_webhook_with_a_wrong_signature_changes_nothing(stack: PaymentStack) -> None:
    payment = await stack.initiate()
    stack.bridge.closed = True
    await stack.simulator.pay(payment.provider_order_id)
    await stack.bridge.wait_for(3)
    headers, body = next(each for each in stack.bridge.received if json.loads(each[1])["event"] == "payment.captured")

    assert await stack.bridge.hand_over(headers, body + b" ") == 401
    assert await stack.bridge.hand_over({**headers, "x-razorpay-signature": "0" * 64}, body) == 401
    without = {key: value for key, value in headers.items() if key != "x-razorpay-signature"}
    assert await stack.bridge.hand_over(without, body) == 401
    assert await stack.bridge.hand_over(headers, body, provider="paypal") == 404
    assert (await stack.status(payment.payment_id)).status == CREATED

    # The event's id is not signed: another one for the same body still counts the capture once.
    for event_id in ("evt_1", "evt_2", "evt_2", headers["x-razorpay-event-id"]):
        assert await stack.bridge.hand_over({**headers, "x-razorpay-event-id": event_id}, body) == 200
    assert len(await stack.completed(payment.booking_id)) == 1


async def test_both_secrets_are_good_while_they_rotate(stack: PaymentStack) -> None:
    first, second = await stack.initiate(), await stack.initiate()
    await stack.simulator.pay(first.provider_order_id)
    await stack.simulator.http.post("/control/webhook-secret", json={"secret": "newer-secret"})
    await stack.simulator.pay(second.provider_order_id)
    await stack.reaches(first.payment_id, CAPTURED)
    await stack.reaches(second.payment_id, CAPTURED)
    assert SECRET != "newer-secret"


async def test_a_capture_of_another_amount_is_paid_back_and_never_told(stack: PaymentStack) -> None:
    payment = await stack.initiate()
    [wrong] = await stack.simulator.pay(payment.provider_order_id, amount=PRICE.minor - 1)

    async def paid_back() -> list[dict[str, Any]]:
        return list((await stack.ledger())["refunds"])

    [refund] = await eventually(paid_back)
    assert (refund["payment_id"], refund["amount"]) == (wrong["id"], PRICE.minor - 1)
    assert refund["receipt"] == str(automatic_refund_id(wrong["id"], "amount_mismatch"))
    assert await stack.completed(payment.booking_id) == []
    await stack.simulator.pay(payment.provider_order_id)
    await stack.reaches(payment.payment_id, CAPTURED)
    assert len(await stack.completed(payment.booking_id)) == 1


async def test_an_administrator_pays_back_in_parts_but_never_too_much(stack: PaymentStack) -> None:
    payment = await stack.initiate()
    with pytest.raises(grpc.aio.AioRpcError) as nothing:
        await stack.refund(payment.payment_id)
    assert reason(nothing.value) == "PAYMENT_NOT_REFUNDABLE"
    await stack.simulator.pay(payment.provider_order_id)
    await stack.reaches(payment.payment_id, CAPTURED)

    request_id = str(uuid.uuid4())
    parts = await asyncio.gather(*[stack.refund(payment.payment_id, 16_667, request_id=request_id) for _ in range(10)])
    assert len({part.SerializeToString() for part in parts}) == 1
    partly = await stack.reaches(payment.payment_id, PARTLY)
    assert (partly.refunded.units, partly.refunded.nanos) == (166, 670_000_000)
    with pytest.raises(grpc.aio.AioRpcError) as too_much:
        await stack.refund(payment.payment_id, 33_334)
    assert reason(too_much.value) == "REFUND_EXCEEDS_CAPTURE"
    rest = await stack.refund(payment.payment_id)
    assert (rest.amount.units, rest.amount.nanos) == (333, 330_000_000)
    done = await stack.reaches(payment.payment_id, REFUNDED)
    assert (done.refunded.units, done.refunded.nanos) == (500, 0)
    assert len(await stack.refunded(payment.booking_id)) == 2
    with pytest.raises(grpc.aio.AioRpcError) as left:
        await stack.refund(payment.payment_id, 1)
    assert reason(left.value) == "PAYMENT_NOT_REFUNDABLE"


async def test_a_payment_and_its_refunds_are_told_as_of_one_moment(
    stack: PaymentStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await stack.initiate()
    await stack.simulator.pay(payment.provider_order_id)
    await stack.reaches(payment.payment_id, CAPTURED)
    await stack.refund(payment.payment_id)
    await stack.reaches(payment.payment_id, REFUNDED)
    await stack.webhooks_settled()
    of_this = f"WHERE payment_id = '{payment.payment_id}'"
    await stack.change(f"UPDATE payments SET status = 'CAPTURED' {of_this}")
    await stack.change(f"UPDATE refunds SET status = 'PENDING', next_try_at = 'infinity' {of_this}")

    async def refunds_just_after_they_ended(connection: Connection, payment_id: uuid.UUID) -> list[Refund]:
        await stack.change(
            f"UPDATE payments SET status = 'REFUNDED' {of_this}; UPDATE refunds SET status = 'PROCESSED' {of_this}"
        )
        return await refunds_of_payment(connection, payment_id)

    monkeypatch.setattr(usecases, "refunds_of_payment", refunds_just_after_they_ended)
    told = await stack.status(payment.payment_id)
    assert (told.status, told.refunds[0].status, told.refunded.units) == (CAPTURED, REQUESTED, 0)
    told = await stack.status(payment.payment_id)
    assert (told.status, told.refunds[0].status, told.refunded.units) == (REFUNDED, PROCESSED, 500)


async def test_only_an_administrator_pays_back(stack: PaymentStack) -> None:
    payment = await stack.initiate()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.refund(payment.payment_id, metadata=stack.as_user())
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_card_number_is_refused_in_any_field(stack: PaymentStack) -> None:
    payment = await stack.initiate()
    for text in ("4111111111111111", "please use 4111 1111 1111 1111", "5500-0000-0000-0004"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stack.refund(payment.payment_id, reason=text)
        assert reason(refused.value) == "CARD_DATA_REFUSED"
