"""What an operator can do with booking's partitions: ``python -m services.booking partitions list|tend|export``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer

from services.booking.partitions import ALL, tend
from services.booking.settings import BookingSettings
from services.kit.archives import FileDiffers, archived, export
from services.kit.database import Connection
from services.kit.leadership import lead
from services.kit.logs import configure_logs
from services.kit.partitions import inventory

Work = Callable[[BookingSettings], Coroutine[Any, Any, None]]

EXPORT_IDLE_SECONDS = 3_600.0
"""An export leaves its session alone while it reads what it wrote, to be sure of it."""


def add_partition_commands(app: typer.Typer) -> None:
    """Add the commands to the service's own."""
    partitions = typer.Typer(help="The tables' partitions by the shows' days.")
    app.add_typer(partitions, name="partitions")

    @partitions.command("list", help="Each partition with its days, rows (about) and size.")
    def _list() -> None:
        _run(_show)

    @partitions.command("tend", help="Make and archive what is due, as the service itself does now and then.")
    def _tend() -> None:
        _run(tend)

    @partitions.command(
        "export", help="Write archived partitions to files (gzipped CSV), and drop each that is written."
    )
    def _export(
        folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, writable=True, help="where the files go")],
    ) -> None:
        async def work(settings: BookingSettings) -> None:
            async with lead(
                settings.database_url.get_secret_value(), "partitions", idle_seconds=EXPORT_IDLE_SECONDS
            ) as connection:
                await connection.execute("SET statement_timeout = 0")
                for each in ALL:
                    for part in await archived(connection, each):
                        typer.echo(await export(connection, part, folder))

        _run(work)


async def _show(settings: BookingSettings) -> None:
    connection: Connection = await psycopg.AsyncConnection.connect(settings.database_url.get_secret_value())
    async with connection:
        for each in ALL:
            for part in await inventory(connection, each):
                typer.echo(f"{part.name:<32}{part.days:<26}{part.rows:>14,} rows {part.size:>10}")


def _run(work: Work) -> None:
    """What cannot be done is said in a sentence."""
    settings = BookingSettings()
    configure_logs("booking", style=settings.log_format, level=settings.log_level)
    try:
        asyncio.run(work(settings))
    except (FileDiffers, OSError, psycopg.OperationalError) as trouble:
        typer.echo(str(trouble).strip(), err=True)
        raise typer.Exit(1) from None
