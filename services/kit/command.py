"""The command line that every service has: ``python -m services.<name> [serve|migrate]``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer
import uvloop

from services.kit.logs import configure_logs
from services.kit.settings import ServiceSettings

Settings = TypeVar("Settings", bound=ServiceSettings)


def service_command(
    name: str, settings_type: type[Settings], serve: Callable[[Settings], Awaitable[None]]
) -> typer.Typer:
    """The command of the service ``name``; ``serve`` is its composition root and runs until told to stop."""
    app = typer.Typer(add_completion=False, help=f"Marquee's {name} service.")

    def run() -> None:
        settings = settings_type()
        configure_logs(name, style=settings.log_format, level=settings.log_level)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_as_coroutine(serve(settings)))

    @app.callback(invoke_without_command=True)
    def main(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            run()

    @app.command("serve", help="Answer calls until told to stop (the default).")
    def _serve() -> None:
        run()

    @app.command("migrate", help="Bring the service's database up to date.")
    def _migrate() -> None:
        from services.kit.migrations import migrate  # Alembic is 0.3 s of every start that does not need it

        settings = settings_type()
        configure_logs(name, style=settings.log_format, level=settings.log_level)
        migrate(name, settings.database_url.get_secret_value())

    return app


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable
