"""What an operator can do: ``python -m services.user accounts --demo``, ``grant EMAIL ROLE``, ``revoke EMAIL ROLE``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

import typer

from services.kit.engine import open_engine
from services.kit.errors import Refusal
from services.kit.logs import configure_logs
from services.user.accounts import DEMO_ACCOUNTS, AccountTrouble, change_role, ensure_accounts
from services.user.domain import Role, email_of
from services.user.passwords import open_passwords
from services.user.settings import UserSettings
from services.user.store import UserStore

Result = TypeVar("Result")


def add_account_commands(app: typer.Typer) -> None:
    """Add the commands to the service's own."""

    @app.command("accounts", help="Have the demo accounts. Does nothing unless --demo is given.")
    def _accounts(
        demo: Annotated[bool, typer.Option("--demo", help="customer@, staff@ and admin@demo.marquee.test")] = False,
    ) -> None:
        if not demo:
            typer.echo("Nothing asked for; --demo makes the demo accounts.")
            return

        async def work(store: UserStore) -> None:
            settings = UserSettings()
            async with open_passwords(settings.password_hasher(), threads=1, most=1) as desk:
                for account, new in await ensure_accounts(DEMO_ACCOUNTS, store=store, desk=desk):
                    typer.echo(f"{account.email}: {'created' if new else 'is there'}")

        _run(work)

    @app.command("grant", help="Give a role (customer, staff, admin) to an account.")
    def _grant(email: str, role: Role) -> None:
        _change(email, role, give=True)

    @app.command("revoke", help="Take a role away from an account.")
    def _revoke(email: str, role: Role) -> None:
        _change(email, role, give=False)


def _change(email: str, role: Role, *, give: bool) -> None:
    async def work(store: UserStore) -> None:
        roles = await change_role(email_of(email), role, give=give, store=store)
        typer.echo(f"{email_of(email)}: {', '.join(roles)}")

    _run(work)


def _run(work: Callable[[UserStore], Awaitable[None]]) -> None:
    """Do ``work`` on the service's database; what cannot be done is said in a sentence."""
    settings = UserSettings()
    configure_logs("user", style=settings.log_format, level=settings.log_level)

    async def main() -> None:
        async with _open_store(settings) as store:
            await work(store)

    try:
        asyncio.run(main())
    except (AccountTrouble, Refusal) as trouble:
        typer.echo(str(trouble), err=True)
        raise typer.Exit(1) from None


@asynccontextmanager
async def _open_store(settings: UserSettings) -> AsyncIterator[UserStore]:
    async with open_engine(settings.database_url.get_secret_value(), size=1) as engine:
        yield UserStore(engine)
