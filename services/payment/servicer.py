"""PaymentService: messages in and out. No SQL, no rules."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote
from uuid import UUID

import grpc

from marquee.payment import v1 as payment_v1
from services.kit import moments, money
from services.kit.call import calling_user
from services.kit.errors import InvalidArgument
from services.payment import usecases
from services.payment.desk import Desk
from services.payment.domain import Method, PaymentStatus, Refund, RefundStatus
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


class PaymentServicer(payment_v1.PaymentServiceServicer):
    """See `marquee/payment/v1/payment_service.proto`.

    Args:
        checkout_url: where buyers pay; ``{order_id}`` and ``{method}`` are filled in.
    """

    def __init__(self, desk: Desk, *, checkout_url: str) -> None:
        self._desk = desk
        self._checkout_template = checkout_url

    async def InitiatePayment(self, request: payment_v1.InitiatePaymentRequest, context: Context) -> payment_v1.Payment:
        """Start paying for one's own booking."""
        return await usecases.initiate_payment(
            request, METHODS[request.method], calling_user(), desk=self._desk, answer=self._payment
        )

    async def HandleCallback(
        self, request: payment_v1.HandleCallbackRequest, context: Context
    ) -> payment_v1.HandleCallbackResponse:
        """Take a provider's webhook."""
        headers = {key.lower(): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        await usecases.take_webhook(request.provider, request.payload.data, headers, desk=self._desk)
        return payment_v1.HandleCallbackResponse()

    async def GetPaymentStatus(
        self, request: payment_v1.GetPaymentStatusRequest, context: Context
    ) -> payment_v1.Payment:
        """A payment, for its owner or an administrator."""
        view = await usecases.get_payment(UUID(request.payment_id), calling_user(), pool=self._desk.pool)
        return self._payment(view)

    async def RefundPayment(self, request: payment_v1.RefundPaymentRequest, context: Context) -> payment_v1.Refund:
        """Pay back by hand."""
        amount = money.from_proto(request.amount, "amount") if request.HasField("amount") else None
        if amount is not None and not amount.minor:
            raise InvalidArgument.of("amount", "must be more than nothing; leave it out for all that is left")
        return await usecases.refund_by_hand(request, amount, calling_user(), desk=self._desk, answer=_refund)

    def _payment(self, view: PaymentView) -> payment_v1.Payment:
        payment = view.payment
        return payment_v1.Payment(
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
            pay_by_time=moments.to_proto(payment.pay_by),
            create_time=moments.to_proto(payment.created_at),
            update_time=moments.to_proto(payment.updated_at),
        )

    def _checkout_url(self, order_id: str | None, method: Method) -> str:
        if order_id is None:
            return ""
        return self._checkout_template.replace("{order_id}", quote(order_id, safe="")).replace("{method}", method.value)


def _refund(refund: Refund) -> payment_v1.Refund:
    return payment_v1.Refund(
        refund_id=str(refund.refund_id),
        payment_id=str(refund.payment_id or ""),
        amount=money.to_proto(refund.amount),
        status=REFUND_STATUS_VALUES[refund.status],
        reason=refund.reason,
        create_time=moments.to_proto(refund.created_at),
    )
