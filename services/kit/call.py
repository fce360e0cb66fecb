"""The call that is being answered: whose it is and how it is named in logs."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import NewType

from services.kit.errors import PermissionDenied, Unauthenticated

UserId = NewType("UserId", str)
"""A user's UUID in its canonical lower-case form."""


@dataclass(frozen=True, slots=True)
class Anonymous:
    """A caller without a token."""


@dataclass(frozen=True, slots=True)
class UserCaller:
    """A person with a valid access token."""

    user_id: UserId
    session_id: str
    roles: frozenset[str]


@dataclass(frozen=True, slots=True)
class ServiceCaller:
    """Another service, by the subject of its token."""

    subject: str


Caller = Anonymous | UserCaller | ServiceCaller


@dataclass(frozen=True, slots=True)
class Call:
    """One call. ``peer`` is the client's address as the edge saw it (or the connection's own)."""

    method: str
    request_id: str
    caller: Caller
    peer: str = ""
    trace_id: str = ""


_current: ContextVar[Call | None] = ContextVar("marquee_call", default=None)


def current_call() -> Call | None:
    """The call this task is answering, if it is answering one."""
    return _current.get()


def enter_call(call: Call) -> None:
    """Make ``call`` this task's own; gRPC gives every call a task."""
    _current.set(call)


def calling_user() -> UserCaller:
    """The signed-in user.

    Raises:
        Unauthenticated: there is none.
        PermissionDenied: the caller is a service.
    """
    call = _current.get()
    match call.caller if call else None:
        case UserCaller() as user:
            return user
        case ServiceCaller():
            raise PermissionDenied("this call is for users")
        case _:
            raise Unauthenticated("sign in first")
