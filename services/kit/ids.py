"""Ids. A show's id tells its business day and region, and what belongs to a show carries the show's prefix.
An event's id (UUID version 7) tells when it was written. Either way ids sort by day, and tables are split by that.

A show id is a UUID version 8 (RFC 9562): 16 bits days since 2020-01-01, 16 bits region (city), 16 bits random, then
version, 12 random bits, variant, 62 random bits. The first 48 bits are the prefix that reservation, booking and ticket
ids repeat, so an id alone finds its partition and its shard.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

EPOCH = date(2020, 1, 1)
PREFIX_BITS = 48
_REST_BITS = 128 - PREFIX_BITS
_VERSION_8 = 8 << 76
_VARIANT = 2 << 62


def _version_8(first_48_bits: int, random_74_bits: int) -> UUID:
    middle = (random_74_bits >> 62) & 0xFFF
    last = random_74_bits & ((1 << 62) - 1)
    return UUID(int=first_48_bits << 80 | _VERSION_8 | middle << 64 | _VARIANT | last)


def new_show_id(business_date: date, region: int, *, random: int | None = None) -> UUID:
    """An id for a show on ``business_date`` in the city with number ``region`` (0 to 65535).

    Args:
        random: 90 bits, for ids that must come out the same again; fresh when None.
    """
    days = (business_date - EPOCH).days
    if not 0 <= days < 1 << 16 or not 0 <= region < 1 << 16:
        raise ValueError("business date or region out of range")
    bits = secrets.randbits(90) if random is None else random & ((1 << 90) - 1)
    return _version_8(days << 32 | region << 16 | bits >> 74, bits & ((1 << 74) - 1))


def new_id_of_show(show_id: UUID) -> UUID:
    """An id for something that belongs to a show."""
    return _version_8(show_id.int >> _REST_BITS, secrets.randbits(74))


def business_date_of(identifier: UUID) -> date:
    return EPOCH + timedelta(days=identifier.int >> 112)


def region_of(identifier: UUID) -> int:
    return identifier.int >> 96 & 0xFFFF


def first_id_of(day: date) -> UUID:
    """The lowest id of a business day: no show of an earlier day has one as high, none of the day a lower one."""
    return UUID(int=(day - EPOCH).days << 112)


def shows_around(identifiers: Iterable[UUID]) -> tuple[UUID, UUID]:
    """The lowest and the highest id that a show can have to which any of these ids belongs.

    SQL that looks something up by its own id adds ``show_id BETWEEN`` them, and PostgreSQL looks into the partitions
    of those days only. Of no ids: a range without shows.
    """
    prefixes = [identifier.int >> _REST_BITS for identifier in identifiers] or [0]
    return UUID(int=min(prefixes) << _REST_BITS), UUID(int=(max(prefixes) + 1 << _REST_BITS) - 1)


def first_uuid7(moment: datetime) -> UUID:
    """The lowest UUID of version 7 (RFC 9562: the first 48 bits are milliseconds since 1970) of ``moment``."""
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)


def first_uuid7_of(day: date) -> UUID:
    """The lowest UUID of version 7 of a day (UTC)."""
    return first_uuid7(datetime(day.year, day.month, day.day, tzinfo=UTC))


def day_of_uuid7(identifier: UUID) -> date:
    """The day (UTC) on which a UUID of version 7 was made."""
    return datetime.fromtimestamp((identifier.int >> 80) / 1000, UTC).date()
