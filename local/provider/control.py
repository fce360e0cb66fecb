"""The simulator's own API, for tests and load: nothing of it exists at Razorpay."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from local.provider.answers import json_answer
from local.provider.audit import Audit
from local.provider.errors import ProviderError
from local.provider.faults import FaultBook, Faults
from local.provider.ledger import Ledger, Method, Outcome
from local.provider.webhook_queue import WebhookQueue


class Pay(BaseModel):
    """POST /control/pay/{order_id}"""

    model_config = ConfigDict(extra="forbid")

    outcome: Outcome = Outcome.SUCCESS
    method: Method = Method.UPI
    # That many attempts; two successes are a double capture.
    count: int = Field(1, ge=1, le=10)
    # Another amount than the order's: a provider that errs.
    amount: int | None = Field(None, ge=1)
    # Holds back the webhooks of this payment alone.
    webhook_delay_ms: int = Field(0, ge=0, le=3_600_000)


class Secret(BaseModel):
    """POST /control/webhook-secret"""

    model_config = ConfigDict(extra="forbid")

    secret: str = Field(min_length=8)


class Control:
    """The routes below `/control/`."""

    def __init__(
        self, ledger: Ledger, faults: FaultBook, queue: WebhookQueue, audit: Audit, *, after_change: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._faults = faults
        self._queue = queue
        self._audit = audit
        self._after_change = after_change

    def routes(self) -> list[web.RouteDef]:
        """What aiohttp serves."""
        return [
            web.get("/control/health", _answer(self.health)),
            web.get("/control/faults", _answer(self.get_faults)),
            web.put("/control/faults", _answer(self.set_faults)),
            web.post("/control/faults", _answer(self.set_faults)),
            web.post("/control/webhook-secret", _answer(self.rotate_secret)),
            web.post("/control/pay/{order_id}", _answer(self.pay)),
            web.get("/control/ledger", _answer(self.everything)),
            web.get("/control/ledger/summary", _answer(self.summary)),
        ]

    async def health(self, request: web.Request) -> dict[str, Any]:
        """It is up."""
        return {"status": "ok"}

    async def get_faults(self, request: web.Request) -> dict[str, Any]:
        """The faults in force."""
        return self._faults.current.model_dump()

    async def set_faults(self, request: web.Request) -> dict[str, Any]:
        """Exactly these faults from now on: what isn't named is off."""
        self._faults.change(Faults.model_validate_json(await request.read() or b"{}"))
        return self._faults.current.model_dump()

    async def rotate_secret(self, request: web.Request) -> dict[str, Any]:
        """Sign later events with another secret."""
        self._queue.rotate_secret(Secret.model_validate_json(await request.read()).secret)
        return {}

    async def pay(self, request: web.Request) -> dict[str, Any]:
        """Does what the checkout's buttons do, for programs."""
        wish = Pay.model_validate_json(await request.read() or b"{}")
        payments = [
            self._ledger.pay(
                request.match_info["order_id"],
                wish.outcome,
                method=wish.method,
                amount=wish.amount,
                webhook_delay_ms=wish.webhook_delay_ms,
            )
            for _ in range(wish.count)
        ]
        self._after_change()
        return {"payments": payments}

    async def everything(self, request: web.Request) -> dict[str, Any]:
        """All orders, payments and refunds."""
        return self._audit.everything()

    async def summary(self, request: web.Request) -> dict[str, Any]:
        """Counts and sums, and what became of the webhooks."""
        return {**self._audit.summary(), "webhooks": self._queue.counts()}


def _answer(
    call: Callable[[web.Request], Awaitable[dict[str, Any]]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def endpoint(request: web.Request) -> web.Response:
        try:
            return json_answer(await call(request))
        except ValidationError as error:
            return json_answer({"errors": json.loads(error.json(include_url=False))}, status=400)
        except ProviderError as error:
            return json_answer(error.body(), status=error.status)

    return endpoint
