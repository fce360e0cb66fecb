"""``python -m services.user [serve|migrate|accounts|grant|revoke]``: the composition root."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from datetime import timedelta

import grpc

from marquee.user import v1 as user_v1
from services.kit.clock import Clock, system_clock
from services.kit.command import service_command
from services.kit.engine import open_engine
from services.kit.lifecycle import Lifecycle
from services.kit.server import GrpcServer
from services.user.commands import add_account_commands
from services.user.cookies import RefreshCookie
from services.user.jwks import PublishedKeys
from services.user.passwords import open_passwords
from services.user.servicer import UserInternalServicer, UserServicer
from services.user.settings import UserSettings
from services.user.signing import AccessTokens, SigningKeys
from services.user.store import SessionLifetime, UserStore
from services.user.sweeping import sweep_forever
from services.user.usecases import SessionRules

SERVICES = ("marquee.user.v1.UserService", "marquee.user.v1.UserInternalService")


async def add_servicers(
    server: grpc.aio.Server, settings: UserSettings, stack: AsyncExitStack, *, clock: Clock = system_clock
) -> None:
    """Open what the servicers need on ``stack`` and add them to ``server``."""
    engine = await stack.enter_async_context(
        open_engine(
            settings.database_url.get_secret_value(),
            size=settings.database_pool_size,
            wait_seconds=settings.database_pool_wait_seconds,
        )
    )
    store = UserStore(engine)
    desk = await stack.enter_async_context(
        open_passwords(settings.password_hasher(), threads=settings.password_threads, most=settings.password_waiting)
    )
    idle = timedelta(days=settings.session_idle_days)
    tokens = AccessTokens(
        SigningKeys(settings.signing_keys_dir, clock),
        clock,
        issuer=settings.user_token_issuer,
        audience=settings.user_token_audience,
        seconds=settings.access_token_seconds,
    )
    user_v1.add_UserServiceServicer_to_server(
        UserServicer(
            store=store,
            desk=desk,
            tokens=tokens,
            published=PublishedKeys(settings.user_jwks_file, clock),
            cookie=RefreshCookie(secure=settings.cookie_secure, lifetime=idle),
            rules=SessionRules(
                lifetime=SessionLifetime(idle=idle, most=timedelta(days=settings.session_most_days)),
                refresh_grace=timedelta(seconds=settings.refresh_grace_seconds),
            ),
        ),
        server,
    )
    user_v1.add_UserInternalServiceServicer_to_server(UserInternalServicer(store), server)
    sweeping = asyncio.create_task(sweep_forever(store))
    stack.push_async_callback(_stop, sweeping)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def serve(settings: UserSettings) -> None:
    async with AsyncExitStack() as stack:
        server = GrpcServer(settings, SERVICES, Lifecycle())
        await add_servicers(server.grpc, settings, stack)
        await server.serve_until_signal()


app = service_command("user", UserSettings, serve)
add_account_commands(app)

if __name__ == "__main__":
    app()
