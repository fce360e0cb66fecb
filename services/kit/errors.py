"""Refusals: why a call was not done, as values that the domain raises and the door turns into gRPC.

    Refusal
    ├── InvalidArgument (names fields)
    ├── Unauthenticated, PermissionDenied, NotFound
    ├── Conflict, RequestIdReused, RequestTooLarge, InvalidPageToken, CardDataRefused
    └── Unavailable, Overloaded, DeadlineExceeded
    ... and each service's own, in its ``domain.py``.

The table reason -> gRPC code -> HTTP status stands in ``marquee/edge/v1/errors.proto``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from marquee.edge import v1 as edge_v1

DOMAIN = "marquee"
Reason: TypeAlias = edge_v1.ErrorReason.ValueType


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with one field: its path in the request (``show.prices[0].price``) and the rule it broke."""

    field: str
    description: str


MOST_TEXT = 500
"""Characters. A refusal travels in headers, and one that repeats what the caller sent could grow beyond their limit."""


def clipped(text: str) -> str:
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"


class Refusal(Exception):
    """A call that is not done, for a reason that the caller may know.

    Args:
        message: a sentence for people, without internals; cut at `MOST_TEXT`.
        metadata: facts for programs, e.g. ``{"seats": "C7,C8"}``.
        violations: the fields that are wrong, when some are.
        retry_after_seconds: when it may be worth trying again.
    """

    reason: ClassVar[Reason] = edge_v1.ERROR_REASON_INTERNAL

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = clipped(message)
        self.metadata = dict(metadata or {})
        self.violations = tuple(Violation(each.field, clipped(each.description)) for each in violations)
        self.retry_after_seconds = retry_after_seconds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Refusal) and (self.reason, self.message, self.metadata, self.violations) == (
            other.reason,
            other.message,
            other.metadata,
            other.violations,
        )

    __hash__ = Exception.__hash__


class InvalidArgument(Refusal):
    reason = edge_v1.ERROR_REASON_INVALID_ARGUMENT

    @classmethod
    def of(cls, field: str, description: str) -> InvalidArgument:
        """One field breaks one rule."""
        return cls(f"{field}: {description}", violations=[Violation(field, description)])


class Unauthenticated(Refusal):
    reason = edge_v1.ERROR_REASON_UNAUTHENTICATED


class PermissionDenied(Refusal):
    reason = edge_v1.ERROR_REASON_PERMISSION_DENIED


class NotFound(Refusal):
    """It does not exist, or not for this caller: the two are answered alike."""

    reason = edge_v1.ERROR_REASON_NOT_FOUND


class Conflict(Refusal):
    reason = edge_v1.ERROR_REASON_CONFLICT


class RequestIdReused(Refusal):
    reason = edge_v1.ERROR_REASON_REQUEST_ID_REUSED

    def __init__(self) -> None:
        super().__init__("this request_id was already used for a request with other content")


class InvalidPageToken(Refusal):
    reason = edge_v1.ERROR_REASON_INVALID_PAGE_TOKEN

    def __init__(self) -> None:
        rule = "must be the next_page_token of an answer to the same request"
        super().__init__(f"page_token: {rule}", violations=[Violation("page_token", rule)])


class RequestTooLarge(Refusal):
    reason = edge_v1.ERROR_REASON_REQUEST_TOO_LARGE

    def __init__(self, most_bytes: int) -> None:
        super().__init__(f"the request must not be larger than {most_bytes} bytes")


class CardDataRefused(Refusal):
    reason = edge_v1.ERROR_REASON_CARD_DATA_REFUSED

    def __init__(self, field: str) -> None:
        rule = "looks like a card number; card data is only ever entered on the provider's page"
        super().__init__(f"{field}: {rule}", violations=[Violation(field, rule)])


class Unavailable(Refusal):
    reason = edge_v1.ERROR_REASON_UNAVAILABLE


class Overloaded(Refusal):
    reason = edge_v1.ERROR_REASON_OVERLOADED


class DeadlineExceeded(Refusal):
    reason = edge_v1.ERROR_REASON_DEADLINE_EXCEEDED


def reason_name(reason: Reason) -> str:
    """The name that callers see: ``SEAT_TAKEN``."""
    return edge_v1.ErrorReason.Name(reason).removeprefix("ERROR_REASON_")


@functools.cache
def grpc_code(reason: Reason) -> grpc.StatusCode:
    """The gRPC code that the contract gives to a reason."""
    value = edge_v1.ErrorReason.DESCRIPTOR.values_by_number[reason]
    number = value.GetOptions().Extensions[edge_v1.answer].code
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def to_status(refusal: Refusal) -> status_pb2.Status:
    """The refusal as every protocol answers it: ErrorInfo, and BadRequest where fields are named."""
    return status_pb2.Status.FromString(status_bytes(refusal))


def status_bytes(refusal: Refusal) -> bytes:
    """`to_status`, serialized. A crowd is refused for the same reasons again and again, so the last ones are kept.

    Not those that name fields: they are long, and everybody's own.
    """
    facts = tuple(refusal.metadata.items())
    made = _status_bytes.__wrapped__ if refusal.violations else _status_bytes
    return made(refusal.reason, refusal.message, facts, refusal.violations, refusal.retry_after_seconds)


@functools.lru_cache(maxsize=1_024)
def _status_bytes(
    reason: Reason,
    message: str,
    facts: tuple[tuple[str, str], ...],
    violations: tuple[Violation, ...],
    retry_after_seconds: float | None,
) -> bytes:
    details: list[any_pb2.Any] = []

    def pack(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo) -> None:
        packed = any_pb2.Any()
        packed.Pack(message)
        details.append(packed)

    pack(error_details_pb2.ErrorInfo(reason=reason_name(reason), domain=DOMAIN, metadata=dict(facts)))
    if violations:
        pack(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=each.field, description=each.description)
                    for each in violations
                ]
            )
        )
    if retry_after_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(retry_after_seconds * 1000))
        pack(retry)
    return status_pb2.Status(code=grpc_code(reason).value[0], message=message, details=details).SerializeToString()


def reason_in(status: status_pb2.Status) -> str:
    """The reason that a status names (``NOT_FOUND``), or ``""`` when it names none."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""
