"""The user service in this process, and what its tests do with it over and over."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc
import jwt
import psycopg
from argon2 import PasswordHasher

from marquee.user import v1 as user_v1
from services.user.__main__ import SERVICES, add_servicers
from services.user.settings import UserSettings
from tests.integration.service_harness import Metadata, Served, TestKeys, bearer, reason, serving

PASSWORD = "correct horse battery"


class CountingHasher(PasswordHasher):
    """argon2id with small costs that counts how often it computes."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.computed = 0

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        self.computed += 1
        return super().hash(password, salt=salt)

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002  # the name in argon2-cffi
        self.computed += 1
        return super().verify(hash, password)


class CountingSettings(UserSettings):
    """The settings with a hasher that counts."""

    def password_hasher(self) -> PasswordHasher:
        return HASHER


HASHER = CountingHasher()


@dataclass(frozen=True, slots=True)
class UserService:
    """The running service with its stubs and its database."""

    served: Served
    stub: user_v1.UserServiceAsyncStub
    internal: user_v1.UserInternalServiceAsyncStub
    database_url: str

    async def register(self, **fields: Any) -> user_v1.SignIn:
        return await self.stub.Register(registration(**fields))

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


def registration(**fields: Any) -> user_v1.RegisterRequest:
    """A good request for a new address, with ``fields`` in place of its own."""
    wanted = {"email": new_email(), "name": "Asha Rao", "password": PASSWORD, "request_id": str(uuid.uuid4()), **fields}
    return user_v1.RegisterRequest(**wanted)


def new_email() -> str:
    return f"{uuid.uuid4().hex}@example.org"


def as_owner(signed_in: user_v1.SignIn) -> Metadata:
    return bearer(signed_in.access_token)


def session_of(signed_in: user_v1.SignIn) -> str:
    return str(jwt.decode(signed_in.access_token, options={"verify_signature": False})["sid"])


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """The error of a call that must be refused."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError(f"was answered: {answer}")


async def reason_for(call: Any) -> str:
    return reason(await refused(call))


@asynccontextmanager
async def user_service(folder: Path, database_url: str, **more: Any) -> AsyncIterator[UserService]:
    """Serve until the block ends."""
    keys = TestKeys.make(folder)
    settings = CountingSettings(
        **keys.settings(database_url, signing_keys_dir=keys.users.folder, cookie_secure=False, **more)
    )
    async with AsyncExitStack() as stack:

        async def compose(server: grpc.aio.Server) -> None:
            await add_servicers(server, settings, stack)

        served = await stack.enter_async_context(serving(settings, SERVICES, compose, keys))
        yield UserService(
            served,
            user_v1.UserServiceStub(served.channel),
            user_v1.UserInternalServiceStub(served.channel),
            database_url,
        )
