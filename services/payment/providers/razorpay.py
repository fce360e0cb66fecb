"""Razorpay: https://razorpay.com/docs/api. Amounts are in minor units, as ours are inside."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog

from services.kit.money import Money
from services.payment.clients import HttpTransport
from services.payment.domain import AttemptId, AttemptState, BadSignature, RefundStatus
from services.payment.provider import (
    AttemptReport,
    OrderReport,
    OrderWish,
    ProviderRefusedError,
    RefundReport,
    WebhookEvent,
)

log = structlog.get_logger()

SYSTEM_NOTE = "marquee"
MOST_ITEMS = 100
"""That a list of Razorpay's has at once."""

ATTEMPT_STATES = {
    "created": AttemptState.CREATED,
    "failed": AttemptState.FAILED,
    "authorized": AttemptState.AUTHORIZED,
    "captured": AttemptState.CAPTURED,
    # Captured once, and paid back since.
    "refunded": AttemptState.CAPTURED,
}
REFUND_STATES = {
    "pending": RefundStatus.PENDING,
    "processed": RefundStatus.PROCESSED,
    "failed": RefundStatus.FAILED,
}


class Razorpay:
    """The adapter.

    Args:
        transport: authenticated with our key.
        webhook_secrets: any of them may have signed a webhook; old ones stay during a rotation, because Razorpay
            signs the retries of old events with the old secret.
    """

    name = "razorpay"

    def __init__(self, transport: HttpTransport, webhook_secrets: Sequence[str]) -> None:
        self._http = transport
        self._secrets = [secret.encode() for secret in webhook_secrets]

    async def open_order(self, wish: OrderWish) -> OrderReport:
        """See `Provider.open_order`; ``unique_receipt`` makes a repeat answer the first one's order."""
        return _order(
            await self._http.post(
                "/v1/orders",
                {
                    "amount": wish.amount.minor,
                    "currency": wish.amount.currency,
                    "receipt": wish.receipt,
                    "unique_receipt": True,
                    "payment_capture": True,
                    "notes": {
                        "system": SYSTEM_NOTE,
                        "booking_id": str(wish.booking_id),
                        "description": wish.description[:256],
                    },
                },
            )
        )

    async def find_order(self, receipt: str) -> OrderReport | None:
        """See `Provider.find_order`."""
        found = await self._http.get("/v1/orders", {"receipt": receipt})
        return next((_order(item) for item in found["items"] if item.get("receipt") == receipt), None)

    async def order(self, order_id: str) -> OrderReport:
        """See `Provider.order`."""
        return _order(await self._http.get(f"/v1/orders/{order_id}"))

    async def attempts(self, since: datetime, until: datetime) -> AsyncGenerator[Sequence[AttemptReport]]:
        """See `Provider.attempts`: https://razorpay.com/docs/api/payments/fetch-all-payments, by whole seconds."""
        window = {"from": int(since.timestamp()), "to": int(until.timestamp()), "count": MOST_ITEMS}
        for skip in itertools.count(0, MOST_ITEMS):
            found = await self._http.get("/v1/payments", {**window, "skip": skip})
            items = found["items"]
            if items:
                yield [report for item in items if (report := _readable_attempt(item))]
            if len(items) < MOST_ITEMS:
                return

    async def capture(self, attempt_id: AttemptId, amount: Money) -> AttemptReport:
        """See `Provider.capture`."""
        try:
            content = {"amount": amount.minor, "currency": amount.currency}
            entity = await self._http.post(f"/v1/payments/{attempt_id}/capture", content)
        except ProviderRefusedError:
            # A lost answer's repeat is refused, because the money is captured already.
            entity = await self._http.get(f"/v1/payments/{attempt_id}")
        report = _attempt(entity)
        if report is None or report.state is not AttemptState.CAPTURED:
            raise ProviderRefusedError(f"{attempt_id} cannot be captured")
        return report

    async def refund(self, capture_id: AttemptId, amount: Money, key: str) -> RefundReport:
        """See `Provider.refund`: https://razorpay.com/docs/api/refunds/normal-refunds-idempotent."""
        content = {"amount": amount.minor, "receipt": key, "notes": {"system": SYSTEM_NOTE}}
        headers = {"x-refund-idempotency": key}
        return _refund(await self._http.post(f"/v1/payments/{capture_id}/refund", content, headers))

    async def find_refund(self, capture_id: AttemptId, key: str) -> RefundReport | None:
        """See `Provider.find_refund`."""
        found = await self._http.get(f"/v1/payments/{capture_id}/refunds", {"count": MOST_ITEMS})
        return next((_refund(item) for item in found["items"] if item.get("receipt") == key), None)

    async def refund_status(self, provider_refund_id: str) -> RefundReport:
        """See `Provider.refund_status`."""
        return _refund(await self._http.get(f"/v1/refunds/{provider_refund_id}"))

    def read_webhook(self, body: bytes, headers: Mapping[str, str]) -> WebhookEvent:
        """See `Provider.read_webhook`: https://razorpay.com/docs/webhooks/validate-test."""
        signature = headers.get("x-razorpay-signature", "").encode(errors="replace")
        # Every secret is tried, so that the time tells nothing of which one was right.
        right = [hmac.compare_digest(_sign(secret, body), signature) for secret in self._secrets]
        if not any(right):
            raise BadSignature("the webhook's signature is not right")
        # The event's id isn't signed; without one, equal bodies are the same event.
        event_id = headers.get("x-razorpay-event-id", "")[:100] or hashlib.sha256(body).hexdigest()
        try:
            content = json.loads(body)
            event_type = _text(content["event"])[:100]
            payload = content["payload"]
            kind = event_type.partition(".")[0]
            return WebhookEvent(
                event_id=event_id,
                type=event_type,
                attempt=_attempt(payload["payment"]["entity"]) if kind in ("payment", "order") else None,
                refund=_refund(payload["refund"]["entity"]) if event_type in REFUND_EVENTS else None,
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            # Signed, so it is Razorpay's: a kind of event that we don't know. Refusing it would make it come again.
            return WebhookEvent(event_id=event_id, type="unreadable")


REFUND_EVENTS = ("refund.created", "refund.processed", "refund.failed")


def _sign(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, body, "sha256").hex().encode()


def _text(value: object) -> str:
    """What PostgreSQL can keep: no NUL, no half of a surrogate pair (its error is a ValueError too)."""
    text = str(value)
    if b"\0" in text.encode():
        raise ValueError("NUL in a text")
    return text


def _money(entity: Mapping[str, Any]) -> Money:
    amount = int(entity["amount"])
    if not 0 <= amount < 2**63:
        raise ValueError(f"an amount of {amount.bit_length()} bits")
    return Money(amount, _text(entity["currency"]))


def _order(entity: Mapping[str, Any]) -> OrderReport:
    notes = entity.get("notes")
    return OrderReport(
        order_id=_text(entity["id"]),
        receipt=_text(entity.get("receipt") or ""),
        amount=_money(entity),
        # Razorpay writes empty notes as [].
        ours=isinstance(notes, dict) and notes.get("system") == SYSTEM_NOTE,
    )


def _attempt(entity: Mapping[str, Any]) -> AttemptReport | None:
    """None for payments without an order, which we never ask for."""
    if not entity.get("order_id") or entity["status"] not in ATTEMPT_STATES:
        return None
    return AttemptReport(
        attempt_id=AttemptId(_text(entity["id"])),
        order_id=_text(entity["order_id"]),
        amount=_money(entity),
        state=ATTEMPT_STATES[entity["status"]],
        failure=_text(entity.get("error_description") or "")[:500],
    )


def _readable_attempt(entity: Mapping[str, Any]) -> AttemptReport | None:
    """One that makes no sense must not hide the others of its list."""
    try:
        return _attempt(entity)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        log.error("attempt_unreadable", attempt_id=str(entity.get("id"))[:100], error=type(error).__name__)
        return None


def _refund(entity: Mapping[str, Any]) -> RefundReport:
    return RefundReport(
        provider_refund_id=_text(entity["id"]),
        capture_id=AttemptId(_text(entity["payment_id"])),
        amount=_money(entity),
        status=REFUND_STATES[entity["status"]],
        receipt=_text(entity.get("receipt") or ""),
    )
