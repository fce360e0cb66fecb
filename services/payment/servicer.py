"""PaymentService: messages in and out. No SQL, no rules."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID

import grpc

from marquee.payment import v1 as payment_v1
from services.kit import money
from services.kit.call import calling_user
from services.kit.database import Pool
from services.kit.errors import InvalidArgument
from services.payment import usecases
from services.payment.clients import Bookings
from services.payment.domain import Method, PaymentStatus, Refund, RefundStatus
from services.payment.orders import Orders
from services.payment.provider import Provider
from services.payment.usecases import PaymentView

Context = grpc.aio.ServicerContext[Any, Any]

METHODS = {
    payment_v1.PAYMENT_METHOD_UPI: Method.UPI,
    payment_v1.PAYMENT_METHOD_CARD: Method.CARD,
    payment_v1.PAYMENT_METHOD_WALLET: Method.WALLET,
    payment_v1.PAYMENT_METHOD_NETBANKING: Method.NETBANKING,
}
METHOD_VALUES = {method: value for value, method in METHODS.items()}
STATUS_VALUES = {status: payment_v1.PaymentStatus.Value(f"PAYMENT_STATUS_{status.value}") for status in PaymentStatus}
REFUND_STATUS_VALUES = {
    RefundStatus.REQUESTED: payment_v1.REFUND_STATUS_REQUESTED,
    RefundStatus.PENDING: payment_v1.REFUND_STATUS_REQUESTED,
    RefundStatus.PROCESSED: payment_v1.REFUND_STATUS_PROCESSED,
    RefundStatus.FAILED: payment_v1.REFUND_STATUS_FAILED,
}


@dataclass(frozen=True, slots=True)
class Parts:
    """What the servicer works with."""

    pool: Pool
    bookings: Bookings
    orders: Orders
    # The one that new payments use; webhooks are taken from all of ``providers``.
    provider: Provider
    providers: Mapping[str, Provider]
    wake_refunds: asyncio.Event
    checkout_url: str
    first_poll_seconds: float


class PaymentServicer(payment_v1.PaymentServiceServicer):
    """See `marquee/payment/v1/payment_service.proto`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def InitiatePayment(self, request: payment_v1.InitiatePaymentRequest, context: Context) -> payment_v1.Payment:
        """Start paying for one's own booking."""
        return await usecases.initiate_payment(
            request,
            METHODS[request.method],
            calling_user(),
            pool=self._parts.pool,
            bookings=self._parts.bookings,
            orders=self._parts.orders,
            provider=self._parts.provider,
            first_poll_seconds=self._parts.first_poll_seconds,
            answer=self._payment,
        )

    async def HandleCallback(
        self, request: payment_v1.HandleCallbackRequest, context: Context
    ) -> payment_v1.HandleCallbackResponse:
        """Take a provider's webhook."""
        headers = {key.lower(): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        await usecases.take_webhook(
            request.provider, request.payload.data, headers, pool=self._parts.pool, providers=self._parts.providers
        )
        return payment_v1.HandleCallbackResponse()

    async def GetPaymentStatus(
        self, request: payment_v1.GetPaymentStatusRequest, context: Context
    ) -> payment_v1.Payment:
        """A payment, for its owner or an administrator."""
        view = await usecases.get_payment(UUID(request.payment_id), calling_user(), pool=self._parts.pool)
        return self._payment(view)

    async def RefundPayment(self, request: payment_v1.RefundPaymentRequest, context: Context) -> payment_v1.Refund:
        """Pay back by hand."""
        amount = money.from_proto(request.amount, "amount") if request.HasField("amount") else None
        if amount is not None and not amount.minor:
            raise InvalidArgument.of("amount", "must be more than nothing; leave it out for all that is left")
        return await usecases.refund_by_hand(
            request,
            amount,
            calling_user(),
            pool=self._parts.pool,
            wake_refunds=self._parts.wake_refunds,
            answer=_refund,
        )

    def _payment(self, view: PaymentView) -> payment_v1.Payment:
        payment = view.payment
        message = payment_v1.Payment(
            payment_id=str(payment.payment_id),
            booking_id=str(payment.booking_id),
            amount=money.to_proto(payment.amount),
            method=METHOD_VALUES[payment.method],
            status=STATUS_VALUES[payment.status],
            provider=payment.provider,
            provider_order_id=payment.order_id or "",
            checkout_url=self._checkout_url(payment.order_id, payment.method),
            refunded=money.to_proto(view.refunded),
            failure=payment.failure,
            version=payment.version,
            refunds=[_refund(refund) for refund in view.refunds],
        )
        message.pay_by_time.FromDatetime(payment.pay_by)
        message.create_time.FromDatetime(payment.created_at)
        message.update_time.FromDatetime(payment.updated_at)
        return message

    def _checkout_url(self, order_id: str | None, method: Method) -> str:
        if order_id is None:
            return ""
        template = self._parts.checkout_url
        return template.replace("{order_id}", quote(order_id, safe="")).replace("{method}", method.value)


def _refund(refund: Refund) -> payment_v1.Refund:
    message = payment_v1.Refund(
        refund_id=str(refund.refund_id),
        payment_id=str(refund.payment_id or ""),
        amount=money.to_proto(refund.amount),
        status=REFUND_STATUS_VALUES[refund.status],
        reason=refund.reason,
    )
    message.create_time.FromDatetime(refund.created_at)
    return message
