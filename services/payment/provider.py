"""What we ask of any payment provider, and what it tells us, in our words."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from services.kit.money import Money
from services.payment.domain import AttemptId, AttemptState, RefundStatus


class ProviderCallError(Exception):
    """A call to the provider came to nothing."""


class ProviderInDoubtError(ProviderCallError):
    """No answer, or one that says nothing: it may have happened. Ask again with the same key."""


class ProviderRefusedError(ProviderCallError):
    """The provider understood and said no; asking again won't help."""


@dataclass(frozen=True, slots=True)
class OrderWish:
    """An order to be opened. ``receipt`` makes it once only: the payment's id."""

    receipt: str
    amount: Money
    booking_id: UUID
    description: str


@dataclass(frozen=True, slots=True)
class OrderReport:
    """An order as the provider has it."""

    order_id: str
    receipt: str
    amount: Money
    # Whether its notes say that it is Marquee's; a provider's account may serve other shops.
    ours: bool


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """What the provider says of one attempt (its "payment")."""

    attempt_id: AttemptId
    order_id: str
    amount: Money
    state: AttemptState
    failure: str = ""


@dataclass(frozen=True, slots=True)
class RefundReport:
    """What the provider says of one refund. ``status`` is never REQUESTED: it knows of it."""

    provider_refund_id: str
    capture_id: AttemptId
    amount: Money
    status: RefundStatus
    receipt: str


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """A webhook whose signature was right. Types that we don't know carry no reports."""

    event_id: str
    type: str
    attempt: AttemptReport | None = None
    refund: RefundReport | None = None


class Provider(Protocol):
    """A payment provider. Calls raise `ProviderInDoubtError` or `ProviderRefusedError`."""

    name: str

    async def open_order(self, wish: OrderWish) -> OrderReport:
        """Open an order, or answer the one that has this receipt."""
        ...

    async def find_order(self, receipt: str) -> OrderReport | None:
        """The order that has this receipt."""
        ...

    async def order(self, order_id: str) -> OrderReport:
        """One order."""
        ...

    def attempts(self, since: datetime, until: datetime) -> AsyncGenerator[Sequence[AttemptReport]]:
        """Every attempt that was made from ``since`` to ``until``, of all orders, a page at a time."""
        ...

    async def capture(self, attempt_id: AttemptId, amount: Money) -> AttemptReport:
        """Take money that is authorized; also right when it was taken already."""
        ...

    async def refund(self, capture_id: AttemptId, amount: Money, key: str) -> RefundReport:
        """Pay back, once for each ``key``."""
        ...

    async def find_refund(self, capture_id: AttemptId, key: str) -> RefundReport | None:
        """The refund that was made with ``key``."""
        ...

    async def refund_status(self, provider_refund_id: str) -> RefundReport:
        """One refund."""
        ...

    def read_webhook(self, body: bytes, headers: Mapping[str, str]) -> WebhookEvent:
        """Check a webhook's signature over its raw body and read it.

        Raises:
            BadSignature: it isn't the provider's.
        """
        ...
