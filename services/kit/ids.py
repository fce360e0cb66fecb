"""Ids. A show's id tells its business day and region, and what belongs to a show carries the show's prefix.

A show id is a UUID version 8 (RFC 9562): 16 bits days since 2020-01-01, 16 bits region (city), 16 bits random, then
version, 12 random bits, variant, 62 random bits. The first 48 bits are the prefix that reservation, booking and ticket
ids repeat, so an id alone finds its partition and its shard.
"""

from __future__ import annotations

import secrets
from datetime import date, timedelta
from uuid import UUID

EPOCH = date(2020, 1, 1)
PREFIX_BITS = 48
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
    return _version_8(show_id.int >> 80, secrets.randbits(74))


def business_date_of(identifier: UUID) -> date:
    return EPOCH + timedelta(days=identifier.int >> 112)


def region_of(identifier: UUID) -> int:
    return identifier.int >> 96 & 0xFFFF
