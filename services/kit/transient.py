"""Which failures pass by themselves: what was tried may be tried again, for ever, and nobody is to blame."""

from __future__ import annotations

import grpc
import psycopg
import redis.exceptions

from services.kit.errors import DeadlineExceeded, Overloaded, Unavailable

PASSING_SQLSTATES = ("08", "40", "53", "55", "57", "58")
"""Connections, rollbacks (deadlock, serialization), resources, locks, an operator's or a timeout's end, the system."""

MISSING_SCHEMA = frozenset({"42P01", "42703", "42883", "42501"})
"""No such table, column, function, or no right to it: a migration is late. The event is not to blame."""

PASSING_CODES = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
)


class TryLater(Exception):
    """Raised by a handler of events: not now, but the event is good. Costs none of its attempts."""


def is_transient(error: BaseException) -> bool:
    """Whether ``error`` says nothing about what was tried, only about the moment."""
    match error:
        case psycopg.OperationalError():
            # Without a state it is the connection: refused, lost, timed out, no free one in the pool.
            return error.sqlstate is None or error.sqlstate.startswith(PASSING_SQLSTATES)
        case psycopg.errors.IdleInTransactionSessionTimeout() | psycopg.errors.TransactionTimeout():
            return True
        case psycopg.Error(sqlstate=str() as state) if state in MISSING_SCHEMA:
            return True
        case redis.exceptions.DataError():
            return False
        case grpc.RpcError():
            code = getattr(error, "code", None)
            return code is not None and code() in PASSING_CODES
        case TryLater() | Unavailable() | Overloaded() | DeadlineExceeded():
            return True
        case redis.exceptions.RedisError() | OSError():  # OSError: also TimeoutError and ConnectionError
            return True
        case _:
            return False
