"""``python -m gateway render --out DIR`` and ``python -m gateway check DIR``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from gateway import check as checks
from gateway import contracts as contract_files
from gateway import render as rendering
from gateway.jwt import KeysUnreadableError
from gateway.settings import SettingsError, from_environment

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Renders Envoy's configuration from the contracts.")

WATCH_SECONDS = 0.5

Out = Annotated[Path, typer.Option(help="the folder that gets envoy.json, listener.json, routes.json and jwt.json")]
Watch = Annotated[bool, typer.Option(help="stay, and render again when the public keys change")]
Folder = Annotated[Path, typer.Argument(help="a folder that `render` wrote")]


@app.command()
def render(out: Out, watch: Watch = False) -> None:
    """Write Envoy's configuration; a second time only what changed, which a running Envoy then takes."""
    try:
        _report(rendering.write(_edge(), out), out)
    except (SettingsError, KeysUnreadableError, contract_files.ContractsMissingError) as error:
        _fail(str(error))
    while watch:
        time.sleep(WATCH_SECONDS)
        try:
            changed = rendering.write(_edge(), out)
        except (SettingsError, KeysUnreadableError, contract_files.ContractsMissingError) as error:
            # A file that is being written, perhaps. What Envoy has stays good.
            typer.echo(f"kept the configuration: {error}", err=True)
            continue
        if changed:
            _report(changed, out)


@app.command()
def check(folder: Folder) -> None:
    """Ask Envoy whether the configuration in FOLDER, and what the environment would render now, are good."""
    try:
        checks.validate(folder / rendering.BOOTSTRAP)
        checks.check(_edge())
    except (
        SettingsError,
        KeysUnreadableError,
        contract_files.ContractsMissingError,
        checks.EdgeRefusedError,
        checks.EnvoyMissingError,
    ) as error:
        _fail(str(error))
    typer.echo("Envoy accepts it")


def _edge() -> rendering.Edge:
    contracts = contract_files.read()
    return rendering.render(from_environment(os.environ, contracts.owners), contracts)


def _report(changed: tuple[str, ...], out: Path) -> None:
    typer.echo(f"{out}: " + (", ".join(changed) if changed else "nothing changed"))


def _fail(message: str) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
