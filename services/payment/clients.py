"""Booking, which knows what is owed, and HTTP to providers."""

from __future__ import annotations

import asyncio
import json
import random
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

import aiohttp
import grpc
import structlog

from marquee.booking import v1 as booking_v1
from services.kit.batcher import Batcher
from services.kit.errors import NotFound, Unavailable, reason_in
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
    """`Bookings` over gRPC. Those that are asked for together share a call.

    Args:
        most, gather_seconds: see `Batcher`.
    """

    def __init__(self, channel: grpc.aio.Channel, *, most: int, gather_seconds: float) -> None:
        self._stub = booking_v1.BookingInternalServiceStub(channel)
        self._batches: Batcher[tuple[UUID, UUID], Payable] = Batcher(
            self._ask, lane=lambda wanted: wanted[0], most=most, gather_seconds=gather_seconds
        )

    async def payable(self, booking_id: UUID, user_id: UUID) -> Payable:
        """See `Bookings.payable`."""
        return await self._batches.add((booking_id, user_id))

    async def _ask(self, wanted: Sequence[tuple[UUID, UUID]]) -> Sequence[Payable | Exception]:
        request = booking_v1.GetPayablesRequest(
            wanted=[
                booking_v1.PayableWanted(booking_id=str(booking_id), user_id=str(user_id))
                for booking_id, user_id in wanted
            ]
        )
        response = await self._stub.GetPayables(request, timeout=BOOKING_TIMEOUT_SECONDS)
        return [
            _read_payable(answer, of=booking_id)
            for answer, (booking_id, _) in zip(response.answers, wanted, strict=True)
        ]


def _read_payable(answer: booking_v1.PayableAnswer, *, of: UUID) -> Payable | Exception:
    if answer.HasField("payable"):
        payable = answer.payable
        if payable.booking_id != str(of):  # nobody pays what another one owes
            return LookupError(f"booking was asked for {of} and answered for {payable.booking_id}")
        return Payable(
            amount=from_proto(payable.amount, "amount"),
            pay_by=payable.pay_by_time.ToDatetime(tzinfo=UTC),
            description=payable.description,
        )
    match reason_in(answer.refusal):
        case "NOT_FOUND":
            return NotFound("there is no such booking")
        case "BOOKING_NOT_PAYABLE":
            return BookingNotPayable(answer.refusal.message or "the booking cannot be paid")
        case _:
            return Unavailable("the booking cannot be read just now; try again", retry_after_seconds=1)


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
