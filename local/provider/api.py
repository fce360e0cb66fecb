"""Razorpay's HTTP API, as far as a shop with one-off payments needs it: https://razorpay.com/docs/api."""

import asyncio
import base64
import binascii
import hmac
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from local.provider.answers import json_answer
from local.provider.entities import collection
from local.provider.errors import ProviderError
from local.provider.faults import FaultBook
from local.provider.ledger import Ledger, NewOrder, NewRefund, Window

_IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9_-]{10,}")
_CURRENCY = re.compile(r"[A-Z]{3}")

Call = Callable[[web.Request], Awaitable[dict[str, Any]]]


class RazorpayApi:
    """The routes below `/v1/`. `after_change` is called when webhooks may have been queued."""

    def __init__(
        self, ledger: Ledger, faults: FaultBook, *, key_id: str, key_secret: str, after_change: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._faults = faults
        self._credentials = f"{key_id}:{key_secret}".encode()
        self._after_change = after_change

    def routes(self) -> list[web.RouteDef]:
        """What aiohttp serves."""
        table: list[tuple[Callable[..., web.RouteDef], str, Call]] = [
            (web.post, "/v1/orders", self.create_order),
            (web.get, "/v1/orders", self.list_orders),
            (web.get, "/v1/orders/{id}", self.get_order),
            (web.get, "/v1/orders/{id}/payments", self.list_order_payments),
            (web.get, "/v1/payments", self.list_payments),
            (web.get, "/v1/payments/{id}", self.get_payment),
            (web.post, "/v1/payments/{id}/capture", self.capture),
            (web.post, "/v1/payments/{id}/refund", self.refund),
            (web.get, "/v1/payments/{id}/refunds", self.list_payment_refunds),
            (web.get, "/v1/refunds", self.list_refunds),
            (web.get, "/v1/refunds/{id}", self.get_refund),
        ]
        return [route(path, self._endpoint(call)) for route, path, call in table]

    async def create_order(self, request: web.Request) -> dict[str, Any]:
        """POST /v1/orders"""
        content = await _json(request)
        currency = content.get("currency")
        if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
            raise ProviderError("The currency should be a three-letter ISO code", field="currency")
        return self._ledger.create_order(
            NewOrder(
                amount=_amount(content.get("amount")),
                currency=currency,
                receipt=_receipt(content.get("receipt")),
                notes=_notes(content.get("notes")),
                # Razorpay takes 1, "1" and true; without it the account's setting counts, here: capture.
                auto_capture=content.get("payment_capture", True) in (1, "1", True),
                unique_receipt=content.get("unique_receipt") in (1, "1", True),
            )
        )

    async def list_orders(self, request: web.Request) -> dict[str, Any]:
        """GET /v1/orders?receipt="""
        return collection(self._ledger.orders(_window(request), receipt=request.query.get("receipt")))

    async def get_order(self, request: web.Request) -> dict[str, Any]:
        """GET /v1/orders/{id}"""
        return self._ledger.order(request.match_info["id"])

    async def list_order_payments(self, request: web.Request) -> dict[str, Any]:
        """GET /v1/orders/{id}/payments"""
        return collection(self._ledger.payments_of_order(request.match_info["id"]))

    async def list_payments(self, request: web.Request) -> dict[str, Any]:
        """GET /v1/payments?from=&to="""
        return collection(self._ledger.payments(_window(request)))

    async def get_payment(self, request: web.Request) -> dict[str, Any]:
        """GET /v1/payments/{id}"""
        return self._ledger.payment(request.match_info["id"])

    async def capture(self, request: web.Request) -> dict[str, Any]:
        """POST /v1/payments/{id}/capture"""
        content = await _json(request)
        currency = content.get("currency", "INR")
        return self._ledger.capture(
            request.match_info["id"], amount=_amount(content.get("amount")), currency=str(currency)
        )

    async def refund(self, request: web.Request) -> dict[str, Any]:
        """POST /v1/payments/{id}/refund; https://razorpay.com/docs/api/refunds/normal-refunds-idempotent"""
        content = await _json(request)
        key = request.headers.get("x-refund-idempotency")
        if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
            raise ProviderError("The idempotency key must have at least 10 letters, digits, hyphens or underscores")
        return self._ledger.refund(
            NewRefund(
                payment_id=request.match_info["id"],
                amount=None if content.get("amount") is None else _amount(content["amount"]),
                receipt=_receipt(content.get("receipt")),
                notes=_notes(content.get("notes")),
                idempotency_key=key,
            )
        )

    async def list_payment_refunds(self, request: web.Request) -> dict[str, Any]:
        """GET /v1/payments/{id}/refunds"""
        return collection(self._ledger.refunds(_window(request), payment_id=request.match_info["id"]))

    async def list_refunds(self, request: web.Request) -> dict[str, Any]:
        """GET /v1/refunds?from=&to="""
        return collection(self._ledger.refunds(_window(request)))

    async def get_refund(self, request: web.Request) -> dict[str, Any]:
        """GET /v1/refunds/{id}"""
        return self._ledger.refund_by_id(request.match_info["id"])

    def _endpoint(self, call: Call) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def endpoint(request: web.Request) -> web.Response:
            try:
                self._authenticate(request)
                # Now, as a client that hangs up takes its body along, and its call counts all the same.
                await request.read()
                faults = self._faults.current
                if faults.api_latency_ms:
                    await asyncio.sleep(faults.api_latency_ms / 1000)
                if self._faults.happens(faults.api_error_percent):
                    raise ProviderError("We are facing some trouble completing your request.", status=500)
                answer = await call(request)
                self._after_change()
                if self._faults.happens(faults.api_lost_answer_percent):
                    raise ProviderError("We are facing some trouble completing your request.", status=500)
            except ProviderError as error:
                return json_answer(error.body(), status=error.status)
            return json_answer(answer)

        return endpoint

    def _authenticate(self, request: web.Request) -> None:
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        try:
            given = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            given = b""
        if scheme.lower() != "basic" or not hmac.compare_digest(given, self._credentials):
            raise ProviderError("Authentication failed", status=401)


async def _json(request: web.Request) -> dict[str, Any]:
    body = await request.read()
    if not body:
        return {}
    try:
        content = json.loads(body)
    except ValueError as error:
        raise ProviderError("The request body is not JSON") from error
    if not isinstance(content, dict):
        raise ProviderError("The request body is not an object")
    return content


def _amount(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProviderError("The amount must be an integer.", field="amount")
    if not 0 < value < 2**53:
        raise ProviderError("The amount must be at least INR 1.00", field="amount")
    return value


def _receipt(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > 40:
        raise ProviderError("The receipt may not be greater than 40 characters.", field="receipt")
    return value


def _notes(value: object) -> dict[str, str]:
    # Razorpay writes empty notes as [].
    if value is None or value == []:
        return {}
    if not isinstance(value, dict) or len(value) > 15:
        raise ProviderError("Number of fields in notes should be less than or equal to 15", field="notes")
    if any(len(str(note)) > 256 for note in value.values()):
        raise ProviderError("Notes values should be at most 256 characters", field="notes")
    return {str(name): str(note) for name, note in value.items()}


def _window(request: web.Request) -> Window:
    given = request.query
    try:
        window = Window(
            since=int(given.get("from", "0")),
            until=int(given.get("to", str(2**53))),
            count=int(given.get("count", "10")),
            skip=int(given.get("skip", "0")),
        )
    except ValueError as error:
        raise ProviderError("from, to, count and skip must be integers") from error
    if not (1 <= window.count <= 100 and window.skip >= 0):
        raise ProviderError("The count must be between 1 and 100", field="count")
    return window
