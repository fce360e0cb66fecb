"""What is done together: webhooks that share a commit, payments that change while somebody looks."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from payment_harness import PRICE, PaymentStack, eventually, payment_stack
from provider_process import SECRET

from local.provider.webhooks import sign
from marquee.payment import v1 as payment_v1
from services.kit.database import Connection
from services.kit.idempotency import StoredAnswer
from services.payment.domain import AttemptId, AttemptState, Method, PaymentStatus, at_checkout
from services.payment.provider import AttemptReport, WebhookEvent
from services.payment.settlement import settle_attempts, take_events
from services.payment.store.payments import Initiation, Opened, OpenWish, answer_initiations, open_payments

CAPTURED = payment_v1.PAYMENT_STATUS_CAPTURED
RAZORPAY = "razorpay"


@pytest.fixture
async def stack(tmp_path: Path, migrated_database_url: Callable[[str], str]) -> AsyncIterator[PaymentStack]:
    async with payment_stack(tmp_path, migrated_database_url("payment")) as it:
        yield it


@pytest.fixture
async def connection(stack: PaymentStack) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True) as it:
        yield it


def report(payment: payment_v1.Payment, state: AttemptState, attempt_id: str = "pay_1") -> AttemptReport:
    failure = "declined" if state is AttemptState.FAILED else ""
    return AttemptReport(AttemptId(attempt_id), payment.provider_order_id, PRICE, state, failure)


async def opened(connection: Connection, stack: PaymentStack, payment: payment_v1.Payment) -> tuple[OpenWish, Opened]:
    """The payment as an initiation sees it."""
    stored = await stack.rows("SELECT pay_by FROM payments WHERE payment_id = %s", payment.payment_id)
    wish = OpenWish(
        user_id=uuid.UUID(stack.user),
        request_id=uuid.uuid4(),
        booking_id=uuid.UUID(payment.booking_id),
        amount=PRICE,
        method=Method.UPI,
        provider=RAZORPAY,
        pay_by=stored[0]["pay_by"],
        description="Inception, 2 seats",
    )
    [seen] = await open_payments(connection, [wish])
    return wish, seen


async def test_webhooks_that_come_together_change_a_payment_once(stack: PaymentStack, connection: Connection) -> None:
    first, second = await stack.initiate(), await stack.initiate()
    states = (AttemptState.CAPTURED, AttemptState.AUTHORIZED, AttemptState.CAPTURED)
    events = [
        WebhookEvent(f"evt_{number}_{payment.payment_id}", "payment", report(payment, state, f"pay_{index}"))
        for index, payment in enumerate((first, second))
        for number, state in enumerate(states)
    ]
    for _ in range(2):  # the second time they are all known
        async with connection.transaction():
            await take_events(connection, RAZORPAY, events)
    for payment in (first, second):
        now = await stack.status(payment.payment_id)
        assert (now.status, now.version) == (CAPTURED, payment.version + 1)
        assert len(await stack.completed(payment.booking_id)) == 1
    [count] = await stack.rows("SELECT count(*) FROM webhook_events")
    assert count["count"] == len(events)


async def test_a_webhook_that_cannot_be_kept_does_not_spoil_the_others(stack: PaymentStack) -> None:
    payments = await asyncio.gather(*[stack.initiate() for _ in range(8)])

    async def hand_over(order_id: str, attempt_id: str) -> int:
        entity = {"id": attempt_id, "order_id": order_id, "amount": PRICE.minor, "currency": "INR"}
        content = {"event": "payment.captured", "payload": {"payment": {"entity": {**entity, "status": "captured"}}}}
        body = json.dumps(content).encode()
        headers = {"x-razorpay-signature": sign(SECRET, body), "x-razorpay-event-id": f"evt_{attempt_id[:20]}"}
        return await stack.bridge.hand_over(headers, body)

    # Signed, and nonsense: no index takes an id of that length.
    too_long = "".join(f"{uuid.uuid4()}" for _ in range(500))
    answers = await asyncio.gather(
        hand_over("order_of_nobody", too_long),
        *[hand_over(payment.provider_order_id, f"pay_{number}") for number, payment in enumerate(payments)],
    )
    assert answers == [503, *[200] * len(payments)]
    for payment in payments:
        assert (await stack.status(payment.payment_id)).status == CAPTURED


async def test_reports_that_come_at_once_to_two_processes_do_not_undo_each_other(
    stack: PaymentStack, connection: Connection
) -> None:
    payment = await stack.initiate()
    async with await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True) as other:

        async def failure_of_another_attempt() -> None:
            async with other.transaction():
                await settle_attempts(other, RAZORPAY, [report(payment, AttemptState.FAILED, "pay_2")])

        async with connection.transaction():
            await settle_attempts(connection, RAZORPAY, [report(payment, AttemptState.CAPTURED, "pay_1")])
            late = asyncio.create_task(failure_of_another_attempt())

            async def waits() -> bool:
                rows = await stack.rows("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
                return bool(rows)

            await eventually(waits)
        await late
    assert (await stack.status(payment.payment_id)).status == CAPTURED
    assert await stack.events("payment.failed", payment.booking_id, payment_v1.PaymentFailed) == []


async def test_a_buyer_who_comes_back_while_money_arrives_does_not_undo_it(
    stack: PaymentStack, connection: Connection
) -> None:
    payment = await stack.initiate()
    async with connection.transaction():
        await settle_attempts(connection, RAZORPAY, [report(payment, AttemptState.FAILED)])
    wish, seen = await opened(connection, stack, payment)
    assert seen.payment is not None
    assert seen.payment.status is PaymentStatus.FAILED
    async with connection.transaction():
        await settle_attempts(connection, RAZORPAY, [report(payment, AttemptState.CAPTURED)])

    again = at_checkout(seen.payment, wish.method, payment.provider_order_id, seen.moment)
    answer = StoredAnswer("marquee.payment.v1.InitiatePaymentRequest", b"content", b"")
    assert await answer_initiations(
        connection, [Initiation(seen.payment, again, wish.user_id, wish.request_id, answer)]
    ) == [False]
    assert (await stack.status(payment.payment_id)).status == CAPTURED
    assert await stack.rows("SELECT FROM requests WHERE request_id = %s", wish.request_id) == []


async def test_of_two_answers_to_one_request_one_is_kept(stack: PaymentStack, connection: Connection) -> None:
    payment = await stack.initiate()
    wish, seen = await opened(connection, stack, payment)
    assert seen.payment is not None
    answers = [
        Initiation(seen.payment, seen.payment, wish.user_id, wish.request_id, StoredAnswer("method", b"content", text))
        for text in (b"first", b"second")
    ]
    assert await answer_initiations(connection, answers) == [True, False]
    [again] = await open_payments(connection, [wish])
    assert again.earlier == StoredAnswer("method", b"content", b"first")
    assert again.payment is None


async def test_many_methods_at_once_each_keep_the_answer_that_they_got(stack: PaymentStack) -> None:
    booking_id = stack.bookings.book(stack.user)
    methods = [
        payment_v1.PAYMENT_METHOD_UPI,
        payment_v1.PAYMENT_METHOD_CARD,
        payment_v1.PAYMENT_METHOD_WALLET,
        payment_v1.PAYMENT_METHOD_NETBANKING,
    ]
    wishes = [{"request_id": str(uuid.uuid4()), "method": method} for method in methods * 2]
    answers = await asyncio.gather(*[stack.initiate(booking_id, **wish) for wish in wishes])
    assert [answer.method for answer in answers] == [wish["method"] for wish in wishes]
    assert len({(answer.payment_id, answer.provider_order_id) for answer in answers}) == 1
    await stack.simulator.pay(answers[0].provider_order_id)
    await stack.reaches(answers[0].payment_id, CAPTURED)
    assert await asyncio.gather(*[stack.initiate(booking_id, **wish) for wish in wishes]) == answers


async def test_a_wish_with_another_price_records_no_call(stack: PaymentStack, connection: Connection) -> None:
    payment = await stack.initiate()
    wish, _ = await opened(connection, stack, payment)
    await stack.change("UPDATE payments SET provider_order_id = NULL")
    await stack.change("DELETE FROM provider_calls")
    dearer = replace(wish, amount=replace(PRICE, minor=PRICE.minor + 1), request_id=uuid.uuid4())
    [seen] = await open_payments(connection, [dearer])
    assert seen.payment is not None
    assert seen.payment.amount == PRICE
    assert await stack.rows("SELECT FROM provider_calls") == []
