"""Refreshing, signing out, the list of sessions, and the refresh token in a cookie; on the real PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from marquee.user import v1 as user_v1
from services.kit.engine import open_engine
from services.user.store import UserStore
from tests.integration.service_harness import reason
from tests.integration.user_service import (
    PASSWORD,
    UserService,
    as_owner,
    new_email,
    reason_for,
    refused,
    registration,
    session_of,
    user_service,
)

COOKIE = user_v1.TOKEN_DELIVERY_COOKIE


@pytest.fixture(scope="module")
async def users(
    migrated_database_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[UserService]:
    folder: Path = tmp_path_factory.mktemp("user")
    async with user_service(folder, migrated_database_url("user")) as running:
        yield running


def exchange(token: str) -> user_v1.RefreshSessionRequest:
    return user_v1.RefreshSessionRequest(refresh_token=token)


def pass_time(users: UserService, signed_in: user_v1.SignIn, seconds: int) -> None:
    """Let the session and its tokens be older by ``seconds``."""
    session_id = session_of(signed_in)
    users.sql(
        """
        UPDATE sessions
        SET created_at = created_at - make_interval(secs => %(age)s),
            last_used_at = last_used_at - make_interval(secs => %(age)s),
            expires_at = expires_at - make_interval(secs => %(age)s)
        WHERE session_id = %(session_id)s
        """.replace("%(age)s", str(seconds)).replace("%(session_id)s", "%s"),
        session_id,
    )
    users.sql(
        f"UPDATE refresh_tokens SET spent_at = spent_at - make_interval(secs => {seconds}) WHERE session_id = %s",
        session_id,
    )


# --- Refreshing


async def test_each_refresh_gives_a_new_token_of_the_same_session(users: UserService) -> None:
    signed_in = await users.register()
    seen = {signed_in.refresh_token}
    for _ in range(5):
        following = await users.stub.RefreshSession(exchange(signed_in.refresh_token))
        assert session_of(following) == session_of(signed_in) and following.user == signed_in.user
        assert following.refresh_token not in seen
        seen.add(following.refresh_token)
        signed_in = following


async def test_a_spent_token_that_comes_again_ends_the_session_for_both_holders(users: UserService) -> None:
    first = await users.register()
    second = await users.stub.RefreshSession(exchange(first.refresh_token))
    pass_time(users, first, 11)
    assert await reason_for(users.stub.RefreshSession(exchange(first.refresh_token))) == "SESSION_ENDED"
    assert await reason_for(users.stub.RefreshSession(exchange(second.refresh_token))) == "SESSION_ENDED"
    assert users.sql("SELECT ended_by FROM sessions WHERE session_id = %s", session_of(first)) == [("reuse",)]


async def test_a_spent_token_whose_successor_was_used_is_a_theft_even_at_once(users: UserService) -> None:
    first = await users.register()
    second = await users.stub.RefreshSession(exchange(first.refresh_token))
    third = await users.stub.RefreshSession(exchange(second.refresh_token))
    assert await reason_for(users.stub.RefreshSession(exchange(first.refresh_token))) == "SESSION_ENDED"
    assert await reason_for(users.stub.RefreshSession(exchange(third.refresh_token))) == "SESSION_ENDED"


async def test_a_lost_answer_may_be_asked_for_again(users: UserService) -> None:
    first = await users.register()
    await users.stub.RefreshSession(exchange(first.refresh_token))  # this answer is lost
    again = await users.stub.RefreshSession(exchange(first.refresh_token))
    pass_time(users, first, 60)
    await users.stub.RefreshSession(exchange(again.refresh_token))


async def test_two_tabs_that_refresh_at_once_both_stay_signed_in(users: UserService) -> None:
    first = await users.register()
    tabs = await asyncio.gather(*(users.stub.RefreshSession(exchange(first.refresh_token)) for _ in range(5)))
    assert len({each.refresh_token for each in tabs}) == 5
    pass_time(users, first, 60)
    await users.stub.RefreshSession(exchange(tabs[3].refresh_token))  # the cookie that came last


async def test_of_two_successors_the_one_that_comes_second_and_late_is_a_theft(users: UserService) -> None:
    first = await users.register()
    mine, theirs = [await users.stub.RefreshSession(exchange(first.refresh_token)) for _ in range(2)]
    pass_time(users, first, 60)
    following = await users.stub.RefreshSession(exchange(theirs.refresh_token))
    pass_time(users, first, 60)
    assert await reason_for(users.stub.RefreshSession(exchange(mine.refresh_token))) == "SESSION_ENDED"
    assert await reason_for(users.stub.RefreshSession(exchange(following.refresh_token))) == "SESSION_ENDED"


async def test_reuse_is_seen_also_when_it_waits_for_the_rightful_holder(users: UserService) -> None:
    first = await users.register()
    second = await users.stub.RefreshSession(exchange(first.refresh_token))
    pass_time(users, first, 60)
    both = await asyncio.gather(
        users.stub.RefreshSession(exchange(second.refresh_token)),
        users.stub.RefreshSession(exchange(first.refresh_token)),
        return_exceptions=True,
    )
    assert isinstance(both[1], grpc.aio.AioRpcError) and reason(both[1]) == "SESSION_ENDED"
    assert users.sql("SELECT ended_by FROM sessions WHERE session_id = %s", session_of(first)) == [("reuse",)]


async def test_a_session_ends_when_it_lies_idle_and_in_any_case_after_its_longest_time(users: UserService) -> None:
    day = 24 * 3600
    idle = await users.register()
    pass_time(users, idle, 30 * day + 1)
    assert await reason_for(users.stub.RefreshSession(exchange(idle.refresh_token))) == "SESSION_ENDED"

    used = await users.register()
    for _ in range(8):  # used every 25 days
        pass_time(users, used, 25 * day)
        try:
            following = await users.stub.RefreshSession(exchange(used.refresh_token))
        except grpc.aio.AioRpcError as error:
            assert reason(error) == "SESSION_ENDED"
            break
        used.refresh_token = following.refresh_token
    else:
        raise AssertionError("lived longer than 180 days")


@pytest.mark.parametrize("token", ["", "x", "A" * 43, "-._~" * 50])
async def test_a_token_that_nobody_gave_out_is_refused(users: UserService, token: str) -> None:
    error = await refused(users.stub.RefreshSession(exchange(token)))
    assert (reason(error), error.code()) == ("SESSION_ENDED", grpc.StatusCode.UNAUTHENTICATED)


async def test_an_account_has_a_limited_number_of_sessions(users: UserService) -> None:
    email = new_email()
    first = await users.register(email=email)
    users.sql(
        """
        INSERT INTO sessions (user_id, expires_at)
        SELECT user_id, clock_timestamp() + interval '1 day' FROM users, generate_series(1, 49) WHERE email = %s
        """,
        email,
    )
    await users.stub.Login(user_v1.LoginRequest(email=email, password=PASSWORD))
    assert await reason_for(users.stub.RefreshSession(exchange(first.refresh_token))) == "SESSION_ENDED"


# --- Signing out, listing, revoking


async def test_signing_out_ends_the_session_and_may_be_repeated(users: UserService) -> None:
    signed_in = await users.register()
    request = user_v1.LogoutRequest(refresh_token=signed_in.refresh_token)
    await users.stub.Logout(request)
    await users.stub.Logout(request)
    assert await reason_for(users.stub.RefreshSession(exchange(signed_in.refresh_token))) == "SESSION_ENDED"


async def test_signing_out_with_an_access_token_alone_ends_its_own_session_only(users: UserService) -> None:
    email = new_email()
    phone = await users.register(email=email)
    laptop = await users.stub.Login(user_v1.LoginRequest(email=email, password=PASSWORD))
    await users.stub.Logout(user_v1.LogoutRequest(), metadata=as_owner(phone))
    assert await reason_for(users.stub.RefreshSession(exchange(phone.refresh_token))) == "SESSION_ENDED"
    await users.stub.RefreshSession(exchange(laptop.refresh_token))


async def test_signing_out_of_nothing_is_no_error(users: UserService) -> None:
    await users.stub.Logout(user_v1.LogoutRequest())
    await users.stub.Logout(user_v1.LogoutRequest(refresh_token="A" * 43))
    await users.stub.Logout(user_v1.LogoutRequest(), metadata=users.served.as_user(uuid.uuid4(), session_id="no-uuid"))


async def test_sessions_are_listed_newest_first_and_can_be_revoked(users: UserService) -> None:
    email = new_email()
    phone = await users.register(email=email)
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{users.served.port}", options=[("grpc.primary_user_agent", "Marquee-App/3.1 (Pixel 9)")]
    ) as channel:
        stub: user_v1.UserServiceAsyncStub = user_v1.UserServiceStub(channel)
        laptop = await stub.Login(user_v1.LoginRequest(email=email, password=PASSWORD))
    listed = await users.stub.ListSessions(user_v1.ListSessionsRequest(), metadata=as_owner(phone))
    assert [each.session_id for each in listed.sessions] == [session_of(laptop), session_of(phone)]
    assert [each.current for each in listed.sessions] == [False, True]
    assert listed.sessions[0].user_agent.startswith("Marquee-App/3.1 (Pixel 9)")
    revoke = user_v1.RevokeSessionRequest(session_id=session_of(laptop))
    await users.stub.RevokeSession(revoke, metadata=as_owner(phone))
    await users.stub.RevokeSession(revoke, metadata=as_owner(phone))
    assert await reason_for(users.stub.RefreshSession(exchange(laptop.refresh_token))) == "SESSION_ENDED"
    listed = await users.stub.ListSessions(user_v1.ListSessionsRequest(), metadata=as_owner(phone))
    assert [each.session_id for each in listed.sessions] == [session_of(phone)]


async def test_somebody_elses_session_is_answered_like_a_missing_one(users: UserService) -> None:
    mine, theirs = await users.register(), await users.register()
    errors = [
        await refused(
            users.stub.RevokeSession(user_v1.RevokeSessionRequest(session_id=session_id), metadata=as_owner(mine))
        )
        for session_id in (session_of(theirs), str(uuid.uuid4()))
    ]
    assert [(each.code(), each.details(), reason(each)) for each in errors] == [
        (grpc.StatusCode.NOT_FOUND, "there is no such session", "NOT_FOUND")
    ] * 2
    await users.stub.RefreshSession(exchange(theirs.refresh_token))


async def test_a_forged_session_id_in_ones_own_token_ends_nobody_elses_session(users: UserService) -> None:
    mine, theirs = await users.register(), await users.register()
    pretending = users.served.as_user(mine.user.user_id, session_id=session_of(theirs))
    await users.stub.Logout(user_v1.LogoutRequest(), metadata=pretending)
    await users.stub.RefreshSession(exchange(theirs.refresh_token))


# --- The cookie


async def cookie_of(call: grpc.aio.UnaryUnaryCall[Any, Any]) -> str:
    """The ``set-cookie`` of an answer; empty when there is none."""
    return next((str(value) for key, value in await call.initial_metadata() if key == "set-cookie"), "")


async def test_a_browser_keeps_its_refresh_token_in_a_cookie_only(users: UserService) -> None:
    registering = users.stub.Register(registration(token_delivery=COOKIE))
    signed_in = await registering
    assert signed_in.refresh_token == "" and signed_in.access_token
    cookie = await cookie_of(registering)
    pair, *attributes = cookie.split("; ")
    assert pair.startswith("marquee_refresh=")
    assert set(attributes) == {"Path=/", "HttpOnly", "SameSite=Strict", f"Max-Age={30 * 24 * 3600}"}

    refreshing = users.stub.RefreshSession(
        user_v1.RefreshSessionRequest(), metadata=(("cookie", f"theme=dark; {pair}"),)
    )
    assert (await refreshing).refresh_token == ""
    following = (await cookie_of(refreshing)).partition(";")[0]
    assert following.startswith("marquee_refresh=") and following != pair

    leaving = users.stub.Logout(user_v1.LogoutRequest(), metadata=(("cookie", following),))
    await leaving
    assert (await cookie_of(leaving)).startswith("marquee_refresh=; Max-Age=0")
    refused_call = users.stub.RefreshSession(user_v1.RefreshSessionRequest(), metadata=(("cookie", following),))
    assert await reason_for(refused_call) == "SESSION_ENDED"
    assert (await cookie_of(refused_call)).startswith("marquee_refresh=; Max-Age=0")


async def test_a_token_in_the_body_is_answered_in_the_body(users: UserService) -> None:
    signed_in = await users.register()
    call = users.stub.RefreshSession(
        exchange(signed_in.refresh_token), metadata=(("cookie", "marquee_refresh=something-else"),)
    )
    assert (await call).refresh_token
    assert await cookie_of(call) == ""


@pytest.mark.parametrize("cookie", ["", ";;;", "marquee_refresh", "marquee_refresh=", '="', "a=b; marquee_refresh==;"])
async def test_odd_cookies_are_no_session(users: UserService, cookie: str) -> None:
    call = users.stub.RefreshSession(user_v1.RefreshSessionRequest(), metadata=(("cookie", cookie),))
    assert await reason_for(call) == "SESSION_ENDED"


# --- What is over


async def test_what_is_long_over_is_swept_and_what_is_not_stays(users: UserService) -> None:
    old, new = await users.register(), await users.register()
    pass_time(users, old, 38 * 24 * 3600)
    await users.stub.RefreshSession(exchange(new.refresh_token))
    async with open_engine(users.database_url, size=1) as engine, UserStore(engine).transaction() as tx:
        assert await tx.sweep(1_000) >= 1
    assert users.sql("SELECT session_id FROM sessions WHERE session_id = %s", session_of(old)) == []
    assert users.sql("SELECT count(*) FROM refresh_tokens WHERE session_id = %s", session_of(new)) == [(2,)]
