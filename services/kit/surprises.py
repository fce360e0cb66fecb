"""What a caller is told of an error that no use case expected. ``engine.py`` adds what SQLAlchemy raises."""

from __future__ import annotations

from functools import singledispatch

import grpc
import psycopg
import psycopg_pool

from services.kit.errors import DeadlineExceeded, Refusal, Unavailable

AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


@singledispatch
def as_refusal(error: Exception) -> Refusal:
    """The refusal to answer with. What is ours, and not to be told, stays in the log."""
    return Refusal("something went wrong on our side; it is logged with this request's id")


@as_refusal.register
def _(error: Refusal) -> Refusal:
    return error


@as_refusal.register(TimeoutError)
@as_refusal.register(psycopg.errors.QueryCanceled)
def _(error: Exception) -> Refusal:
    return DeadlineExceeded("this took too long; try again")


@as_refusal.register(psycopg.OperationalError)
@as_refusal.register(psycopg.errors.IdleInTransactionSessionTimeout)
@as_refusal.register(psycopg.errors.TransactionTimeout)
@as_refusal.register(psycopg.InterfaceError)
@as_refusal.register(psycopg_pool.PoolTimeout)
@as_refusal.register(psycopg_pool.TooManyRequests)
@as_refusal.register(ConnectionError)
def unavailable(error: Exception) -> Refusal:
    """A store cannot be asked just now."""
    return Unavailable("the service cannot answer just now; try again", retry_after_seconds=1)


@as_refusal.register
def _(error: grpc.aio.AioRpcError) -> Refusal:
    if error.code() in AWAY:
        return Unavailable("a service that this needs cannot answer just now; try again", retry_after_seconds=1)
    return as_refusal.dispatch(Exception)(error)
