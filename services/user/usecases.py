"""What people do with accounts and sessions: one function a capability, its transactions in sight."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from google.protobuf.message import Message

from marquee.user import v1 as user_v1
from services.kit.call import UserCaller, UserId
from services.kit.errors import NotFound, RequestIdReused
from services.kit.idempotency import once
from services.kit.outbox import Event, append
from services.user.domain import (
    Account,
    Email,
    EmailTaken,
    LoginSlowed,
    Password,
    Place,
    Preferences,
    Registration,
    Session,
    SessionEnded,
    SessionId,
    Verdict,
    WrongCredentials,
    account_key,
    judge,
    refresh_token_hash,
    seconds_to_wait,
    session_id_of,
)
from services.user.messages import preferences_message, user_message
from services.user.passwords import PasswordDesk, Passwords
from services.user.signing import AccessTokens
from services.user.store import SessionLifetime, UserStore, UserTransaction

log = structlog.get_logger()

ANYONE = "register"
"""In whose name the request ids of new customers are kept; they have no id of their own yet."""


@dataclass(frozen=True, slots=True)
class Device:
    """Who asks, as far as it can be told: a name for the list of sessions, and where it is."""

    user_agent: str
    place: Place


@dataclass(frozen=True, slots=True)
class SignedIn:
    """An account with fresh tokens of one of its sessions."""

    account: Account
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int


@dataclass(frozen=True, slots=True)
class SessionRules:
    lifetime: SessionLifetime
    refresh_grace: timedelta


async def register(
    registration: Registration,
    named: Message,
    device: Device,
    *,
    store: UserStore,
    desk: PasswordDesk,
    tokens: AccessTokens,
    rules: SessionRules,
) -> SignedIn:
    """Create an account and sign it in. A repeat signs in to the account of the first time.

    No token and nothing of the password is kept for repeats, so a repeat shows that it knows the password.

    Args:
        named: the request without its password; its ``request_id`` and content tell a repeat.

    Raises:
        EmailTaken: the address has an account.
        RequestIdReused: the id came before with other content, the password included.
        Overloaded: too many sign-ins are under way.
    """
    with desk.reserve() as passwords:
        password_hash = await passwords.hash(registration.password)
        created: list[Account] = []
        async with store.transaction() as tx:

            async def create() -> user_v1.User:
                account = await tx.add_account(registration, password_hash)
                if account is None:
                    raise EmailTaken
                await append(tx.connection, [user_created(account)])
                created.append(account)
                return user_v1.User(user_id=account.user_id)

            await once(tx.connection, caller=ANYONE, request=named, answer_type=user_v1.User, effect=create)
            if created:
                return await _sign_in(tx, created[0], device, tokens, rules)
            first = await tx.find_credentials(registration.email)
        if first is None or not await passwords.verify(first.password_hash, registration.password):
            raise RequestIdReused
        async with store.transaction() as tx:
            return await _sign_in(tx, first.account, device, tokens, rules)


async def log_in(
    email: Email,
    password: Password,
    device: Device,
    *,
    store: UserStore,
    desk: PasswordDesk,
    tokens: AccessTokens,
    rules: SessionRules,
) -> SignedIn:
    """Sign in with a password. Does and costs the same whether or not the address has an account.

    An attempt is counted before its password is checked and forgiven when it was right, so that a thousand guesses at
    once are a thousand. They are counted by address; those from where the account was signed in to before are counted
    apart, so that strangers who guess do not slow down its owner.

    Raises:
        WrongCredentials: unknown address or wrong password.
        LoginSlowed: too many attempts; says when the next may come.
        Overloaded: too many sign-ins are under way.
    """
    key = account_key(email)
    with desk.reserve() as passwords:
        async with store.transaction() as tx:
            counted_at = await tx.familiar_place(key, device.place)
            attempts = await tx.lock_attempts(key, counted_at)
            wait = seconds_to_wait(attempts)
            if not wait:
                await tx.count_attempt(key, counted_at, 1 if attempts.forgotten() else attempts.count + 1)
            known = await tx.find_credentials(email)
        if wait:
            log.info("login_slowed", attempts=attempts.count, seconds=wait)
            raise LoginSlowed(wait)
        if not await passwords.verify(known.password_hash if known else None, password) or known is None:
            raise WrongCredentials
        fresh_hash = await _rehash(passwords, known.password_hash, password)
        async with store.transaction() as tx:
            await tx.forgive_attempts(key, counted_at, device.place)
            if fresh_hash is not None:
                await tx.replace_password_hash(known.account.user_id, old=known.password_hash, new=fresh_hash)
            return await _sign_in(tx, known.account, device, tokens, rules)


async def _rehash(passwords: Passwords, password_hash: str, password: Password) -> str | None:
    """A hash with the costs that are wanted now, where the old one has others: only now is the password at hand."""
    return await passwords.hash(password) if passwords.outdated(password_hash) else None


async def _sign_in(
    tx: UserTransaction, account: Account, device: Device, tokens: AccessTokens, rules: SessionRules
) -> SignedIn:
    refresh_token = _new_refresh_token()
    session_id = await tx.start_session(
        account.user_id, device.user_agent, refresh_token_hash(refresh_token), rules.lifetime
    )
    return SignedIn(account, tokens.make(account, session_id), refresh_token, tokens.seconds)


async def refresh(refresh_token: str, *, store: UserStore, tokens: AccessTokens, rules: SessionRules) -> SignedIn:
    """Exchange a refresh token for new tokens of its session, with the roles that the account has now.

    Raises:
        SessionEnded: unknown token, session over, or the token was spent before (which ends the session).
    """
    token_hash = refresh_token_hash(refresh_token)
    async with store.transaction() as tx:
        session = await tx.lock_session_of(token_hash)
        verdict = judge(await tx.read_refresh_token(token_hash), rules.refresh_grace) if session is not None else None
        account = await tx.find_account(session.user_id) if session is not None else None
        if session is not None and account is not None and verdict in (Verdict.GOOD, Verdict.REPEATED):
            if verdict is Verdict.GOOD:
                await tx.spend_refresh_tokens(session.session_id)
            successor = _new_refresh_token()
            await tx.add_refresh_token(session.session_id, refresh_token_hash(successor))
            await tx.prolong_session(session.session_id, rules.lifetime)
            return SignedIn(account, tokens.make(account, session.session_id), successor, tokens.seconds)
        if session is not None and verdict is Verdict.STOLEN:
            await tx.end_session(session.session_id, by="reuse")
            log.warning("refresh_reuse", session_id=session.session_id, user_id=session.user_id)
    # Raised after the transaction: the end of the session must commit.
    raise SessionEnded


def _new_refresh_token() -> str:
    return secrets.token_urlsafe(32)


async def log_out(refresh_token: str, caller: UserCaller | None, *, store: UserStore) -> None:
    """End the session of a refresh token, or else the caller's own. Nothing to end is no error."""
    async with store.transaction() as tx:
        if refresh_token:
            session = await tx.lock_session_of(refresh_token_hash(refresh_token))
            if session is not None:
                await tx.end_session(session.session_id, by="logout")
        elif caller is not None and (own := session_id_of(caller.session_id)) is not None:
            await tx.end_session_of_user(caller.user_id, own, by="logout")


async def list_sessions(user_id: UserId, *, store: UserStore) -> list[Session]:
    """The user's living sessions, the newest first."""
    async with store.transaction() as tx:
        return await tx.list_sessions(user_id)


async def revoke_session(user_id: UserId, session_id: SessionId, *, store: UserStore) -> None:
    """End one of the user's sessions; ending it again is no error.

    Raises:
        NotFound: no such session, or somebody else's.
    """
    async with store.transaction() as tx:
        found = await tx.end_session_of_user(user_id, session_id, by="revoked")
    if not found:
        raise NotFound("there is no such session")


async def find_account(user_id: UserId, *, store: UserStore) -> Account:
    """One account.

    Raises:
        NotFound: no such user.
    """
    async with store.transaction() as tx:
        account = await tx.find_account(user_id)
    if account is None:
        raise NotFound("there is no such user")
    return account


async def update_preferences(
    user_id: UserId, preferences: Preferences, request: user_v1.UpdatePreferencesRequest, *, store: UserStore
) -> user_v1.Preferences:
    """Replace the user's preferences, once for each ``request_id``.

    Raises:
        NotFound: no such user.
        RequestIdReused: the id came before with other content.
    """
    async with store.transaction() as tx:

        async def replace() -> user_v1.Preferences:
            account = await tx.set_preferences(user_id, preferences)
            if account is None:
                raise NotFound("there is no such user")
            return preferences_message(account.preferences)

        return await once(
            tx.connection, caller=user_id, request=request, answer_type=user_v1.Preferences, effect=replace
        )


def user_created(account: Account) -> Event:
    return Event("user.created", account.user_id, user_v1.UserCreated(user=user_message(account)))
