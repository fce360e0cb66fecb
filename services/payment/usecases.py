"""What the payment service can do, each with its transactions in sight.

No transaction is open while booking or a provider is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

import structlog

from marquee.payment import v1 as payment_v1
from services.kit.call import UserCaller
from services.kit.database import Connection, Pool
from services.kit.errors import Conflict, NotFound
from services.kit.idempotency import StoredAnswer, once, stored_answer
from services.kit.money import Money
from services.payment.desk import Desk
from services.payment.domain import (
    AttemptId,
    BookingNotPayable,
    Method,
    Payment,
    Refund,
    UnknownProvider,
    at_checkout,
    choose_refund,
)
from services.payment.settlement import take_events
from services.payment.store.payments import (
    Initiation,
    OpenWish,
    captures,
    find_payment,
    lock_payment,
    lock_payment_of_capture,
    sums,
)
from services.payment.store.refunds import add_refund, find_refund, refunds_of_payment

log = structlog.get_logger()

MOST_TURNS = 20
"""How often an initiation looks anew at a payment that others change meanwhile."""
NEW_VERSION = 2
"""Of a payment that has been to the checkout once, and nothing else happened to it."""


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
    desk: Desk,
    answer: PaymentAnswer,
) -> payment_v1.Payment:
    """Start the payment of one's own booking, or go on with it after a failed attempt.

    Raises:
        NotFound: there is no such booking, or it is another user's.
        BookingNotPayable: it is over, or its money is there already.
        ProviderUnavailable: ask again; nothing is done twice.
        RequestIdReused: the id came before with other content.
    """
    user_id = UUID(caller.user_id)
    try:
        payable = await desk.bookings.payable(UUID(request.booking_id), user_id)
    except Exception:
        # Also when the booking is over, or booking away, a repeat gets its answer.
        async with desk.pool.connection() as connection:
            earlier = await stored_answer(connection, caller=caller.user_id, request_id=request.request_id)
        if earlier is None:
            raise
        return earlier.to(request, payment_v1.Payment)

    wish = OpenWish(
        user_id=user_id,
        request_id=UUID(request.request_id),
        booking_id=UUID(request.booking_id),
        amount=payable.amount,
        method=method,
        provider=desk.provider.name,
        pay_by=payable.pay_by,
        description=payable.description,
    )
    for _ in range(MOST_TURNS):
        opened = await desk.openings.add(wish)
        if opened.earlier is not None:
            return opened.earlier.to(request, payment_v1.Payment)
        payment = opened.payment
        assert payment is not None
        if payment.user_id != user_id:
            raise NotFound("there is no such booking")
        if payment.amount != payable.amount:
            # A booking's quote is locked when it is made, so this is a fault of ours, and no time to take money.
            log.error("amount_changed", payment_id=str(payment.payment_id), booking_id=request.booking_id)
            raise BookingNotPayable("the booking's price changed; make a new booking")
        order_id = await desk.orders.ensure(payment, payable.description)
        after = at_checkout(payment, method, order_id, opened.moment)
        message = answer(await _unpaid_view(after, desk.pool))
        stored = StoredAnswer.of(request, message)
        if await desk.answers.add(Initiation(payment, after, user_id, wish.request_id, stored)):
            return message
        # A webhook, or the same request again, came in between: look anew.
    raise Conflict("the payment changes too often just now; try again")


async def get_payment(payment_id: UUID, caller: UserCaller, *, pool: Pool) -> PaymentView:
    """A payment, for its owner or an administrator.

    Raises:
        NotFound: there is none, or it is another user's.
    """
    async with pool.connection() as connection, connection.transaction():
        # One moment for all that is read: else a refund that ends in between has gone through, and its payment not.
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        view = await _view(connection, payment_id)
    if view is None or not (view.payment.user_id == UUID(caller.user_id) or "admin" in caller.roles):
        raise NotFound("there is no such payment")
    return view


async def take_webhook(provider_name: str, body: bytes, headers: Mapping[str, str], *, desk: Desk) -> None:
    """Take in a provider's webhook. When this returns, its effect is durable.

    Raises:
        UnknownProvider: none of ours.
        BadSignature: it isn't from the provider.
    """
    provider = desk.providers.get(provider_name)
    if provider is None:
        raise UnknownProvider("there is no such payment provider")
    event = provider.read_webhook(body, headers)
    if event.refund is None:
        await desk.webhooks[provider.name].add(event)
        return
    async with desk.pool.connection() as connection, connection.transaction():
        await take_events(connection, provider.name, [event])
    log.info("refund_webhook_taken", provider=provider.name, event_id=event.event_id, type=event.type)


async def refund_by_hand(
    request: payment_v1.RefundPaymentRequest,
    amount: Money | None,
    caller: UserCaller,
    *,
    desk: Desk,
    answer: RefundAnswer,
) -> payment_v1.Refund:
    """Promise to pay back some of a payment (all that is left when ``amount`` is None). An administrator's.

    Raises:
        NotFound: there is no such payment.
        PaymentNotRefundable: nothing was captured, or nothing is left.
        RefundExceedsCapture: more than is left.
        RequestIdReused: the id came before with other content.
    """
    async with desk.pool.connection() as connection, connection.transaction():

        async def effect() -> payment_v1.Refund:
            payment = await lock_payment(connection, UUID(request.payment_id))
            if payment is None:
                raise NotFound("there is no such payment")
            capture, paid_back = choose_refund(await captures(connection, payment.payment_id), amount)
            refund_id = uuid4()
            await add_refund(
                connection,
                refund_id=refund_id,
                payment_id=payment.payment_id,
                provider=payment.provider,
                capture_id=capture.capture_id,
                amount=paid_back,
                reason=request.reason,
                requested_by=caller.user_id,
            )
            refund = await find_refund(connection, refund_id)
            assert refund is not None
            return answer(refund)

        done = await once(
            connection,
            caller=caller.user_id,
            request=request,
            answer_type=payment_v1.Refund,
            effect=effect,
        )
    desk.wake_refunds.set()
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
    payment = await lock_payment_of_capture(connection, AttemptId(capture_id))
    if payment is None:
        raise LookupError(f"refund {refund_id} names capture {capture_id}, which is unknown")
    if await find_refund(connection, refund_id) is not None:
        return
    capture = next(each for each in await captures(connection, payment.payment_id) if each.capture_id == capture_id)
    paid_back = Money(min(amount.minor, capture.left), amount.currency)
    if paid_back != amount:
        log.error("refund_exceeds_capture", refund_id=str(refund_id), asked=amount.minor, left=capture.left)
    nothing = not paid_back.minor
    await add_refund(
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
    payment = await find_payment(connection, payment_id)
    if payment is None:
        return None
    refunds = await refunds_of_payment(connection, payment_id)
    _, refunded = await sums(connection, payment_id)
    return PaymentView(payment, tuple(refunds), Money(refunded, payment.amount.currency))


async def _unpaid_view(payment: Payment, pool: Pool) -> PaymentView:
    """Of a payment whose money isn't there. If any went back, it was a capture of a wrong amount and counts nothing."""
    refunds: Sequence[Refund] = ()
    if payment.version > NEW_VERSION:
        async with pool.connection() as connection:
            refunds = await refunds_of_payment(connection, payment.payment_id)
    return PaymentView(payment, tuple(refunds), Money(0, payment.amount.currency))
