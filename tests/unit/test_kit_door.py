"""What happens around every call, on a server in this process without any store."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import psycopg
import psycopg_pool
import pytest
import sqlalchemy.exc
from google.protobuf import empty_pb2

from marquee.user import v1 as user_v1
from services.kit import engine  # noqa: F401 - says what to tell of SQLAlchemy's errors
from services.kit.call import Anonymous, ServiceCaller, UserCaller, UserId, current_call
from services.kit.door import authorize
from services.kit.errors import Conflict, NotFound, Overloaded, PermissionDenied, Refusal, Unauthenticated, reason_name
from services.kit.lifecycle import Lifecycle
from services.kit.policies import RpcPolicy
from services.kit.server import GrpcServer
from services.kit.settings import ServiceSettings
from services.kit.surprises import as_refusal
from tests.integration.service_harness import Served, TestKeys, facts, fields, reason, retry_after, serving

USER = "6f0f6f3c-0000-4000-8000-000000000001"


class Scripted(user_v1.UserServiceServicer):
    """Raises what it is told to, or tells who called."""

    raises: BaseException | None = None
    sleeps = 0.0

    async def GetProfile(self, request: user_v1.GetProfileRequest, context: Any) -> user_v1.User:
        await asyncio.sleep(self.sleeps)
        if self.raises is not None:
            raise self.raises
        call = current_call()
        assert call is not None and isinstance(call.caller, UserCaller)
        return user_v1.User(user_id=call.caller.user_id, name=call.request_id, email=call.peer, phone=call.trace_id)

    async def Logout(self, request: user_v1.LogoutRequest, context: Any) -> empty_pb2.Empty:
        return empty_pb2.Empty()


@pytest.fixture(scope="module")
async def scripted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Served, Scripted]]:
    keys = TestKeys.make(tmp_path_factory.mktemp("keys"))
    servicer = Scripted()  # type: ignore[abstract]  # the other methods answer UNIMPLEMENTED
    settings = ServiceSettings(**keys.settings(default_deadline_seconds=0.5))
    async with serving(
        settings,
        ["marquee.user.v1.UserService"],
        lambda server: user_v1.add_UserServiceServicer_to_server(servicer, server),
        keys,
    ) as served:
        yield served, servicer


async def profile(
    scripted: tuple[Served, Scripted], *metadata: tuple[str, str], raises: BaseException | None = None, **more: Any
) -> user_v1.User:
    served, servicer = scripted
    servicer.raises = raises
    stub: user_v1.UserServiceAsyncStub = user_v1.UserServiceStub(served.channel)
    return await stub.GetProfile(user_v1.GetProfileRequest(), metadata=(*served.as_user(USER), *metadata), **more)


async def error_of(scripted: tuple[Served, Scripted], raises: BaseException) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await profile(scripted, raises=raises)
    return caught.value


async def test_the_servicer_knows_who_calls_from_where_and_under_which_ids(scripted: tuple[Served, Scripted]) -> None:
    told = await profile(
        scripted,
        ("x-request-id", "request-12345"),
        ("x-forwarded-for", "10.0.0.1, 203.0.113.7"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    )
    assert told == user_v1.User(
        user_id=USER, name="request-12345", email="203.0.113.7", phone="0af7651916cd43dd8448eb211c80319c"
    )


@pytest.mark.parametrize("request_id", ["", "short", "x" * 200, "has blanks in it", "<script>alert</script>"])
async def test_a_request_id_that_is_no_id_is_replaced(scripted: tuple[Served, Scripted], request_id: str) -> None:
    told = await profile(scripted, ("x-request-id", request_id))
    assert re.fullmatch("[0-9a-f]{32}", told.name)
    assert told.name != (await profile(scripted, ("x-request-id", request_id))).name


async def test_every_answer_carries_its_request_id(scripted: tuple[Served, Scripted]) -> None:
    served, servicer = scripted
    servicer.raises = None
    stub: user_v1.UserServiceAsyncStub = user_v1.UserServiceStub(served.channel)
    call = stub.GetProfile(
        user_v1.GetProfileRequest(), metadata=(*served.as_user(USER), ("x-request-id", "request-12345"))
    )
    await call
    assert ("x-request-id", "request-12345") in tuple(await call.trailing_metadata())
    error = await error_of(scripted, NotFound("no"))
    assert any(key == "x-request-id" for key, _ in error.trailing_metadata() or ())


async def test_a_refusal_keeps_its_reason_and_when_to_try_again(scripted: tuple[Served, Scripted]) -> None:
    error = await error_of(scripted, Overloaded("later", retry_after_seconds=1.5))
    assert (error.code(), error.details(), reason(error)) == (grpc.StatusCode.UNAVAILABLE, "later", "OVERLOADED")
    assert retry_after(error) == 1.5
    trailers = dict(error.trailing_metadata())
    assert trailers["retry-after"] == "2"
    assert trailers["grpc-retry-pushback-ms"] == "-1"


async def test_a_service_that_nobody_answers_for_does_not_start(tmp_path: Path) -> None:
    settings = ServiceSettings(**TestKeys.make(tmp_path).settings())
    with pytest.raises(LookupError, match="UserService"):
        await GrpcServer(settings, ["marquee.user.v1.UserService"], Lifecycle()).start()


async def test_a_service_that_was_not_named_cannot_be_added(tmp_path: Path) -> None:
    server = GrpcServer(ServiceSettings(**TestKeys.make(tmp_path).settings()), [], Lifecycle())
    with pytest.raises(LookupError, match="was not named"):
        user_v1.add_UserServiceServicer_to_server(Scripted(), server.grpc)  # type: ignore[abstract]


async def test_what_nobody_expected_tells_nothing(scripted: tuple[Served, Scripted]) -> None:
    error = await error_of(scripted, RuntimeError("password=hunter2"))
    assert (error.code(), reason(error)) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "hunter2" not in str(error.details()) and "Traceback" not in str(error.details())


async def test_a_call_that_takes_too_long_ends(scripted: tuple[Served, Scripted]) -> None:
    scripted[1].sleeps = 5
    try:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await profile(scripted)
    finally:
        scripted[1].sleeps = 0
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_a_callers_own_deadline_is_answered_too(scripted: tuple[Served, Scripted]) -> None:
    scripted[1].sleeps = 5
    try:
        calls = [profile(scripted, timeout=0.3) for _ in range(10)]
        errors = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        scripted[1].sleeps = 0
    told = [reason(each) for each in errors if isinstance(each, grpc.aio.AioRpcError)]
    assert len(told) == 10 and "DEADLINE_EXCEEDED" in told  # gRPC's own answer, which may be first, names no reason


async def test_refusals_that_differ_in_one_thing_are_told_apart(scripted: tuple[Served, Scripted]) -> None:
    for _ in range(2):
        for seats in ("A1", "A2"):
            error = await error_of(scripted, Conflict("no", metadata={"seats": seats}))
            assert (reason(error), facts(error)) == ("CONFLICT", {"seats": seats})
        for seconds in (1, 2):
            assert retry_after(await error_of(scripted, Overloaded("no", retry_after_seconds=seconds))) == seconds


async def raw_call(served: Served, method: str, content: bytes) -> grpc.aio.AioRpcError:
    call: Any = served.channel.unary_unary(f"/marquee.user.v1.UserService/{method}")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(content)
    return caught.value


async def test_bytes_that_are_no_message_are_a_bad_request(scripted: tuple[Served, Scripted]) -> None:
    for content in (b"\xff\xff\xff", b"\x0a\x02\xc3\x28"):  # no wire format; no UTF-8
        error = await raw_call(scripted[0], "Logout", content)
        assert (reason(error), fields(error)) == ("INVALID_ARGUMENT", ["request"])


async def test_a_request_that_is_too_large_says_so(scripted: tuple[Served, Scripted]) -> None:
    error = await raw_call(scripted[0], "Logout", b"\x0a\x80\x80\x08" + b"A" * 2**17)
    assert reason(error) == "REQUEST_TOO_LARGE"
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_unknown_method_is_unimplemented(scripted: tuple[Served, Scripted]) -> None:
    assert (await raw_call(scripted[0], "Nothing", b"")).code() == grpc.StatusCode.UNIMPLEMENTED


# --- Authorization


def policy(*, internal: bool = False, anyone: bool = False, roles: frozenset[str] = frozenset()) -> RpcPolicy:
    return RpcPolicy("/x", user_v1.GetProfileRequest, internal, anyone, roles, None, 1024)


ANONYMOUS, SERVICE = Anonymous(), ServiceCaller("booking")
CUSTOMER = UserCaller(UserId(USER), "", frozenset({"customer"}))
PUBLIC, FOR_CUSTOMERS = policy(anyone=True), policy(roles=frozenset({"customer"}))
FOR_ADMINS, FOR_SERVICES = policy(roles=frozenset({"admin"})), policy(internal=True)


@pytest.mark.parametrize(
    ("asked", "caller", "refusal"),
    [
        (PUBLIC, ANONYMOUS, None),
        (PUBLIC, CUSTOMER, None),
        (FOR_CUSTOMERS, CUSTOMER, None),
        (FOR_CUSTOMERS, ANONYMOUS, Unauthenticated),
        (FOR_CUSTOMERS, SERVICE, PermissionDenied),
        (FOR_ADMINS, CUSTOMER, PermissionDenied),
        (FOR_SERVICES, SERVICE, None),
        (FOR_SERVICES, CUSTOMER, PermissionDenied),
        (FOR_SERVICES, ANONYMOUS, Unauthenticated),
        (policy(), CUSTOMER, PermissionDenied),  # no role is named: nobody, rather than everybody
        (policy(internal=True, anyone=True), ANONYMOUS, Unauthenticated),
    ],
)
def test_who_may_call_what(asked: RpcPolicy, caller: Any, refusal: type[Refusal] | None) -> None:
    if refusal is None:
        authorize(asked, caller)
    else:
        with pytest.raises(refusal):
            authorize(asked, caller)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (TimeoutError(), "DEADLINE_EXCEEDED"),
        (psycopg.errors.QueryCanceled(), "DEADLINE_EXCEEDED"),
        (psycopg.OperationalError(), "UNAVAILABLE"),
        (psycopg.errors.LockNotAvailable(), "UNAVAILABLE"),
        (psycopg_pool.PoolTimeout(), "UNAVAILABLE"),
        (sqlalchemy.exc.OperationalError("SELECT", {}, Exception()), "UNAVAILABLE"),
        (sqlalchemy.exc.TimeoutError(), "UNAVAILABLE"),
        (sqlalchemy.exc.OperationalError("SELECT", {}, psycopg.OperationalError()), "UNAVAILABLE"),
        (sqlalchemy.exc.OperationalError("SELECT", {}, psycopg.errors.QueryCanceled()), "DEADLINE_EXCEEDED"),
        (sqlalchemy.exc.InternalError("SELECT", {}, psycopg.errors.TransactionTimeout()), "UNAVAILABLE"),
        (sqlalchemy.exc.IntegrityError("SELECT", {}, psycopg.errors.UniqueViolation()), "INTERNAL"),
        (psycopg.errors.TransactionTimeout(), "UNAVAILABLE"),
        (psycopg.errors.IdleInTransactionSessionTimeout(), "UNAVAILABLE"),
        (ConnectionRefusedError(), "UNAVAILABLE"),
        (psycopg.errors.UniqueViolation(), "INTERNAL"),
        (KeyError("x"), "INTERNAL"),
    ],
)
def test_an_error_of_our_own_is_told_as_what_the_caller_can_do(error: Exception, name: str) -> None:
    assert reason_name(as_refusal(error).reason) == name
