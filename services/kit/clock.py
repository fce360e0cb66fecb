"""Time as a parameter.

Only for what an app may decide by its own clock (tokens, caches, log lines). Whoever decides about seats asks
PostgreSQL's ``clock_timestamp()``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Gives the present time, in UTC and aware."""


def system_clock() -> datetime:
    return datetime.now(UTC)
