"""What the payment service can do, each with its transactions in sight.

No transaction is open while booking or a provider is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID, uuid4

import structlog

from marquee.payment import v1 as payment_v1
from services.kit.call import UserCaller
from services.kit.database import Connection, Pool
from services.kit.errors import NotFound
from services.kit.money import Money
from services.payment import store
from services.payment.clients import Bookings
from services.payment.domain import (
    AttemptId,
    BookingNotPayable,
    Method,
    Payment,
    PaymentStatus,
    Refund,
    UnknownProvider,
    choose_refund,
)
from services.payment.idempotency import earlier_answer, once
from services.payment.orders import Orders
from services.payment.provider import Provider
from services.payment.settlement import settle_attempt, settle_refund

log = structlog.get_logger()

PAYABLE_STATUSES = (PaymentStatus.CREATED, PaymentStatus.FAILED, PaymentStatus.AUTHORIZED)


@dataclass(frozen=True, slots=True)
class PaymentView:
    """A payment with its refunds and what went back so far."""

    payment: Payment
    refunds: tuple[Refund, ...]
    refunded: Money


PaymentAnswer = Callable[[PaymentView], payment_v1.Payment]
RefundAnswer = Callable[[Refund], payment_v1.Refund]


async def initiate_payment(
    request: payment_v1.InitiatePaymentRequest,
    method: Method,
    caller: UserCaller,
    *,
    pool: Pool,
    bookings: Bookings,
    orders: Orders,
    provider: Provider,
    first_poll_seconds: float,
    answer: PaymentAnswer,
) -> payment_v1.Payment:
    """Start the payment of one's own booking, or go on with it after a failed attempt.

    Raises:
        NotFound: there is no such booking, or it is another user's.
        BookingNotPayable: it is over, or its money is there already.
        ProviderUnavailable: ask again; nothing is done twice.
        RequestIdReused: the id came before with other content.
    """
    booking_id, user_id = UUID(request.booking_id), UUID(caller.user_id)
    async with pool.connection() as connection:
        earlier = await earlier_answer(
            connection,
            caller=caller.user_id,
            request_id=request.request_id,
            request=request,
            answer_type=payment_v1.Payment,
        )
    if earlier is not None:
        return earlier

    payable = await bookings.payable(booking_id, user_id)
    async with pool.connection() as connection, connection.transaction():
        payment = await store.ensure_payment(
            connection,
            booking_id=booking_id,
            user_id=user_id,
            amount=payable.amount,
            method=method,
            provider=provider.name,
            pay_by=payable.pay_by,
            description=payable.description,
            first_poll_seconds=first_poll_seconds,
        )
    if payment.user_id != user_id:
        raise NotFound("there is no such booking")
    if payment.amount != payable.amount:
        # A booking's quote is locked when it is made, so this is a fault of ours, and no time to take money.
        log.error("amount_changed", payment_id=str(payment.payment_id), booking_id=str(booking_id))
        raise BookingNotPayable("the booking's price changed; make a new booking")
    await orders.ensure(payment, payable.description)

    async with pool.connection() as connection, connection.transaction():

        async def effect() -> payment_v1.Payment:
            now = await store.lock_payment(connection, payment.payment_id)
            assert now is not None
            if now.status not in PAYABLE_STATUSES:
                raise BookingNotPayable("the booking is paid already")
            if now.status is PaymentStatus.FAILED or now.method is not method:
                await store.restart_payment(
                    connection, payment.payment_id, method, first_poll_seconds=first_poll_seconds
                )
            view = await _view(connection, payment.payment_id)
            assert view is not None
            return answer(view)

        return await once(
            connection,
            caller=caller.user_id,
            request_id=request.request_id,
            request=request,
            answer_type=payment_v1.Payment,
            effect=effect,
        )


async def get_payment(payment_id: UUID, caller: UserCaller, *, pool: Pool) -> PaymentView:
    """A payment, for its owner or an administrator.

    Raises:
        NotFound: there is none, or it is another user's.
    """
    async with pool.connection() as connection:
        view = await _view(connection, payment_id)
    if view is None or not (view.payment.user_id == UUID(caller.user_id) or "admin" in caller.roles):
        raise NotFound("there is no such payment")
    return view


async def take_webhook(
    provider_name: str, body: bytes, headers: Mapping[str, str], *, pool: Pool, providers: Mapping[str, Provider]
) -> None:
    """Take in a provider's webhook. When this returns, its effect is durable.

    Raises:
        UnknownProvider: none of ours.
        BadSignature: it isn't from the provider.
    """
    provider = providers.get(provider_name)
    if provider is None:
        raise UnknownProvider("there is no such payment provider")
    event = provider.read_webhook(body, headers)
    async with pool.connection() as connection, connection.transaction():
        if not await store.add_webhook_event(connection, provider.name, event):
            return
        if event.attempt is not None:
            await settle_attempt(connection, provider.name, event.attempt)
        if event.refund is not None:
            await settle_refund(connection, provider.name, event.refund)
    log.info("webhook_taken", provider=provider.name, event_id=event.event_id, type=event.type)


async def refund_by_hand(
    request: payment_v1.RefundPaymentRequest,
    amount: Money | None,
    caller: UserCaller,
    *,
    pool: Pool,
    wake_refunds: asyncio.Event,
    answer: RefundAnswer,
) -> payment_v1.Refund:
    """Promise to pay back some of a payment (all that is left when ``amount`` is None). An administrator's.

    Raises:
        NotFound: there is no such payment.
        PaymentNotRefundable: nothing was captured, or nothing is left.
        RefundExceedsCapture: more than is left.
        RequestIdReused: the id came before with other content.
    """
    async with pool.connection() as connection, connection.transaction():

        async def effect() -> payment_v1.Refund:
            payment = await store.lock_payment(connection, UUID(request.payment_id))
            if payment is None:
                raise NotFound("there is no such payment")
            capture, paid_back = choose_refund(await store.captures(connection, payment.payment_id), amount)
            refund_id = uuid4()
            await store.add_refund(
                connection,
                refund_id=refund_id,
                payment_id=payment.payment_id,
                provider=payment.provider,
                capture_id=capture.capture_id,
                amount=paid_back,
                reason=request.reason,
                requested_by=caller.user_id,
            )
            refund = await store.find_refund(connection, refund_id)
            assert refund is not None
            return answer(refund)

        done = await once(
            connection,
            caller=caller.user_id,
            request_id=request.request_id,
            request=request,
            answer_type=payment_v1.Refund,
            effect=effect,
        )
    wake_refunds.set()
    return done


async def request_refund(
    connection: Connection,
    *,
    refund_id: UUID,
    capture_id: str,
    amount: Money,
    reason: str,
) -> None:
    """Promise a refund that booking asks for; the same ``refund_id`` always means the same one.

    Runs in the consumer's transaction. What an administrator paid back of the capture before isn't paid back twice: no
    more than what is left goes back, and where nothing is left the refund is kept as FAILED for a person to see.

    Raises:
        LookupError: we know of no such capture, so the event is wrong.
    """
    payment = await store.lock_payment_of_capture(connection, AttemptId(capture_id))
    if payment is None:
        raise LookupError(f"refund {refund_id} names capture {capture_id}, which is unknown")
    if await store.find_refund(connection, refund_id) is not None:
        return
    captures = await store.captures(connection, payment.payment_id)
    capture = next(each for each in captures if each.capture_id == capture_id)
    paid_back = Money(min(amount.minor, capture.left), amount.currency)
    if paid_back != amount:
        log.error("refund_exceeds_capture", refund_id=str(refund_id), asked=amount.minor, left=capture.left)
    nothing = not paid_back.minor
    await store.add_refund(
        connection,
        refund_id=refund_id,
        payment_id=payment.payment_id,
        provider=payment.provider,
        capture_id=capture.capture_id,
        amount=amount if nothing else paid_back,
        reason=reason,
        requested_by="booking",
        failed_because="all of it was paid back before" if nothing else "",
    )


async def _view(connection: Connection, payment_id: UUID) -> PaymentView | None:
    payment = await store.find_payment(connection, payment_id)
    if payment is None:
        return None
    refunds = await store.refunds_of_payment(connection, payment_id)
    _, refunded = await store.sums(connection, payment_id)
    return PaymentView(payment, tuple(refunds), Money(refunded, payment.amount.currency))
