"""What an operator can do with regions: ``python -m services.booking move-region|reopen-region``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import psycopg
import typer

from services.booking.regions import MoveFailed, move, reopen
from services.booking.settings import BookingSettings
from services.kit.logs import configure_logs

HOME = "home"
"""What the database is called that sells every region which the directory does not name."""

Region = Annotated[int, typer.Argument(min=0, max=65_535, help="the region's number, as in its shows' ids")]


def add_region_commands(app: typer.Typer) -> None:
    """Add the commands to the service's own."""

    @app.command("move-region", help="Move a region's shows, with all that belongs to them, to another database.")
    def _move(
        region: Region,
        to: Annotated[str, typer.Argument(help=f"a name in MARQUEE_REGION_DATABASES, or `{HOME}`")],
        settle_seconds: Annotated[
            float, typer.Option(min=0, help="how long processes have to learn that the region is closed")
        ] = 5.0,
    ) -> None:
        settings = _settings()
        try:
            counts = move(
                _url(settings, settings.regions.get(region, HOME)),
                _url(settings, to),
                region,
                wait=lambda: time.sleep(settle_seconds),
            )
        except (MoveFailed, psycopg.Error) as trouble:
            typer.echo(f"region {region} was not moved: {str(trouble).strip()}", err=True)
            raise typer.Exit(1) from None
        for count in counts:
            typer.echo(f"{count.table:<16}{count.rows:>12,} rows")
        entry = "is not named" if to == HOME else f"is `{to}`"
        typer.echo(f"moved; it is sold again by processes in whose MARQUEE_REGIONS region {region} {entry}")

    @app.command("reopen-region", help="After a move that was killed: sell the region again from where it was.")
    def _reopen(region: Region) -> None:
        settings = _settings()
        with (
            _told(),
            psycopg.connect(_url(settings, settings.regions.get(region, HOME)), autocommit=True) as connection,
        ):
            reopen(connection, region)


@contextmanager
def _told() -> Iterator[None]:
    """What cannot be done is said in a sentence."""
    try:
        yield
    except (MoveFailed, psycopg.Error) as trouble:
        typer.echo(str(trouble).strip(), err=True)
        raise typer.Exit(1) from None


def _settings() -> BookingSettings:
    settings = BookingSettings()
    configure_logs("booking", style=settings.log_format, level=settings.log_level)
    return settings


def _url(settings: BookingSettings, name: str) -> str:
    if name == HOME:
        return settings.database_url.get_secret_value()
    if name not in settings.region_databases:
        typer.echo(f"MARQUEE_REGION_DATABASES names no `{name}`", err=True)
        raise typer.Exit(2)
    return settings.region_databases[name].get_secret_value()
