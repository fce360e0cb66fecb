"""What happens around every call: request id, size, deadline, authentication, authorization, validation, errors.

One function does it all, because in Python each further step of its own costs a coroutine a call. The steps stand in
the order in which they run.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from services.kit.admission import Admission
from services.kit.call import Anonymous, Call, Caller, ServiceCaller, UserCaller, enter_call
from services.kit.deadlines import Deadlines
from services.kit.errors import (
    InvalidArgument,
    Overloaded,
    PermissionDenied,
    RequestTooLarge,
    Unauthenticated,
    grpc_code,
    status_bytes,
)
from services.kit.policies import RpcPolicy
from services.kit.surprises import as_refusal
from services.kit.tokens import TokenVerifier
from services.kit.validation import validate

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]
ANONYMOUS = Anonymous()
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")


class Door:
    """Applies the contract's policy to every call of the services that are put behind it.

    Methods are wrapped once, when they are added to a server. A gRPC interceptor would be asked at every call, in a
    coroutine of its own.
    """

    def __init__(
        self, policies: Mapping[str, RpcPolicy], verifier: TokenVerifier, *, default_deadline_seconds: float
    ) -> None:
        self._policies = policies
        self._verifier = verifier
        self._default_deadline_seconds = default_deadline_seconds
        self._admission = Admission(time.monotonic)
        self._deadlines = Deadlines()
        self._under_way = 0
        self._one_ended = asyncio.Event()

    async def all_answered(self) -> None:
        """Until no servicer is at work. What they answered may still wait for callers to read it."""
        while self._under_way:
            self._one_ended.clear()
            await self._one_ended.wait()

    def guard(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        """``handler`` behind the door.

        Raises:
            LookupError: the contract has no policy for ``method`` (its full name); nothing is public by accident.
        """
        policy = self._policies.get(method)
        if policy is None:
            raise LookupError(f"{method} is served, but its service was not named to the server")
        return self._stream(policy, handler) if handler.response_streaming else self._unary(policy, handler)

    def _unary(self, policy: RpcPolicy, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        behaviour = handler.unary_unary
        longest = policy.timeout_seconds or self._default_deadline_seconds

        async def answer(raw: bytes, context: Context) -> Any:
            self._under_way += 1
            entered = None
            try:
                request = self._enter(policy, raw, context)
                remaining = context.time_remaining()
                seconds = longest if remaining is None else min(remaining, longest)
                entered = self._admission.enter(policy.method, seconds)
                with self._deadlines.within(seconds):
                    return await behaviour(request, context)
            except Exception as error:
                await _abort(context, policy.method, error)
            finally:
                if entered is not None:
                    self._admission.leave(policy.method, entered)
                self._end()

        return grpc.unary_unary_rpc_method_handler(answer, request_deserializer=None, response_serializer=serialize)

    def _stream(self, policy: RpcPolicy, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        behaviour = handler.unary_stream

        async def answer(raw: bytes, context: Context) -> AsyncIterator[Any]:
            self._under_way += 1
            try:
                request = self._enter(policy, raw, context)
                async for message in behaviour(request, context):
                    self._end()  # what is answered may wait for its reader
                    try:
                        yield message
                    finally:
                        self._under_way += 1
            except Exception as error:
                await _abort(context, policy.method, error)
            finally:
                self._end()

        return grpc.unary_stream_rpc_method_handler(answer, request_deserializer=None, response_serializer=serialize)

    def _end(self) -> None:
        self._under_way -= 1
        self._one_ended.set()

    def _enter(self, policy: RpcPolicy, raw: bytes, context: Context) -> Message:
        """Everything that comes before the servicer."""
        metadata: dict[str, str | bytes] = {key: value for key, value in context.invocation_metadata() or ()}  # noqa: C416
        request_id = _text(metadata, "x-request-id")
        if not REQUEST_ID.fullmatch(request_id):
            request_id = f"{random.getrandbits(128):032x}"
        context.set_trailing_metadata((("x-request-id", request_id),))
        caller: Caller = ANONYMOUS
        try:
            if len(raw) > policy.max_request_bytes:
                raise RequestTooLarge(policy.max_request_bytes)
            caller = self._authenticate(_text(metadata, "authorization"))
        finally:  # also when it is refused, so that its log lines carry its ids
            trace_id = _text(metadata, "traceparent")[3:35]
            enter_call(Call(policy.method, request_id, caller, _peer(metadata, context), trace_id))
        authorize(policy, caller)
        try:
            request = policy.request.FromString(raw)
        except DecodeError:
            raise InvalidArgument.of("request", f"is not a {policy.request.DESCRIPTOR.full_name}") from None
        validate(request, raw)
        return request

    def _authenticate(self, authorization: str) -> Caller:
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("the authorization must be a bearer token")
        return self._verifier.verify(token.strip())


def authorize(policy: RpcPolicy, caller: Caller) -> None:
    """Whether the contract lets ``caller`` make this call at all; ownership of ids is the use case's to check.

    Raises:
        Unauthenticated: a token is needed and there is none.
        PermissionDenied: the caller has none of the roles.
    """
    match caller:
        case Anonymous():
            if policy.internal or not policy.anyone:
                raise Unauthenticated("sign in first")
        case ServiceCaller():
            if not policy.internal and not policy.anyone:
                raise PermissionDenied("this call is for users")
        case UserCaller(roles=roles):
            if policy.internal:
                raise PermissionDenied("this call is for services")
            if not policy.anyone and not roles & policy.roles:
                raise PermissionDenied("your account may not do this")


def serialize(message: Message | bytes) -> bytes:
    """Servicers may answer bytes that they serialized once for many viewers."""
    return message if isinstance(message, bytes) else message.SerializeToString()


async def _abort(context: Context, method: str, error: Exception) -> None:
    """End the call with the one error shape. What is not ours to tell stays in the log."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    refusal = as_refusal(error)
    code = grpc_code(refusal.reason)
    if code is grpc.StatusCode.INTERNAL:
        log.error("call_failed", method=method, exc_info=error)
    elif code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        log.warning("call_not_served", method=method, error=type(error).__name__, detail=str(error)[:300])
    trailing = [
        *(context.trailing_metadata() or ()),
        ("grpc-status-details-bin", status_bytes(refusal)),
    ]
    if refusal.retry_after_seconds is not None:
        trailing.append(("retry-after", str(math.ceil(refusal.retry_after_seconds))))
    if isinstance(refusal, Overloaded):
        trailing.append(("grpc-retry-pushback-ms", "-1"))  # gRPC's clients must not try again by themselves
    await context.abort(code, refusal.message, tuple(trailing))


def _text(metadata: Mapping[str, str | bytes], key: str) -> str:
    value = metadata.get(key, "")
    return value if isinstance(value, str) else ""


def _peer(metadata: Mapping[str, str | bytes], context: Context) -> str:
    """The client's address: the edge appends it to x-forwarded-for as the last entry."""
    forwarded = _text(metadata, "x-forwarded-for").rpartition(",")[2].strip()
    return forwarded or str(context.peer())
