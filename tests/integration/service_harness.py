"""A service in this process, behind the kit's own server: keys, tokens, a free port, a channel.

    keys = TestKeys.make(tmp_path)
    settings = UserSettings(**keys.settings(database_url("user")))
    async with serving(settings, ["marquee.user.v1.UserService"], add, keys) as served:
        stub = user_v1.UserServiceStub(served.channel)
        await stub.GetProfile(request, metadata=served.as_user(user_id))

where ``add`` is handed the ``grpc.aio.Server`` and adds its servicers to it; it may be a coroutine function.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import jwt
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from pydantic import SecretStr

from local.keys import KeyRing, service_keys, user_keys
from local.tokens import service_token
from services.kit.lifecycle import Lifecycle
from services.kit.server import GrpcServer
from services.kit.settings import ServiceSettings

Metadata = tuple[tuple[str, str], ...]
SERVICE = "test"
"""The service that the harness's own token file belongs to."""


@dataclass(frozen=True, slots=True)
class TestKeys:
    """Both issuers' keys in one folder, as ``local/`` lays them out, and tokens signed with them."""

    __test__ = False  # not a test case, whatever its name says
    folder: Path
    users: KeyRing
    services: KeyRing

    @classmethod
    def make(cls, folder: Path) -> TestKeys:
        folder.mkdir(parents=True, exist_ok=True)
        keys = cls(folder, user_keys(folder), service_keys(folder))
        # A minute old, so that no test waits for a key's first second.
        keys.users.ensure(time.time() - 60)
        keys.services.ensure(time.time() - 60)
        (folder / "service.token").write_text(keys.service_token(SERVICE))
        return keys

    def settings(self, database_url: str = "", **more: Any) -> dict[str, Any]:
        """What every ``ServiceSettings`` needs, for keyword arguments. Nothing is waited for at the end."""
        return {
            "listen": "127.0.0.1:0",
            "database_url": SecretStr(database_url),
            "user_jwks_file": self.users.jwks,
            "service_jwks_file": self.services.jwks,
            "service_token_file": self.folder / "service.token",
            "page_key": SecretStr("a key that signs page tokens in tests"),
            "drain_seconds": 0.0,
            "stop_seconds": 1.0,
            **more,
        }

    def user_claims(
        self, user_id: str | uuid.UUID, *, roles: Sequence[str] = ("customer",), session_id: str = ""
    ) -> dict[str, Any]:
        """The claims of a good access token; spoil them to make a bad one."""
        now = int(time.time())
        return {
            "iss": "https://marquee.invalid/users",
            "aud": "marquee-edge",
            "sub": str(user_id),
            "sid": session_id or str(uuid.uuid4()),
            "roles": list(roles),
            "iat": now,
            "exp": now + 900,
            "jti": str(uuid.uuid4()),
        }

    def sign_user(self, claims: dict[str, Any]) -> str:
        key = self.users.signing(time.time())
        return jwt.encode(claims, key.private, algorithm="ES256", headers={"kid": key.kid})

    def user_token(
        self, user_id: str | uuid.UUID, *, roles: Sequence[str] = ("customer",), session_id: str = ""
    ) -> str:
        return self.sign_user(self.user_claims(user_id, roles=roles, session_id=session_id))

    def service_token(self, service: str = SERVICE) -> str:
        return service_token(self.services.signing(time.time()), service, time.time())


@dataclass(frozen=True, slots=True)
class Served:
    """A running service."""

    channel: grpc.aio.Channel
    port: int
    keys: TestKeys
    server: GrpcServer

    def as_user(
        self, user_id: str | uuid.UUID, *, roles: Sequence[str] = ("customer",), session_id: str = ""
    ) -> Metadata:
        """Metadata of a call by a signed-in user."""
        return bearer(self.keys.user_token(user_id, roles=roles, session_id=session_id))

    def as_service(self, service: str = SERVICE) -> Metadata:
        """Metadata of a call by another service."""
        return bearer(self.keys.service_token(service))


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


@asynccontextmanager
async def serving(
    settings: ServiceSettings,
    services: Sequence[str],
    add: Callable[[grpc.aio.Server], Awaitable[None] | None],
    keys: TestKeys,
    *,
    lifecycle: Lifecycle | None = None,
) -> AsyncIterator[Served]:
    """Serve ``services`` (full names) until the block ends; ``add`` adds their servicers."""
    server = GrpcServer(settings, services, lifecycle or Lifecycle())
    adding = add(server.grpc)
    if adding is not None:
        await adding
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        try:
            yield Served(channel, server.port, keys, server)
        finally:
            await server.stop(drain_seconds=0)


def details_of(error: grpc.aio.AioRpcError) -> list[Message]:
    """The ErrorInfo, BadRequest and RetryInfo that a refusal carries."""
    found: list[Message] = []
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for packed in status_pb2.Status.FromString(value).details:
                for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
                    message = kind()
                    if packed.Unpack(message):
                        found.append(message)
    return found


def reason(error: grpc.aio.AioRpcError) -> str:
    """``SEAT_TAKEN``; empty when the error is not one of ours."""
    return next((each.reason for each in details_of(error) if isinstance(each, error_details_pb2.ErrorInfo)), "")


def facts(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """The metadata of the refusal's ErrorInfo."""
    return next(
        (dict(each.metadata) for each in details_of(error) if isinstance(each, error_details_pb2.ErrorInfo)), {}
    )


def fields(error: grpc.aio.AioRpcError) -> list[str]:
    """The fields that a refusal names."""
    return [
        violation.field
        for each in details_of(error)
        if isinstance(each, error_details_pb2.BadRequest)
        for violation in each.field_violations
    ]


def retry_after(error: grpc.aio.AioRpcError) -> float | None:
    """Seconds after which the refusal says to try again."""
    for each in details_of(error):
        if isinstance(each, error_details_pb2.RetryInfo):
            return float(each.retry_delay.ToTimedelta().total_seconds())
    return None
