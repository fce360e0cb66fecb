"""Booking, which knows what is owed, and HTTP to providers."""

from __future__ import annotations

import asyncio
import json
import random
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

import aiohttp
import grpc
import structlog

from marquee.booking import v1 as booking_v1
from services.kit.errors import NotFound, reason_of
from services.kit.money import Money, from_proto
from services.payment.domain import BookingNotPayable
from services.payment.provider import ProviderInDoubtError, ProviderRefusedError

log = structlog.get_logger()

BOOKING_TIMEOUT_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Payable:
    """What is owed for a booking, and until when it may be paid."""

    amount: Money
    pay_by: datetime
    description: str


class Bookings(Protocol):
    """What we ask of the booking service."""

    async def payable(self, booking_id: UUID, user_id: UUID) -> Payable:
        """What ``user_id`` owes for ``booking_id``.

        Raises:
            NotFound: there is no such booking, or it is another user's.
            BookingNotPayable: it is paid or over.
        """
        ...


class BookingClient:
    """`Bookings` over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = booking_v1.BookingInternalServiceStub(channel)

    async def payable(self, booking_id: UUID, user_id: UUID) -> Payable:
        """See `Bookings.payable`."""
        request = booking_v1.GetPayableRequest(booking_id=str(booking_id), user_id=str(user_id))
        try:
            answer = await self._stub.GetPayable(request, timeout=BOOKING_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            match reason_of(error):
                case "NOT_FOUND":
                    raise NotFound("there is no such booking") from None
                case "BOOKING_NOT_PAYABLE":
                    raise BookingNotPayable(error.details() or "the booking cannot be paid") from None
            raise
        return Payable(
            amount=from_proto(answer.amount, "amount"),
            pay_by=answer.pay_by_time.ToDatetime(tzinfo=UTC),
            description=answer.description,
        )


class HttpTransport:
    """JSON over HTTP with timeouts and retries. Only for calls that a repeat doesn't do twice."""

    def __init__(self, session: aiohttp.ClientSession, *, tries: int) -> None:
        self._session = session
        self._tries = tries

    async def get(self, path: str, parameters: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        """GET; raises `ProviderInDoubtError` and `ProviderRefusedError` like `post`."""
        return await self._call("GET", path, params=parameters)

    async def post(
        self, path: str, content: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """POST.

        Raises:
            ProviderInDoubtError: no usable answer after all tries.
            ProviderRefusedError: the provider said no, in its words.
        """
        return await self._call("POST", path, json=content, headers=headers)

    async def _call(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        problem = ""
        for turn in range(self._tries):
            if turn:
                await asyncio.sleep(FIRST_PAUSE_SECONDS * 2 ** (turn - 1) * random.uniform(0.5, 1.5))  # noqa: S311 (jitter)
            try:
                async with self._session.request(method, path, allow_redirects=False, **how) as answer:
                    # 400 and 422 are its no. Anything else says nothing of the money: 401 is our configuration, 409 a
                    # first call still under way, 429 too many.
                    if 200 <= answer.status < 300 or answer.status in (400, 422):
                        return _read(answer.status, await answer.read())
                    problem = f"HTTP {answer.status}"
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                problem = type(error).__name__
            log.warning("provider_call_failed", method=method, path=path, turn=turn, problem=problem)
        raise ProviderInDoubtError(problem)


def _read(status: int, body: bytes) -> dict[str, Any]:
    content = json.loads(body)
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    if status < 300:
        return content
    error = content.get("error")
    description = error.get("description") if isinstance(error, dict) else None
    raise ProviderRefusedError(str(description or f"HTTP {status}"))


@asynccontextmanager
async def open_transport(
    url: str, *, key_id: str, key_secret: str, timeout_seconds: float, tries: int
) -> AsyncIterator[HttpTransport]:
    """HTTP with basic authentication to the provider at ``url``, over connections that are kept open."""
    key = b64encode(f"{key_id}:{key_secret}".encode()).decode()
    async with aiohttp.ClientSession(
        url,
        headers={"authorization": f"Basic {key}"},
        timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        connector=aiohttp.TCPConnector(limit=50),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield HttpTransport(session, tries=tries)
