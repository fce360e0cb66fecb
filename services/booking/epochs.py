"""``python -m services.booking new-epoch``: after booking's database was put back from a copy, before it takes writes.

Versions of different epochs do not compare, so viewers and maps begin anew. A server that is promoted, or recovered to
a point in time, has a new epoch by itself (``SeatStore.epoch``); a copy that was loaded into a new server has none.
"""

from __future__ import annotations

import psycopg
import typer

from services.booking.settings import BookingSettings


def add_epoch_command(app: typer.Typer) -> None:
    """Add the command to the service's own."""

    @app.command("new-epoch", help="After the database was restored from a copy: have all viewers begin anew.")
    def _new_epoch() -> None:
        try:
            typer.echo(new_epoch(BookingSettings().database_url.get_secret_value()))
        except psycopg.OperationalError as trouble:
            typer.echo(str(trouble).strip(), err=True)
            raise typer.Exit(1) from None


def new_epoch(url: str) -> str:
    """Make it and answer it.

    Raises:
        psycopg.OperationalError: the database cannot be reached, or takes no writes.
    """
    with psycopg.connect(url, connect_timeout=5) as connection:
        row = connection.execute("UPDATE epoch SET epoch = gen_random_uuid()::text RETURNING epoch").fetchone()
    assert row is not None
    return str(row[0])
