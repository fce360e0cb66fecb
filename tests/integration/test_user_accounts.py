"""Registering and signing in, on the real PostgreSQL."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from argon2 import PasswordHasher

from marquee.user import v1 as user_v1
from services.kit.engine import open_engine
from services.user.accounts import DEMO_ACCOUNTS, DEMO_PASSWORD, AccountTrouble, change_role, ensure_accounts
from services.user.domain import Role, email_of
from services.user.passwords import open_passwords
from services.user.store import UserStore
from tests.integration.service_harness import facts, fields, reason, retry_after
from tests.integration.user_service import (
    HASHER,
    PASSWORD,
    CountingHasher,
    UserService,
    as_owner,
    new_email,
    reason_for,
    refused,
    registration,
    session_of,
    user_service,
)


@pytest.fixture(scope="module")
async def users(
    migrated_database_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[UserService]:
    folder: Path = tmp_path_factory.mktemp("user")
    async with user_service(folder, migrated_database_url("user")) as running:
        yield running


@pytest.fixture
async def store(users: UserService) -> AsyncIterator[UserStore]:
    async with open_engine(users.database_url, size=2) as engine:
        yield UserStore(engine)


# --- Register


async def test_registering_makes_a_customer_who_is_signed_in(users: UserService) -> None:
    email = new_email()
    signed_in = await users.register(email=email.upper(), name="  José\u0301 Rao ", phone="+919812345678")
    assert signed_in.expires_in == 900 and signed_in.refresh_token
    assert signed_in.user.email == email
    assert list(signed_in.user.roles) == ["customer"]
    profile = await users.stub.GetProfile(user_v1.GetProfileRequest(), metadata=as_owner(signed_in))
    assert profile == signed_in.user
    assert profile.name == "José\u0301 Rao" and profile.phone == "+919812345678"
    claims = jwt.decode(signed_in.access_token, options={"verify_signature": False})
    assert claims["iss"] == "https://marquee.invalid/users" and claims["aud"] == "marquee-edge"
    assert claims["sub"] == profile.user_id and claims["exp"] - claims["iat"] == 900 and claims["jti"]


async def test_an_address_has_one_account_however_it_is_spelled(users: UserService) -> None:
    email = new_email()
    await users.register(email=email)
    assert await reason_for(users.register(email=email.title())) == "EMAIL_TAKEN"


async def test_ten_people_who_want_one_address_at_once_get_one_account(users: UserService) -> None:
    email = new_email()
    answers = await asyncio.gather(*(users.register(email=email) for _ in range(10)), return_exceptions=True)
    refusals = [reason(each) for each in answers if not isinstance(each, user_v1.SignIn)]  # type: ignore[arg-type]
    assert refusals == ["EMAIL_TAKEN"] * 9


async def test_the_same_request_ten_times_at_once_makes_one_account_and_one_event(users: UserService) -> None:
    request = registration()
    answers = await asyncio.gather(*(users.stub.Register(request) for _ in range(10)))
    assert len({each.user.SerializeToString() for each in answers}) == 1
    user_id = answers[0].user.user_id
    assert len({each.refresh_token for each in answers}) == 10
    assert users.sql("SELECT count(*) FROM outbox WHERE aggregateid = %s", user_id) == [(1,)]
    payload = users.sql("SELECT aggregatetype, type, payload FROM outbox WHERE aggregateid = %s", user_id)[0]
    assert payload[:2] == ("user.created", "marquee.user.v1.UserCreated")
    assert user_v1.UserCreated.FromString(payload[2]).user == answers[0].user
    for each in answers:  # every one of them is really signed in
        await users.stub.GetProfile(user_v1.GetProfileRequest(), metadata=as_owner(each))


@pytest.mark.parametrize(
    "other", [{"name": "Somebody Else"}, {"email": "other@example.org"}, {"password": "x" + PASSWORD}]
)
async def test_a_request_id_with_other_content_is_refused(users: UserService, other: dict[str, Any]) -> None:
    request = registration()
    await users.stub.Register(request)
    request.MergeFrom(user_v1.RegisterRequest(**other))
    assert await reason_for(users.stub.Register(request)) == "REQUEST_ID_REUSED"


async def test_what_is_kept_for_a_repeat_holds_no_token_and_no_password(users: UserService) -> None:
    request = registration()
    signed_in = await users.stub.Register(request)
    [(content, answer)] = users.sql("SELECT content, answer FROM requests WHERE request_id = %s", request.request_id)
    assert user_v1.User.FromString(answer) == user_v1.User(user_id=signed_in.user.user_id)
    assert len(content) == 16
    dump = "".join(
        str(users.sql(f"SELECT * FROM {table}")) for table in ("users", "sessions", "refresh_tokens", "outbox")
    )
    for secret in (signed_in.refresh_token, signed_in.access_token, PASSWORD):
        assert secret not in dump


async def test_a_refused_registration_is_not_kept(users: UserService) -> None:
    email, request_id = new_email(), str(uuid.uuid4())
    await users.register(email=email)
    assert await reason_for(users.register(email=email, request_id=request_id)) == "EMAIL_TAKEN"
    await users.register(request_id=request_id)  # another address, the same id: nothing was done with it


ODD_EMAILS = [
    "", "x", "@", "a@b@c", "a b@example.org", "ana@exämple.org", "анна@example.org", "a\x00b@example.org",
    "a@example.org\n", "a@" + "x" * 300 + ".org", "x" * 250 + "@example.org", "a@-example.org", "\u202ea@example.org",
    "a@example.org, b@example.org", "👻@example.org",
]  # fmt: skip


@pytest.mark.parametrize("email", ODD_EMAILS)
async def test_what_is_no_address_is_refused_by_name(users: UserService, email: str) -> None:
    for call in (
        users.register(email=email),
        users.stub.Login(user_v1.LoginRequest(email=email, password=PASSWORD)),
    ):
        error = await refused(call)
        assert reason(error) == "INVALID_ARGUMENT"
        assert set(fields(error)) == {"email"}


ODD_FIELDS = [
    ("name", ""), ("name", "   "), ("name", "\u3000\u200b"), ("name", "a\x00b"), ("name", "a\nb"), ("name", "x" * 101),
    ("name", "a\u202eb"), ("name", "a\x85b"), ("password", ""), ("password", "short"), ("password", " " * 12),
    ("password", "\u3000" * 12), ("password", "\u200b" * 12), ("password", "a" * 12), ("password", "x" * 129),
    ("password", "good enough\x00"), ("password", "\ufdfa" * 100), ("phone", "98123"), ("phone", "+0123456789"),
    ("phone", "+91 98123 45678"), ("request_id", "1"), ("token_delivery", 9),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), ODD_FIELDS)
async def test_nonsense_in_a_field_is_refused_by_name(users: UserService, field: str, value: object) -> None:
    error = await refused(users.register(**{field: value}))
    assert reason(error) == "INVALID_ARGUMENT"
    assert set(fields(error)) == {field}


# --- Login


async def test_signing_in_takes_the_address_in_any_case_and_the_password_in_any_normal_form(users: UserService) -> None:
    email = new_email()
    await users.register(email=email, password="caf\u00e9 au lait, svp")
    signed_in = await users.stub.Login(user_v1.LoginRequest(email=email.upper(), password="cafe\u0301 au lait, svp"))
    assert signed_in.user.email == email


async def test_an_unknown_address_is_answered_and_costs_like_a_wrong_password(users: UserService) -> None:
    email = new_email()
    await users.register(email=email)
    seen = []
    for address in (email, new_email()):
        before = HASHER.computed
        error = await refused(users.stub.Login(user_v1.LoginRequest(email=address, password="a wrong password")))
        seen.append((HASHER.computed - before, error.code(), error.details(), reason(error), facts(error)))
    assert seen[0] == seen[1]
    assert seen[0][0] == 1 and seen[0][3] == "WRONG_CREDENTIALS"


async def test_guesses_are_slowed_down_the_same_for_known_and_unknown_addresses(users: UserService) -> None:
    email = new_email()
    await users.register(email=email)
    histories = []
    for address in (email, new_email()):
        history = []
        for _ in range(7):
            before = HASHER.computed
            error = await refused(users.stub.Login(user_v1.LoginRequest(email=address, password="a wrong password")))
            history.append((HASHER.computed - before, reason(error), error.details(), facts(error), retry_after(error)))
        histories.append(history)
    assert histories[0] == histories[1]
    assert [each[1] for each in histories[0]] == ["WRONG_CREDENTIALS"] * 5 + ["LOGIN_SLOWED"] * 2
    assert [each[0] for each in histories[0]] == [1] * 5 + [0] * 2
    assert histories[0][5][4] == 1.0


async def test_a_hundred_guesses_at_once_get_no_further_than_one_after_another(users: UserService) -> None:
    email = new_email()
    await users.register(email=email)
    before, began = HASHER.computed, time.monotonic()
    request = user_v1.LoginRequest(email=email, password="a wrong password")
    reasons = await asyncio.gather(*(reason_for(users.stub.Login(request)) for _ in range(60)))
    tried = reasons.count("WRONG_CREDENTIALS")
    assert HASHER.computed - before == tried
    assert 5 <= tried <= 5 + int(time.monotonic() - began)  # after five, one a second at most


async def test_the_right_password_is_taken_after_the_wait_and_forgives_the_failures(users: UserService) -> None:
    email = new_email()
    await users.register(email=email)
    wrong = user_v1.LoginRequest(email=email, password="a wrong password")
    right = user_v1.LoginRequest(email=email, password=PASSWORD)
    for _ in range(5):
        await refused(users.stub.Login(wrong))
    assert await reason_for(users.stub.Login(right)) == "LOGIN_SLOWED"
    users.sql("UPDATE login_attempts SET last_at = last_at - interval '1 s'")
    await users.stub.Login(right)
    assert await reason_for(users.stub.Login(wrong)) == "WRONG_CREDENTIALS"


async def test_a_stranger_who_guesses_does_not_slow_down_the_owner(users: UserService) -> None:
    email = new_email()
    await users.register(email=email)
    at_home, far_away = (("x-forwarded-for", "203.0.113.7"),), (("x-forwarded-for", "198.51.100.9"),)
    right = user_v1.LoginRequest(email=email, password=PASSWORD)
    await users.stub.Login(right, metadata=at_home)
    wrong = user_v1.LoginRequest(email=email, password="a wrong password")
    for _ in range(8):
        await refused(users.stub.Login(wrong, metadata=far_away))
    assert await reason_for(users.stub.Login(wrong, metadata=(("x-forwarded-for", "192.0.2.1"),))) == "LOGIN_SLOWED"
    await users.stub.Login(right, metadata=at_home)


async def test_a_hash_with_old_costs_is_made_anew_at_sign_in(users: UserService) -> None:
    email = new_email()
    user_id = (await users.register(email=email)).user.user_id
    dear = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1).hash(PASSWORD)
    users.sql("UPDATE users SET password_hash = %s WHERE user_id = %s", dear, user_id)
    await users.stub.Login(user_v1.LoginRequest(email=email, password=PASSWORD))
    [(fresh,)] = users.sql("SELECT password_hash FROM users WHERE user_id = %s", user_id)
    assert fresh != dear and not HASHER.check_needs_rehash(fresh)
    await users.stub.Login(user_v1.LoginRequest(email=email, password=PASSWORD))


async def test_too_many_sign_ins_at_once_are_turned_away(
    migrated_database_url: Callable[[str], str], tmp_path: Path
) -> None:
    async with user_service(tmp_path, migrated_database_url("user"), password_waiting=2) as small:
        answers = await asyncio.gather(*(small.register() for _ in range(12)), return_exceptions=True)
    refusals = [reason(each) for each in answers if not isinstance(each, user_v1.SignIn)]  # type: ignore[arg-type]
    assert refusals and set(refusals) == {"OVERLOADED"}
    assert len(refusals) < 12


# --- Profile and preferences


async def test_preferences_are_replaced_and_a_repeat_changes_nothing(users: UserService) -> None:
    signed_in = await users.register()
    request = user_v1.UpdatePreferencesRequest(
        request_id=str(uuid.uuid4()),
        language="hi",
        genres=["Drama", "Comedy"],
        city_id="mumbai",
        notifications=user_v1.NotificationSettings(sms=True),
    )
    me = as_owner(signed_in)
    first = await users.stub.UpdatePreferences(request, metadata=me)
    assert first.language == "hi" and list(first.genres) == ["Drama", "Comedy"]
    assert first.notifications == user_v1.NotificationSettings(sms=True)
    later = await users.stub.UpdatePreferences(user_v1.UpdatePreferencesRequest(language="en"), metadata=me)
    assert later == user_v1.Preferences(language="en", notifications=user_v1.NotificationSettings(email=True))
    assert await users.stub.UpdatePreferences(request, metadata=me) == first
    profile = await users.stub.GetProfile(user_v1.GetProfileRequest(), metadata=me)
    assert profile.preferences == later
    request.language = "ta"
    assert await reason_for(users.stub.UpdatePreferences(request, metadata=me)) == "REQUEST_ID_REUSED"


async def test_somebody_who_exists_only_in_a_token_has_no_profile(users: UserService) -> None:
    ghost = users.served.as_user(uuid.uuid4())
    assert await reason_for(users.stub.GetProfile(user_v1.GetProfileRequest(), metadata=ghost)) == "NOT_FOUND"
    request = user_v1.UpdatePreferencesRequest(request_id=str(uuid.uuid4()), language="en")
    assert await reason_for(users.stub.UpdatePreferences(request, metadata=ghost)) == "NOT_FOUND"


async def test_another_service_reads_a_user(users: UserService) -> None:
    signed_in = await users.register()
    asking = users.served.as_service("booking")
    user = await users.internal.GetUser(user_v1.GetUserRequest(user_id=signed_in.user.user_id), metadata=asking)
    assert user == signed_in.user
    unknown = user_v1.GetUserRequest(user_id=str(uuid.uuid4()))
    assert await reason_for(users.internal.GetUser(unknown, metadata=asking)) == "NOT_FOUND"


# --- Operators


async def test_demo_accounts_are_the_same_however_often_they_are_asked_for(
    users: UserService, store: UserStore
) -> None:
    async with open_passwords(CountingHasher(), threads=1, most=1) as desk:
        first = await ensure_accounts(DEMO_ACCOUNTS, store=store, desk=desk)
        await change_role(email_of("customer@demo.marquee.test"), Role.ADMIN, give=True, store=store)
        users.sql("UPDATE users SET password_hash = 'x' WHERE email = 'staff@demo.marquee.test'")
        again = await ensure_accounts(DEMO_ACCOUNTS, store=store, desk=desk)
    assert [new for _, new in first] == [True] * 3 and [new for _, new in again] == [False] * 3
    roles = {}
    for wanted in DEMO_ACCOUNTS:
        signed_in = await users.stub.Login(user_v1.LoginRequest(email=wanted.email, password=DEMO_PASSWORD))
        assert signed_in.user.user_id == wanted.user_id
        roles[wanted.email.partition("@")[0]] = list(signed_in.user.roles)
    assert roles == {"customer": ["customer"], "staff": ["staff", "customer"], "admin": ["admin", "customer"]}
    assert users.sql("SELECT count(*) FROM outbox WHERE aggregateid = %s", DEMO_ACCOUNTS[0].user_id) == [(1,)]


async def test_an_address_that_somebody_registered_never_becomes_a_demo_account(
    migrated_database_url: Callable[[str], str], tmp_path: Path
) -> None:
    async with user_service(tmp_path, migrated_database_url("user")) as fresh:
        await fresh.register(email="admin@demo.marquee.test")
        async with open_engine(fresh.database_url, size=1) as engine, open_passwords(HASHER, threads=1, most=1) as desk:
            with pytest.raises(AccountTrouble):
                await ensure_accounts(DEMO_ACCOUNTS, store=UserStore(engine), desk=desk)
        assert fresh.sql("SELECT roles FROM users WHERE email = 'admin@demo.marquee.test'") == [(["customer"],)]


async def test_a_role_that_is_given_comes_with_the_next_refresh(users: UserService, store: UserStore) -> None:
    email = new_email()
    signed_in = await users.register(email=email)
    assert await change_role(email_of(email), Role.STAFF, give=True, store=store) == ("customer", "staff")
    refreshed = await users.stub.RefreshSession(user_v1.RefreshSessionRequest(refresh_token=signed_in.refresh_token))
    assert jwt.decode(refreshed.access_token, options={"verify_signature": False})["roles"] == ["customer", "staff"]
    assert session_of(refreshed) == session_of(signed_in)
    assert await change_role(email_of(email), Role.CUSTOMER, give=False, store=store) == ("staff",)
    with pytest.raises(AccountTrouble):
        await change_role(email_of(email), Role.STAFF, give=False, store=store)
    with pytest.raises(AccountTrouble):
        await change_role(email_of(new_email()), Role.STAFF, give=True, store=store)
