"""Ids, days and times as the contract writes them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import TypeVar
from uuid import UUID

from google.protobuf import field_mask_pb2, timestamp_pb2
from google.protobuf.message import Message
from google.type import date_pb2

from services.kit.errors import InvalidArgument

AnyMessage = TypeVar("AnyMessage", bound=Message)
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""Times that a request may name; PostgreSQL and the ids' days have room for them with every zone's offset."""


def uuid_of(value: str, field: str) -> UUID:
    """An id.

    Raises:
        InvalidArgument: names ``field``.
    """
    try:
        return UUID(value)
    except ValueError:
        raise InvalidArgument.of(field, "must be a UUID") from None


def optional_uuid_of(value: str, field: str) -> UUID | None:
    """An id, or None for an empty text.

    Raises:
        InvalidArgument: names ``field``.
    """
    return uuid_of(value, field) if value else None


def uuid_text(value: UUID | None) -> str:
    return "" if value is None else str(value)


def day_of(value: str, field: str) -> date | None:
    """A day as ``2026-11-22``, or None for an empty text.

    Raises:
        InvalidArgument: names ``field``: no such day (2026-02-31), or not within 1970 to 2199.
    """
    if not value:
        return None
    try:
        day = date.fromisoformat(value)
    except ValueError:
        raise InvalidArgument.of(field, "is not a day of the calendar") from None
    if not EARLIEST.date() <= day < LATEST.date():
        raise InvalidArgument.of(field, "must be within 1970 to 2199")
    return day


def date_of(value: date_pb2.Date, field: str) -> date | None:
    """A whole date, or None when it is unset.

    Raises:
        InvalidArgument: names ``field``: partial, or no such day.
    """
    if not (value.year or value.month or value.day):
        return None
    try:
        return date(value.year, value.month, value.day)
    except (ValueError, OverflowError):
        raise InvalidArgument.of(field, "is not a day of the calendar") from None


def date_message(value: date) -> date_pb2.Date:
    return date_pb2.Date(year=value.year, month=value.month, day=value.day)


def time_of(value: timestamp_pb2.Timestamp, field: str) -> datetime:
    """A time, to the microsecond.

    Raises:
        InvalidArgument: names ``field``: not a time at all, or not within 1970 to 2199.
    """
    try:
        time = value.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument.of(field, "is not a time") from None
    if not 0 <= value.nanos < 1_000_000_000:
        raise InvalidArgument.of(field, "is not a time")
    if not EARLIEST <= time < LATEST:
        raise InvalidArgument.of(field, "must be within 1970 to 2199")
    return time


def time_message(value: datetime) -> timestamp_pb2.Timestamp:
    seconds, microseconds = divmod((value - EARLIEST) // _MICROSECOND, 1_000_000)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=microseconds * 1000)


_MICROSECOND = datetime.resolution


def take_fields(into: AnyMessage, sent: AnyMessage, names: Iterable[str]) -> None:
    """Replace ``into``'s fields by what was sent, empty values too."""
    mask = field_mask_pb2.FieldMask(paths=sorted(names))
    mask.MergeMessage(sent, into, replace_message_field=True, replace_repeated_field=True)
