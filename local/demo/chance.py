"""Chance that comes out the same each time: ids and choices that depend on names only."""

from __future__ import annotations

import hashlib
import random
from uuid import UUID, uuid5

NAMESPACE = UUID("6f1d3b0a-3c55-5b0e-9d55-6d61727175ee")


def named_id(*name: object) -> UUID:
    """The id of the demo thing with this name."""
    return uuid5(NAMESPACE, "/".join(map(str, name)))


def dice(*name: object) -> random.Random:
    """A source of chance that belongs to a name."""
    return random.Random("/".join(map(str, name)))  # noqa: S311  (plausible, not secret)


def bits_of(*name: object) -> int:
    """96 bits that belong to a name."""
    digest = hashlib.blake2b("/".join(map(str, name)).encode(), digest_size=12).digest()
    return int.from_bytes(digest, "big")
