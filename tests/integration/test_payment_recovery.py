"""What the payment service does about lost webhooks, lost answers and refunds that go wrong."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from payment_harness import PRICE, PaymentStack, eventually, payment_stack
from service_harness import reason

from marquee.payment import v1 as payment_v1
from services.kit import money
from services.kit.consumers import Consumer
from services.kit.outbox import Event

CAPTURED = payment_v1.PAYMENT_STATUS_CAPTURED
REFUNDED = payment_v1.PAYMENT_STATUS_REFUNDED


@pytest.fixture
async def stack(tmp_path: Path, migrated_database_url: Callable[[str], str]) -> AsyncIterator[PaymentStack]:
    quick = {
        "poll_first_seconds": 0.3,
        "unmatched_grace_seconds": 0.0,
        "capture_after_seconds": 0.0,
        "provider_tries": 1,
    }
    async with payment_stack(tmp_path, migrated_database_url("payment"), **quick) as it:
        yield it


async def paid(stack: PaymentStack) -> tuple[payment_v1.Payment, str]:
    """A payment with one capture."""
    payment = await stack.initiate()
    [capture] = await stack.simulator.pay(payment.provider_order_id)
    await stack.reaches(payment.payment_id, CAPTURED)
    return payment, str(capture["id"])


async def refunds_of(stack: PaymentStack, capture_id: str) -> list[dict[str, Any]]:
    return [each for each in (await stack.ledger())["refunds"] if each["payment_id"] == capture_id]


async def test_money_whose_webhooks_are_lost_is_found(stack: PaymentStack) -> None:
    await stack.simulator.faults(webhook_drop_percent=100)
    single, double, late = [await stack.initiate() for _ in range(3)]
    await stack.simulator.pay(single.provider_order_id)
    await stack.simulator.pay(double.provider_order_id, count=2)
    await stack.simulator.pay(late.provider_order_id, outcome="failure_then_success")
    for payment in (single, double, late):
        await stack.reaches(payment.payment_id, CAPTURED)
    assert stack.bridge.received == []
    assert [len(await stack.completed(each.booking_id)) for each in (single, double, late)] == [1, 2, 1]


async def test_a_second_capture_long_after_the_first_is_found_too(stack: PaymentStack) -> None:
    payment, _ = await paid(stack)
    await stack.simulator.faults(webhook_drop_percent=100)
    [second] = await stack.simulator.pay(payment.provider_order_id)

    async def told() -> bool:
        return second["id"] in [each.capture_id for each in await stack.completed(payment.booking_id)]

    await eventually(told)
    assert len(await stack.completed(payment.booking_id)) == 2


async def test_more_payments_than_a_page_of_the_providers_list_are_found(stack: PaymentStack) -> None:
    await stack.simulator.faults(webhook_drop_percent=100)
    payment = await stack.initiate()
    for _ in range(12):
        await stack.simulator.pay(payment.provider_order_id, count=10)

    async def all_told() -> bool:
        return len(await stack.completed(payment.booking_id)) == 120

    await eventually(all_told)


async def test_money_that_the_provider_only_authorized_is_taken(stack: PaymentStack) -> None:
    booking_id = stack.bookings.book(stack.user)
    await stack.simulator.faults(api_error_percent=100)
    with pytest.raises(grpc.aio.AioRpcError):
        await stack.initiate(booking_id)
    await stack.simulator.faults(webhook_drop_percent=100)
    [row] = await stack.rows("SELECT payment_id FROM payments")
    # The order that our repeat will be answered, opened without capture.
    await stack.simulator.order(
        receipt=str(row["payment_id"]), unique_receipt=True, payment_capture=False, notes={"system": "marquee"}
    )
    payment = await stack.initiate(booking_id)
    [attempt] = await stack.simulator.pay(payment.provider_order_id)
    assert attempt["status"] == "authorized"
    await stack.reaches(payment.payment_id, CAPTURED)
    assert len(await stack.completed(booking_id)) == 1
    calls = await stack.rows("SELECT key, state FROM provider_calls WHERE kind = 'capture'")
    assert [(call["key"], call["state"]) for call in calls] == [(f"capture/{attempt['id']}", "DONE")]


async def test_an_order_whose_answer_was_lost_is_opened_once(stack: PaymentStack) -> None:
    booking_id = stack.bookings.book(stack.user)
    await stack.simulator.faults(api_lost_answer_percent=100)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.initiate(booking_id)
    assert reason(refused.value) == "PROVIDER_UNAVAILABLE"
    assert [row["state"] for row in await stack.rows("SELECT state FROM provider_calls")] == ["IN_PROGRESS"]

    await stack.simulator.faults()
    again = await stack.initiate(booking_id)
    [order] = (await stack.ledger())["orders"]
    assert (order["id"], order["receipt"]) == (again.provider_order_id, again.payment_id)
    assert [row["state"] for row in await stack.rows("SELECT state FROM provider_calls")] == ["DONE"]


async def test_an_order_that_nobody_asks_for_again_is_adopted_by_the_reconciler(stack: PaymentStack) -> None:
    await stack.simulator.faults(api_lost_answer_percent=100)
    with pytest.raises(grpc.aio.AioRpcError):
        await stack.initiate()
    [order] = (await stack.ledger())["orders"]
    await stack.simulator.faults()
    await stack.simulator.pay(order["id"])
    await stack.reaches(order["receipt"], CAPTURED)


async def test_calls_that_nobody_waits_for_are_ended(stack: PaymentStack) -> None:
    await stack.simulator.faults(api_lost_answer_percent=100)
    with pytest.raises(grpc.aio.AioRpcError):
        await stack.initiate()
    await stack.simulator.faults(api_error_percent=100)
    with pytest.raises(grpc.aio.AioRpcError):
        await stack.initiate()
    await stack.simulator.faults()
    [order] = (await stack.ledger())["orders"]
    await stack.change("UPDATE provider_calls SET started_at = started_at - interval '5 minutes'")

    async def ended() -> bool:
        calls = await stack.rows("SELECT key, state FROM provider_calls")
        states = {call["key"].removeprefix("open_order/"): call["state"] for call in calls}
        return states.pop(order["receipt"]) == "DONE" and list(states.values()) == ["REFUSED"]

    await eventually(ended)
    [payment] = await stack.rows("SELECT provider_order_id FROM payments WHERE payment_id = %s", order["receipt"])
    assert payment["provider_order_id"] == order["id"]


async def test_a_provider_that_is_down_refuses_and_then_goes_on(stack: PaymentStack) -> None:
    booking_id = stack.bookings.book(stack.user)
    await stack.simulator.faults(api_error_percent=100)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.initiate(booking_id)
    assert (reason(refused.value), refused.value.code()) == ("PROVIDER_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE)
    await stack.simulator.faults()
    assert (await stack.initiate(booking_id)).provider_order_id


async def test_refunds_go_back_once_however_often_answers_are_lost(stack: PaymentStack) -> None:
    payments = [await paid(stack) for _ in range(10)]
    await stack.simulator.faults(api_error_percent=30, api_lost_answer_percent=40, webhook_drop_percent=50)
    for _, capture_id in payments:
        await stack.request_refund(capture_id, PRICE.minor)
    await asyncio.sleep(2)
    # From here on only the answers' loss is left to be made good, with pauses that have grown.
    await stack.simulator.faults(webhook_drop_percent=50)
    for payment, _ in payments:
        await stack.reaches(payment.payment_id, REFUNDED)
    for payment, capture_id in payments:
        assert [each["amount"] for each in await refunds_of(stack, capture_id)] == [PRICE.minor]
        assert len(await stack.refunded(payment.booking_id)) == 1


async def test_a_refund_that_the_provider_gives_up_is_asked_for_anew(stack: PaymentStack) -> None:
    payment, capture_id = await paid(stack)
    await stack.simulator.faults(refund_pending_ms=50, refund_fail_percent=100)
    await stack.request_refund(capture_id, PRICE.minor)

    async def gave_up() -> bool:
        return any(each["status"] == "failed" for each in await refunds_of(stack, capture_id))

    await eventually(gave_up)
    await stack.simulator.faults()
    await stack.reaches(payment.payment_id, REFUNDED)
    assert [each["status"] for each in await refunds_of(stack, capture_id)].count("processed") == 1
    assert len(await stack.refunded(payment.booking_id)) == 1


async def test_a_refund_request_never_pays_back_more_than_is_left(stack: PaymentStack) -> None:
    payment, capture_id = await paid(stack)
    await stack.refund(payment.payment_id, 20_000)
    await stack.request_refund(capture_id, PRICE.minor)
    await stack.request_refund(capture_id, PRICE.minor)
    await stack.reaches(payment.payment_id, REFUNDED)
    assert sorted(each["amount"] for each in await refunds_of(stack, capture_id)) == [20_000, 30_000]
    statuses = [each["status"] for each in await stack.rows("SELECT status FROM refunds ORDER BY created_at")]
    assert statuses == ["PROCESSED", "PROCESSED", "FAILED"]


async def test_a_refund_made_at_the_provider_is_taken_into_the_books(stack: PaymentStack) -> None:
    payment, capture_id = await paid(stack)
    await stack.simulator.http.post(f"/v1/payments/{capture_id}/refund", json={"amount": 10_000})
    await stack.reaches(payment.payment_id, payment_v1.PAYMENT_STATUS_PARTIALLY_REFUNDED)
    rest = await stack.refund(payment.payment_id)
    assert rest.amount.units == 400


async def test_a_capture_that_belongs_to_nothing_of_ours_goes_back_and_a_foreign_one_stays(
    stack: PaymentStack,
) -> None:
    ours = await stack.simulator.order(receipt=str(uuid.uuid4()), notes={"system": "marquee"})
    foreign = await stack.simulator.order(receipt="another shop's")
    [lost] = await stack.simulator.pay(ours["id"])
    [theirs] = await stack.simulator.pay(foreign["id"])

    async def paid_back() -> list[dict[str, Any]]:
        return await refunds_of(stack, lost["id"])

    [refund] = await eventually(paid_back)
    assert refund["amount"] == PRICE.minor

    async def closed() -> bool:
        rows = await stack.rows("SELECT outcome FROM unmatched WHERE next_look_at IS NULL")
        return sorted(each["outcome"] for each in rows) == ["foreign", "refunded"]

    await eventually(closed)
    assert await refunds_of(stack, theirs["id"]) == []


async def test_a_capture_that_comes_after_its_authorization_was_looked_at_is_not_lost(stack: PaymentStack) -> None:
    order = await stack.simulator.order(receipt=str(uuid.uuid4()), notes={"system": "marquee"}, payment_capture=False)
    [lost] = await stack.simulator.pay(order["id"])

    async def looked_at() -> bool:
        rows = await stack.rows("SELECT outcome FROM unmatched WHERE next_look_at IS NULL")
        return [each["outcome"] for each in rows] == ["nothing captured"]

    await eventually(looked_at)
    await stack.simulator.http.post(
        f"/v1/payments/{lost['id']}/capture", json={"amount": lost["amount"], "currency": lost["currency"]}
    )

    async def paid_back() -> bool:
        return len(await refunds_of(stack, lost["id"])) == 1

    await eventually(paid_back)


async def test_a_webhook_that_overtakes_the_orders_answer_is_not_lost(stack: PaymentStack) -> None:
    payment = await stack.initiate()
    await stack.change("UPDATE payments SET provider_order_id = NULL")
    await stack.simulator.pay(payment.provider_order_id)
    await stack.reaches(payment.payment_id, CAPTURED)
    assert len(await stack.completed(payment.booking_id)) == 1


async def test_bookings_wish_on_the_bus_is_granted_once(stack: PaymentStack, valkey_bus: str) -> None:
    payment, capture_id = await paid(stack)
    wish = payment_v1.RefundRequested(
        refund_id=str(uuid.uuid4()),
        booking_id=payment.booking_id,
        payment_id=payment.payment_id,
        capture_id=capture_id,
        amount=money.to_proto(PRICE),
        reason="late",
    )
    consumer = Consumer.on_valkey(
        "payment",
        {"payment.refund_requested": stack.app.refund_requests},
        database_url=stack.database_url,
        bus_url=valkey_bus,
    )
    async with consumer.running():
        # Two events, as booking would send after it lost its memory of the first.
        for _ in range(2):
            await stack.publish(valkey_bus, Event("payment.refund_requested", payment.booking_id, wish))
        await stack.reaches(payment.payment_id, REFUNDED)
        await asyncio.sleep(0.3)
    assert len(await refunds_of(stack, capture_id)) == 1
