"""The command line that every service has: ``python -m services.<name> [serve|migrate]``."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer
import uvloop

from services.kit.logs import configure_logs
from services.kit.settings import ServiceSettings

Settings = TypeVar("Settings", bound=ServiceSettings)

COLLECT_AFTER = (20_000, 20, 50)
"""How often the garbage collector looks (``gc.set_threshold``). Python's default, after each 700 objects more, is in
the middle of every batch: 4 % of a service's time."""


def run(work: Awaitable[None]) -> None:
    """Do a process's work, on uvloop. What was imported until here is never garbage: nobody looks for it there."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_as_coroutine(work))


def service_command(
    name: str, settings_type: type[Settings], serve: Callable[[Settings], Awaitable[None]]
) -> typer.Typer:
    """The command of the service ``name``; ``serve`` is its composition root and runs until told to stop."""
    app = typer.Typer(add_completion=False, help=f"Marquee's {name} service.")

    def answer_calls() -> None:
        settings = settings_type()
        configure_logs(name, style=settings.log_format, level=settings.log_level)
        run(serve(settings))

    @app.callback(invoke_without_command=True)
    def main(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            answer_calls()

    @app.command("serve", help="Answer calls until told to stop (the default).")
    def _serve() -> None:
        answer_calls()

    @app.command("migrate", help="Bring the service's database up to date.")
    def _migrate() -> None:
        from services.kit.migrations import migrate  # Alembic is 0.3 s of every start that does not need it

        settings = settings_type()
        configure_logs(name, style=settings.log_format, level=settings.log_level)
        migrate(name, settings.database_url.get_secret_value())

    return app


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable
