"""All SQL of the user service. Time is PostgreSQL's, so that processes with different clocks agree on what is over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.kit.call import UserId
from services.user.domain import (
    STRANGER,
    Account,
    AccountKey,
    Attempts,
    Credentials,
    Email,
    Notifications,
    Place,
    Preferences,
    RefreshToken,
    Registration,
    Session,
    SessionId,
)

ACCOUNT = """
    user_id, email, phone, name, roles, language, genres, city_id,
    notify_email, notify_sms, notify_push, notify_marketing, created_at, updated_at
"""
SESSION = "session_id, user_id, user_agent, created_at, last_used_at, expires_at"
ALIVE = "ended_at IS NULL AND expires_at > clock_timestamp()"
MOST_SESSIONS = 50
"""Of one account; signing in once more ends the one that was used longest ago."""


@dataclass(frozen=True, slots=True)
class SessionLifetime:
    """A session ends ``idle`` after its last use and ``most`` after its start."""

    idle: timedelta
    most: timedelta


class UserStore:
    """The service's database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[UserTransaction]:
        """What is done inside commits together, unless the block raises."""
        async with self._engine.begin() as connection:
            yield UserTransaction(connection)


class UserTransaction:
    """What can be asked of the database within one transaction (READ COMMITTED)."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    # --- Accounts

    async def add_account(self, registration: Registration, password_hash: str) -> Account | None:
        """A new customer; None when the address has an account."""
        row = await self._one_or_none(
            f"""
            INSERT INTO users (email, phone, name, password_hash)
            VALUES (:email, :phone, :name, :password_hash)
            ON CONFLICT (email) DO NOTHING
            RETURNING {ACCOUNT}
            """,
            email=registration.email,
            phone=registration.phone,
            name=registration.name,
            password_hash=password_hash,
        )
        return _account(row) if row is not None else None

    async def add_known_account(
        self, user_id: UserId, registration: Registration, password_hash: str, roles: Sequence[str]
    ) -> Account | None:
        """A new account with an id and roles that are given; None when the address or the id has one."""
        row = await self._one_or_none(
            f"""
            INSERT INTO users (user_id, email, phone, name, password_hash, roles)
            VALUES (:user_id, :email, :phone, :name, :password_hash, :roles)
            ON CONFLICT DO NOTHING
            RETURNING {ACCOUNT}
            """,
            user_id=user_id,
            email=registration.email,
            phone=registration.phone,
            name=registration.name,
            password_hash=password_hash,
            roles=list(roles),
        )
        return _account(row) if row is not None else None

    async def find_account(self, user_id: UserId) -> Account | None:
        row = await self._one_or_none(
            f"""
            SELECT {ACCOUNT}
            FROM users
            WHERE user_id = :user_id
            """,
            user_id=user_id,
        )
        return _account(row) if row is not None else None

    async def find_credentials(self, email: Email) -> Credentials | None:
        row = await self._one_or_none(
            f"""
            SELECT {ACCOUNT}, password_hash
            FROM users
            WHERE email = :email
            """,
            email=email,
        )
        return Credentials(_account(row), row.password_hash) if row is not None else None

    async def replace_password_hash(self, user_id: UserId, *, old: str, new: str) -> None:
        """Only where it still is ``old``: somebody may have changed the password meanwhile."""
        await self._run(
            """
            UPDATE users
            SET password_hash = :new
            WHERE user_id = :user_id
              AND password_hash = :old
            """,
            user_id=user_id,
            old=old,
            new=new,
        )

    async def set_roles(self, user_id: UserId, roles: Sequence[str]) -> None:
        await self._run(
            """
            UPDATE users
            SET roles = :roles,
                updated_at = clock_timestamp()
            WHERE user_id = :user_id
            """,
            user_id=user_id,
            roles=list(roles),
        )

    async def lock_account(self, email: Email) -> Account | None:
        """The account, changed by nobody else until the transaction ends."""
        row = await self._one_or_none(
            f"""
            SELECT {ACCOUNT}
            FROM users
            WHERE email = :email
            FOR UPDATE
            """,
            email=email,
        )
        return _account(row) if row is not None else None

    async def set_preferences(self, user_id: UserId, preferences: Preferences) -> Account | None:
        """The account with its new preferences; None when there is no such account."""
        row = await self._one_or_none(
            f"""
            UPDATE users
            SET language = :language,
                genres = :genres,
                city_id = :city_id,
                notify_email = :email,
                notify_sms = :sms,
                notify_push = :push,
                notify_marketing = :marketing,
                updated_at = clock_timestamp()
            WHERE user_id = :user_id
            RETURNING {ACCOUNT}
            """,
            user_id=user_id,
            language=preferences.language,
            genres=list(preferences.genres),
            city_id=preferences.city_id,
            email=preferences.notifications.email,
            sms=preferences.notifications.sms,
            push=preferences.notifications.push,
            marketing=preferences.notifications.marketing,
        )
        return _account(row) if row is not None else None

    # --- Sessions and their refresh tokens

    async def start_session(
        self, user_id: UserId, user_agent: str, token_hash: bytes, lifetime: SessionLifetime
    ) -> SessionId:
        """A session with its first refresh token. Ends the oldest ones when there are too many."""
        session_id = await self._scalar(
            """
            INSERT INTO sessions (user_id, user_agent, expires_at)
            VALUES (:user_id, :user_agent, clock_timestamp() + least(CAST(:idle AS interval), CAST(:most AS interval)))
            RETURNING session_id
            """,
            user_id=user_id,
            user_agent=user_agent,
            idle=lifetime.idle,
            most=lifetime.most,
        )
        await self.add_refresh_token(SessionId(str(session_id)), token_hash)
        await self._run(
            f"""
            UPDATE sessions
            SET ended_at = clock_timestamp(),
                ended_by = 'too_many'
            WHERE session_id IN (
                SELECT session_id
                FROM sessions
                WHERE user_id = :user_id
                  AND {ALIVE}
                ORDER BY last_used_at DESC
                OFFSET :most
            )
            """,
            user_id=user_id,
            most=MOST_SESSIONS,
        )
        return SessionId(str(session_id))

    async def lock_session_of(self, token_hash: bytes) -> Session | None:
        """The living session that a refresh token belongs to, locked; None when there is none.

        What is read of the token itself must be read by a later statement: this one, when it waited for the lock,
        has seen the token as it was before.
        """
        row = await self._one_or_none(
            f"""
            SELECT {SESSION}
            FROM sessions
            WHERE session_id = (SELECT session_id FROM refresh_tokens WHERE token_hash = :token_hash)
              AND {ALIVE}
            FOR UPDATE
            """,
            token_hash=token_hash,
        )
        return _session(row) if row is not None else None

    async def read_refresh_token(self, token_hash: bytes) -> RefreshToken:
        row = (
            await self.connection.execute(
                text("""
                    SELECT
                        clock_timestamp() - spent_at AS since_spent,
                        NOT EXISTS (
                            SELECT
                            FROM refresh_tokens AS other
                            WHERE other.session_id = this.session_id
                              AND other.spent_at > this.spent_at
                        ) AS latest
                    FROM refresh_tokens AS this
                    WHERE token_hash = :token_hash
                """),
                {"token_hash": token_hash},
            )
        ).one()
        return RefreshToken(row.since_spent, row.latest)

    async def spend_refresh_tokens(self, session_id: SessionId) -> None:
        """All that are good; more than one is, when an answer was lost. They get one and the same time."""
        await self._run(
            """
            UPDATE refresh_tokens
            SET spent_at = now.moment
            FROM (SELECT clock_timestamp() AS moment OFFSET 0) AS now
            WHERE session_id = :session_id
              AND spent_at IS NULL
            """,
            session_id=session_id,
        )

    async def add_refresh_token(self, session_id: SessionId, token_hash: bytes) -> None:
        await self._run(
            """
            INSERT INTO refresh_tokens (token_hash, session_id)
            VALUES (:token_hash, :session_id)
            """,
            token_hash=token_hash,
            session_id=session_id,
        )

    async def prolong_session(self, session_id: SessionId, lifetime: SessionLifetime) -> None:
        await self._run(
            """
            UPDATE sessions
            SET last_used_at = clock_timestamp(),
                expires_at = least(
                    clock_timestamp() + CAST(:idle AS interval),
                    created_at + CAST(:most AS interval)
                )
            WHERE session_id = :session_id
            """,
            session_id=session_id,
            idle=lifetime.idle,
            most=lifetime.most,
        )

    async def end_session(self, session_id: SessionId, *, by: str) -> None:
        await self._run(
            """
            UPDATE sessions
            SET ended_at = clock_timestamp(),
                ended_by = :by
            WHERE session_id = :session_id
              AND ended_at IS NULL
            """,
            session_id=session_id,
            by=by,
        )

    async def end_session_of_user(self, user_id: UserId, session_id: SessionId, *, by: str) -> bool:
        """Whether the user has, or had, this session. One that ended before stays as it is."""
        found = await self._scalar(
            """
            UPDATE sessions
            SET ended_by = CASE WHEN ended_at IS NULL THEN :by ELSE ended_by END,
                ended_at = coalesce(ended_at, clock_timestamp())
            WHERE session_id = :session_id
              AND user_id = :user_id
            RETURNING session_id
            """,
            session_id=session_id,
            user_id=user_id,
            by=by,
        )
        return found is not None

    async def list_sessions(self, user_id: UserId) -> list[Session]:
        """Those that live, the newest first."""
        rows = await self.connection.execute(
            text(f"""
                SELECT {SESSION}
                FROM sessions
                WHERE user_id = :user_id
                  AND {ALIVE}
                ORDER BY created_at DESC, session_id
            """),
            {"user_id": user_id},
        )
        return [_session(row) for row in rows]

    # --- Counting sign-in attempts

    async def familiar_place(self, key: AccountKey, place: Place) -> Place:
        """``place`` if the account was signed in to from there before, else `STRANGER`."""
        known = await self._scalar(
            """
            SELECT TRUE
            FROM known_places
            WHERE account_key = :key
              AND place = :place
            """,
            key=key,
            place=place,
        )
        return place if known else STRANGER

    async def lock_attempts(self, key: AccountKey, place: Place) -> Attempts:
        """The attempts counted so far, locked, so that guesses that come at once are counted one by one."""
        await self._run(
            """
            INSERT INTO login_attempts (account_key, place)
            VALUES (:key, :place)
            ON CONFLICT DO NOTHING
            """,
            key=key,
            place=place,
        )
        row = (
            await self.connection.execute(
                text("""
                    SELECT attempts, last_at
                    FROM login_attempts
                    WHERE account_key = :key
                      AND place = :place
                    FOR UPDATE
                """),
                {"key": key, "place": place},
            )
        ).one()
        # The clock is read after the lock: in one statement it would tell of the time before the wait.
        now = await self._scalar("SELECT clock_timestamp()")
        return Attempts(row.attempts, max(timedelta(0), now - row.last_at))

    async def count_attempt(self, key: AccountKey, place: Place, count: int) -> None:
        await self._run(
            """
            UPDATE login_attempts
            SET attempts = :count,
                last_at = clock_timestamp()
            WHERE account_key = :key
              AND place = :place
            """,
            key=key,
            place=place,
            count=count,
        )

    async def forgive_attempts(self, key: AccountKey, counted_at: Place, place: Place) -> None:
        """After a success: the count begins anew, and ``place`` is familiar from now on."""
        await self._run(
            """
            DELETE FROM login_attempts
            WHERE account_key = :key
              AND place = :place
            """,
            key=key,
            place=counted_at,
        )
        if place != STRANGER:
            await self._run(
                """
                INSERT INTO known_places (account_key, place)
                VALUES (:key, :place)
                ON CONFLICT (account_key, place) DO UPDATE SET last_at = clock_timestamp()
                """,
                key=key,
                place=place,
            )

    # --- What is over

    async def sweep(self, most: int) -> int:
        """Remove up to ``most`` rows of each kind that nobody will ask for again; how many went."""
        statements = (
            """
            DELETE FROM sessions
            WHERE session_id IN (
                SELECT session_id
                FROM sessions
                WHERE least(expires_at, ended_at) < clock_timestamp() - interval '7 days'
                LIMIT :most
            )
            """,
            """
            DELETE FROM login_attempts
            WHERE (account_key, place) IN (
                SELECT account_key, place
                FROM login_attempts
                WHERE last_at < clock_timestamp() - interval '1 day'
                LIMIT :most
            )
            """,
            """
            DELETE FROM known_places
            WHERE (account_key, place) IN (
                SELECT account_key, place
                FROM known_places
                WHERE last_at < clock_timestamp() - interval '90 days'
                LIMIT :most
            )
            """,
            """
            DELETE FROM requests
            WHERE (caller, request_id) IN (
                SELECT caller, request_id
                FROM requests
                WHERE created_at < clock_timestamp() - interval '7 days'
                LIMIT :most
            )
            """,
        )
        return sum([await self._run(statement, most=most) for statement in statements])

    async def _run(self, statement: str, **values: Any) -> int:
        result = await self.connection.execute(text(statement), values)
        return result.rowcount

    async def _one_or_none(self, statement: str, **values: Any) -> Row[Any] | None:
        return (await self.connection.execute(text(statement), values)).one_or_none()

    async def _scalar(self, statement: str, **values: Any) -> Any:
        return (await self.connection.execute(text(statement), values)).scalar_one_or_none()


def _account(row: Row[Any]) -> Account:
    return Account(
        user_id=UserId(str(row.user_id)),
        email=Email(row.email),
        phone=row.phone,
        name=row.name,
        roles=tuple(row.roles),
        preferences=Preferences(
            language=row.language,
            genres=tuple(row.genres),
            city_id=row.city_id,
            notifications=Notifications(row.notify_email, row.notify_sms, row.notify_push, row.notify_marketing),
        ),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _session(row: Row[Any]) -> Session:
    return Session(
        session_id=SessionId(str(row.session_id)),
        user_id=UserId(str(row.user_id)),
        user_agent=row.user_agent,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
    )
